//! Keeping the index current when one thing in the picture changes.

use super::{Index, NOWHERE};
use crate::picture::{Host, HostState, Name, Picture, Vm};
use alloc::vec::Vec;

/// What a change of the index touched.
pub(crate) enum Touched {
    /// Everything may be different: the index was built anew.
    All,
    /// These hosts have other residents, other room or another state. VMs in `mates` are under a rule with the VM that changed.
    Some { hosts: Vec<u32>, vm: Option<u32>, waiting: bool, mates: Vec<u32> },
}

impl Index {
    /// Enters a VM as it is in the picture now.
    pub fn update_vm(&mut self, picture: &Picture, name: &Name) -> Touched {
        let former = self.vm_at.get(name).copied();
        let present = picture.vms.get(name);
        let comes_or_goes = former.is_some() != present.is_some();
        // Classes that nobody is in any more are swept out now and then.
        let too_many_classes = self.classes.len() > 2 * self.vms.len() + 64;
        if too_many_classes || comes_or_goes && self.rules.bound.contains_key(name) {
            *self = Self::new(picture);
            return Touched::All;
        }
        let mut hosts = Vec::new();
        let mut waiting = false;
        if let Some(position) = former {
            let host = self.vms[position as usize].host;
            hosts.push(host);
            waiting |= self.waiting.remove(&position);
            if let Some(slot) = self.hosts.get_mut(host as usize) {
                slot.residents.retain(|vm| *vm != position);
            }
        }
        let vm = match (former, present) {
            (Some(position), None) => {
                self.vm_at.remove(name);
                self.unused.push(position);
                let slot = &mut self.vms[position as usize];
                (slot.host, slot.restarts, slot.extra) = (NOWHERE, false, None);
                None
            }
            (_, Some(vm)) => Some(self.enter_vm(former, name, vm)),
            (None, None) => None,
        };
        if let Some(position) = vm {
            waiting |= self.waiting.contains(&position);
            hosts.push(self.vms[position as usize].host);
        }
        hosts.retain(|host| (*host as usize) < self.hosts.len());
        hosts.sort_unstable();
        hosts.dedup();
        for host in &hosts {
            self.reorder(*host);
        }
        let mates = vm.map(|vm| self.mates(vm)).unwrap_or_default();
        Touched::Some { hosts, vm, waiting, mates }
    }

    fn enter_vm(&mut self, former: Option<u32>, name: &Name, vm: &Vm) -> u32 {
        let slot = self.vm_slot(name, vm);
        let position = match former.or_else(|| self.unused.pop()) {
            Some(position) => {
                self.vms[position as usize] = slot;
                position
            }
            None => {
                self.vms.push(slot);
                self.vms.len() as u32 - 1
            }
        };
        self.vm_at.insert(name.clone(), position);
        self.settle(position);
        position
    }

    /// All VMs that a rule among VMs ties to this one.
    fn mates(&self, vm: u32) -> Vec<u32> {
        let Some(extra) = &self.vms[vm as usize].extra else { return Vec::new() };
        let apart = extra.apart.iter().flat_map(|rule| &self.rules.apart[*rule as usize].vms);
        let near = extra.near.iter().flat_map(|rule| &self.rules.near[*rule as usize].vms);
        let pack = extra.pack.iter().flat_map(|pack| &self.rules.packs[*pack as usize].vms);
        apart.chain(near).chain(pack).copied().filter(|mate| *mate != vm).collect()
    }

    /// Enters a host as it is in the picture now; `former` is what it was.
    pub fn update_host(&mut self, picture: &Picture, name: &Name, former: Option<&Host>) -> Touched {
        let same_kind = |a: &Host, b: &Host| {
            a.offers == b.offers && a.capacity == b.capacity && a.failover_host == b.failover_host
        };
        match (former, picture.hosts.get(name), self.host_position(name)) {
            (Some(former), Some(host), Some(position)) if same_kind(former, host) => {
                let slot = &mut self.hosts[position as usize];
                slot.takes = host.state == HostState::Usable;
                slot.starting = host.starting;
                slot.kept_back = host.kept_back;
                slot.measured = host.measured_free;
                self.reorder(position);
                Touched::Some { hosts: alloc::vec![position], vm: None, waiting: false, mates: Vec::new() }
            }
            _ => {
                *self = Self::new(picture);
                Touched::All
            }
        }
    }
}
