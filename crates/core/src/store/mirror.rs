//! R2, R11, R14, R15, R45: what this host has read of the registers of others on one datastore.
//!
//! Every answer to a read refreshes what is known of each register in it, whatever the read was for. From that the mirror
//! tells how long a host's registers stand still, which times it has written, and whether its agent was well.
//!
//! Invariant: what is known of a register never goes back. An earlier version of a heartbeat, or a power-on list from a read
//! that started earlier, changes nothing.
//!
//! It does not: know which reads are due, judge whether a host is alive, or keep the protected list.

use super::{Blocks, Sighting, file_of};
use crate::event::Event;
use crate::files::FilesDigest;
use crate::hosts::{DiskEvidence, Said};
use crate::ids::{BootId, DatastoreName, Epoch, HostId, Incarnation};
use crate::out::Out;
use crate::register::{
    ClaimState, HeartbeatRegister, OwnershipBlock, PowerOnList, RegisterId, RegisterValue, StopCause,
};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use serde::{Deserialize, Serialize};

/// A power-on list as last read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PowerOnSeen {
    pub(crate) list: Arc<PowerOnList>,
    /// When the read was started.
    pub(crate) started: Time,
    /// That read found it damaged: the list is what was read before, or empty.
    pub(crate) damaged: bool,
}

/// R15: a heartbeat that can't be read, as its bytes look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Mark {
    value: u64,
    /// It has changed since the heartbeat was last legible: somebody writes it.
    moved: bool,
}

/// What a host's heartbeat said last of its file, and in which boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Word {
    boot: BootId,
    files: FilesDigest,
}

/// What a read of a heartbeat has shown of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeartbeatShown {
    /// Nothing that was not known.
    Nothing,
    /// The register has changed: a sign of life, and no more than that.
    Change,
    /// A new heartbeat. `hold`: what it tells of a hold of its host's guard.
    Heartbeat { hold: Option<Span> },
}

/// What was read of the registers of others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Mirror {
    datastore: DatastoreName,
    heartbeats: BTreeMap<HostId, Option<Sighting<Option<HeartbeatRegister>>>>,
    /// Of those whose heartbeat can't be read now.
    marks: BTreeMap<HostId, Mark>,
    /// R14: the failure time-outs that hosts have written.
    timeouts: BTreeMap<HostId, Span>,
    /// R45: whether the agent of a host was well to the end of the boot before its present one.
    ended_well: BTreeMap<HostId, bool>,
    /// What this host's file says, and what those of others said last, in which boot.
    files: FilesDigest,
    words: BTreeMap<HostId, Word>,
    blocks: Blocks,
    power_on: BTreeMap<HostId, PowerOnSeen>,
    /// How often a register could not be read.
    unreadable: u64,
    /// Registers that can't be read, and the reason that people were told.
    unreadable_told: BTreeMap<RegisterId, Arc<str>>,
    /// Hosts that are down by a person's word.
    confirmed_down: BTreeSet<HostId>,
}

impl Mirror {
    pub(crate) fn new(datastore: DatastoreName, peers: &[HostId], files: FilesDigest) -> Mirror {
        Mirror {
            datastore,
            heartbeats: peers.iter().map(|host| (host.clone(), None)).collect(),
            marks: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            files,
            words: BTreeMap::new(),
            ended_well: BTreeMap::new(),
            blocks: peers.iter().map(|host| (host.clone(), None)).collect(),
            power_on: BTreeMap::new(),
            unreadable: 0,
            unreadable_told: BTreeMap::new(),
            confirmed_down: BTreeSet::new(),
        }
    }

    /// A heartbeat was read; `None`: it was never written.
    pub(crate) fn take_in_heartbeat(
        &mut self,
        host: &HostId,
        value: Option<RegisterValue>,
        started: Time,
        now: Time,
    ) -> HeartbeatShown {
        let value = match value {
            Some(RegisterValue::Heartbeat(register)) => Some(register),
            Some(_) | None => None,
        };
        if let Some(timeout) = value.as_ref().and_then(|register| register.failure_timeout) {
            self.timeouts.insert(host.clone(), timeout);
        }
        let seen = self.heartbeats.get(host).and_then(Option::as_ref);
        let older = seen.is_some_and(|seen| is_older(seen, value.as_ref()));
        let run = |register: &HeartbeatRegister| (register.incarnation, register.counter);
        let changed = seen.is_none_or(|seen| seen.value.as_ref().map(run) != value.as_ref().map(run));
        let shown = match value.as_ref().filter(|_| !older) {
            _ if !changed => HeartbeatShown::Nothing,
            Some(register) => HeartbeatShown::Heartbeat { hold: register.hold },
            None => HeartbeatShown::Change,
        };
        if changed && !older {
            self.forget_confirmation(host);
        }
        self.marks.remove(host);
        if let Some(register) = value.as_ref().filter(|_| !older) {
            self.note_word(host, register);
        }
        self.note_boot(host, value.as_ref());
        match self.heartbeats.get_mut(host) {
            Some(Some(seen)) if older => seen.last_read = seen.last_read.max(started),
            Some(slot) => drop(Sighting::update(slot, value, started, now)),
            None => {}
        }
        shown
    }

    /// An ownership block was read; `None`: it was never written.
    pub(crate) fn take_in_block(
        &mut self,
        host: &HostId,
        value: Option<RegisterValue>,
        started: Time,
        now: Time,
    ) {
        let value = match value {
            Some(RegisterValue::Ownership(block)) => Some(block),
            Some(_) | None => None,
        };
        if let Some(slot) = self.blocks.get_mut(host) {
            Sighting::update(slot, value, started, now);
        }
    }

    /// A power-on list was read; `None`: it was never written, and so that host has never claimed anything here.
    pub(crate) fn take_in_power_on(&mut self, host: &HostId, value: Option<RegisterValue>, started: Time) {
        let list = match value {
            Some(RegisterValue::PowerOn(list)) => list,
            Some(_) | None => PowerOnList::empty(),
        };
        if self.power_on.get(host).is_none_or(|seen| seen.started <= started) {
            self.power_on.insert(host.clone(), PowerOnSeen { list: list.into(), started, damaged: false });
        }
    }

    /// R15: a heartbeat can't be read; `mark` tells its bytes from others. If it stays the same it stands still like any
    /// other: a host that died while it wrote must not live for ever. But if its bytes go on changing, somebody writes it, in
    /// words that this release does not know.
    pub(crate) fn take_in_damaged_heartbeat(
        &mut self,
        host: &HostId,
        mark: u64,
        started: Time,
        now: Time,
    ) -> HeartbeatShown {
        let before = self.marks.get(host).copied();
        let changed = before.is_some_and(|before| before.value != mark);
        let moved = changed || before.is_some_and(|before| before.moved);
        self.marks.insert(host.clone(), Mark { value: mark, moved });
        if let Some(slot) = self.heartbeats.get_mut(host) {
            if changed {
                *slot = None;
            }
            Sighting::update(slot, None, started, now);
        }
        if changed { HeartbeatShown::Change } else { HeartbeatShown::Nothing }
    }

    /// A power-on list can't be read. What it said before is the best that is known of it.
    pub(crate) fn take_in_damaged_power_on(&mut self, host: &HostId, started: Time) {
        let unknown = PowerOnSeen { list: PowerOnList::empty().into(), started: Time(0), damaged: true };
        let seen = self.power_on.entry(host.clone()).or_insert(unknown);
        if seen.started <= started {
            seen.started = started;
            seen.damaged = true;
        }
    }

    /// The guard of a former boot had its file; that of this one may not have been told yet.
    fn note_word(&mut self, host: &HostId, register: &HeartbeatRegister) {
        match register.files {
            Some(files) => drop(self.words.insert(host.clone(), Word { boot: register.boot, files })),
            None if self.words.get(host).is_some_and(|word| word.boot != register.boot) => {
                self.words.remove(host);
            }
            None => {}
        }
    }

    /// What that host's heartbeat says of its file, and when it was first seen to say so.
    pub(crate) fn last_word(&self, host: &HostId) -> Option<(Time, Option<FilesDigest>)> {
        let seen = self.heartbeats.get(host)?.as_ref()?;
        Some((seen.first_seen, self.words.get(host).map(|word| word.files)))
    }

    /// Somebody's heartbeat says that its file names other hosts or datastores than this host's.
    pub(crate) fn shows_other_files(&self) -> bool {
        self.words.values().any(|word| word.files != self.files)
    }

    /// The same, of a host that may be alive.
    pub(crate) fn shows_live_other_files(&self, timing: &Timing, now: Time) -> bool {
        let apart = self.words.iter().filter(|(_, word)| word.files != self.files);
        let still = |host: &HostId| self.evidence(host, timing, now).and_then(|evidence| evidence.still);
        let mut still = apart.map(|(host, _)| still(host));
        still.any(|still| still.is_none_or(|still| still < timing.failure_timeout))
    }

    /// R45: a host's guard shows another boot. Was its agent well when the boot before ended?
    fn note_boot(&mut self, host: &HostId, value: Option<&HeartbeatRegister>) {
        let before = self.heartbeats.get(host).and_then(Option::as_ref);
        let before = before.and_then(|sighting| sighting.value.as_ref());
        if let (Some(before), Some(value)) = (before, value)
            && before.boot != value.boot
        {
            let run = self.power_on.get(host).map(|seen| seen.list.incarnation);
            let well = before.agent_well && before.agent.is_some() && before.agent == run;
            self.ended_well.insert(host.clone(), well);
        }
    }

    /// A register can't be read. People are told once for each reason.
    pub(crate) fn on_unreadable(&mut self, id: &RegisterId, reason: Arc<str>, out: &mut Out<'_>) {
        self.unreadable += 1;
        if self.unreadable_told.insert(id.clone(), reason.clone()).as_ref() != Some(&reason) {
            let register = file_of(id);
            out.event(Event::RegisterUnreadable { datastore: self.datastore.clone(), register, reason });
        }
    }

    /// What people were told of registers counts no more.
    pub(crate) fn forget_told(&mut self) {
        self.unreadable_told.clear();
    }

    /// A register was read. People are told if it could not be read before.
    pub(crate) fn on_readable(&mut self, id: &RegisterId, out: &mut Out<'_>) {
        if self.unreadable_told.remove(id).is_some() {
            out.event(Event::RegisterReadable { datastore: self.datastore.clone(), register: file_of(id) });
        }
    }

    /// What is known of a host from this datastore: `None` when it can't be read.
    pub(crate) fn evidence(&self, host: &HostId, timing: &Timing, now: Time) -> Option<DiskEvidence> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        if now.since(sighting.last_read) > timing.failure_timeout {
            return None;
        }
        let block = self.blocks.get(host).and_then(Option::as_ref);
        // An ownership block that moves is as good a sign of life as a heartbeat.
        let block_changed = block.filter(|block| block.value.is_some()).map(|block| block.first_seen);
        let moves = sighting.value.is_some() || self.marks.get(host).is_some_and(|mark| mark.moved);
        let changed = moves.then_some(sighting.first_seen).max(block_changed);
        let still = block.map_or(sighting.still(), |block| {
            if now.since(block.last_read) > timing.failure_timeout {
                sighting.still()
            } else {
                sighting.still().min(block.still())
            }
        });
        // R13: where it beats slowly, it is missed later.
        let slow = sighting.value.as_ref().is_some_and(|register| register.slow);
        let still = if slow { still - timing.resync().min(still) } else { still };
        // What was read long ago says nothing about now.
        let isolation_flag = self
            .power_on
            .get(host)
            .is_some_and(|seen| seen.list.isolated && now.since(seen.started) <= timing.failure_timeout);
        let agent_well = sighting.value.as_ref().is_some_and(|register| register.agent_well);
        let failure_timeout = self.timeouts.get(host).copied().unwrap_or_default();
        Some(DiskEvidence {
            still: Some(still),
            changed,
            isolation_flag,
            agent_well,
            failure_timeout,
            slow,
            ..DiskEvidence::default()
        })
    }

    /// What that host's power-on list here says of its guard.
    pub(crate) fn word_on_guard(&self, host: &HostId) -> Option<Said> {
        self.power_on.get(host).map(|seen| Said { run: seen.list.incarnation, word: seen.list.guard })
    }

    /// A person has seen to it that it is down: that counts until it shows itself.
    pub(crate) fn confirm_down(&mut self, host: &HostId) {
        self.confirmed_down.insert(host.clone());
    }

    /// It has shown itself.
    pub(crate) fn forget_confirmation(&mut self, host: &HostId) {
        self.confirmed_down.remove(host);
    }

    /// Whether a person has seen to it that it is down.
    pub(crate) fn is_confirmed_down(&self, host: &HostId) -> bool {
        self.confirmed_down.contains(host)
    }

    /// Whether some other host's heartbeat has moved here within the failure time-out, as far as is known.
    pub(crate) fn shows_anybody_alive(&self, timing: &Timing, now: Time) -> bool {
        let still = |host: &HostId| self.evidence(host, timing, now).and_then(|evidence| evidence.still);
        self.heartbeats.keys().any(|host| still(host).is_none_or(|still| still < timing.failure_timeout))
    }

    /// Whether that host has written a heartbeat that can't be read, and what it said before is not known.
    pub(crate) fn is_illegible(&self, host: &HostId) -> bool {
        let seen = self.heartbeats.get(host).and_then(Option::as_ref);
        seen.is_some_and(|seen| seen.value.is_none()) && self.marks.contains_key(host)
    }

    /// R14: the longest failure time-out that any host has written here, or `own`.
    pub(crate) fn longest_timeout(&self, own: Span) -> Span {
        self.timeouts.values().copied().fold(own, Span::max)
    }

    /// R14: the failure time-outs that hosts have written here.
    pub(crate) fn timeouts(&self) -> &BTreeMap<HostId, Span> {
        &self.timeouts
    }

    /// The run of that host's agent that is connected to the guard that beats here.
    pub(crate) fn heartbeat_incarnation(&self, host: &HostId) -> Option<Incarnation> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        sighting.value.as_ref()?.agent
    }

    /// For each other host: when the last answered read of its heartbeat register was started.
    pub(crate) fn heartbeat_reads(&self) -> BTreeMap<HostId, Time> {
        let read = |(host, sighting): (&HostId, &Option<Sighting<_>>)| {
            Some((host.clone(), sighting.as_ref()?.last_read))
        };
        self.heartbeats.iter().filter_map(read).collect()
    }

    /// R45: whether that run of the host's agent was well when the host last showed itself here. While claims of the host's
    /// former boot are still to be dealt with, its agent must have been well then, too.
    pub(crate) fn was_well(&self, host: &HostId, run: Incarnation) -> bool {
        let lost = |seen: &PowerOnSeen| {
            let by_reboot = ClaimState::Stopped { cause: StopCause::HostFailed };
            seen.list.claims.iter().any(|claim| claim.state == by_reboot)
        };
        if self.ended_well.get(host) == Some(&false) && self.power_on.get(host).is_some_and(lost) {
            return false;
        }
        let seen = self.heartbeats.get(host).and_then(Option::as_ref);
        let register = seen.and_then(|sighting| sighting.value.as_ref());
        register.is_some_and(|register| register.agent_well && register.agent == Some(run))
    }

    /// The ownership blocks of the others.
    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Every block was read at least once.
    pub(crate) fn has_all_blocks(&self) -> bool {
        self.blocks.values().all(Option::is_some)
    }

    /// What the blocks said when they were last read.
    pub(crate) fn block_values(&self) -> BTreeMap<HostId, Option<OwnershipBlock>> {
        let value = |sighting: &Sighting<Option<OwnershipBlock>>| sighting.value.clone();
        let block = |(host, seen): (&HostId, &Option<Sighting<Option<OwnershipBlock>>>)| {
            (host.clone(), seen.as_ref().and_then(value))
        };
        self.blocks.iter().map(block).collect()
    }

    /// That host's power-on list, if it was read.
    pub(crate) fn power_on(&self, host: &HostId) -> Option<&PowerOnSeen> {
        self.power_on.get(host)
    }

    /// All power-on lists that were read.
    pub(crate) fn power_on_lists(&self) -> &BTreeMap<HostId, PowerOnSeen> {
        &self.power_on
    }

    /// The latest epoch of which any power-on list tells, by a grant or by the protected list that its host had read.
    pub(crate) fn latest_claimed_epoch(&self) -> Option<Epoch> {
        let of_claims = |list: &PowerOnList| {
            let granted = list.claims.iter().filter_map(|claim| Some(claim.token?.epoch)).max();
            granted.max(list.list_seen.map(|stamp| stamp.epoch))
        };
        self.power_on.values().filter_map(|seen| of_claims(&seen.list)).max()
    }

    /// What was read of that host's power-on list counts no more.
    pub(crate) fn forget_power_on(&mut self, host: &HostId) {
        self.power_on.remove(host);
    }

    /// How often a register could not be read.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable
    }
}

/// Whether a heartbeat is an earlier one of the same run than the one seen before: its newer slot was damaged. No sign of life.
fn is_older(seen: &Sighting<Option<HeartbeatRegister>>, value: Option<&HeartbeatRegister>) -> bool {
    match (&seen.value, value) {
        (Some(seen), Some(value)) => seen.incarnation == value.incarnation && value.counter < seen.counter,
        (Some(_) | None, _) => false,
    }
}
