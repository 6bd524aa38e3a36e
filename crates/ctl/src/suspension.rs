//! `mainstay suspend`: it returns when every host honours it on every datastore, so that whoever pulls cables next pulls them in
//! time. What does not honour it within bounds is named, and the exit code says so: nothing is waited for for ever.
//!
//! It only watches: the owners of the datastores suspend, and hosts take it up, whether anybody waits or not.

mod seen;

use crate::args::SuspendArgs;
use crate::ask::Agent;
use crate::commands::Output;
use crate::exit::{Exit, Failure};
use crate::operate;
use crate::waiting::Misses;
use crate::words::HostNames;
use mainstay_api::Status;
use mainstay_core::ids::{DatastoreName, HostId};
use seen::{Left, Seen};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the state is looked at.
pub const LOOK: Duration = Duration::from_millis(500);

/// For so long a datastore without a suspension is waited for: its owner may be about to change, which takes less at every preset.
pub const UNSUSPENDED_MAX: Duration = Duration::from_secs(20);

/// For so long nothing may come nearer to its end. Hosts that can take it up do so within seconds; an agent or guard of an older
/// release never says that it has.
pub const STALL_MAX: Duration = Duration::from_secs(60);

/// So many looks in a row without any suspension: somebody has resumed it. A new primary may not have read the lists yet.
pub const RESUMED_LOOKS: u32 = 3;

/// The end of the waiting, for `--json`.
#[derive(Debug, Serialize)]
struct Ended<'a> {
    message: &'a str,
    everywhere: bool,
    hosts: BTreeSet<HostId>,
    datastores: BTreeSet<DatastoreName>,
}

/// `mainstay suspend --for TIME`
pub fn suspend(args: &SuspendArgs, agent: &mut dyn Agent, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let (done, words) = operate::give(&args.order(), agent)?;
    if args.no_wait {
        return output.done(&done, words);
    }
    if !output.json {
        output.text(&format!("{words}\n"))?;
    }
    let (mut misses, mut watch) = (Misses::default(), Watch::default());
    loop {
        let status = misses.look(LOOK, agent, output)?;
        if let Some(status) = &status
            && let Some(seen) = watch.look(status, output)?
        {
            return end(&seen, status, output);
        }
        agent.pause(LOOK);
        watch.stalled += LOOK;
    }
}

/// What is remembered between looks.
#[derive(Debug, Default)]
struct Watch {
    /// Looks in a row that found no suspension at all.
    gone: u32,
    /// Since when datastores have no suspension.
    unsuspended: BTreeMap<DatastoreName, Duration>,
    /// How near to its end each datastore was at best.
    best: BTreeMap<DatastoreName, (u8, usize)>,
    /// Since when none has come nearer. Silence counts too: otherwise primaries that come and go would keep one waiting.
    stalled: Duration,
    shown: Option<String>,
}

impl Watch {
    /// What there is, when there is nothing more to wait for.
    fn look(&mut self, status: &Status, output: &mut Output<'_>) -> Result<Option<Seen>, Failure> {
        if status.view.suspensions.is_empty() {
            self.gone += 1;
            return if self.gone < RESUMED_LOOKS { Ok(None) } else { Err(resumed()) };
        }
        self.gone = 0;
        let seen = Seen::of(&status.view);
        self.progress(&seen);
        self.unsuspended.retain(|datastore, _| seen.left.get(datastore) == Some(&Left::Suspension));
        let mut waits = seen.left.clone();
        waits.retain(|datastore, left| {
            if *left != Left::Suspension {
                return true;
            }
            let since = self.unsuspended.entry(datastore.clone()).or_default();
            *since += LOOK;
            *since <= UNSUSPENDED_MAX
        });
        // They may take as long as VMs take to start, and end with the suspension at the latest.
        if waits.values().any(|left| *left == Left::Failovers) {
            self.stalled = Duration::ZERO;
        }
        if waits.is_empty() || self.stalled >= STALL_MAX {
            return Ok(Some(seen));
        }
        let words = seen::waiting(&waits, &HostNames(status.host_names.clone()));
        if self.shown.as_ref() != Some(&words) {
            output
                .message(&format!("Waiting until {words}. Ctrl-C ends the waiting only; it stays ordered."));
            self.shown = Some(words);
        }
        Ok(None)
    }

    /// Only what was never reached before counts: what comes and goes must not keep one waiting.
    fn progress(&mut self, seen: &Seen) {
        for (datastore, distance) in seen.distances() {
            let best = self.best.get(datastore);
            if best.is_none_or(|best| distance < *best) {
                self.best.insert(datastore.clone(), distance);
                self.stalled = Duration::ZERO;
            }
        }
    }
}

fn resumed() -> Failure {
    Failure::Refused(
        "protection is not suspended any more: somebody has resumed it, or the time is over (see `mainstay events`)"
            .to_owned(),
    )
}

fn end(seen: &Seen, status: &Status, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let warnings = seen.warnings(&status.view, &HostNames(status.host_names.clone()));
    let everywhere = warnings.is_empty();
    for warning in &warnings {
        output.message(&format!("warning: {warning}"));
    }
    let message = if everywhere {
        "it stands: no restart, no isolation response, no freeze"
    } else {
        "it does not stand everywhere (see the warnings)"
    };
    if output.json {
        let (hosts, datastores) = (seen.hosts(), seen.datastores());
        output.json(&Ended { message, everywhere, hosts, datastores })?;
    } else {
        output.text(&format!("{message}\n"))?;
    }
    Ok(if everywhere { Exit::Ok } else { Exit::Degraded })
}
