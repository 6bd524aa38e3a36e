//! The arithmetic of the benchmark: from events and observations to medians and the breakdown. Pure.

use std::collections::BTreeMap;

use mainstay_api::EventRecord;
use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;
use serde::Serialize;

/// Steps of a failover, each with its time since the power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The last that the deciding primary saw of the dead host.
    LastEvidence,
    /// A new primary is elected.
    Elected,
    /// It owns the datastore.
    Owned,
    /// The dead host is declared failed.
    Failed,
    /// The VM's grant is on disk.
    Granted,
    /// The new host has claimed the VM.
    Claimed,
    /// A QEMU process for the VM is seen from outside.
    Process,
    /// The guest's first beat is seen on its disk.
    Beating,
}

impl Phase {
    /// What the phase is called in a report.
    pub fn words(self) -> &'static str {
        match self {
            Phase::LastEvidence => "last evidence",
            Phase::Elected => "new primary elected",
            Phase::Owned => "ownership acquired",
            Phase::Failed => "declared failed",
            Phase::Granted => "granted",
            Phase::Claimed => "claimed",
            Phase::Process => "QEMU runs",
            Phase::Beating => "guest beats",
        }
    }
}

/// One power loss: for each phase the seconds, one for each VM or just one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Failover {
    /// For each phase the seconds that it took, one value per VM and run.
    pub phases: BTreeMap<Phase, Vec<f64>>,
    /// VMs that waited for the storage.
    pub waited_for_storage: usize,
    /// Attempts at a start that failed.
    pub starts_failed: usize,
}

impl Failover {
    /// Notes an observation.
    pub fn note(&mut self, phase: Phase, seconds: f64) {
        self.phases.entry(phase).or_default().push(seconds);
    }

    /// What the agents' events say about the failover of `dead`, whose VMs are `vms`. Of what happens several times, the
    /// first counts.
    pub fn of_events(events: &[EventRecord], dead: &HostId, vms: &[String], crash_us: u64) -> Failover {
        let mut failover = Failover::default();
        let mut seen = std::collections::BTreeSet::new();
        for record in events.iter().filter(|r| r.at_unix_us >= crash_us && r.host != *dead) {
            let Some(event) = &record.event else { continue };
            let at = (record.at_unix_us - crash_us) as f64 / 1e6;
            let vm = event.vm().map(|vm| vm.name.to_string());
            if vm.as_ref().is_some_and(|vm| !vms.contains(vm)) {
                continue;
            }
            let mut first = |phase: Phase, at: f64| {
                if seen.insert((phase, vm.clone())) {
                    failover.note(phase, at);
                }
            };
            if let Event::HostStateChanged { host, to: HostState::Failed, last_evidence, .. } = event
                && host == dead
            {
                first(Phase::LastEvidence, at - last_evidence.0 as f64 / 1e6);
                first(Phase::Failed, at);
            } else if let Event::BecamePrimary { .. } = event {
                first(Phase::Elected, at);
            } else if let Event::OwnershipAcquired { .. } = event {
                first(Phase::Owned, at);
            } else if let Event::VmGranted { .. } = event {
                first(Phase::Granted, at);
            } else if let Event::VmClaimed { .. } = event {
                first(Phase::Claimed, at);
            } else if let Event::VmWaitsForStorage { .. } = event {
                failover.waited_for_storage += 1;
            } else if let Event::VmStartFailed { .. } = event {
                failover.starts_failed += 1;
            }
        }
        failover
    }

    /// Adds another's observations.
    pub fn add(&mut self, other: &Failover) {
        for (phase, seconds) in &other.phases {
            self.phases.entry(*phase).or_default().extend(seconds);
        }
        self.waited_for_storage += other.waited_for_storage;
        self.starts_failed += other.starts_failed;
    }

    /// The spread of a phase.
    pub fn spread(&self, phase: Phase) -> Option<Spread> {
        Spread::of(self.phases.get(&phase)?)
    }

    /// The phases' medians in the order in which they come.
    pub fn breakdown(&self) -> Vec<(Phase, f64)> {
        let mut medians: Vec<(Phase, f64)> =
            self.phases.keys().filter_map(|phase| Some((*phase, self.spread(*phase)?.median))).collect();
        medians.sort_by(|a, b| a.1.total_cmp(&b.1));
        medians
    }

    /// The longest step between two phases' medians: from, to, seconds. The first step begins with the power loss.
    pub fn longest_step(&self) -> Option<(Option<Phase>, Phase, f64)> {
        let mut before = (None, 0.0);
        let mut steps = Vec::new();
        for (phase, at) in self.breakdown().into_iter().filter(|(phase, _)| *phase != Phase::LastEvidence) {
            steps.push((before.0, phase, at - before.1));
            before = (Some(phase), at);
        }
        steps.into_iter().max_by(|a, b| a.2.total_cmp(&b.2))
    }
}

/// Least, middle, most.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least of the values.
    pub min: f64,
    /// Middle; of an even number of values, the mean of the two in the middle.
    pub median: f64,
    /// The greatest of the values.
    pub max: f64,
    /// Of how many.
    pub count: usize,
}

impl Spread {
    /// Of these values; none of none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { min, median, max, count: sorted.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_words::ids::{Epoch, Incarnation, Token, VmId};
    use mainstay_words::{Severity, Span, Time, VmName};

    fn at(host: &str, seconds: f64, event: Event) -> EventRecord {
        EventRecord {
            host: host.into(),
            at_unix_us: (seconds * 1e6) as u64,
            at: Time(0),
            incarnation: Incarnation(1),
            sequence: 1,
            severity: Severity::Info,
            text: event.to_string(),
            event: Some(event),
        }
    }

    fn vm(n: u8) -> VmName {
        VmName { id: VmId([n; 16]), name: format!("vm{n}").into() }
    }

    fn granted(n: u8, attempt: u32) -> Event {
        let token = Token { epoch: Epoch(1), number: n.into() };
        Event::VmGranted { vm: vm(n), host: "host-2".into(), token, attempt, reason: "x".into() }
    }

    fn failed(host: &str) -> Event {
        Event::HostStateChanged {
            host: host.into(),
            from: HostState::Connected,
            to: HostState::Failed,
            last_evidence: Span::from_millis(4_800),
            cut_off: false,
        }
    }

    /// Power is lost at 100 s.
    fn canned() -> Failover {
        let claimed = Event::VmClaimed { vm: vm(1), token: Token::default() };
        let events = [
            at("host-3", 99.0, granted(1, 1)),
            at("host-3", 104.5, failed("host-1")),
            at("host-3", 104.6, granted(1, 1)),
            at("host-3", 104.8, granted(2, 1)),
            at("host-3", 104.9, granted(9, 1)),
            at("host-2", 105.0, claimed),
            at("host-3", 109.0, granted(1, 2)),
        ];
        let mut failover =
            Failover::of_events(&events, &"host-1".into(), &["vm1".into(), "vm2".into()], 100_000_000);
        failover.note(Phase::Process, 5.5);
        failover.note(Phase::Process, 5.7);
        failover
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn medians_come_from_the_first_event_of_each_vm_after_the_power_loss() {
        let failover = canned();
        let granted = failover.spread(Phase::Granted).unwrap();
        assert_eq!(granted.count, 2);
        assert!(close(granted.min, 4.6) && close(granted.median, 4.7) && close(granted.max, 4.8));
        assert!(close(failover.spread(Phase::LastEvidence).unwrap().median, -0.3));
        assert_eq!(failover.spread(Phase::Elected), None);
    }

    #[test]
    fn the_breakdown_is_in_order_and_names_the_longest_step() {
        let failover = canned();
        let phases: Vec<Phase> = failover.breakdown().into_iter().map(|(phase, _)| phase).collect();
        let expected = [Phase::LastEvidence, Phase::Failed, Phase::Granted, Phase::Claimed, Phase::Process];
        assert_eq!(phases, expected);
        let (from, to, seconds) = failover.longest_step().unwrap();
        assert_eq!((from, to), (None, Phase::Failed));
        assert!(close(seconds, 4.5));
    }

    #[test]
    fn runs_add_up() {
        let mut all = canned();
        all.add(&canned());
        assert_eq!(all.spread(Phase::Granted).unwrap().count, 4);
        assert!(close(all.spread(Phase::Process).unwrap().median, 5.6));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
    }
}
