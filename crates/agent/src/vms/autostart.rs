//! R39: autostart of protected VMs is off while they are protected, and put back when they are not any more.
//!
//! Why: libvirt starts at boot what has autostart, before anybody can say where the VM runs by then.
//!
//! Invariants: that a VM had autostart is on disk before it is switched off. It is put back only when a protected list that was
//! read tells that the VM is not protected; a list that is not known says nothing.

use super::{Errand, Known, Pending, Vms, uuid};
use crate::remembered::{Kept, Remembered};
use mainstay_core::event::AutostartChange;
use mainstay_core::ids::{DatastoreName, VmId};
use mainstay_core::view::View;
use mainstay_core::{Event, Span, Time, VmName};
use mainstay_hypervisor as hv;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at what is protected.
pub const LISTS_INTERVAL: Duration = Duration::from_secs(2);

/// A VM that a list does not have any more has left protection after this: a list that is made anew fills up within that time.
const MISSING_MAX: Span = Span::from_secs(60);

/// A VM in a protected list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its libvirt name.
    pub name: Arc<str>,
    /// The datastore of that list.
    pub datastore: DatastoreName,
    /// Its user has not taken it out of protection.
    pub protected: bool,
    /// It is granted to another host.
    pub elsewhere: bool,
}

/// The protected lists, as this host knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lists {
    /// The datastores whose list is known.
    pub known: BTreeSet<DatastoreName>,
    /// The VMs in them.
    pub vms: BTreeMap<VmId, Listed>,
}

impl Lists {
    /// What a view shows of them.
    pub fn of(view: &View) -> Lists {
        let known = view.datastores.iter().filter(|one| one.list.is_some()).map(|one| one.datastore.clone());
        let mut vms: BTreeMap<VmId, Listed> = BTreeMap::new();
        // What has no grant is in no list.
        for vm in view.vms.iter().filter(|vm| vm.token.is_some()) {
            let listed = Listed {
                name: Arc::clone(&vm.name),
                datastore: vm.datastore.clone(),
                protected: !vm.unprotected,
                elsewhere: vm.host.as_ref().is_some_and(|host| *host != view.host),
            };
            // One whose disk was moved may be in two lists for a while.
            if vms.get(&vm.vm).is_none_or(|other| !other.protected) {
                vms.insert(vm.vm, listed);
            }
        }
        Lists { known: known.collect(), vms }
    }
}

/// What is remembered and what is under way.
#[derive(Debug, Default)]
pub(super) struct Autostart {
    remembered: Remembered,
    lists: Lists,
    /// What the file says.
    on_disk: Remembered,
    /// What is being written to it.
    writing: Option<Remembered>,
    /// People were told that it can't be written.
    unwritable: bool,
    /// VMs that a list does not have any more, and since when.
    missing: BTreeMap<VmId, Time>,
    /// Operations of libvirt under way.
    pending: BTreeSet<VmId>,
    /// When the last of them ended, in vain or not: what libvirt was asked before says nothing about it. So a libvirt that hangs
    /// is not asked again before it has answered something.
    ended: BTreeMap<VmId, Time>,
    /// It was off already, in this run of the agent or before.
    was_off: BTreeSet<VmId>,
    /// Somebody has switched it on again, and that was told.
    told_again: BTreeSet<VmId>,
    /// It was told that libvirt refuses it.
    told_refused: BTreeSet<VmId>,
}

impl Autostart {
    fn new(remembered: Remembered) -> Autostart {
        let was_off = remembered.all().filter(|kept| kept.autostart).map(|kept| kept.vm).collect();
        Autostart { on_disk: remembered.clone(), remembered, was_off, ..Autostart::default() }
    }

    /// What is protected, by the lists that are known.
    fn take_in_lists(&mut self, now: Time) {
        for (vm, listed) in &self.lists.vms {
            match self.remembered.get_mut(*vm) {
                Some(kept) => {
                    kept.protected = listed.protected;
                    kept.name = Arc::clone(&listed.name);
                    kept.datastore = listed.datastore.clone();
                }
                None if listed.protected => self.remembered.insert(Kept {
                    vm: *vm,
                    name: Arc::clone(&listed.name),
                    datastore: listed.datastore.clone(),
                    protected: true,
                    autostart: false,
                }),
                None => {}
            }
        }
        let mut missing = BTreeMap::new();
        for kept in self.remembered.all_mut() {
            // A list that is not known now may be made anew when it is known again: the time begins anew then.
            if self.lists.vms.contains_key(&kept.vm) || !self.lists.known.contains(&kept.datastore) {
                continue;
            }
            let since = self.missing.get(&kept.vm).copied().unwrap_or(now);
            missing.insert(kept.vm, since);
            if now.since(since) >= MISSING_MAX {
                kept.protected = false;
            }
        }
        self.missing = missing;
    }

    /// Has what is remembered written, if it has changed.
    fn write(&mut self, errands: &mut Vec<Errand>) {
        self.remembered.tidy();
        if self.writing.is_none() && self.remembered != self.on_disk {
            self.writing = Some(self.remembered.clone());
            errands.push(Errand::Remember(self.remembered.text()));
        }
    }

    /// What is to be done with autostart of that domain.
    fn judge(&mut self, vm: VmId, known: &Known) -> Option<bool> {
        let stale = self.ended.get(&vm).is_some_and(|ended| known.as_of <= *ended);
        if known.gone || !known.domain.persistent || stale || self.pending.contains(&vm) {
            return None;
        }
        let kept = self.remembered.get_mut(vm)?;
        match (kept.protected, known.autostart, kept.autostart) {
            (true, true, false) => {
                kept.autostart = true;
                None
            }
            (true, true, true) => self.on_disk.get(vm).is_some_and(|kept| kept.autostart).then_some(false),
            (false, false, true) => {
                // Libvirt would start it here at boot, and it runs there.
                let elsewhere = self.lists.vms.get(&vm).is_some_and(|listed| listed.elsewhere);
                kept.autostart &= !elsewhere;
                kept.autostart.then_some(true)
            }
            // Its user was faster.
            (false, true, true) => {
                kept.autostart = false;
                None
            }
            (true, false, _) | (false, _, false) => None,
        }
    }

    /// Libvirt has done it. What is to be told.
    fn on_switched(&mut self, vm: VmId, on: bool) -> Option<Event> {
        let kept = self.remembered.get_mut(vm)?;
        let name = VmName { id: vm, name: Arc::clone(&kept.name) };
        let changed = |change, vm| Some(Event::VmAutostart { vm, change });
        if on {
            kept.autostart = false;
            self.was_off.remove(&vm);
            self.told_again.remove(&vm);
            return changed(AutostartChange::Back, name);
        }
        let again = !self.was_off.insert(vm);
        // Something that switches it on again and again would fill the log.
        if again && !self.told_again.insert(vm) {
            tracing::info!(vm = &*name.name, "autostart was switched on again, and is off again");
            return None;
        }
        changed(if again { AutostartChange::OffAgain } else { AutostartChange::Off }, name)
    }
}

impl Vms {
    /// With what former runs of the agent remember.
    pub fn remembering(mut self, remembered: Remembered) -> Vms {
        self.autostart = Autostart::new(remembered);
        self
    }

    pub(super) fn on_lists(&mut self, now: Time, lists: Lists, errands: &mut Vec<Errand>) {
        self.autostart.lists = lists;
        self.autostart.take_in_lists(now);
        self.see_to_autostart(errands);
    }

    /// The file was written, or why not.
    pub(super) fn on_remembered(&mut self, result: Result<(), String>, errands: &mut Vec<Errand>) {
        let written = self.autostart.writing.take();
        match (result, written) {
            (Ok(()), Some(written)) => {
                self.autostart.on_disk = written;
                self.autostart.unwritable = false;
                self.see_to_autostart(errands);
            }
            (Ok(()), None) => {}
            // It is tried again when the lists are looked at.
            (Err(error), _) => {
                if !std::mem::replace(&mut self.autostart.unwritable, true) {
                    tracing::warn!(
                        error,
                        "protected VMs can't be remembered in state_dir: autostart of VMs stays as it is, and at the next boot \
                         libvirt's hook does not know them"
                    );
                }
            }
        }
    }

    fn see_to_autostart(&mut self, errands: &mut Vec<Errand>) {
        self.forget_the_undefined();
        let mut wanted = Vec::new();
        for (vm, known) in &self.known {
            wanted.extend(self.autostart.judge(*vm, known).map(|on| (*vm, on)));
        }
        for (vm, on) in wanted {
            self.autostart.pending.insert(vm);
            let operation = hv::Op::SetAutostart { uuid: uuid(vm), on };
            self.submit(Pending::Autostart(vm, on), operation, errands);
        }
        self.autostart.write(errands);
    }

    /// Where the definition has gone, autostart has gone with it. The VM may go on, as a transient domain.
    fn forget_the_undefined(&mut self) {
        if self.complete.is_none() {
            return;
        }
        for kept in self.autostart.remembered.all_mut() {
            let defined = |known: &Known| !known.gone && known.domain.persistent;
            let defined = self.known.get(&kept.vm).is_some_and(defined);
            kept.autostart &= defined;
            if !defined {
                self.autostart.was_off.remove(&kept.vm);
            }
        }
    }

    pub(super) fn on_autostart_done(
        &mut self,
        now: Time,
        (vm, on): (VmId, bool),
        result: Result<hv::OpOutput, hv::OpError>,
        errands: &mut Vec<Errand>,
    ) {
        self.autostart.pending.remove(&vm);
        self.autostart.ended.insert(vm, now);
        match result {
            Ok(_) => {
                let event = self.autostart.on_switched(vm, on);
                errands.extend(event.map(|event| Errand::Tell(Box::new(event))));
                self.autostart.told_refused.remove(&vm);
                super::look_afresh(vm, errands);
                self.autostart.write(errands);
            }
            // It is tried again when libvirt has shown the VM anew.
            Err(error) => {
                if self.autostart.told_refused.insert(vm) {
                    tracing::warn!(%vm, on, %error, "autostart of a VM can't be switched; it is tried again");
                }
            }
        }
    }
}
