//! The stage of a drill: a lab with agents, its VMs where they are wanted, all of them protected.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use mainstay_api::{EventRecord, Status};
use mainstay_lab::{Host, Lab, LabConfig, LabError, VmOptions};
use mainstay_words::HostState;
use mainstay_words::view::VmState;

use crate::cli::drill::api;
use crate::cli::ending;

/// Which host loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The one that carries most VMs; not the primary where there is a choice.
    Busiest,
    /// The host that is primary when the power goes.
    Primary,
    /// One that is not primary.
    Secondary,
    /// The host of this number, counted from 1.
    Host(usize),
}

impl Victim {
    /// Reads `busiest`, `primary`, `secondary` or a host.
    pub fn parse(text: &str) -> Result<Victim, String> {
        match text {
            "busiest" => Ok(Victim::Busiest),
            "primary" => Ok(Victim::Primary),
            "secondary" => Ok(Victim::Secondary),
            host => crate::cli::parse_host(host)
                .map(Victim::Host)
                .map_err(|e| format!("{e}; or busiest, primary, secondary")),
        }
    }

    /// The host meant, given the primary. It is the one that is going to get most VMs, so `Busiest` can choose.
    pub fn host(self, primary: usize, hosts: usize) -> usize {
        match self {
            // h1 is left to be asked for the status, if possible.
            Victim::Busiest | Victim::Secondary => {
                (2..=hosts).chain([1]).find(|host| *host != primary).unwrap_or(primary)
            }
            Victim::Primary => primary,
            Victim::Host(host) => host,
        }
    }
}

/// On which host each of `vms` VMs starts: spread evenly, and the victim has one more than any other.
pub fn layout(vms: usize, hosts: usize, victim: usize) -> Vec<usize> {
    let mut on: Vec<usize> = (0..vms.saturating_sub(1)).map(|n| (victim - 1 + n) % hosts + 1).collect();
    on.extend((vms > 0).then_some(victim));
    on
}

/// Brings a lab up as soon as no other one is in the way; also tells when that was. A lab that somebody left standing is waited
/// for only if asked.
pub fn bring_up(
    config: &LabConfig,
    patience: Duration,
    also_for_standing: bool,
) -> anyhow::Result<(Lab, Instant)> {
    let start = Instant::now();
    let mut said = false;
    loop {
        let turn = Instant::now();
        // In short steps, so that ctrl-C ends the wait.
        match Lab::new_for_cli(LabConfig { lock_wait: Duration::ZERO, ..config.clone() }) {
            Err(LabError::Locked { holder }) if start.elapsed() < patience => {
                if !said {
                    eprintln!("Waiting for another lab to go ({holder}) …");
                }
            }
            Err(error @ LabError::Standing { .. }) if also_for_standing && start.elapsed() < patience => {
                if !said {
                    eprintln!("Waiting: {error} …");
                }
            }
            other => return Ok((other?, turn)),
        }
        said = true;
        ending::pause(Duration::from_millis(100))?;
    }
}

/// Waits until there is something to give back; what was last in the way is in the error.
fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(obstacle) if start.elapsed() >= limit => {
                bail!("waited {} s in vain for {what}: {obstacle}", limit.as_secs())
            }
            Err(_) => ending::pause(Duration::from_millis(50))?,
        }
    }
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix("host-")?.parse().ok()
}

/// The agents' socket of a host.
pub fn socket(host: &Host<'_>) -> PathBuf {
    host.agent_socket()
}

/// The status as that host tells it.
fn status(lab: &Lab, host: usize) -> Result<Status, String> {
    let host = lab.host(host).map_err(|e| e.to_string())?;
    api::get(&socket(&host), "/v1/status").map_err(|e| e.to_string())
}

/// Waits for an elected primary that sees all hosts connected; its number.
pub fn await_primary(lab: &Lab, limit: Duration) -> anyhow::Result<usize> {
    wait_for("a primary that sees all hosts", limit, || {
        let status = status(lab, 1)?;
        if !status.complete {
            return Err(status.note.unwrap_or_default());
        }
        if let Some(host) = status.view.hosts.iter().find(|h| h.state != HostState::Connected) {
            return Err(format!("{} is {}", host.host, host.state));
        }
        status.view.primary.and_then(|p| number(p.as_str())).ok_or_else(|| "no primary yet".into())
    })
}

/// Makes and starts vm1, vm2 … on these hosts, those of different hosts at the same time.
pub fn add_vms(lab: &Lab, on: &[usize]) -> anyhow::Result<()> {
    let add = |host: usize| -> anyhow::Result<()> {
        for (n, _) in on.iter().enumerate().filter(|(_, at)| **at == host) {
            ending::check()?;
            lab.define_vm(host, &format!("vm{}", n + 1), &VmOptions::default())?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let adding: Vec<_> = (1..=lab.config().hosts).map(|host| scope.spawn(move || add(host))).collect();
        adding.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| bail!("adding VMs panicked")))
    })
}

/// Waits until all of the lab's VMs run and are protected by the primary's word, and all their guests beat.
pub fn await_protected(lab: &Lab, limit: Duration) -> anyhow::Result<()> {
    let names = lab.vms()?;
    wait_for("all VMs to be protected", limit, || {
        let status = status(lab, 1)?;
        if !status.complete {
            return Err(status.note.unwrap_or_default());
        }
        for name in &names {
            let vm = status.view.vms.iter().find(|vm| *vm.name == **name);
            match vm {
                Some(vm) if vm.protected && vm.state == VmState::Running => {}
                Some(vm) => return Err(format!("{name}: {}", vm.note.as_deref().unwrap_or("not protected"))),
                None => return Err(format!("{name} is not known to the primary")),
            }
            let record = lab.guest_record(name).map_err(|e| e.to_string())?;
            if record.beats < 2 {
                return Err(format!("{name}'s guest does not beat yet"));
            }
        }
        Ok(())
    })
}

/// All events of the surviving hosts after a time, oldest first.
pub fn events_after(lab: &Lab, host: usize, after_us: u64) -> anyhow::Result<Vec<EventRecord>> {
    let path = format!("/v1/events?after={after_us}&limit=2000");
    let page: mainstay_api::EventPage =
        api::get(&socket(&lab.host(host)?), &path).context("the events of the drill")?;
    Ok(page.events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(on: &[usize], hosts: usize) -> Vec<usize> {
        (1..=hosts).map(|host| on.iter().filter(|at| **at == host).count()).collect()
    }

    #[test]
    fn the_victim_has_more_vms_than_any_other_host_and_the_others_are_even() {
        for hosts in 2..=6 {
            for vms in 1..=20 {
                for victim in 1..=hosts {
                    let mut counts = counts(&layout(vms, hosts, victim), hosts);
                    let most = counts.remove(victim - 1);
                    let (least, next) = (*counts.iter().min().unwrap(), *counts.iter().max().unwrap());
                    assert!(most > next && next - least <= 1, "{vms} VMs, {hosts} hosts: {most}, {counts:?}");
                    assert_eq!(most + counts.iter().sum::<usize>(), vms);
                }
            }
        }
    }

    #[test]
    fn victims_are_read_and_found() {
        assert_eq!(Victim::parse("h3"), Ok(Victim::Host(3)));
        assert!(Victim::parse("most").unwrap_err().contains("busiest"));
        assert_eq!(Victim::Primary.host(3, 3), 3);
        assert_eq!(Victim::Secondary.host(3, 3), 2);
        assert_eq!(Victim::Busiest.host(2, 3), 3);
        assert_eq!(Victim::Secondary.host(2, 2), 1);
    }
}
