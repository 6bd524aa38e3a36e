//! `mainstay suspend`: it returns when every host goes by it, so that whoever pulls cables next pulls them in time.

use crate::args::SuspendArgs;
use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::orders;
use crate::waiting::Misses;
use crate::words::HostNames;
use mainstay_api::Status;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::HostId;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often the state is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What there is to wait for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Waits {
    /// Failovers in progress.
    Failovers,
    /// Hosts that are connected and do not go by it yet.
    Hosts(BTreeSet<HostId>),
    /// An owner that can say so.
    Word,
}

/// `mainstay suspend --for TIME`
pub fn suspend(args: &SuspendArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let names = HostNames(agent.status().map(|status| status.host_names).unwrap_or_default());
    let done = match agent.order(&orders::suspend(args.length)) {
        Ok(done) => done,
        Err(Failure::Refused(text)) => return Err(Failure::Refused(names.in_text(&text))),
        Err(failure) => return Err(failure),
    };
    if args.no_wait {
        let words = names.in_text(&done.message);
        return output.done(&done, words);
    }
    if !output.json {
        output.text(&format!("{}\n", names.in_text(&done.message)))?;
    }
    let (mut misses, mut shown) = (Misses::default(), None);
    loop {
        if let Some(status) = misses.look(LOOK, agent, output)? {
            let Some(waits) = waits(&status)? else {
                let unaware = unaware(&status);
                if !unaware.is_empty() {
                    let hosts = listed(&unaware, &names);
                    output.message(&format!(
                        "warning: {hosts} can't be told: VMs there are frozen if the datastore is cut off from them"
                    ));
                }
                let words = "it stands: no restart, no isolation response, no freeze".to_owned();
                return output.done(&done, words);
            };
            if shown.as_ref() != Some(&waits) {
                tell(&waits, &names, output);
                shown = Some(waits);
            }
        }
        agent.pause(LOOK);
    }
}

fn tell(waits: &Waits, names: &HostNames, output: &mut Output<'_>) {
    let what = match waits {
        Waits::Failovers => "failovers in progress are completed".to_owned(),
        Waits::Hosts(hosts) => format!("{} will have taken it up", listed(hosts, names)),
        Waits::Word => "the owner of each datastore says so".to_owned(),
    };
    output.message(&format!("Waiting until {what}. Ctrl-C ends the waiting only; it stays ordered."));
}

fn waits(status: &Status) -> Result<Option<Waits>, Failure> {
    let suspensions = &status.view.suspensions;
    if suspensions.is_empty() {
        return Err(Failure::Refused(
            "protection is not suspended any more: somebody has resumed it, or the time is over (see `mainstay events`)"
                .to_owned(),
        ));
    }
    if suspensions.iter().any(|it| !it.suspension.stands) {
        return Ok(Some(Waits::Failovers));
    }
    if suspensions.iter().any(|it| it.waits_for.is_none()) {
        return Ok(Some(Waits::Word));
    }
    let mut hosts = unaware(status);
    hosts.retain(|host| {
        let mut known = status.view.hosts.iter();
        known.any(|known| known.host == *host && known.state == HostState::Connected)
    });
    Ok((!hosts.is_empty()).then_some(Waits::Hosts(hosts)))
}

/// Hosts that may be up and do not go by it.
fn unaware(status: &Status) -> BTreeSet<HostId> {
    status.view.suspensions.iter().flat_map(|it| it.waits_for.iter().flatten()).cloned().collect()
}

fn listed(hosts: &BTreeSet<HostId>, names: &HostNames) -> String {
    hosts.iter().map(|host| names.short(host)).collect::<Vec<_>>().join(", ")
}
