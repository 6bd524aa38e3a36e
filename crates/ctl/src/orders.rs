//! Orders to the primary as paths of the HTTP API: what the command line says, in the API's words. Nothing is asked here.
//!
//! Names are percent-encoded, also in lists, whose separator is a comma: so a comma in a name is none between two.

use crate::args::{PolicyCommand, PriorityArg, ReadyArg, RuleKindArg, RuleSetArgs, StrengthArg, VmReadyArgs};
use crate::exit::Failure;
use clap::ValueEnum;
use mainstay_agent::client::encode_segment;
use mainstay_core::settings::{RuleKind, Strength};
use std::time::Duration;

/// The default of `vm ready --timeout`, as vSphere's.
const READY_TIMEOUT: Duration = Duration::from_secs(600);

/// A value's word on the command line, which is the API's too.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| encode_segment(name)).collect::<Vec<_>>().join(",")
}

/// `vm priority`
pub fn priority(vm: &str, priority: PriorityArg) -> String {
    format!("/v1/vms/{}/priority?priority={}", encode_segment(vm), word(priority))
}

/// `vm ready`
pub fn ready(args: &VmReadyArgs) -> Result<String, Failure> {
    let wrong = |text: &str| Err(Failure::Usage(text.to_owned()));
    let mut target = format!("/v1/vms/{}/ready?when={}", encode_segment(&args.name), word(args.when));
    match (args.when, &args.command) {
        (ReadyArg::Command, Some(command)) if command.trim().is_empty() => {
            return wrong(
                "the command is empty: write what is to be run in the guest, such as --command /bin/true",
            );
        }
        (ReadyArg::Command, Some(command)) => {
            target.push_str(&format!("&command={}", encode_segment(command)));
        }
        // The parser refuses it already.
        (ReadyArg::Command, None) => return wrong("ready by command needs --command COMMAND"),
        (ReadyArg::Default, _)
            if args.command.is_some() || args.delay.is_some() || args.timeout.is_some() =>
        {
            return wrong(
                "default has no command, delay or time-out of its own: say started --delay TIME, for example",
            );
        }
        (ReadyArg::Default, _) => return Ok(target),
        (ReadyArg::Started | ReadyArg::Running | ReadyArg::Agent, Some(_)) => {
            return wrong(
                "a command counts only when it is the condition: say `vm ready VM command --command COMMAND`",
            );
        }
        (ReadyArg::Started | ReadyArg::Running | ReadyArg::Agent, None) => {}
    }
    let delay = args.delay.unwrap_or_default().as_secs();
    let timeout = args.timeout.unwrap_or(READY_TIMEOUT).as_secs();
    if delay >= timeout {
        return Err(Failure::Usage(format!(
            "a delay of {delay} s is never over within a time-out of {timeout} s, which counts from the VM's start and includes the \
             delay: give a shorter --delay or a longer --timeout"
        )));
    }
    target.push_str(&format!("&delay={delay}&timeout={timeout}"));
    Ok(target)
}

/// `rule set`
pub fn set_rule(args: &RuleSetArgs) -> Result<String, Failure> {
    let kind = word(args.kind);
    if args.kind.has_hosts() && args.hosts.is_empty() {
        return Err(Failure::Usage(format!("a rule {kind} needs hosts: add --host HOST, once for each")));
    }
    if !args.kind.has_hosts() && !args.hosts.is_empty() {
        let text =
            format!("a rule {kind} is about VMs only: leave out --host, or make it on-hosts or not-on-hosts");
        return Err(Failure::Usage(text));
    }
    if !args.kind.has_hosts() && args.vms.len() < 2 {
        return Err(Failure::Usage(format!("a rule {kind} needs two VMs at least: add another --vm VM")));
    }
    Ok(format!(
        "/v1/rules/{}?strength={}&kind={kind}&vms={}&hosts={}",
        encode_segment(&args.name),
        word(args.strength),
        list(&args.vms),
        list(&args.hosts)
    ))
}

/// `rule remove`
pub fn remove_rule(name: &str) -> String {
    format!("/v1/rules/{}/remove", encode_segment(name))
}

/// `group set`
pub fn set_group(name: &str, vms: &[String], after: &[String]) -> String {
    format!("/v1/groups/{}?vms={}&after={}", encode_segment(name), list(vms), list(after))
}

/// `group remove`
pub fn remove_group(name: &str) -> String {
    format!("/v1/groups/{}/remove", encode_segment(name))
}

/// `admission set`; whether it refuses stays where no wish was uttered.
pub fn set_admission(command: &PolicyCommand) -> String {
    let policy = match command {
        PolicyCommand::Proved { failures, .. } => format!("proved&failures={failures}"),
        PolicyCommand::HostFailures { failures, slot_cpu, slot_memory, .. } => {
            let mut text = format!("host-failures&failures={failures}");
            text.extend(slot_cpu.map(|mhz| format!("&slot_cpu={mhz}")));
            text.extend(slot_memory.map(|mib| format!("&slot_memory={mib}")));
            text
        }
        PolicyCommand::Percentage { cpu, memory, .. } => format!("percentage&cpu={cpu}&memory={memory}"),
        PolicyCommand::FailoverHosts { .. } => "failover-hosts".to_owned(),
    };
    let refuse = command.strict().wish().map_or(String::new(), |refuse| format!("&refuse={refuse}"));
    format!("/v1/admission?policy={policy}{refuse}")
}

/// `host failover`
pub fn failover_host(host: &str, keep: bool) -> String {
    format!("/v1/hosts/{}/failover?keep={keep}", encode_segment(host))
}

/// `host confirm-down`
pub fn confirm_down(host: &str) -> String {
    format!("/v1/hosts/{}/confirm-down", encode_segment(host))
}

/// `host maintenance enter`
pub fn enter_maintenance(host: &str, shutdown: bool, force: bool) -> String {
    let how = if shutdown { "shutdown" } else { "migrate" };
    format!("/v1/hosts/{}/maintenance/enter?how={how}&force={force}", encode_segment(host))
}

/// `host maintenance leave`
pub fn leave_maintenance(host: &str, bring_back: bool) -> String {
    format!("/v1/hosts/{}/maintenance/leave?bring_back={bring_back}", encode_segment(host))
}

/// `suspend`
pub fn suspend(length: Duration) -> String {
    format!("/v1/suspend?seconds={}", length.as_secs())
}

/// `resume`
pub const RESUME: &str = "/v1/resume";

/// The words of a rule, as on the command line.
pub fn strength_word(strength: Strength) -> String {
    word(match strength {
        Strength::Must => StrengthArg::Must,
        Strength::Should => StrengthArg::Should,
    })
}

/// The words of a rule, as on the command line.
pub fn kind_word(kind: RuleKind) -> String {
    word(match kind {
        RuleKind::OnHosts => RuleKindArg::OnHosts,
        RuleKind::NotOnHosts => RuleKindArg::NotOnHosts,
        RuleKind::Apart => RuleKindArg::Apart,
        RuleKind::Together => RuleKindArg::Together,
    })
}
