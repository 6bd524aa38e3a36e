//! When a cluster is well again, and waiting for that.

use std::collections::BTreeSet;
use std::time::Duration;

use mainstay_api::{EventRecord, Status};
use mainstay_lab::Host;
use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::ids::HostId;
use mainstay_words::time::Span;
use mainstay_words::view::{Role, VmState};

use super::{Cluster, LONG, id};

impl Cluster {
    /// Waits until the cluster is well again: one primary, which owns all datastores and has its lists there; every host that
    /// is on is connected to it, and each has just heard the other; every other one is judged failed by it (a new primary needs
    /// a while for that; its alarm would come in the next step); no alarm stands but those; every VM runs exactly once where the
    /// primary says, protected, and beats. VMs in `down` are those that are to stay down.
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
        // What a test looks for afterwards is there then.
        self.wait_for_journals();
    }

    /// What is not as [`Cluster::settle`] wants it.
    fn unsettled(&self, down: &[&str]) -> Option<String> {
        let status = self.status();
        let Some(status) = status else { return Some("no primary's view".into()) };
        if let Some(note) = &status.note {
            return Some(note.clone());
        }
        if let Some(what) = self.lab.hosts().iter().find_map(|host| self.unsettled_host(&status, host)) {
            return Some(what);
        }
        // Before that it decides nothing: what it has to tell of VMs that run already would come in the next step.
        for datastore in &status.view.datastores {
            let decides = datastore.ownership_left.is_some()
                && datastore.owner.as_ref() == Some(&status.view.host)
                && datastore.list.is_some_and(|list| list.epoch == datastore.epoch);
            if !decides {
                return Some(format!("the primary does not decide over it yet: {datastore:?}"));
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

    /// What is not as it should be with a host, by the primary's word and by its own.
    fn unsettled_host(&self, status: &Status, host: &Host<'_>) -> Option<String> {
        let name = host.name();
        let primary = &status.view.host;
        let view = status.view.hosts.iter().find(|h| h.host == id(host.number()));
        let state = view.map(|h| h.state);
        let on = host.is_on().expect("the lab's state");
        let expected = if on { HostState::Connected } else { HostState::Failed };
        if state != Some(expected) {
            return Some(format!("{name} is {state:?}, not {expected:?}"));
        }
        if !on {
            return None;
        }
        if view.is_none_or(|h| h.datastores.len() != self.lab.config().datastores.len()) {
            return Some(format!("{name} lacks a datastore"));
        }
        let Some(own) = self.local(host.number()).map(|l| l.view) else {
            return Some(format!("{name} says nothing"));
        };
        let is_primary = *primary == id(host.number());
        let expected = if is_primary { Role::Primary } else { Role::Secondary };
        // One that hung may take itself for the primary yet: the others follow another.
        if own.role != expected || own.primary.as_ref() != Some(primary) {
            return Some(format!(
                "{name} is {:?} of {:?}, not {expected:?} of {primary}",
                own.role, own.primary
            ));
        }
        // It says so itself: the primary has little patience with those that it asks for their alarms.
        if own.isolated || !own.guard || own.datastores.iter().any(|d| !d.connected) {
            return Some(format!("{name} is isolated, or lacks its guard or a datastore"));
        }
        if is_primary {
            return None;
        }
        // Connected is also who has been silent for a shorter time than it takes to notice: what follows would come later.
        let heard = |age: Option<Span>| age.is_some_and(|age| age < status.view.timing.suspicion());
        let hears = own.hosts.iter().find(|h| h.host == *primary).and_then(|h| h.network_heartbeat);
        let is_heard = view.and_then(|h| h.network_heartbeat);
        (!heard(is_heard) || !heard(hears))
            .then(|| format!("{name} was last heard {is_heard:?} ago, and heard the primary {hears:?} ago"))
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
