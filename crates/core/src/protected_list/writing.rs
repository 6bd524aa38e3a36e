//! What goes to disk, and what it means when it is there.

use super::*;

impl OwnerList {
    /// The list to be written next, if one is due and none is under way.
    pub(crate) fn take_write(&mut self, me: &HostId, now: Time) -> Option<ProtectedList> {
        if !self.dirty || self.writing.is_some() {
            return None;
        }
        self.dirty = false;
        self.version += 1;
        let (suspension, holds) = self.suspension.take_write(now);
        let entries = self.slots.values().map(|slot| slot.working.clone()).collect();
        let list = ProtectedList {
            epoch: self.epoch,
            version: self.version,
            owner: me.clone(),
            entries,
            settings: self.settings.clone(),
            suspension,
            holds,
        };
        self.writing = Some(list.clone());
        Some(list)
    }

    /// The write failed: what is on disk is not known; the same contents go out again under a new version.
    pub(crate) fn on_write_failed(&mut self) {
        self.writing = None;
        self.dirty = true;
    }

    /// The write is on disk. Returns the hosts that should look at it.
    pub(crate) fn on_written(&mut self, out: &mut Out<'_>) -> BTreeSet<HostId> {
        let mut concerned = BTreeSet::new();
        let Some(list) = self.writing.take() else { return concerned };
        let stamp = list.stamp();
        self.on_disk = Some(stamp);
        self.settings_on_disk = Some(list.settings.revision);
        self.suspension.on_written();
        for entry in list.entries {
            let Some(slot) = self.slots.get_mut(&entry.vm) else { continue };
            if slot.durable.as_ref() == Some(&entry) {
                continue;
            }
            let before = slot.durable.as_ref();
            concerned.extend(before.and_then(|entry| entry.holder.clone()));
            concerned.extend(entry.holder.clone());
            let vm = VmName { id: entry.vm, name: entry.name.clone() };
            let granted_anew = before.is_none_or(|before| before.token != entry.token);
            let told = before.is_none() && slot.restart.reason().is_empty();
            if let (Some(host), true, true) = (&entry.holder, granted_anew && !told, entry.attempts > 0) {
                out.event(Event::VmGranted {
                    vm: vm.clone(),
                    host: host.clone(),
                    token: entry.token,
                    attempt: entry.attempts,
                    reason: slot.restart.reason().clone(),
                });
            }
            if let (Some(from), Some(to)) = (&entry.holder, &entry.intent) {
                let (vm, from, to) = (vm.clone(), from.clone(), to.clone());
                out.event(Event::TakeoverIntended { vm, from, to });
            }
            if granted_anew {
                slot.announced = false;
                if entry.attempts > 0 {
                    slot.restart.begin_progress(out.now);
                }
            }
            if let (Some(order), Some(host)) = (&entry.order, &entry.holder)
                && before.and_then(|before| before.order.as_ref()) != Some(order)
            {
                out.event(Event::VmOrdered { vm: vm.clone(), host: host.clone(), order: order.what.clone() });
            }
            slot.durable = Some(entry);
            slot.durable_since = out.now;
            slot.stamp = stamp;
        }
        concerned
    }

    /// Whether the entry is on disk as it is meant to be, and no write under way says anything else about it.
    pub(crate) fn is_settled(&self, vm: VmId) -> bool {
        let Some(slot) = self.slots.get(&vm) else { return true };
        let written = self.writing.as_ref().and_then(|list| list.entry(vm));
        slot.durable.as_ref() == Some(&slot.working) && written.is_none_or(|entry| *entry == slot.working)
    }
}
