//! R2: which registers this host reads, when, and what for.
//!
//! Invariant: at most one read for each purpose is under way. A hung datastore holds a bounded number of operations.
//!
//! It does not: keep what was read, or know what follows from it.

use crate::effect::DiskAction;
use crate::ids::{DatastoreName, Epoch, HostId, OpId};
use crate::out::Out;
use crate::register::{ListStamp, RegisterId};
use crate::time::{Span, Time};
use crate::timing::Timing;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What a read is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Purpose {
    /// This host's own registers, at the start.
    Open,
    /// Heartbeats and ownership blocks of others.
    Scan,
    /// Power-on lists of others.
    PowerOn,
    /// All ownership blocks and the protected list, for this host's claims.
    Look,
    /// All ownership blocks, between two steps of the consensus.
    Consensus,
    /// Former protected lists and all power-on lists, for a new epoch.
    TakeOver(Epoch),
    /// Everything that tells which epochs there were after that one, since this host's own block was lost.
    Recover(Epoch),
}

/// A read under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) purpose: Purpose,
    pub(crate) started: Time,
}

/// What decides whose registers are watched, and how closely.
pub(crate) struct Watch<'a> {
    pub(crate) peers: &'a [HostId],
    /// The owner of the datastore, where that is another host. Only a scan asks.
    pub(crate) owner: Option<HostId>,
    /// This host has the protected list: it decides.
    pub(crate) owns: bool,
    /// This host follows a primary that it hears.
    pub(crate) secondary: bool,
    /// Somebody is silent: look more closely.
    pub(crate) suspicious: bool,
    /// Everybody's heartbeat is watched, whoever owns the datastore.
    pub(crate) everybody: bool,
    /// This host beats here now and then only.
    pub(crate) slow: bool,
    /// Hosts that are alive but not heard: what they write is looked at each heartbeat.
    pub(crate) cut_off: &'a [HostId],
}

/// The reads of one datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Reads {
    datastore: DatastoreName,
    under_way: BTreeMap<OpId, Read>,
    open_due: Time,
    scan_due: Time,
    resync_due: Time,
    look_due: Time,
    /// Peers whose power-on list should be read, for a hint or an intent.
    wanted_power_on: BTreeSet<HostId>,
    /// The newest version of the protected list of which this host has heard.
    list_hint: Option<ListStamp>,
}

impl Reads {
    pub(crate) fn new(datastore: DatastoreName, now: Time) -> Reads {
        Reads {
            datastore,
            under_way: BTreeMap::new(),
            open_due: now,
            scan_due: now,
            resync_due: now,
            look_due: now,
            wanted_power_on: BTreeSet::new(),
            list_hint: None,
        }
    }

    /// Begins a read.
    pub(crate) fn begin(&mut self, purpose: Purpose, registers: Vec<RegisterId>, out: &mut Out<'_>) {
        assert!(!self.is_under_way(&purpose), "two reads for one purpose are under way: {purpose:?}");
        let op = out.disk(&self.datastore, DiskAction::Read(registers));
        self.under_way.insert(op, Read { purpose, started: out.now });
    }

    /// A read for that purpose is under way.
    pub(crate) fn is_under_way(&self, purpose: &Purpose) -> bool {
        self.under_way.values().any(|read| read.purpose == *purpose)
    }

    /// A read for a recovery is under way.
    pub(crate) fn is_recovering(&self) -> bool {
        self.under_way.values().any(|read| matches!(read.purpose, Purpose::Recover(_)))
    }

    /// Whether that operation is a read of this datastore.
    pub(crate) fn expects(&self, op: OpId) -> bool {
        self.under_way.contains_key(&op)
    }

    /// That read is done.
    pub(crate) fn take(&mut self, op: OpId) -> Option<Read> {
        self.under_way.remove(&op)
    }

    /// Reads this host's own registers, as an earlier run left them.
    pub(crate) fn open(&mut self, me: &HostId, timing: &Timing, out: &mut Out<'_>) {
        if out.now >= self.open_due && self.under_way.is_empty() {
            self.open_due = out.now + timing.heartbeat;
            let own = [RegisterId::PowerOn(me.clone()), RegisterId::Ownership(me.clone())];
            self.begin(Purpose::Open, own.to_vec(), out);
        }
    }

    /// Whether it is time for a scan.
    pub(crate) fn is_scan_due(&self, now: Time) -> bool {
        now >= self.scan_due && !self.is_under_way(&Purpose::Scan)
    }

    /// Reads what has to be watched: everybody for a primary or a candidate, else only the owner.
    pub(crate) fn scan(&mut self, watch: Watch<'_>, timing: &Timing, out: &mut Out<'_>) {
        let owns = watch.owns;
        if self.is_scan_due(out.now) {
            let interval = match (watch.suspicious, watch.slow) {
                (true, _) => timing.close_look(),
                (false, true) => timing.resync(),
                (false, false) => timing.heartbeat,
            };
            self.scan_due = out.now + interval;
            let whom = match watch.owner {
                Some(owner) if watch.secondary && !watch.suspicious && !watch.everybody => [owner].to_vec(),
                Some(_) | None => watch.peers.to_vec(),
            };
            // An owner need not watch for contenders: its own lease silences it in time, whoever comes after it.
            let of = |host: HostId| {
                let block = (!owns).then(|| RegisterId::Ownership(host.clone()));
                [RegisterId::Heartbeat(host)].into_iter().chain(block)
            };
            if owns {
                self.wanted_power_on.extend(watch.cut_off.iter().cloned());
            }
            let registers: Vec<RegisterId> = whom.into_iter().flat_map(of).collect();
            if !registers.is_empty() {
                self.begin(Purpose::Scan, registers, out);
            }
        }
        if owns && out.now >= self.resync_due {
            self.resync_due = out.now + timing.resync();
            self.wanted_power_on.extend(watch.peers.iter().cloned());
        }
        if owns && !self.wanted_power_on.is_empty() && !self.is_under_way(&Purpose::PowerOn) {
            let wanted = core::mem::take(&mut self.wanted_power_on);
            // With the heartbeat: a take-over is confirmed only after both were read once more (R41).
            let registers = wanted
                .into_iter()
                .flat_map(|host| [RegisterId::Heartbeat(host.clone()), RegisterId::PowerOn(host)])
                .collect();
            self.begin(Purpose::PowerOn, registers, out);
        }
    }

    /// The owner wants that host's registers read again, by a read that starts after now.
    pub(crate) fn want_power_on(&mut self, host: &HostId) {
        self.wanted_power_on.insert(host.clone());
    }

    /// This host has heard of that version of the protected list.
    pub(crate) fn hint_list(&mut self, stamp: ListStamp) {
        self.list_hint = self.list_hint.max(Some(stamp));
    }

    /// What was hinted at may not exist at all.
    pub(crate) fn forget_hint(&mut self) {
        self.list_hint = None;
    }

    /// Whether to look at the protected list for this host's claims. `wanted`: the claims need a look that starts now. `hasty`:
    /// the last look is young and was inconclusive, since an epoch is about to change. That is not repeated in a tight loop.
    pub(crate) fn is_look_due(&self, wanted: bool, hasty: bool, now: Time) -> bool {
        !self.is_under_way(&Purpose::Look) && (now >= self.look_due || (wanted && !hasty))
    }

    /// Looks at the protected list of the present epoch. The next look comes after `interval`.
    pub(crate) fn look(&mut self, epoch: Option<Epoch>, peers: &[HostId], interval: Span, out: &mut Out<'_>) {
        self.look_due = out.now + interval;
        let mut registers: Vec<RegisterId> = peers.iter().cloned().map(RegisterId::Ownership).collect();
        let epoch = epoch.max(self.list_hint.map(|stamp| stamp.epoch));
        registers.extend(epoch.map(RegisterId::ProtectedList));
        if !registers.is_empty() {
            self.begin(Purpose::Look, registers, out);
        }
    }

    /// The next look is at that time, unless one is wanted before.
    pub(crate) fn look_at(&mut self, at: Time) {
        self.look_due = at;
    }

    /// The next look is no later than that.
    pub(crate) fn look_by(&mut self, at: Time) {
        self.look_due = self.look_due.min(at);
    }

    /// All power-on lists are read no later than that.
    pub(crate) fn resync_by(&mut self, at: Time) {
        self.resync_due = self.resync_due.min(at);
    }

    /// When to read this host's own registers, while that has not been done.
    pub(crate) fn open_deadline(&self) -> Option<Time> {
        self.under_way.is_empty().then_some(self.open_due)
    }

    /// When to read next. `owns`: this host has the protected list.
    pub(crate) fn deadline(&self, owns: bool) -> Option<Time> {
        let scan = (!self.is_under_way(&Purpose::Scan)).then_some(self.scan_due);
        let resync = (owns && !self.is_under_way(&Purpose::PowerOn)).then_some(self.resync_due);
        let look = (!self.is_under_way(&Purpose::Look)).then_some(self.look_due);
        [scan, resync, look].into_iter().flatten().min()
    }
}
