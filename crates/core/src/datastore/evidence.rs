//! What a datastore shows of the other hosts.

use super::*;
use crate::register::{ClaimState, StopCause};

impl Datastore {
    /// What is known of a host from this datastore: `None` when it can't be read.
    pub(crate) fn evidence(&self, host: &HostId, now: Time) -> Option<DiskEvidence> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        if now.since(sighting.last_read) > self.config.timing.failure_timeout {
            return None;
        }
        let block = self.blocks.get(host).and_then(Option::as_ref);
        // An ownership block that moves is as good a sign of life as a heartbeat.
        let block_changed = block.filter(|block| block.value.is_some()).map(|block| block.first_seen);
        let moves = sighting.value.is_some() || self.marks.get(host).is_some_and(|(_, ever)| *ever);
        let changed = moves.then_some(sighting.first_seen).max(block_changed);
        let still = block.map_or(sighting.still(), |block| {
            if now.since(block.last_read) > self.config.timing.failure_timeout {
                sighting.still()
            } else {
                sighting.still().min(block.still())
            }
        });
        // R13: where it beats slowly, it is missed later.
        let slow = sighting.value.as_ref().is_some_and(|register| register.slow);
        let still = if slow { still - self.config.timing.resync().min(still) } else { still };
        // What was read long ago says nothing about now.
        let isolation_flag = self.seen_power_on.get(host).is_some_and(|seen| {
            seen.list.isolated && now.since(seen.started) <= self.config.timing.failure_timeout
        });
        let agent_well = sighting.value.as_ref().is_some_and(|register| register.agent_well);
        let failure_timeout = self.timeouts.get(host).copied().unwrap_or_default();
        Some(DiskEvidence { still: Some(still), changed, isolation_flag, agent_well, failure_timeout, slow })
    }

    /// R14: the longest failure time-out that any host has written here, or this host's own.
    pub(crate) fn longest_timeout(&self) -> Span {
        self.timeouts.values().copied().fold(self.config.timing.failure_timeout, Span::max)
    }

    /// The run of that host's agent that is connected to the guard that beats here.
    pub(crate) fn heartbeat_incarnation(&self, host: &HostId) -> Option<Incarnation> {
        let sighting = self.heartbeats.get(host)?.as_ref()?;
        sighting.value.as_ref()?.agent
    }

    /// R45: a host's guard shows another boot: what was its agent when the boot before ended?
    pub(super) fn note_boot(&mut self, host: &HostId, value: Option<&HeartbeatRegister>) {
        let before = self.heartbeats.get(host).and_then(Option::as_ref);
        let before = before.and_then(|sighting| sighting.value.as_ref());
        if let (Some(before), Some(value)) = (before, value)
            && before.boot != value.boot
        {
            let run = self.seen_power_on.get(host).map(|seen| seen.list.incarnation);
            let well = before.agent_well && before.agent.is_some() && before.agent == run;
            self.ended_well.insert(host.clone(), well);
        }
    }

    /// Whether that run of the host's agent was well when the host last showed itself here; and, while claims of its former boot
    /// are still to be dealt with, whether it was then.
    pub(crate) fn was_well(&self, host: &HostId, run: Incarnation) -> bool {
        let lost = |seen: &PowerOnSeen| {
            let by_reboot = ClaimState::Stopped { cause: StopCause::HostFailed };
            seen.list.claims.iter().any(|claim| claim.state == by_reboot)
        };
        if self.ended_well.get(host) == Some(&false) && self.seen_power_on.get(host).is_some_and(lost) {
            return false;
        }
        let seen = self.heartbeats.get(host).and_then(Option::as_ref);
        let register = seen.and_then(|sighting| sighting.value.as_ref());
        register.is_some_and(|register| register.agent_well && register.agent == Some(run))
    }

    /// For each peer: when the last answered read of its heartbeat register was started.
    pub(crate) fn heartbeat_reads(&self) -> BTreeMap<HostId, Time> {
        let read = |(host, sighting): (&HostId, &Option<Sighting<_>>)| {
            Some((host.clone(), sighting.as_ref()?.last_read))
        };
        self.heartbeats.iter().filter_map(read).collect()
    }

    /// All power-on lists, this host's own included.
    pub(crate) fn power_on_lists(&self, now: Time) -> BTreeMap<HostId, PowerOnSeen> {
        let mut lists = self.seen_power_on.clone();
        if let Some(durable) = &self.power_on.durable {
            lists
                .insert(self.me.clone(), PowerOnSeen { list: durable.clone(), started: now, damaged: false });
        }
        lists
    }

    /// A hint by network: that host's power-on list has this version.
    pub(crate) fn on_power_on_hint(&mut self, host: &HostId, version: u64) {
        if self.seen_power_on.get(host).is_none_or(|seen| seen.list.version != version) {
            self.wanted_power_on.insert(host.clone());
        }
    }

    /// A hint by network: the owner has written this version of the list.
    pub(crate) fn on_list_hint(&mut self, stamp: ListStamp) {
        let seen = self.look.as_ref().map(|look| look.list.stamp());
        if seen.is_none_or(|seen| seen < stamp) {
            self.lists_hint = self.lists_hint.max(Some(stamp));
            self.claims.look_wanted = true;
        }
    }
}
