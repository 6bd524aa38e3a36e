//! What is on a datastore: *registers*, each written by one host and read by all. This file has their
//! contents; how they become bytes is `mainstay-formats`' matter, how they reach a disk is `mainstay-storage`'s.
//!
//! Invariant: a register has one writer (R1). `ProtectedList(epoch)` has the owner of that epoch, all others the host they name.

mod ownership;

pub use crate::vm::{IsolationResponse, Priority, VmNeeds, VmSpec};
pub use ownership::{Accepted, Ballot, OwnerBeat, OwnershipBlock};

use crate::files::FilesDigest;
use crate::guard::GuardWord;
use crate::ids::{BootId, Epoch, HostId, Incarnation, Token, VmId};
use crate::pair::written_as_pair;
use crate::settings::{HostOffers, Settings};
use crate::time::Span;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Names a register of a datastore.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RegisterId {
    /// `host-X-hb`: that host's datastore heartbeat.
    Heartbeat(HostId),
    /// `host-X-poweron`: that host's power-on list: its claims and its isolation flag.
    PowerOn(HostId),
    /// `host-X-owner`: that host's part in the consensus on ownership, and its beat as owner.
    Ownership(HostId),
    /// The protected list of an epoch (a region of `protectedlist`, see [`LIST_REGIONS`]).
    ProtectedList(Epoch),
}

/// The file `protectedlist` has this many regions; an epoch uses region `epoch % LIST_REGIONS`. So a late write of a former owner
/// lands where nobody looks: only a write still under way after eight more changes of owner could do harm.
pub const LIST_REGIONS: u64 = 8;

/// The contents of a register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RegisterValue {
    /// The contents of a [`RegisterId::Heartbeat`].
    Heartbeat(HeartbeatRegister),
    /// The contents of a [`RegisterId::PowerOn`].
    PowerOn(PowerOnList),
    /// The contents of a [`RegisterId::Ownership`].
    Ownership(OwnershipBlock),
    /// The contents of a [`RegisterId::ProtectedList`].
    ProtectedList(ProtectedList),
}

/// A host's sign of life on a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HeartbeatRegister {
    /// The host's present boot.
    pub boot: BootId,
    /// The run of the guard, which writes it.
    pub incarnation: Incarnation,
    /// Grows by one with each write. Only its changing counts, never its value.
    pub counter: u64,
    /// The run of the agent that is connected to the guard.
    #[serde(default)]
    pub agent: Option<Incarnation>,
    /// Whether the host's agent has shown itself lately (the guard beats while the agent is down).
    pub agent_well: bool,
    /// The failure time-out of that host: whoever waits for it to be gone waits at least as long.
    #[serde(default)]
    pub failure_timeout: Option<Span>,
    /// It beats slowly here ([`crate::Timing::resync`]): this is none of its heartbeat datastores, and it has no VMs here.
    #[serde(default)]
    pub slow: bool,
    /// The guard was told, for a suspension of protection, not to freeze VMs of this datastore for so long from this write on:
    /// until then they may run on although the host shows nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,
    /// What the file of that agent says of the cluster. `None`: no agent has told the guard yet, or it is of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<FilesDigest>,
}

/// `host-X-poweron`: what a host runs or is about to run of the VMs homed on this datastore.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PowerOnList {
    /// The boot in which this was written.
    pub boot: BootId,
    /// The agent that wrote it.
    pub incarnation: Incarnation,
    /// Grows by one with each write.
    pub version: u64,
    /// Whether the host believes that it is isolated.
    pub isolated: bool,
    /// The newest protected list that the host has acted on: a grant in it without a claim here has been declined.
    pub list_seen: Option<ListStamp>,
    /// Libvirt has answered to this run of the agent, and whatever it shows running, or arriving, of this datastore is among the
    /// claims: what is not, is not there.
    #[serde(default)]
    pub complete: bool,
    /// What the host can give to VMs; `None`: it does not know yet, or is of an older release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offers: Option<Arc<HostOffers>>,
    /// Whether the host's guard answers: while it does not, nothing can freeze what runs there.
    #[serde(default, skip_serializing_if = "GuardWord::is_silent")]
    pub guard: GuardWord,
    /// One for each VM, in the order of their ids.
    pub claims: Vec<Claim>,
}

impl PowerOnList {
    /// That of a host that has never written one.
    pub fn empty() -> PowerOnList {
        PowerOnList {
            boot: BootId([0; 16]),
            incarnation: Incarnation(0),
            version: 0,
            isolated: false,
            list_seen: None,
            complete: false,
            offers: None,
            guard: GuardWord::default(),
            claims: Vec::new(),
        }
    }
}

/// Which version of which epoch's protected list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListStamp {
    /// The epoch in which the list was written.
    pub epoch: Epoch,
    /// Its version within the epoch.
    pub version: u64,
}

/// A host's word about one VM. While it stands in a running state, nobody else may run that VM.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The VM that the claim is about.
    pub vm: VmId,
    /// Its libvirt name.
    pub name: Arc<str>,
    /// The grant under which it is held. `None`: the VM runs here without one (its user started it, or it came by live
    /// migration) and the host asks the owner for one.
    pub token: Option<Token>,
    /// What the host does with it.
    pub state: ClaimState,
    /// What the VM needs and how it is to be treated; known once its domain XML is stored on the datastore.
    pub spec: Option<VmSpec>,
    /// The host has asked the guest to shut down, for isolation, and may have thought better of it since: if the guest goes
    /// down all the same, that is not its user's word.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub asked_to_stop: bool,
    /// The host powers it off, for isolation: that it is destroyed is not its user's word.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub powering_off: bool,
    /// What its guest has shown in this run of it.
    #[serde(default, skip_serializing_if = "Guest::is_silent")]
    pub guest: Guest,
    /// What became of the [`Entry::order`] of that number that could not be carried out, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_failed: Option<FailedOrder>,
    /// Libvirt did not answer, and the guard has seen its process end: it stopped, and only why is not known.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub ended: bool,
    /// Without a grant: the newest grant of the VM that is known to be older than its arrival here. (What no list knew came under
    /// none.) Whoever was granted it later has run it since.
    #[serde(default, skip_serializing_if = "is_no_grant")]
    pub under: Token,
}

fn is_no_grant(token: &Token) -> bool {
    *token == Token::default()
}

/// An order that a host could not carry out.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FailedOrder {
    /// The order's number.
    pub number: u64,
    /// Why not, in words.
    pub reason: Arc<str>,
}

written_as_pair!(FailedOrder { number: u64, reason: Arc<str> });

/// What a guest has shown of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guest {
    /// It has shown nothing yet.
    #[default]
    Silent,
    /// Its guest agent has answered.
    Answers,
    /// The command set for it has succeeded.
    CommandSucceeded,
}

impl Guest {
    /// Whether it has shown nothing yet.
    pub fn is_silent(&self) -> bool {
        *self == Guest::Silent
    }
}

/// The states of a claim. The last two are left behind for the owner to read (and removed when it has drawn its conclusion).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaimState {
    /// Written before the VM is started.
    Starting,
    /// It executes under the grant.
    Running,
    /// It is there, but must not execute: the lease is over.
    Frozen,
    /// An isolation response is under way.
    Stopping,
    /// It is arriving by live migration: its QEMU is there and waits for the source's last word.
    Migrating,
    /// It has stopped here.
    Stopped {
        /// Why: decides whether it is restarted.
        cause: StopCause,
    },
    /// It could not be started here.
    StartFailed {
        /// The reason, in words for the user.
        reason: Arc<str>,
    },
}

impl ClaimState {
    /// Whether the VM is there and would execute but for the lease.
    pub fn is_running_or_frozen(&self) -> bool {
        matches!(self, ClaimState::Running | ClaimState::Frozen)
    }

    /// Whether the host has let go of the VM: it does not execute there and will not without a new grant.
    pub fn is_released(&self) -> bool {
        match self {
            ClaimState::Stopped { .. } | ClaimState::StartFailed { .. } => true,
            ClaimState::Starting
            | ClaimState::Running
            | ClaimState::Frozen
            | ClaimState::Stopping
            | ClaimState::Migrating => false,
        }
    }
}

/// Why a VM is not running on a host any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StopCause {
    /// The guest powered itself off.
    GuestShutdown,
    /// Its user asked it to shut down (`virsh shutdown`).
    UserShutdown,
    /// Its user destroyed it (`virsh destroy`).
    UserDestroyed,
    /// Its user saved or suspended it to disk.
    Saved,
    /// It left by live migration.
    Migrated,
    /// Its disk was moved to another datastore: it is protected there.
    MovedAway,
    /// QEMU crashed, was killed, or the guest panicked.
    Crashed,
    /// The host went down under it.
    HostFailed,
    /// Its host was isolated and applied its isolation response.
    Isolation,
    /// It was ended to be started elsewhere, because its guest was not seen to come up.
    NotVerified,
    /// The host gave the grant back before starting it.
    Withdrawn,
    /// Nobody can say (it went away while agent and libvirt were both down).
    Unknown,
    /// It was asked to shut down for maintenance of its host (R74). Its owner knows and tells so; a claim never says so.
    Maintenance,
}

impl StopCause {
    /// Whether the VM stopped by somebody's will, and so is to stay down (I4, R44).
    pub fn is_intended(self) -> bool {
        match self {
            StopCause::GuestShutdown
            | StopCause::UserShutdown
            | StopCause::UserDestroyed
            | StopCause::Saved
            | StopCause::MovedAway
            | StopCause::Maintenance => true,
            StopCause::Migrated
            | StopCause::Crashed
            | StopCause::HostFailed
            | StopCause::Isolation
            | StopCause::NotVerified
            | StopCause::Withdrawn
            | StopCause::Unknown => false,
        }
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StopCause::GuestShutdown => "the guest powered itself off",
            StopCause::UserShutdown => "its user shut it down",
            StopCause::UserDestroyed => "its user destroyed it",
            StopCause::Saved => "its user saved it",
            StopCause::Migrated => "it migrated away",
            StopCause::MovedAway => "its disk was moved to another datastore",
            StopCause::Crashed => "QEMU crashed or was killed",
            StopCause::HostFailed => "its host went down",
            StopCause::Isolation => "its host was isolated",
            StopCause::NotVerified => "its guest agent did not answer after the restart",
            StopCause::Withdrawn => "the host gave the grant back",
            StopCause::Unknown => "it vanished while nobody watched",
            StopCause::Maintenance => "it was shut down for maintenance of its host",
        })
    }
}

/// The protected VMs homed on a datastore, as the owner of an epoch sees and decides it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProtectedList {
    /// The epoch of its writer.
    pub epoch: Epoch,
    /// Grows by one with each write of the epoch.
    pub version: u64,
    /// The owner that wrote it.
    pub owner: HostId,
    /// One for each VM, in the order of their ids.
    pub entries: Vec<Entry>,
    /// The settings of the cluster.
    #[serde(default, skip_serializing_if = "no_settings")]
    pub settings: Arc<Settings>,
    /// Protection is suspended, or is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// Holds that were given for a suspension, also one that is over, may last so long from this write on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Span>,
}

fn no_settings(settings: &Arc<Settings>) -> bool {
    **settings == Settings::default()
}

/// A suspension of protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Suspension {
    /// How much of it is left from this write on.
    pub left: Span,
    /// It stands. Otherwise it waits for failovers in progress.
    pub stands: bool,
}

/// What the owner asks the holder to do with a VM that runs there (R74). The holder obeys as if its user had typed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Order {
    /// Tells this order from the one before.
    pub number: u64,
    /// What is to be done.
    pub what: OrderKind,
}

/// What an owner can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// Live-migrate it to that host.
    Migrate(HostId),
    /// Ask its guest to shut down; it stays off.
    ShutDown,
    /// End it: its guest was not seen to come up, and it is to be started elsewhere.
    StartElsewhere,
}

impl ProtectedList {
    /// Which version of which epoch this list is.
    pub fn stamp(&self) -> ListStamp {
        ListStamp { epoch: self.epoch, version: self.version }
    }

    /// The entry of that VM.
    pub fn entry(&self, vm: VmId) -> Option<&Entry> {
        self.entries.binary_search_by_key(&vm, |entry| entry.vm).ok().map(|index| &self.entries[index])
    }
}

/// One VM of the protected list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The VM that the entry is about.
    pub vm: VmId,
    /// Its libvirt name.
    pub name: Arc<str>,
    /// What it needs.
    pub spec: VmSpec,
    /// Whether it is to run.
    pub desired: Desired,
    /// The user took it out of protection: it is watched, never restarted.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unprotected: bool,
    /// The host that may run it.
    pub holder: Option<HostId>,
    /// Names the grant to the holder (or the last one, when there is no holder).
    pub token: Token,
    /// The host that is to get it, written before the present holder's registers are read once more (section 7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<HostId>,
    /// How often it was granted since it last ran well: drives back-off, survives a change of owner.
    pub attempts: u32,
    /// The host whose failure made it be moved, for as long as it has not been seen running since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_over_from: Option<HostId>,
    /// The owner has seen it running after the last grant of a restart.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub verified: bool,
    /// The host where there is room for it: the owner is responsible for restarting it when its isolated holder has
    /// released it. Only then may the holder apply the isolation response (I2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub responsible: Option<HostId>,
    /// Its own isolation response; `None`: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation_response: Option<IsolationResponse>,
    /// Its own time-out for shutting down; `None`: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_timeout: Option<Span>,
    /// Hosts that failed to start it since it last ran well: tried last, and the reason of the wait between tries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_on: Vec<HostId>,
    /// Its guest agent has answered in some run of it: a restart is a success only when it answers again.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub has_agent: bool,
    /// What the holder is asked to do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// The host in maintenance that it was moved away from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evacuated_from: Option<HostId>,
    /// Its guest agent did not answer after a restart, and it was left running like that: an alarm, until it answers.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub mute: bool,
    /// It has not been seen to run under its present grant. The grant under which it last ran: a stop on purpose under that one,
    /// or a later one, still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ran_under: Option<Token>,
    /// Its holder has asked its guest to shut down, for isolation, or may: the holder's own list, which says so, can be lost.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub asked_to_stop: bool,
}

impl Entry {
    /// The entry of a VM that was found running on that host.
    pub fn running_on(host: &HostId, claim: &Claim, spec: &VmSpec, token: Token) -> Entry {
        Entry {
            vm: claim.vm,
            name: claim.name.clone(),
            spec: spec.clone(),
            desired: Desired::On,
            unprotected: false,
            holder: Some(host.clone()),
            token,
            intent: None,
            attempts: 0,
            failed_over_from: None,
            verified: false,
            responsible: None,
            isolation_response: None,
            shutdown_timeout: None,
            failed_on: Vec::new(),
            has_agent: claim.guest != Guest::Silent,
            order: None,
            evacuated_from: None,
            mute: false,
            ran_under: None,
            asked_to_stop: false,
        }
    }
}

/// Whether a VM is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Desired {
    /// Yes: it ran, and nobody stopped it on purpose.
    On,
    /// No: its user or its guest stopped it.
    Off,
}
