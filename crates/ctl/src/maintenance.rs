//! Waiting until a host in maintenance is empty, with progress. It only watches: whether anybody does changes nothing.

use crate::ask::Agent;
use crate::commands::Output;
use crate::events::{self, identity};
use crate::exit::{Exit, Failure};
use crate::settings::number;
use crate::waiting::Misses;
use crate::words::{HostNames, clean};
use mainstay_api::{EventRecord, Status};
use mainstay_core::Event;
use mainstay_core::ids::HostId;
use mainstay_core::register::OrderKind;
use mainstay_core::settings::Evacuation;
use mainstay_core::view::{Emptying, View, VmState, VmView};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// So many VMs are named in a line.
const NAMED: usize = 5;

/// A host that so many looks in a row find out of maintenance has left it: a new primary may not have read the settings yet.
const GONE_MAX: u32 = 5;

/// Where the evacuation stands, as one line of `--json`.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Progress<'a> {
    host: &'a HostId,
    left: u32,
    of: u32,
    vms: Vec<VmLeft<'a>>,
}

/// A VM that is on the host yet.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct VmLeft<'a> {
    name: &'a str,
    order: Option<&'a OrderKind>,
    note: Option<&'a str>,
}

/// What is known from before the order was given.
pub struct Watch {
    host: HostId,
    seen: BTreeSet<(HostId, u64, u64)>,
    after_us: u64,
    of: u32,
    /// How many were left when a line was last shown, and whether something was being done about one of them.
    shown: Option<(u32, bool)>,
    gone: u32,
}

impl Watch {
    /// To be made before the order is given: what happened until then is not told.
    pub fn begin(agent: &mut dyn Agent, host: &str) -> Result<Watch, Failure> {
        let host = HostNames(agent.status()?.host_names).resolve(host)?;
        let page = agent.events(0)?;
        let newest = page.events.last().map_or(0, |record| record.at_unix_us);
        Ok(Watch {
            host,
            seen: page.events.iter().map(identity).collect(),
            after_us: newest.saturating_sub(events::LATE_US),
            of: 0,
            shown: None,
            gone: 0,
        })
    }

    /// Whether the host is being emptied in that way already, or empty.
    pub fn is_emptied(&self, shutdown: bool, agent: &mut dyn Agent) -> bool {
        let wanted = if shutdown { Evacuation::ShutDown } else { Evacuation::Migrate };
        agent.status().is_ok_and(|status| {
            let mut hosts = status.view.hosts.iter();
            let host = hosts.find(|host| host.host == self.host);
            host.and_then(|host| host.maintenance).is_some_and(|emptying| emptying.how == wanted)
        })
    }

    /// Looks until the host is empty.
    pub fn until_empty(&mut self, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
        output.message(
            "Waiting until it is empty. Ctrl-C ends the waiting only; the host goes on being emptied.",
        );
        let mut misses = Misses::default();
        loop {
            if let Some(status) = misses.look(LOOK, agent, output)?
                && let Some(exit) = self.look(&status, agent, output)?
            {
                return Ok(exit);
            }
            agent.pause(LOOK);
        }
    }

    fn look(
        &mut self,
        status: &Status,
        agent: &mut dyn Agent,
        output: &mut Output<'_>,
    ) -> Result<Option<Exit>, Failure> {
        let names = HostNames(status.host_names.clone());
        let Some(host) = status.view.hosts.iter().find(|host| host.host == self.host) else {
            return Err(names.resolve(self.host.as_str()).err().unwrap_or_else(|| ended(&names, &self.host)));
        };
        let Some(Emptying { left, .. }) = host.maintenance else {
            self.gone += 1;
            return if self.gone < GONE_MAX { Ok(None) } else { Err(ended(&names, &self.host)) };
        };
        self.gone = 0;
        self.of = self.of.max(left);
        self.tell_failures(&names, agent, output)?;
        let vms = left_on(&status.view, &self.host);
        let state = (left, vms.iter().any(|vm| vm.order.is_some()));
        if self.shown != Some(state) {
            self.shown = Some(state);
            if output.json {
                let vms = vms.iter().map(|vm| VmLeft {
                    name: &vm.name,
                    order: vm.order.as_ref(),
                    note: vm.note.as_deref(),
                });
                output.json_line(&Progress { host: &self.host, left, of: self.of, vms: vms.collect() })?;
            } else if left > 0 {
                output.text(&line(left, self.of, &vms, &names))?;
            }
        }
        if left > 0 {
            return Ok(None);
        }
        if !output.json {
            output.text(&format!("{} is empty, and in maintenance mode\n", names.full(&self.host)))?;
        }
        Ok(Some(Exit::Ok))
    }

    /// Migrations and shutdowns that failed meanwhile. They are tried again; the reason says whether that will help.
    fn tell_failures(
        &mut self,
        names: &HostNames,
        agent: &mut dyn Agent,
        output: &mut Output<'_>,
    ) -> Result<(), Failure> {
        // Events are there to explain: without them it is waited all the same.
        let Ok(page) = agent.events(self.after_us) else { return Ok(()) };
        for record in &page.events {
            if self.is_failure(record) && self.seen.insert(identity(record)) {
                output.message(&format!("warning: {}", names.in_text(&record.text)));
            }
        }
        Ok(())
    }

    fn is_failure(&self, record: &EventRecord) -> bool {
        matches!(&record.event, Some(Event::VmOrderFailed { host, .. }) if *host == self.host)
    }
}

fn ended(names: &HostNames, host: &HostId) -> Failure {
    Failure::Refused(format!(
        "{} is not in maintenance any more: somebody has ended it (see `mainstay events`)",
        names.full(host)
    ))
}

/// The VMs that are on the host yet, by name.
fn left_on<'a>(view: &'a View, host: &HostId) -> Vec<&'a VmView> {
    let here = |vm: &&VmView| {
        vm.host.as_ref() == Some(host)
            && match vm.state {
                VmState::Running | VmState::Starting | VmState::Frozen | VmState::Unknown => true,
                VmState::Waiting | VmState::Off => false,
            }
    };
    let mut vms: Vec<_> = view.vms.iter().filter(here).collect();
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    vms
}

/// `3 of 12 VMs left: db1 (migrates to h2), db2 (waits) and 1 that Mainstay does not protect: move or stop it yourself`
fn line(left: u32, of: u32, vms: &[&VmView], names: &HostNames) -> String {
    let mut parts: Vec<String> = vms.iter().take(NAMED).map(|vm| described(vm, names)).collect();
    if vms.len() > NAMED {
        parts.push(format!("{} more", vms.len() - NAMED));
    }
    let unknown = (left as usize).saturating_sub(vms.len());
    if unknown > 0 {
        let them = if unknown == 1 { "it" } else { "them" };
        parts.push(format!("{unknown} that Mainstay does not protect: move or stop {them} yourself"));
    }
    format!("{left} of {} left: {}\n", number(of, "VM"), enumerated(&parts))
}

/// `a`, `a and b`, `a, b and c`
fn enumerated(parts: &[String]) -> String {
    match parts {
        [] => "not known by name".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn described(vm: &VmView, names: &HostNames) -> String {
    let what = match &vm.order {
        Some(OrderKind::Migrate(to)) => format!("migrates to {}", names.short(to)),
        Some(OrderKind::ShutDown) => "is asked to shut down".to_owned(),
        Some(OrderKind::StartElsewhere) => "is to be started elsewhere".to_owned(),
        None => {
            let note = vm.note.as_ref().map(|note| names.in_text(note));
            // Without a grant it is on no protected list, and nobody will move it.
            match (vm.token, note) {
                (None, Some(note)) => format!("not protected, move or stop it yourself: {note}"),
                (None, None) => "not protected, move or stop it yourself".to_owned(),
                (Some(_), Some(note)) => note,
                (Some(_), None) => "waits".to_owned(),
            }
        }
    };
    format!("{} ({what})", clean(&vm.name))
}
