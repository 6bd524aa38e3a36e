//! Live migrations by users, with the instants at which things go wrong with them.
//!
//! *Copying*: the source executes, the target's QEMU waits. *Finishing*: the source has stopped its guest and sent its last word,
//! the target has not been told to go on: nobody executes. *Confirming*: the target executes, the source's QEMU is still there,
//! stopped. Then libvirt ends it.
//!
//! The two ends never execute both. What stands in the way (a frozen QEMU, a libvirtd that hangs, a broken connection, a host that stands
//! still) is waited for; then the migration is given up: the target is removed first, and only then the source goes on. A source
//! that cannot learn what became of its target stays stopped until it can. A target whose source has gone is removed by its libvirtd when that
//! notices, unless the word to go on was on its way. A frozen target that has been told to go on does so when it is thawed, however long
//! that takes and whatever has become of its source.
//!
//! None of it needs an agent: what the agents hear is what libvirt shows of each end.

use super::World;
use super::hypervisor::{Libvirt, Lock, Qemu, QemuState};
use super::queue::{DomainOp, Happening};
use mainstay_core::register::StopCause;
use mainstay_core::{ReadRegister, RegisterValue, VmOutcome};

/// From one attempt to the next.
const RETRY: u64 = 250_000;
/// A connection whose other end has vanished is given up after so long.
const KEEPALIVE: u64 = 30_000_000;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Copying,
    Finishing,
    Confirming,
    /// Its source has gone.
    Orphaned,
}

/// A live migration under way.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    vm: usize,
    from: usize,
    to: usize,
    outgoing: u64,
    incoming: u64,
    stage: Stage,
    handover: u64,
    undefine_source: bool,
    /// It is given up when it has not moved on by then.
    patience: u64,
    /// It is being given up.
    aborted: bool,
    /// The order of a core: answered when it has ended.
    order: Option<(u64, u64, mainstay_core::OpId)>,
    /// The target's QEMU has been told to go on, and does so when it is not frozen any more.
    told: bool,
}

impl World {
    /// A user begins a live migration, which copies for so long and hands over within so long.
    pub(super) fn user_migrate(
        &mut self,
        vm: usize,
        to: usize,
        (takes, handover): (Option<u64>, Option<u64>),
        undefine_source: Option<bool>,
    ) {
        let Some(from) = self.executing(vm).next() else { return };
        let Some(source) = self.hosts[from].domains.get(&vm).copied() else { return };
        let free = !self.hosts[to].domains.contains_key(&vm) && source.state == QemuState::Running;
        let under_way = self.under_way.migrations.values().any(|other| other.vm == vm);
        if from == to
            || !self.answers(from)
            || !self.answers(to)
            || !free
            || under_way
            || !self.connected(from, to)
        {
            return;
        }
        let takes = takes.unwrap_or_else(|| self.dice.between(300_000, 6_000_000));
        let handover = handover.unwrap_or_else(|| match self.dice.below(10) {
            0 => self.dice.between(200_000, 2_000_000),
            _ => self.dice.between(2_000, 200_000),
        });
        let undefine_source = undefine_source.unwrap_or_else(|| self.dice.permille(500));
        let patience = self.now + takes + self.dice.between(2_000_000, 40_000_000);
        self.record.seen.saw("migration begun");
        if !self.setup.image_lock {
            self.record.seen.saw("migration begun without image locks");
        }
        let incoming = self.create(to, vm, QemuState::Incoming, None);
        let migration = Migration {
            vm,
            from,
            to,
            outgoing: source.id,
            incoming,
            stage: Stage::Copying,
            handover,
            undefine_source,
            patience,
            aborted: false,
            order: None,
            told: false,
        };
        self.under_way.last_key += 1;
        self.wait_for_migration(self.under_way.last_key, migration, takes);
    }

    /// A core's order: begun as its user would, and answered when it has ended.
    pub(super) fn ordered_migration(&mut self, host: usize, op: &DomainOp, to: usize) {
        let known = self.under_way.last_key;
        if self.executing(op.vm).next() == Some(host) {
            self.user_migrate(op.vm, to, (None, None), None);
        }
        let begun = self.under_way.migrations.range_mut(known..).find(|(_, migration)| migration.vm == op.vm);
        match begun {
            Some((_, migration)) if migration.from == host && migration.to == to => {
                migration.order = Some((op.process, op.boot, op.op));
            }
            Some(_) | None => {
                let reason = "libvirt could not begin to migrate it".into();
                let at = self.vm_done(host, op.process, op.op, VmOutcome::Failed(reason));
                self.look_afresh(host, op.process, op.vm, at);
            }
        }
    }

    /// A user has it given up.
    pub(super) fn abort_migration(&mut self, vm: usize) {
        if let Some(migration) = self.under_way.migrations.values_mut().find(|migration| migration.vm == vm) {
            migration.aborted = true;
        }
    }

    /// Libvirt on that host does what it is told.
    fn answers(&self, host: usize) -> bool {
        let state = &self.hosts[host];
        state.powered && !state.paused && state.libvirt == Libvirt::Up
    }

    fn connected(&self, a: usize, b: usize) -> bool {
        self.net.passes(a, b) && self.net.passes(b, a)
    }

    fn end_of_migration(&self, host: usize, vm: usize, qemu: u64) -> Option<Qemu> {
        self.hosts[host].domains.get(&vm).copied().filter(|found| found.id == qemu)
    }

    fn wait_for_migration(&mut self, key: u64, migration: Migration, wait: u64) {
        self.under_way.migrations.insert(key, migration);
        self.queue.push(self.now + wait.max(1), Happening::Migration { key });
    }

    /// The power-on list of that host on the VM's datastore says that it has the VM.
    fn is_claimed_on_disk(&self, host: usize, vm: usize) -> bool {
        let id = mainstay_core::RegisterId::PowerOn(self.setup.hosts[host].id.clone());
        let store = &self.stores[self.setup.vms[vm].datastore];
        match store.read(&id, host, &self.setup) {
            ReadRegister::Value(RegisterValue::PowerOn(list)) => {
                list.claims.iter().any(|claim| claim.vm == self.setup.vm_id(vm) && !claim.state.is_released())
            }
            ReadRegister::Value(_) | ReadRegister::Missing | ReadRegister::Unreadable(..) => false,
        }
    }

    /// The next stage of a migration.
    pub(super) fn on_migration(&mut self, key: u64) {
        let Some(mut migration) = self.under_way.migrations.remove(&key) else { return };
        let next = match migration.stage {
            Stage::Copying => self.copied(&mut migration),
            Stage::Finishing => self.finish(&mut migration),
            Stage::Confirming => self.confirm_migration(&migration),
            Stage::Orphaned => self.remove_target(&migration),
        };
        if let Some(wait) = next {
            self.wait_for_migration(key, migration, wait);
        } else if let Some((process, boot, op)) = migration.order
            && self.hosts[migration.from].boot == boot
        {
            let left = self.end_of_migration(migration.from, migration.vm, migration.outgoing).is_none();
            let outcome =
                if left { VmOutcome::Done } else { VmOutcome::Failed("the migration was given up".into()) };
            let at = self.vm_done(migration.from, process, op, outcome);
            self.look_afresh(migration.from, process, migration.vm, at);
        }
    }

    /// The memory is over: the source stops and sends its last word. `None`: nothing more will come of it.
    fn copied(&mut self, migration: &mut Migration) -> Option<u64> {
        let (vm, from, to) = (migration.vm, migration.from, migration.to);
        let target = self.end_of_migration(to, vm, migration.incoming)?;
        let source = self.end_of_migration(from, vm, migration.outgoing);
        let Some(source) = source else { return Some(self.orphan(migration)) };
        // A libvirtd that is gone takes the connection with it.
        let down = |host: usize| self.hosts[host].libvirt == Libvirt::Down;
        migration.aborted |= down(from) || down(to) || self.now >= migration.patience;
        if migration.aborted {
            self.record.seen.saw("migration given up");
            return self.remove_target(migration);
        }
        let ready = self.answers(from) && self.answers(to) && self.connected(from, to);
        let held = self.setup.hook && !self.is_claimed_on_disk(to, vm);
        if held || !ready || source.frozen || source.io_error || target.frozen {
            return Some(RETRY);
        }
        self.halted(from, vm, source);
        self.hosts[from].domains.insert(vm, Qemu { state: QemuState::Leaving, ..source });
        // The guest's memory is the same run of the VM, here and there.
        self.hosts[to].domains.insert(vm, Qemu { run: source.run, ..target });
        self.vms[vm].locks.retain(|lock| lock.qemu != source.id);
        self.record.trace.facts(&[self.now, 11, from as u64, vm as u64]);
        self.say(from, |world| format!("* {} has stopped to switch over", world.setup.vms[vm].name));
        self.domain_changed(from, vm, None);
        migration.stage = Stage::Finishing;
        migration.patience = migration.patience.max(self.now + migration.handover + 2_000_000);
        Some(migration.handover)
    }

    /// The target is told to go on.
    fn finish(&mut self, migration: &mut Migration) -> Option<u64> {
        let (vm, from, to) = (migration.vm, migration.from, migration.to);
        let source = self.end_of_migration(from, vm, migration.outgoing);
        let target = self.end_of_migration(to, vm, migration.incoming);
        let Some(target) = target else {
            return source.and_then(|source| self.source_goes_on(migration, source));
        };
        if migration.told {
            // Nobody can take that back: only its own end.
            if target.frozen || self.hosts[to].paused {
                return Some(RETRY);
            }
            self.target_goes_on(migration, target);
            migration.stage = Stage::Confirming;
            return source.map(|_| RETRY);
        }
        let reached = self.answers(to) && !target.frozen;
        if source.is_none() {
            // The word may have been on its way.
            let soon = migration.handover <= 2_000_000;
            let sent = soon && !migration.aborted && reached && self.dice.permille(300);
            if !sent {
                return Some(self.orphan(migration));
            }
            self.record.seen.saw("migration finished after its source had gone");
            self.target_goes_on(migration, target);
            return None;
        }
        let down = self.hosts[from].libvirt == Libvirt::Down || self.hosts[to].libvirt == Libvirt::Down;
        migration.aborted |= down || self.now >= migration.patience;
        if migration.aborted {
            // The target goes first; the next look finds it gone.
            let told = down || (self.connected(from, to) && self.answers(from));
            if told && self.remove_target(migration).is_none() {
                self.record.seen.saw("migration given up");
            }
            return Some(RETRY);
        }
        if !self.answers(to) || !self.answers(from) || !self.connected(from, to) {
            return Some(RETRY);
        }
        if target.frozen {
            self.record.seen.saw("target of a migration frozen when told to go on");
            migration.told = true;
            return Some(RETRY);
        }
        self.target_goes_on(migration, target);
        migration.stage = Stage::Confirming;
        Some(self.dice.between(1_000, 50_000))
    }

    fn target_goes_on(&mut self, migration: &Migration, target: Qemu) {
        let (vm, to) = (migration.vm, migration.to);
        self.vms[vm].locks.push(Lock { qemu: target.id });
        self.vms[vm].migrated_to = Some(to);
        if self.dice.permille(700) {
            self.hosts[to].definitions.insert(vm, StopCause::Unknown);
        }
        self.hosts[to].domains.insert(vm, Qemu { state: QemuState::Running, ..target });
        self.record.checks.user_word.on_user_start(vm);
        self.execute(to, vm);
        self.domain_changed(to, vm, None);
    }

    /// The migration has failed, and there is no target any more.
    fn source_goes_on(&mut self, migration: &Migration, source: Qemu) -> Option<u64> {
        let (vm, from) = (migration.vm, migration.from);
        if !self.answers(from) || self.locked(vm) {
            return Some(RETRY);
        }
        self.record.seen.saw("source went on after a failed migration");
        self.vms[vm].locks.push(Lock { qemu: source.id });
        self.hosts[from].domains.insert(vm, Qemu { state: QemuState::Running, ..source });
        self.say(from, |world| format!("  {} goes on here: its migration failed", world.setup.vms[vm].name));
        if !source.frozen {
            self.execute(from, vm);
        }
        self.domain_changed(from, vm, None);
        None
    }

    /// The source's QEMU ends: the VM is elsewhere.
    fn confirm_migration(&mut self, migration: &Migration) -> Option<u64> {
        let (vm, from, to) = (migration.vm, migration.from, migration.to);
        self.end_of_migration(from, vm, migration.outgoing)?;
        if !self.answers(from) || !self.connected(from, to) {
            return Some(RETRY);
        }
        self.end_qemu(from, vm, StopCause::Migrated);
        if migration.undefine_source {
            self.hosts[from].definitions.remove(&vm);
        }
        None
    }

    /// Its source has gone: the target's libvirtd will notice.
    fn orphan(&mut self, migration: &mut Migration) -> u64 {
        self.record.seen.saw("migration lost its source");
        migration.stage = Stage::Orphaned;
        if self.hosts[migration.from].powered { self.dice.below(500_000) } else { self.dice.below(KEEPALIVE) }
    }

    /// Libvirt removes the target; later, when it does nothing now.
    fn remove_target(&mut self, migration: &Migration) -> Option<u64> {
        self.end_of_migration(migration.to, migration.vm, migration.incoming)?;
        if !self.answers(migration.to) {
            return Some(RETRY);
        }
        self.end_qemu(migration.to, migration.vm, StopCause::Crashed);
        None
    }
}
