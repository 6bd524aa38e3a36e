//! Looks at every VM fifty times a second, from outside: which QEMU processes there are, whether they can execute, and how far
//! each guest has come by the record on its disk. From that come the figures: time until frozen, until restarted, longest overlap.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mainstay_lab::{Lab, Runner};

use crate::support::Cluster;

/// Between two looks: so precise are the figures.
const INTERVAL: Duration = Duration::from_millis(20);

/// Within this no VM is released on one host and executes on another: what a look of this length sees was so at one time.
const MOMENT: Duration = Duration::from_millis(100);

/// Longer than this machine lets a look wait.
const LOOK_PATIENCE: Duration = Duration::from_secs(30);

/// A VM at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    runners: Vec<Runner>,
    boots: u32,
    progress: u64,
    /// How often its guest's agent has answered in this boot.
    agent_answers: u32,
}

/// A look that differs from the one before.
#[derive(Debug)]
struct Seen {
    /// The look before began then: what is different happened later, however long the watch was kept from looking.
    not_before: Instant,
    /// When it had been seen.
    at: Instant,
    look: Look,
}

/// What was seen of each VM.
type History = BTreeMap<String, Vec<Seen>>;

/// When something happened, as well as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Happened {
    pub earliest: Duration,
    /// When it was seen.
    pub latest: Duration,
}

/// Watches until dropped.
pub struct Watch {
    history: Mutex<History>,
    ended: AtomicBool,
    /// When the last look that is over began.
    last: Mutex<Instant>,
    guard_logs: Vec<PathBuf>,
}

impl Cluster {
    /// Does something while all VMs are watched.
    pub fn watched<R>(&self, act: impl FnOnce(&Watch) -> R) -> R {
        let watch = Watch {
            history: Mutex::default(),
            ended: AtomicBool::new(false),
            last: Mutex::new(Instant::now()),
            guard_logs: self.lab.hosts().iter().map(mainstay_lab::Host::guard_log).collect(),
        };
        watch.look(&self.lab);
        std::thread::scope(|scope| {
            // Also when `act` panics: the scope waits for the thread.
            let _end = End(&watch.ended);
            scope.spawn(|| {
                while !watch.ended.load(Ordering::Relaxed) {
                    watch.look(&self.lab);
                    std::thread::sleep(INTERVAL);
                }
            });
            act(&watch)
        })
    }
}

/// How many of a VM's processes can execute.
fn able(runners: &[Runner]) -> usize {
    runners.iter().filter(|r| !r.stopped).count()
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().expect("what was seen")
    }

    /// The processes of all VMs. They are looked at one after the other: where this machine stood still in between, the first may
    /// have gone before the last came. What seems to run twice then is looked at once more.
    fn runners(lab: &Lab) -> Option<BTreeMap<String, Vec<Runner>>> {
        let began = Instant::now();
        let runners = lab.all_runners().ok()?;
        let twice = runners.values().any(|of_vm| able(of_vm) > 1);
        let took = began.elapsed();
        if !twice || took <= MOMENT {
            return Some(runners);
        }
        eprintln!(
            "  a look took {:.1} s and shows two runners: {runners:?}; it is made once more",
            took.as_secs_f64()
        );
        lab.all_runners().ok()
    }

    fn look(&self, lab: &Lab) {
        let began = Instant::now();
        let (Some(mut runners), Ok(vms)) = (Self::runners(lab), lab.vms()) else { return };
        let not_before = *self.last.lock().expect("the time of the last look");
        for vm in vms {
            let record = lab.guest_record(&vm);
            let runners = runners.remove(&vm).unwrap_or_default();
            let mut history = self.history();
            let seen = history.entry(vm).or_default();
            // One that can't be read says nothing, least of all that the guest has never booted.
            let before =
                seen.last().map_or((0, 0, 0), |s| (s.look.boots, s.look.progress, s.look.agent_answers));
            let (boots, progress, agent_answers) =
                record.map_or(before, |r| (r.boots, r.progress(), r.agent_answers));
            let look = Look { runners, boots, progress, agent_answers };
            if seen.last().is_none_or(|before| before.look != look) {
                // Not sooner: its guest's record has been read only now.
                seen.push(Seen { not_before, at: Instant::now(), look });
            }
        }
        *self.last.lock().expect("the time of the last look") = began;
    }

    /// Waits for a look that begins after now: what is so by now has been seen then, also when the watch was late.
    fn catch_up(&self) {
        let now = Instant::now();
        while *self.last.lock().expect("the time of the last look") < now {
            assert!(now.elapsed() < LOOK_PATIENCE, "the watch does not look any more");
            std::thread::sleep(INTERVAL);
        }
    }

    /// The first look since then at which something was so of that VM.
    fn first(&self, vm: &str, since: Instant, fits: impl Fn(&Look) -> bool) -> Option<Happened> {
        let history = self.history();
        let seen = history.get(vm)?;
        let fit = seen.iter().find(|seen| seen.at >= since && fits(&seen.look))?;
        Some(Happened { earliest: fit.not_before.saturating_duration_since(since), latest: fit.at - since })
    }

    /// When the VM's copy on that host could not execute any more, although it was there.
    pub fn frozen(&self, vm: &str, host: usize, since: Instant) -> Option<Duration> {
        self.catch_up();
        let frozen = |look: &Look| look.runners.iter().any(|r| r.host == host && r.stopped);
        self.first(vm, since, frozen).map(|when| when.latest)
    }

    /// When there was no copy of the VM on that host any more.
    pub fn gone(&self, vm: &str, host: usize, since: Instant) -> Option<Duration> {
        self.catch_up();
        let is_there = |look: &Look| look.runners.iter().any(|r| r.host == host);
        let was_there = self.history().get(vm)?.iter().any(|seen| seen.at <= since && is_there(&seen.look));
        let gone = was_there.then(|| self.first(vm, since, |look| !is_there(look)))?;
        gone.map(|when| when.latest)
    }

    /// When the guest had booted again.
    pub fn booted(&self, vm: &str, since: Instant) -> Option<Duration> {
        self.boot(vm, since).map(|when| when.latest)
    }

    /// The same, with when at the earliest.
    pub fn boot(&self, vm: &str, since: Instant) -> Option<Happened> {
        let before = self.boots_at(vm, since)?;
        self.first(vm, since, |look| look.boots > before)
    }

    /// When the VM first had a QEMU on another host than that one.
    pub fn started_off(&self, host: usize, vm: &str, since: Instant) -> Option<Happened> {
        self.first(vm, since, |look| look.runners.iter().any(|r| r.host != host))
    }

    /// When the guest had booted again and its agent had answered; the first answer is on its disk at once.
    pub fn agent_answered(&self, vm: &str, since: Instant) -> Option<Happened> {
        let before = self.boots_at(vm, since)?;
        self.first(vm, since, |look| look.boots > before && look.agent_answers > 0)
    }

    fn boots_at(&self, vm: &str, at: Instant) -> Option<u32> {
        let history = self.history();
        let seen = history.get(vm)?;
        Some(seen.iter().rev().find(|seen| seen.at <= at).or(seen.first())?.look.boots)
    }

    /// The longest time for which two copies of one VM were able to execute.
    pub fn overlap(&self) -> Duration {
        self.catch_up();
        let last = *self.last.lock().expect("the time of the last look");
        let mut longest = Duration::ZERO;
        for seen in self.history().values() {
            let mut since: Option<Instant> = None;
            for Seen { at, look, .. } in seen {
                match (able(&look.runners) > 1, since) {
                    (true, None) => since = Some(*at),
                    (false, Some(begun)) => {
                        longest = longest.max(*at - begun);
                        since = None;
                    }
                    (true, Some(_)) | (false, None) => {}
                }
            }
            // Never nothing: that one look has seen it is enough.
            let lasts = |begun| last.saturating_duration_since(begun).max(INTERVAL);
            longest = longest.max(since.map_or(Duration::ZERO, lasts));
        }
        longest
    }

    /// The longest time for which a guest made no progress, since then.
    pub fn pause(&self, vms: &[&str], since: Instant) -> Duration {
        self.catch_up();
        let last = *self.last.lock().expect("the time of the last look");
        let mut longest = Duration::ZERO;
        let history = self.history();
        for seen in vms.iter().filter_map(|vm| history.get(*vm)) {
            let before = seen.iter().rev().find(|seen| seen.at <= since);
            let (mut progress, mut at) = (before.map_or(0, |seen| seen.look.progress), since);
            for Seen { at: now, look, .. } in seen.iter().filter(|seen| seen.at >= since) {
                if look.progress != progress {
                    longest = longest.max(*now - at);
                    (progress, at) = (look.progress, *now);
                }
            }
            longest = longest.max(last.saturating_duration_since(at));
        }
        longest
    }

    /// Where each VM's processes were seen, whenever that changed.
    fn told(&self, since: Instant) -> String {
        let mut text = String::new();
        for (vm, seen) in self.history().iter() {
            let mut before: Option<&Vec<Runner>> = None;
            for Seen { at, look, .. } in seen {
                if before.replace(&look.runners) != Some(&look.runners) {
                    let after = at.saturating_duration_since(since).as_secs_f64();
                    text.push_str(&format!("{after:8.3} {vm} {:?}\n", look.runners));
                }
            }
        }
        text
    }

    /// What the guards say of VMs, to be held against what was seen.
    fn guards(&self) -> String {
        let of_a_vm = |line: &&str| line.contains("\"vm\"");
        let mut text = String::new();
        for path in &self.guard_logs {
            let log = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(of_a_vm).collect();
            text.push_str(&format!(
                "{}:\n{}\n",
                path.display(),
                lines[lines.len().saturating_sub(40)..].join("\n")
            ));
        }
        text
    }

    /// Prints the figures of a fault that began then and hit these VMs on that host, and asserts that nothing overlapped. Of
    /// several VMs, the last one counts.
    pub fn figure(&self, name: &str, since: Instant, host: usize, vms: &[&str]) {
        let worst = |of: &dyn Fn(&str) -> Option<Duration>| {
            let times: Vec<Duration> = vms.iter().filter_map(|vm| of(vm)).collect();
            times.into_iter().max().map_or("-".to_string(), |t| format!("{:.2}", t.as_secs_f64()))
        };
        let frozen = worst(&|vm| self.frozen(vm, host, since));
        let gone = worst(&|vm| self.gone(vm, host, since));
        let restarted = worst(&|vm| self.booted(vm, since));
        let (pause, overlap) = (self.pause(vms, since), self.overlap());
        eprintln!(
            "figure: {name} frozen={frozen} gone={gone} restarted={restarted} pause={:.2} overlap={:.2}",
            pause.as_secs_f64(),
            overlap.as_secs_f64()
        );
        assert_eq!(
            overlap,
            Duration::ZERO,
            "{name}: two copies were able to execute at once; it began {:?} ago\n{}{}",
            since.elapsed(),
            self.told(since),
            self.guards()
        );
    }
}
