//! When a cluster is well again, and waiting for that.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_api::EventRecord;
use mainstay_core::Event;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::HostId;
use mainstay_core::view::{Role, VmState};

use super::{Cluster, LONG, id};

impl Cluster {
    /// Waits until the cluster is well again: one primary, every host that is on is connected to it, every other one is
    /// judged failed by it (a new primary needs a while for that; its alarm would come in the next step), no alarm stands
    /// but those, every VM runs exactly once where the primary says, protected, and beats. VMs in `down` are those that
    /// are to stay down.
    pub fn settle(&self, down: &[&str]) {
        let mut missing = String::new();
        let settled = self.lab.wait_until("the cluster to be well", LONG, || match self.unsettled(down) {
            None => true,
            Some(what) => {
                missing = what;
                // Each look asks all agents: often enough.
                std::thread::sleep(Duration::from_millis(80));
                false
            }
        });
        if let Err(e) = settled {
            panic!("{missing}: {e}\n{}", self.story());
        }
        let mut vms = self.lab.vms().expect("the lab's VMs");
        vms.retain(|vm| !down.contains(&vm.as_str()));
        // All at once: each beat takes a fifth of a second.
        let progress = |vm: &String| self.lab.guest_record(vm).map_or(0, |r| r.progress());
        let before: Vec<u64> = vms.iter().map(progress).collect();
        self.wait("every VM to beat", || {
            vms.iter().zip(&before).all(|(vm, before)| progress(vm) >= before + 2)
        });
        for vm in down {
            assert!(self.lab.hosts_running(vm).expect("the runners").is_empty(), "{vm} is to stay down");
        }
    }

    /// What is not as [`Cluster::settle`] wants it.
    fn unsettled(&self, down: &[&str]) -> Option<String> {
        let status = self.status();
        let Some(status) = status else { return Some("no primary's view".into()) };
        for host in self.lab.hosts() {
            let on = host.is_on().expect("the lab's state");
            let view = status.view.hosts.iter().find(|h| h.host == id(host.number()));
            let state = view.map(|h| h.state);
            let expected = if on { HostState::Connected } else { HostState::Failed };
            if state != Some(expected) {
                return Some(format!("{} is {state:?}, not {expected:?}", host.name()));
            }
            if on && view.is_none_or(|h| h.datastores.len() != self.lab.config().datastores.len()) {
                return Some(format!("{} lacks a datastore", host.name()));
            }
            let role = self.local(host.number()).map(|l| l.view.role);
            let expected =
                if status.view.host == id(host.number()) { Role::Primary } else { Role::Secondary };
            if on && role != Some(expected) {
                return Some(format!("{} is {role:?}, not {expected:?}", host.name()));
            }
        }
        let is_fine = |alarm: &EventRecord| match &alarm.event {
            Some(Event::HostStateChanged { host, .. }) => self
                .lab
                .hosts()
                .iter()
                .any(|h| h.id() == host.as_str() && !h.is_on().expect("the lab's state")),
            // It foretells what another failure would mean. Whether it may be raised is the step's business.
            Some(Event::AdmissionNotMet { .. }) => true,
            Some(_) | None => false,
        };
        if let Some(alarm) = status.alarms.iter().find(|a| !is_fine(a)) {
            return Some(format!("an alarm stands: {}", alarm.text));
        }
        let mut vms = self.lab.vms().expect("the lab's VMs");
        vms.retain(|vm| !down.contains(&vm.as_str()));
        vms.into_iter().find_map(|vm| {
            let hosts: Vec<HostId> =
                self.lab.hosts_running(&vm).expect("the runners").into_iter().map(id).collect();
            let seen = status.view.vms.iter().find(|v| *v.name == *vm);
            let well = seen.is_some_and(|v| {
                v.protected && v.state == VmState::Running && v.host.as_slice() == hosts.as_slice()
            });
            (!well).then(|| format!("{vm} runs on {hosts:?} and is seen as {seen:?}"))
        })
    }

    /// Waits until libvirt of each host that is on knows just the VMs that run there: nothing stale is left.
    pub fn wait_for_definitions(&self, down: &[&str]) {
        for host in self.lab.hosts().iter().filter(|h| h.is_on().expect("the lab's state")) {
            let expected = self.vms_on(host.number());
            self.wait(&format!("no stale definition to be left on {}", host.name()), || {
                let listed = host.virsh(&["list", "--all", "--name"]).unwrap_or_default();
                let listed = listed.lines().map(str::trim).filter(|l| !l.is_empty() && !down.contains(l));
                listed.map(str::to_string).collect::<BTreeSet<String>>() == expected
            });
        }
    }
}
