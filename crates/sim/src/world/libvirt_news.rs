//! What a host's agent hears of libvirt: that the connection is there or lost, which domains there are, and what room is
//! left. The adapter hears late and asks again, as the real one does; what it is told may be old by then.

use super::World;
use super::hypervisor::{Libvirt, QemuState};
use super::queue::Happening;
use mainstay_core::register::{StopCause, VmSpec};
use mainstay_core::{Capacity, Domain, DomainState, Input, Time, XmlId};

impl World {
    /// Whether the host's agent lives and is connected to libvirt.
    pub(super) fn watches(&self, host: usize) -> bool {
        self.hosts[host].agent.as_ref().is_some_and(|agent| agent.connected)
    }

    /// The adapter notices what libvirt does.
    pub(super) fn on_hypervisor_news(&mut self, host: usize) {
        let up = self.hosts[host].libvirt == Libvirt::Up;
        let Some(agent) = &mut self.hosts[host].agent else { return };
        if up && !agent.connected {
            agent.connected = true;
            self.ask(host, None, None);
        } else if !up && (agent.connected || !agent.told_lost) {
            agent.connected = false;
            agent.told_lost = true;
            self.feed(host, Input::HypervisorLost);
        }
    }

    /// Every ten seconds.
    pub(super) fn on_resync(&mut self, host: usize, process: u64) {
        if !self.hosts[host].runs(process) {
            return;
        }
        self.queue.push(self.now + 10_000_000, Happening::Resync { host, process });
        let capacity = self.capacity(host);
        self.feed(host, Input::Capacity(capacity));
        if let Some(offers) = self.offers[host].clone() {
            self.feed(host, Input::Offers(offers));
        }
        if self.watches(host) && self.hosts[host].libvirt == Libvirt::Up {
            self.ask(host, None, None);
        }
    }

    /// The adapter hears of a change and looks the domain up.
    pub(super) fn on_domain_news(&mut self, host: usize, vm: usize, gone: Option<StopCause>) {
        if self.hosts[host].libvirt != Libvirt::Up || !self.watches(host) {
            return;
        }
        if let Some(cause) = gone {
            let (at, id) = (self.hosts[host].clock.local(self.now), self.setup.vm_id(vm));
            if let Some(agent) = &mut self.hosts[host].agent {
                agent.shown.on_stop(at, id, cause);
            }
        }
        self.ask(host, Some(vm), gone);
        let capacity = self.capacity(host);
        self.feed(host, Input::Capacity(capacity));
    }

    pub(super) fn domain_changed(&mut self, host: usize, vm: usize, gone: Option<StopCause>) {
        let at = self.now + self.dice.between(100, 20_000);
        self.queue.push(at, Happening::DomainNews { host, vm, gone });
    }

    /// The adapter looks what has become of a VM that it did something to.
    pub(super) fn on_look_afresh(&mut self, host: usize, process: u64, vm: usize) {
        if self.hosts[host].runs(process) && self.watches(host) && self.hosts[host].libvirt == Libvirt::Up {
            self.ask(host, Some(vm), None);
        }
    }

    /// The adapter asks libvirt about one domain, or all.
    fn ask(&mut self, host: usize, vm: Option<usize>, gone: Option<StopCause>) {
        let as_of = self.hosts[host].clock.local(self.now);
        let Some(agent) = &self.hosts[host].agent else { return };
        let process = agent.process;
        let at = self.now + self.dice.between(50, 5_000);
        self.queue.push(at, Happening::DomainLook { host, process, as_of, vm, gone });
    }

    /// Libvirt answers: what it knows now; the adapter will hear it a moment later.
    pub(super) fn on_domain_look(
        &mut self,
        host: usize,
        process: u64,
        as_of: Time,
        vm: Option<usize>,
        gone: Option<StopCause>,
    ) {
        if self.hosts[host].libvirt != Libvirt::Up {
            return;
        }
        let input = match vm {
            None => {
                let all = 0..self.setup.vms.len();
                Input::Domains { as_of, domains: all.filter_map(|vm| self.domain(host, vm)).collect() }
            }
            Some(vm) => {
                let stopped = || gone.map(|cause| self.domain_in(host, vm, DomainState::Stopped(cause)));
                let Some(domain) = self.domain(host, vm).or_else(stopped) else { return };
                Input::Domain { as_of, domain }
            }
        };
        let at = self.now + self.dice.between(50, 20_000);
        self.queue.push(at, Happening::Deliver { host, process, input });
    }

    /// A domain, as the adapter would show it now; `None` when libvirt knows none.
    fn domain(&self, host: usize, vm: usize) -> Option<Domain> {
        let state = match self.hosts[host].domains.get(&vm) {
            Some(qemu) => match qemu.state {
                // Paused in whatever way is still there: QEMU lives.
                QemuState::Running | QemuState::Leaving => DomainState::Running,
                QemuState::Prepared => DomainState::Prepared,
                QemuState::Incoming => DomainState::Incoming,
            },
            None => DomainState::Stopped(*self.hosts[host].definitions.get(&vm)?),
        };
        Some(self.domain_in(host, vm, state))
    }

    fn domain_in(&self, host: usize, vm: usize, state: DomainState) -> Domain {
        let setup = &self.setup.vms[vm];
        let home = &self.setup.datastores[setup.datastore].name;
        Domain {
            vm: self.setup.vm_id(vm),
            name: setup.name.clone(),
            state,
            // A disk on what is in none of its sections is on no datastore, to an agent.
            home: Some(home.clone()).filter(|home| self.setup.serves(host, home)),
            spec: Some(VmSpec {
                xml: XmlId(vm as u64 + 1000),
                memory_mib: setup.memory_mib,
                vcpus: 1,
                priority: setup.priority,
                guest_agent: setup.agent_after.is_some(),
                needs: self.vms[vm].needs.clone(),
                ..VmSpec::default()
            }),
            persistent: self.hosts[host].definitions.contains_key(&vm),
            io_error: self.hosts[host].domains.get(&vm).is_some_and(|qemu| qemu.io_error),
        }
    }

    pub(super) fn capacity(&self, host: usize) -> Capacity {
        let domains = &self.hosts[host].domains;
        let used: u64 = domains.keys().map(|vm| self.setup.vms[*vm].memory_mib).sum();
        let memory_mib = self.setup.hosts[host].memory_mib;
        Capacity {
            memory_mib,
            memory_free_mib: memory_mib.saturating_sub(used),
            cpus: 16,
            domains: domains.len() as u32,
        }
    }
}
