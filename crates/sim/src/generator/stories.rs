//! Stories: sequences of events that have to do with each other, which independent draws put together once in ten thousand seeds or never.
//! Each is drawn from a stream of its own, so that a story of a seed is the same whatever else is drawn.
//!
//! [`DRAWN`] are told in a share of all seeds; any one is told in all seeds of `mainstay sim soak --story NAME`.

mod guards;
mod hosts;
mod registers;
mod waits;

use super::{Plan, SECOND};
use crate::action::Action;
use crate::checkers::Extra;
use crate::dice::Dice;
use mainstay_core::{Command, DatastoreName, HostId};
use std::fmt;
use std::str::FromStr;

/// What a run is about beside the faults that it draws one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The owner stands still while the storage of a failed host comes back, and has something to decide just after.
    OwnerStalls,
    /// A VM that no list knew is granted to a host that has lost its paths; later it is stopped where it runs by then.
    UnlistedCopy,
    /// A user destroys a VM in the first seconds of an outage, while first starts fail elsewhere.
    DestroyedInOutage,
    /// A guard hangs or is gone for minutes; then the network of its host is cut.
    GuardAway,
    /// Agent and guard of a host are away for minutes; then its network is.
    BothAway,
    /// A VM waits for others, and then for a host.
    WaitChanges,
    /// A VM that no other host can take crashes on a host in maintenance.
    CrashInMaintenance,
    /// The primary changes while a VM runs whose guest agent answers no more.
    MuteGuest,
    /// Hosts with different times, one of them in maintenance, and the primary fails.
    MixedTimes,
    /// The storage is slow for everybody, and the agent of the primary is restarted.
    SlowRestart,
    /// A network that is away for some seconds, or flaps, where isolated hosts stop their VMs.
    ShortCuts,
    /// A live migration to a host with slow storage, whose source fails at the switch-over.
    LateClaim,
    /// Registers are destroyed around other events.
    Destroyed,
    /// Registers are removed.
    Removed,
    /// A datastore is put back to an earlier state.
    RolledBack,
    /// The newest protected list is destroyed, and its owner fails.
    ListDestroyed,
    /// A host boots again, and its libvirtd starts what it finds before the agent is there.
    Autostarted,
    /// The storage stands still for everybody while a host is away.
    StallWhileAway,
    /// QEMU is killed while libvirtd hangs.
    KilledUnseen,
}

/// The stories that are told in a share of all seeds. Those that still find what is not mended are not among them: each joins with the rule
/// that mends it.
pub const DRAWN: [Story; 12] = [
    Story::OwnerStalls,
    Story::UnlistedCopy,
    Story::DestroyedInOutage,
    Story::GuardAway,
    Story::BothAway,
    Story::WaitChanges,
    Story::CrashInMaintenance,
    Story::MuteGuest,
    Story::MixedTimes,
    Story::ShortCuts,
    Story::LateClaim,
    Story::KilledUnseen,
];

/// So many of a thousand seeds tell a story.
const SHARE: u64 = 300;

/// How a story stands in the table.
struct Row {
    story: Story,
    name: &'static str,
    /// What it looks for besides.
    extras: &'static [Extra],
    tell: fn(&mut Plan, &mut Dice, u64),
}

use Extra::{Blips, NeverSilent, Unharmed};

const fn row(
    story: Story,
    name: &'static str,
    extras: &'static [Extra],
    tell: fn(&mut Plan, &mut Dice, u64),
) -> Row {
    Row { story, name, extras, tell }
}

const ROWS: [Row; 19] = [
    row(Story::OwnerStalls, "owner-stalls", &[], hosts::owner_stalls),
    row(Story::UnlistedCopy, "unlisted-copy", &[], hosts::unlisted_copy),
    row(Story::DestroyedInOutage, "destroyed-in-outage", &[], hosts::destroyed_in_outage),
    row(Story::GuardAway, "guard-away", &[], guards::guard_away),
    row(Story::BothAway, "both-away", &[], guards::both_away),
    row(Story::WaitChanges, "wait-changes", &[NeverSilent], waits::wait_changes),
    row(Story::CrashInMaintenance, "crash-in-maintenance", &[NeverSilent], waits::crash_in_maintenance),
    row(Story::MuteGuest, "mute-guest", &[NeverSilent], waits::mute_guest),
    row(Story::MixedTimes, "mixed-times", &[], waits::mixed_times),
    row(Story::SlowRestart, "slow-restart", &[Unharmed], guards::slow_restart),
    row(Story::ShortCuts, "short-cuts", &[Blips], guards::short_cuts),
    row(Story::LateClaim, "late-claim", &[], hosts::late_claim),
    row(Story::Destroyed, "destroyed", &[], registers::destroyed),
    row(Story::Removed, "removed", &[Unharmed], registers::removed),
    row(Story::RolledBack, "rolled-back", &[Unharmed], registers::rolled_back),
    row(Story::ListDestroyed, "list-destroyed", &[], registers::list_destroyed),
    row(Story::Autostarted, "autostarted", &[], hosts::autostarted),
    row(Story::StallWhileAway, "stall-while-away", &[Unharmed], guards::stall_while_away),
    row(Story::KilledUnseen, "killed-unseen", &[NeverSilent], waits::killed_unseen),
];

impl Story {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Story> {
        ROWS.iter().map(|row| row.story)
    }

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.story == self).unwrap_or(&ROWS[0])
    }

    /// Its name, as `--story` takes it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The checkers that look for what it is about, beside those of every run.
    pub fn extras(self) -> &'static [Extra] {
        self.row().extras
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Story {
    type Err = String;

    fn from_str(text: &str) -> Result<Story, String> {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        let found = ROWS.iter().find(|row| row.name == text).map(|row| row.story);
        found.ok_or_else(|| format!("there is no story {text:?}; there are {}", names.join(", ")))
    }
}

/// The story that an ordinary seed tells, if it tells one.
pub(super) fn drawn(seed: u64) -> Option<Story> {
    let mut dice = Dice::seeded(seed, 4);
    if dice.permille(SHARE) { dice.pick(&DRAWN).copied() } else { None }
}

impl Plan {
    /// Has the story take place: by itself in most seeds, on top of what was drawn in the others.
    pub(super) fn tell(&mut self, story: Story, seed: u64, calm: u64) {
        let mut dice = Dice::seeded(seed, 5);
        if dice.permille(800) {
            self.schedule.clear();
        }
        self.story = Some(story);
        self.faults_end = calm + SECOND;
        (story.row().tell)(self, &mut dice, calm);
        let last = self.schedule.iter().map(|(at, _)| *at).max().unwrap_or(calm);
        self.faults_end = self.faults_end.max(last + SECOND);
    }

    fn at(&mut self, at: u64, action: Action) {
        self.schedule.push((at, action));
    }

    /// At least so many hosts, at least one VM on each of the first two, and none that only an image lock protects.
    fn stage(&mut self, dice: &mut Dice, hosts: usize) {
        while self.setup.hosts.len() < hosts {
            let mut host = self.setup.hosts[0].clone();
            host.id = HostId::new(&format!("host-{}", 100 + self.setup.hosts.len()));
            host.clock_base = dice.below(1 << 36);
            self.setup.hosts.push(host);
        }
        self.setup.image_lock &= dice.permille(300);
    }

    /// The host that most likely is primary before anything happens.
    fn primary(&self) -> HostId {
        let ids = self.setup.hosts.iter().map(|host| host.id.clone());
        ids.max_by(|a, b| a.as_str().cmp(b.as_str())).unwrap_or_else(|| self.setup.hosts[0].id.clone())
    }

    /// A host with a VM on it that most likely is not primary, and that VM.
    fn secondary_with_vm(&mut self, dice: &mut Dice) -> (HostId, String) {
        let primary = self.primary();
        let host = (0..self.setup.hosts.len()).find(|host| self.setup.hosts[*host].id != primary);
        let host = host.unwrap_or(0);
        let vm = dice.index(self.setup.vms.len());
        self.setup.vms[vm].host = host;
        (self.setup.hosts[host].id.clone(), self.setup.vms[vm].name.to_string())
    }

    fn stores(&self) -> Vec<DatastoreName> {
        self.setup.datastores.iter().map(|store| store.name.clone()).collect()
    }

    fn home_of(&self, vm: &str) -> DatastoreName {
        let store = self.setup.vm(vm).map_or(0, |vm| self.setup.vms[vm].datastore);
        self.setup.datastores[store].name.clone()
    }

    /// All paths of that host to storage are cut for that time.
    fn cut_storage(&mut self, host: &HostId, span: (u64, u64)) {
        for datastore in self.stores() {
            let of = Some(host.clone());
            let begin = Action::DatastoreCut { datastore: datastore.clone(), host: of.clone() };
            self.both(span, begin, Action::DatastoreHeal { datastore, host: of });
        }
    }

    /// Nothing else cuts that host off or ends it: what comes of it is then the story's.
    fn spare(&mut self, host: &HostId) {
        self.schedule.retain(|(_, action)| match action {
            Action::PowerOff { host: other } | Action::NetworkCut { host: other } => other != host,
            Action::LinkCut { from, to } => from != host && to != host,
            _ => true,
        });
    }

    fn cut_network(&mut self, host: &HostId, span: (u64, u64)) {
        let begin = Action::NetworkCut { host: host.clone() };
        self.both(span, begin, Action::NetworkHeal { host: host.clone() });
    }

    fn command(&mut self, at: u64, command: Command) {
        self.at(at, Action::Command { command });
    }
}
