//! What must hold after every step: nothing ran twice, no alarm came that the step does not expect, and none that it does
//! expect stayed away, nobody ran into an image lock, and no log has an ERROR of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use mainstay_api::EventRecord;
use mainstay_lab::Host;
use mainstay_words::{Event, Severity};

use super::Cluster;
use crate::alarm::{Alarm, Expect};

impl Cluster {
    pub(super) fn check(&mut self, step: &str, expect: &Expect) {
        // The logs first: whatever they say is among the events that are read after that.
        let logs = self.new_in_logs();
        self.wait_for_journals();
        let numbers: Vec<usize> = self.lab.hosts().iter().map(Host::number).collect();
        let told: BTreeMap<usize, Vec<EventRecord>> =
            numbers.into_iter().map(|host| (host, self.new_events_of(host))).collect();
        let story = self.story();
        let splits = self.lab.splits().expect("the disks");
        assert_eq!((splits.on_disk, splits.in_logs), (0, 0), "{step}: two copies ran at once\n{story}");
        for vm in self.lab.vms().expect("the lab's VMs") {
            let runners = self.lab.runners(&vm).expect("the runners");
            assert!(runners.len() <= 1, "{step}: {vm} runs twice: {runners:?}\n{story}");
        }
        let raised: Vec<&EventRecord> =
            told.values().flatten().filter(|e| e.severity == Severity::Alarm).collect();
        let is = |wanted: &Alarm, record: &EventRecord| {
            record.event.as_ref().is_some_and(|e| wanted.is(&record.host, e))
        };
        let stall = self.disk.stalled_since(self.step_began);
        if let Some(took) = stall {
            eprintln!("  the disk under the lab stalled for {:.1} s in this step", took.as_secs_f64());
        }
        for record in &raised {
            let is_noise = stall.is_some() && matches!(record.event, Some(Event::DatastoreLost { .. }));
            // While a host is away, the next failure may well be one too many.
            let is_noise = is_noise
                || expect.must.iter().chain(&expect.may).any(Alarm::takes_a_host_away)
                    && matches!(record.event, Some(Event::AdmissionNotMet { .. }));
            let expected = is_noise || expect.must.iter().chain(&expect.may).any(|wanted| is(wanted, record));
            assert!(expected, "{step}: not expected: {}\n{story}", record.text);
        }
        for wanted in &expect.must {
            assert!(raised.iter().any(|r| is(wanted, r)), "{step}: no alarm {wanted:?}\n{story}");
        }
        for (number, path, new) in &logs {
            let locked = new.lines().find(|l| l.contains("Failed to get \"write\" lock"));
            assert_eq!(locked, None, "{step}: {}\n{story}", path.display());
            let host = self.host(*number);
            if *path == host.agent_log() {
                check_agent_log(step, &host, new, &self.events_of(*number));
            }
        }
        // What comes from now on is the next step's, even if that has not begun.
        for (host, events) in told {
            if let Some(last) = events.last() {
                self.answered.insert(host, last.sequence);
            }
        }
    }

    /// What all logs of all hosts have said since this was last asked, in whole lines.
    fn new_in_logs(&mut self) -> Vec<(usize, PathBuf, String)> {
        let paths: Vec<(usize, PathBuf)> = self
            .lab
            .hosts()
            .iter()
            .flat_map(|host| logs(host).into_iter().map(|path| (host.number(), path)))
            .collect();
        let mut found = Vec::new();
        for (host, path) in paths {
            let text = fs::read(&path).unwrap_or_default();
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            let read = self.read.insert(path.clone(), whole).unwrap_or(0);
            let new = String::from_utf8_lossy(text.get(read..whole).unwrap_or_default()).into_owned();
            found.push((host, path, new));
        }
        found
    }
}

/// All that an agent, libvirt and QEMU say on a host.
fn logs(host: &Host<'_>) -> Vec<PathBuf> {
    let mut found = vec![host.agent_log()];
    for folder in [host.dir().join("log"), host.dir().join("log/qemu")] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        found.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "log")));
    }
    found
}

/// Every line is one of the log's own, and what is an ERROR is an alarm: this step's, or one that came between the look at the logs
/// and that at the events of the step before, which has answered for it.
fn check_agent_log(step: &str, host: &Host<'_>, text: &str, events: &[EventRecord]) {
    for line in text.lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else {
            panic!("{step}: not a log line of the agent of {}: {line}", host.name());
        };
        if line["level"] == "ERROR" {
            let known = |e: &EventRecord| {
                e.severity == Severity::Alarm
                    && e.host.as_str() == host.id()
                    && line["fields"]["sequence"] == e.sequence
            };
            assert!(events.iter().any(known), "{step}: an ERROR of {} that is no alarm: {line}", host.name());
        }
    }
}
