//! The timeline: of all that the cores tell, what a person would want to have been told; and of many equal things one.

use super::RehearsedFault;
use super::outcome::Moment;
use crate::setup::Setup;
use crate::world::Told;
use mainstay_core::{Event, HostId, Severity, Span};
use std::collections::BTreeMap;
use std::sync::Arc;

/// From so many lines on, equal things of several VMs become one line.
const LINES: usize = 40;
/// So many equal things are one line then.
const MANY: usize = 3;

/// Whether a person would want to be told: all warnings and alarms, and what ends them or decides something.
pub(super) fn matters(event: &Event) -> bool {
    let ends_or_decides = matches!(
        event,
        Event::HostStateChanged { .. }
            | Event::HostConfirmedDown { .. }
            | Event::HostNotIsolated
            | Event::BecamePrimary { .. }
            | Event::OwnershipAcquired { .. }
            | Event::DatastoreBack { .. }
            | Event::StormOver
            | Event::VmStopped { .. }
            | Event::VmThawed { .. }
            | Event::VmContinued { .. }
            | Event::VmWaitsForOthers { .. }
            | Event::ResponsibilityDropped { .. }
            | Event::IsolationResponseStopped { .. }
    );
    ends_or_decides || event.severity() > Severity::Info
}

/// Whether something has begun that takes a while without a word.
pub(super) fn takes_its_time(event: &Event) -> bool {
    matches!(event, Event::IsolationResponseApplied { .. } | Event::VmStartFailed { .. })
}

/// That host is cut off by a fault: what it thinks of others is not what happens to them.
pub(super) fn is_cut_off(faults: &[RehearsedFault], host: &HostId) -> bool {
    faults.iter().any(|fault| match fault {
        RehearsedFault::Isolate(isolated) => isolated == host,
        RehearsedFault::Fail(_) | RehearsedFault::CutStorage(_, _) => false,
    })
}

/// Of a host that is cut off, only what it tells of itself and of its VMs.
fn concerns_others(event: &Event) -> bool {
    matches!(
        event,
        Event::HostStateChanged { .. }
            | Event::BecamePrimary { .. }
            | Event::StormSuspected { .. }
            | Event::StormOver
            | Event::VmWaitsForHost { .. }
            | Event::VmWaitsForOthers { .. }
            | Event::TakeoverIntended { .. }
            | Event::TakeoverCancelled { .. }
    )
}

/// A line before it is known whether it becomes part of another.
struct Line {
    moment: Moment,
    /// Of a VM: its name, and what is said of many.
    many: Option<(Arc<str>, Numbers)>,
}

/// What is said of several VMs to which the same happens, after their number.
#[derive(Clone)]
struct Numbers {
    /// With the hosts that it happens between.
    fine: String,
    /// Without: for when there are too many of these.
    coarse: String,
}

/// The timeline of what was told since the faults.
pub(super) fn timeline(
    setup: &Setup,
    faults: &[RehearsedFault],
    told: &[Told],
    fault_at: u64,
) -> Vec<Moment> {
    let id = |told: &Told| setup.hosts[told.host].id.clone();
    let told = told.iter().filter(|told| {
        matters(&told.event) && !(is_cut_off(faults, &id(told)) && concerns_others(&told.event))
    });
    let mut lines: Vec<Line> = faults.iter().map(|fault| of_fault(setup, fault)).collect();
    lines.extend(told.map(|told| Line {
        moment: Moment {
            after: Span(told.at - fault_at),
            host: Some(id(told)),
            severity: told.event.severity(),
            what: told.event.to_string(),
        },
        many: told.event.vm().and_then(|vm| Some((vm.name.clone(), in_numbers(&told.event)?))),
    }));
    if lines.len() <= LINES {
        return lines.into_iter().map(|line| line.moment).collect();
    }
    let fine = summarise(&lines, |numbers| &numbers.fine);
    if fine.len() <= LINES { fine } else { summarise(&lines, |numbers| &numbers.coarse) }
}

fn of_fault(setup: &Setup, fault: &RehearsedFault) -> Line {
    let running = || {
        let index = setup.host(fault.host());
        let count = setup.vms.iter().filter(|vm| Some(vm.host) == index).count();
        if count == 1 { String::from("1 VM runs there") } else { format!("{count} VMs run there") }
    };
    let what = match fault {
        RehearsedFault::Fail(host) => format!("{host} loses its power; {}", running()),
        RehearsedFault::Isolate(host) => {
            format!("{host} is cut off from all management networks; {}", running())
        }
        RehearsedFault::CutStorage(host, Some(name)) => {
            format!("{host} loses its path to datastore {name}; {}", running())
        }
        RehearsedFault::CutStorage(host, None) => {
            format!("{host} loses its paths to all datastores; {}", running())
        }
    };
    let (after, host, severity) = (Span::ZERO, Some(fault.host().clone()), Severity::Alarm);
    Line { moment: Moment { after, host, severity, what }, many: None }
}

fn in_numbers(event: &Event) -> Option<Numbers> {
    let both = |fine: String, coarse: &str| Some(Numbers { fine, coarse: coarse.into() });
    if let Event::TakeoverIntended { from, .. } = event {
        return both(
            format!("VMs are to be taken from silent {from}"),
            "VMs are to be taken from silent hosts",
        );
    }
    if let Event::VmRestarted { to, .. } = event {
        return both(format!("VMs run again on {to}"), "VMs run again");
    }
    if let Event::ResponsibilityTaken { from, .. } = event {
        let fine =
            format!("VMs of isolated {from} will be restarted elsewhere as soon as it has stopped them");
        return both(
            fine,
            "VMs of isolated hosts will be restarted elsewhere as soon as these have stopped them",
        );
    }
    if let Event::IsolationResponseApplied { response, .. } = event {
        let fine = format!("VMs get their isolation response: {response}");
        return both(fine, "VMs get their isolation response");
    }
    if let Event::VmStopped { host, cause, restart, .. } = event {
        let then = if *restart { "they will be restarted" } else { "they stay down" };
        return both(
            format!("VMs stopped on {host}: {cause}; {then}"),
            if *restart { "VMs stopped; they will be restarted" } else { "VMs stopped; they stay down" },
        );
    }
    let plain: [(bool, &str); 8] = [
        (matches!(event, Event::VmWaitsForOthers { .. }), "VMs wait for others to be ready first"),
        (matches!(event, Event::VmWaitsForHost { .. }), "VMs wait, no host can take them"),
        (matches!(event, Event::VmWaitsForStorage { .. }), "VMs wait for the storage"),
        (matches!(event, Event::VmStartFailed { .. }), "VMs could not be started"),
        (
            matches!(event, Event::VmFrozen { .. }),
            "VMs are frozen: their hosts reach neither the datastore nor its owner",
        ),
        (matches!(event, Event::VmThawed { .. } | Event::VmContinued { .. }), "VMs go on"),
        (
            matches!(event, Event::ShutdownTimedOut { .. }),
            "VMs have not shut down in time: they are powered off",
        ),
        (
            matches!(event, Event::VmCopyRemoved { .. }),
            "VMs were here too, but were given to others since: the copies here were removed",
        ),
    ];
    let (_, text) = plain.iter().find(|(is, _)| *is)?;
    both(String::from(*text), text)
}

/// Equal things of several VMs become one line, at the first of their instants.
fn summarise(lines: &[Line], words: fn(&Numbers) -> &String) -> Vec<Moment> {
    type Key<'a> = (Option<&'a HostId>, &'a str);
    let mut groups: BTreeMap<Key<'_>, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some((_, numbers)) = &line.many {
            groups.entry((line.moment.host.as_ref(), words(numbers))).or_default().push(line);
        }
    }
    let mut moments = Vec::new();
    for line in lines {
        let Some((_, numbers)) = &line.many else {
            moments.push(line.moment.clone());
            continue;
        };
        let key = (line.moment.host.as_ref(), words(numbers).as_str());
        match groups.get(&key) {
            Some(group) if group.len() < MANY => moments.push(line.moment.clone()),
            Some(group) => {
                moments.push(Moment { what: in_one(group, key.1), ..line.moment.clone() });
                groups.remove(&key);
            }
            // It stands in the line of its group.
            None => {}
        }
    }
    moments
}

fn in_one(group: &[&Line], words: &str) -> String {
    let count = group.len();
    let name = |line: &Line| line.many.as_ref().map(|(vm, _)| vm.clone()).unwrap_or_default();
    match (group.first(), group.last()) {
        (Some(first), Some(last)) => {
            let (first, after, last) = (name(first), last.moment.after, name(last));
            format!("{count} {words} (the first is {first}, the last is {last} after {after})")
        }
        (_, _) => format!("{count} {words}"),
    }
}
