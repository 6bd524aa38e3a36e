//! What really happens to the VMs after a power loss, seen from outside.
//!
//! A VM of the dead host runs again when a QEMU process for it is in exactly one other host's cgroup, its disk was booted
//! exactly once more, and its guest goes on beating there. The VMs of the other hosts must not have noticed: same process,
//! same boot, still beating. No guest may have found another copy of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use mainstay_lab::Lab;

/// Beats after the first that make sure that the guest goes on.
const STEADY_BEATS: u32 = 2;

/// What was seen of one VM of the dead host.
#[derive(Debug, Clone)]
pub struct Fate {
    /// The VM, by its name.
    pub vm: String,
    /// The host that lost power.
    pub from: usize,
    /// Where it runs now.
    pub to: Option<usize>,
    /// From the power loss to a QEMU process elsewhere.
    pub process: Option<Duration>,
    /// From the power loss to the guest's first beat.
    pub beat: Option<Duration>,
    boots_before: u32,
    boots: u32,
    beats: u32,
    runners: usize,
}

impl Fate {
    /// What is missing for "it runs again"; none if nothing is.
    pub fn missing(&self) -> Option<String> {
        let Fate { runners, boots, boots_before, .. } = *self;
        match (self.process, self.beat) {
            (None, _) => Some("no host runs it".into()),
            (Some(_), _) if runners != 1 => Some(format!("{runners} QEMU processes run it, not one")),
            (Some(_), _) if boots > boots_before + 1 => {
                Some(format!("it was booted {} times, not once", boots - boots_before))
            }
            (Some(_), None) => Some("QEMU runs, its guest does not beat".into()),
            (Some(_), Some(_)) if self.beats < STEADY_BEATS => Some("its guest stopped beating".into()),
            (Some(_), Some(_)) => None,
        }
    }
}

/// A VM of another host.
#[derive(Debug)]
struct Bystander {
    vm: String,
    process: (usize, i32),
    boots: u32,
    beats: u32,
}

/// Something that was seen.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// A QEMU process for a VM, on a host.
    Process(String, usize),
    /// The first beat of a VM's guest, on a host.
    Beat(String, usize),
}

/// Watches the VMs from before the power loss on.
#[derive(Debug)]
pub struct Watch<'a> {
    lab: &'a Lab,
    victim: usize,
    fates: Vec<Fate>,
    bystanders: Vec<Bystander>,
}

/// The QEMU processes by VM: host and process id. One pass over all hosts' processes.
fn processes(lab: &Lab, but: Option<usize>) -> mainstay_lab::Result<BTreeMap<String, Vec<(usize, i32)>>> {
    let mut found: BTreeMap<String, Vec<(usize, i32)>> = BTreeMap::new();
    for host in lab.hosts().into_iter().filter(|host| Some(host.number()) != but) {
        for pid in host.pids()? {
            // Empty for a process that ended, also for one that is not collected yet.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if let Some(vm) = vm_of(&line) {
                found.entry(vm).or_default().push((host.number(), pid));
            }
        }
    }
    Ok(found)
}

/// The VM that a command line runs, if it is QEMU's.
fn vm_of(command_line: &[u8]) -> Option<String> {
    let mut words = command_line.split(|b| *b == 0).map(String::from_utf8_lossy);
    if !words.next()?.contains("qemu-system") {
        return None;
    }
    words.find_map(|word| Some(word.strip_prefix("guest=")?.split(',').next()?.to_string()))
}

impl<'a> Watch<'a> {
    /// Notes how everything is, before `victim` loses power.
    pub fn begin(lab: &'a Lab, victim: usize) -> anyhow::Result<Watch<'a>> {
        let mut watch = Watch { lab, victim, fates: Vec::new(), bystanders: Vec::new() };
        let running = processes(lab, None)?;
        for vm in lab.vms()? {
            let record = lab.guest_record(&vm)?;
            let [process] = running.get(&vm).map_or(&[][..], Vec::as_slice) else {
                anyhow::bail!("{vm} should run on one host before the power loss");
            };
            if process.0 == victim {
                let boots_before = record.boots;
                let (to, process, beat) = (None, None, None);
                let from = victim;
                watch.fates.push(Fate {
                    vm,
                    from,
                    to,
                    process,
                    beat,
                    boots_before,
                    boots: 0,
                    beats: 0,
                    runners: 0,
                });
            } else {
                let (boots, beats) = (record.boots, record.beats);
                watch.bystanders.push(Bystander { vm, process: *process, boots, beats });
            }
        }
        // vm2 before vm10.
        watch.fates.sort_by(|a, b| (a.vm.len(), &a.vm).cmp(&(b.vm.len(), &b.vm)));
        Ok(watch)
    }

    /// The VMs of the dead host.
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// Looks once; `elapsed` is counted from the power loss.
    pub fn look(&mut self, elapsed: Duration) -> anyhow::Result<Vec<News>> {
        let mut news = Vec::new();
        let running = processes(self.lab, Some(self.victim))?;
        for fate in &mut self.fates {
            let runners = running.get(&fate.vm).map_or(&[][..], Vec::as_slice);
            fate.runners = runners.len();
            if let Some((host, _)) = runners.first() {
                fate.to = Some(*host);
                if fate.process.is_none() {
                    fate.process = Some(elapsed);
                    news.push(News::Process(fate.vm.clone(), *host));
                }
            }
            let record = self.lab.guest_record(&fate.vm)?;
            (fate.boots, fate.beats) = (record.boots, record.beats);
            if fate.beat.is_none() && record.boots > fate.boots_before && record.beats > 0 {
                fate.beat = Some(elapsed);
                news.extend(fate.to.map(|host| News::Beat(fate.vm.clone(), host)));
            }
        }
        Ok(news)
    }

    /// Whether all VMs of the dead host run again.
    pub fn is_done(&self) -> bool {
        self.fates.iter().all(|fate| fate.missing().is_none())
    }

    /// Everything that is not as it should be, the VMs of the other hosts included.
    pub fn faults(&self) -> anyhow::Result<Vec<String>> {
        let mut faults: Vec<String> =
            self.fates.iter().filter_map(|f| Some(format!("{}: {}", f.vm, f.missing()?))).collect();
        let running = processes(self.lab, None)?;
        for Bystander { vm, process, boots, beats } in &self.bystanders {
            let now: BTreeSet<_> = running.get(vm).into_iter().flatten().copied().collect();
            let record = self.lab.guest_record(vm)?;
            if now != BTreeSet::from([*process]) || record.boots != *boots {
                faults.push(format!("{vm} on h{} was disturbed: it is not the same run any more", process.0));
            } else if record.beats <= *beats {
                faults.push(format!("{vm} on h{} was disturbed: its guest stopped beating", process.0));
            }
        }
        let splits = self.lab.split_count()?;
        if splits > 0 {
            faults.push(format!("guests found another copy of themselves {splits} times"));
        }
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_are_told_by_qemus_command_line() {
        let line = b"/usr/bin/qemu-system-x86_64\0-name\0guest=vm1,debug-threads=on\0-S\0";
        assert_eq!(vm_of(line), Some("vm1".into()));
        assert_eq!(vm_of(b"grep\0guest=vm1,\0"), None);
        assert_eq!(vm_of(b""), None);
    }

    fn fate() -> Fate {
        let second = Some(Duration::from_secs(1));
        Fate {
            vm: "vm1".into(),
            from: 1,
            to: Some(2),
            process: second,
            beat: second,
            boots_before: 1,
            boots: 2,
            beats: 2,
            runners: 1,
        }
    }

    #[test]
    fn a_vm_runs_again_only_if_everything_fits() {
        assert_eq!(fate().missing(), None);
        let wrong = [
            (Fate { process: None, beat: None, runners: 0, ..fate() }, "no host"),
            (Fate { runners: 2, ..fate() }, "2 QEMU processes"),
            (Fate { runners: 0, ..fate() }, "0 QEMU processes"),
            (Fate { boots: 3, ..fate() }, "booted 2 times"),
            (Fate { beat: None, boots: 1, ..fate() }, "does not beat"),
            (Fate { beats: 1, ..fate() }, "stopped beating"),
        ];
        for (fate, reason) in wrong {
            assert!(fate.missing().is_some_and(|m| m.contains(reason)), "{fate:?}");
        }
    }
}
