//! What the core tells people: typed, with the objects in fields. What an event says, and what it is about, is a row of the table
//! in `about`, so that log, command line and API say the same.

use crate::ids::{DatastoreName, Epoch, HostId, Incarnation, Token};
use crate::judgement::{HostState, PrimaryReason, Refusal};
use crate::register::{IsolationResponse, OrderKind, StopCause};
use crate::time::Span;
pub use crate::vm::{AutostartChange, VmName};
use alloc::sync::Arc;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// What can happen that a person may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The agent's core has begun.
    AgentStarted {
        /// Whether this is a new boot of the host, as far as its own registers tell.
        rebooted: bool,
    },
    /// This host stands for election.
    ElectionStarted {
        /// What started it, in words.
        reason: Arc<str>,
    },
    /// This host is primary now.
    BecamePrimary {
        /// Why it was the best.
        reason: PrimaryReason,
    },
    /// This host follows that primary now.
    FollowsPrimary {
        /// The host that it follows.
        primary: HostId,
    },
    /// This host was primary and is no more.
    SteppedDown {
        /// Why it is primary no more, in words.
        reason: Arc<str>,
    },
    /// The primary judges a host anew.
    HostStateChanged {
        /// The host that is judged.
        host: HostId,
        /// What it was taken for before.
        from: HostState,
        /// What it is taken for now.
        to: HostState,
        /// How old the last evidence of it is.
        last_evidence: Span,
        /// The judge reaches nobody itself: it is more likely that this is its own fault.
        #[serde(default)]
        cut_off: bool,
    },
    /// A heartbeat datastore does not take this host's heartbeats.
    DatastoreLost {
        /// The datastore that can't be reached.
        datastore: DatastoreName,
        /// What the storage says.
        reason: Arc<str>,
    },
    /// It does again.
    DatastoreBack {
        /// The datastore that is reached again.
        datastore: DatastoreName,
    },
    /// This host owns the datastore's protected list now.
    OwnershipAcquired {
        /// The datastore that is owned now.
        datastore: DatastoreName,
        /// In which epoch.
        epoch: Epoch,
        /// Whose it was before.
        former: Option<HostId>,
    },
    /// This host does not own it any more.
    OwnershipLost {
        /// The datastore that is owned no more.
        datastore: DatastoreName,
        /// The epoch that ended.
        epoch: Epoch,
        /// Why the ownership ended, in words.
        reason: Arc<str>,
    },
    /// A register is damaged or foreign.
    RegisterUnreadable {
        /// The datastore that has the register.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// A register of this host can't be written, although its heartbeats arrive.
    RegisterUnwritable {
        /// The datastore that has the register.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
        /// What the storage says.
        reason: Arc<str>,
    },
    /// A register that was unreadable or unwritable is well again.
    RegisterReadable {
        /// The datastore that has the register.
        datastore: DatastoreName,
        /// Which (file name).
        register: Arc<str>,
    },
    /// The VM is in the protected list on disk.
    VmProtected {
        /// The VM that is protected.
        vm: VmName,
        /// Where it runs.
        host: HostId,
        /// Where its entry is.
        datastore: DatastoreName,
    },
    /// The VM can't be protected as it is.
    VmNotProtectable {
        /// The VM that is not protected.
        vm: VmName,
        /// What it has that a failover can't serve, in words.
        reason: Arc<str>,
    },
    /// A person took the VM out of protection.
    VmUnprotected {
        /// The VM that is watched, but not restarted any more.
        vm: VmName,
    },
    /// The VM stopped on a host.
    VmStopped {
        /// The VM that stopped.
        vm: VmName,
        /// The host that it ran on.
        host: HostId,
        /// Why it stopped.
        cause: StopCause,
        /// Whether it will be restarted.
        restart: bool,
    },
    /// The owner means to take the VM from its silent host; its registers are read once more before that counts.
    TakeoverIntended {
        /// The VM that is to move.
        vm: VmName,
        /// The silent host that holds it.
        from: HostId,
        /// The host that is to get it.
        to: HostId,
    },
    /// The silent host showed itself in between: it keeps the VM.
    TakeoverCancelled {
        /// The VM that stays.
        vm: VmName,
        /// Who keeps it.
        host: HostId,
        /// What was seen.
        reason: Arc<str>,
    },
    /// The grant is on disk.
    VmGranted {
        /// The VM that was granted.
        vm: VmName,
        /// The host that may run it.
        host: HostId,
        /// The name of the grant.
        token: Token,
        /// Which attempt this is, from 1.
        attempt: u32,
        /// Why it is granted.
        reason: Arc<str>,
    },
    /// No host can take the VM now. It is tried again by itself.
    VmWaitsForHost {
        /// The VM that waits.
        vm: VmName,
        /// Why not, host by host.
        reasons: Vec<Refusal>,
    },
    /// This host has written its claim and read the grant once more: it starts the VM.
    VmClaimed {
        /// The VM that is being started.
        vm: VmName,
        /// The grant under which it is started.
        token: Token,
    },
    /// This host waits for the storage before it starts the VM.
    VmWaitsForStorage {
        /// The VM that waits.
        vm: VmName,
        /// What the storage has to do first, in words.
        reason: Arc<str>,
    },
    /// QEMU runs on this host (still paused, or already executing).
    VmStarted {
        /// The VM that was started.
        vm: VmName,
        /// The grant under which it was started.
        token: Token,
    },
    /// This host could not start it.
    VmStartFailed {
        /// The VM that does not run here.
        vm: VmName,
        /// What went wrong, in words.
        reason: Arc<str>,
    },
    /// The owner has seen it running after a restart: verified.
    VmRestarted {
        /// The VM that runs again.
        vm: VmName,
        /// Where it ran before, if it was a failover.
        from: Option<HostId>,
        /// Where it runs.
        to: HostId,
        /// How many attempts it took.
        attempts: u32,
    },
    /// A stale definition was removed from this host.
    DefinitionDropped {
        /// The VM whose definition was removed.
        vm: VmName,
        /// Whose it is now.
        holder: HostId,
    },
    /// The VM executes on a host although another one holds it.
    VmActiveTwice {
        /// The VM that is active twice.
        vm: VmName,
        /// Who holds it.
        holder: HostId,
        /// Where else it runs.
        other: HostId,
    },
    /// A VM that was active on two hosts is active on one only.
    VmActiveOnce {
        /// The VM that is active once again.
        vm: VmName,
        /// The one host that it is active on.
        host: HostId,
    },
    /// The VM ran here although it had been given to another host since: this copy was removed (R36).
    VmCopyRemoved {
        /// The VM whose copy was removed.
        vm: VmName,
        /// Whose it is; `None`: it was stopped there since.
        holder: Option<HostId>,
    },
    /// Whether libvirt may start the VM by itself was changed on this host (R39).
    VmAutostart {
        /// The VM that it was changed of.
        vm: VmName,
        /// To what.
        change: AutostartChange,
    },
    /// Libvirt does not answer on this host (VMs are not affected).
    HypervisorLost,
    /// It has not answered for long: nothing can be started there, and what stops there is not seen.
    HypervisorSilent {
        /// For how long it has not answered.
        lasting: Span,
    },
    /// It does again.
    HypervisorBack,
    /// The guard was found; leases are renewed and kept.
    GuardFound {
        /// The run of the guard that was found.
        incarnation: Incarnation,
    },
    /// The connection to the guard has gone: nothing is started or thawed until there is one again.
    GuardLost,
    /// The guard does not answer: another one is to take its place.
    GuardSilent,
    /// No guard can be started on this host.
    GuardFailed {
        /// Why, in words.
        reason: Arc<str>,
    },
    /// A host says that its guard does not answer.
    HostUnguarded {
        /// The host that says so.
        host: HostId,
        /// Why, in words, if it knows.
        reason: Option<Arc<str>>,
    },
    /// Its guard answers again.
    HostGuarded {
        /// The host whose guard answers.
        host: HostId,
    },
    /// The lease on the VM's datastore ended: the VM was frozen. It goes on where it was when contact returns.
    VmFrozen {
        /// The VM that is frozen.
        vm: VmName,
    },
    /// The VM goes on: the lease is back and nobody has taken it over.
    VmThawed {
        /// The VM that goes on.
        vm: VmName,
    },
    /// QEMU had paused it for an I/O error; the storage is back, and the VM is still this host's: it goes on.
    VmContinued {
        /// The VM that goes on.
        vm: VmName,
    },
    /// A message of that host can't be read and was dropped. Told once a minute at most; the rest is counted.
    MessageUnreadable {
        /// The host that sent the message.
        host: HostId,
        /// Why, in words for the user.
        reason: Arc<str>,
    },
    /// This host reaches no other host and no isolation address.
    HostIsolated,
    /// It has contact again.
    HostNotIsolated,
    /// The owner has taken responsibility for a VM of an isolated host: it will be restarted when that host has released it.
    ResponsibilityTaken {
        /// The VM that will be restarted.
        vm: VmName,
        /// The isolated host.
        from: HostId,
        /// Where there is room for it.
        to: HostId,
    },
    /// That is off: the host is not isolated any more, or there is no room.
    ResponsibilityDropped {
        /// The VM that stays.
        vm: VmName,
        /// The host that keeps it.
        host: HostId,
        /// Why it stays, in words.
        reason: Arc<str>,
    },
    /// The primary has chosen the heartbeat datastores.
    HeartbeatDatastoresChosen {
        /// All of them.
        datastores: Vec<DatastoreName>,
    },
    /// A host runs with other times than this one.
    TimingDiffers {
        /// The host whose times differ.
        host: HostId,
        /// Its failure time-out.
        theirs: Span,
        /// That of this host.
        ours: Span,
    },
    /// It does no more.
    TimingAgrees {
        /// The host whose times agree again.
        host: HostId,
    },
    /// The files of that host and of this one name different hosts or datastores.
    FilesDiffer {
        /// The host whose file differs.
        host: HostId,
        /// What is missing where, in words, if that is known.
        difference: Option<Arc<str>>,
    },
    /// They name the same again, or that host is down.
    FilesAgree {
        /// The host whose file is in nobody's way any more.
        host: HostId,
    },
    /// Another host beats as owner in the epoch that this one owned: this one gives it up.
    OwnedTwice {
        /// The datastore with two owners.
        datastore: DatastoreName,
        /// The epoch that both owned.
        epoch: Epoch,
        /// The other owner.
        other: HostId,
    },
    /// This host is isolated and an owner is responsible: the VM's isolation response is carried out.
    IsolationResponseApplied {
        /// The VM that is treated so.
        vm: VmName,
        /// What is done with it.
        response: IsolationResponse,
    },
    /// The guest has not shut down within its time-out: it is powered off.
    ShutdownTimedOut {
        /// The VM that is powered off.
        vm: VmName,
        /// How long the guest was given.
        after: Span,
    },
    /// Contact was regained before the isolation response had stopped the VM.
    IsolationResponseStopped {
        /// The VM that is left running.
        vm: VmName,
    },
    /// Most hosts went silent at once: more likely the network or the storage than the hosts. Nothing is restarted before a second look.
    StormSuspected {
        /// How many are silent.
        silent: u32,
        /// Of how many others.
        of: u32,
    },
    /// The second look is done.
    StormOver,
    /// The administrator changed the settings of the cluster.
    SettingsChanged {
        /// What was changed, in words.
        text: Arc<str>,
    },
    /// A VM could start, but others go first.
    VmWaitsForOthers {
        /// The VM that waits.
        vm: VmName,
        /// What it waits for.
        reason: Arc<str>,
    },
    /// Others no longer wait for a VM: its time-out is over.
    OrderGivenUp {
        /// The VM that is not ready.
        vm: VmName,
    },
    /// A VM that was restarted runs, but its guest agent, which answered before, does not.
    VmNotVerified {
        /// The VM that runs without its guest agent.
        vm: VmName,
        /// Where it runs.
        host: HostId,
        /// It is ended there and started elsewhere. Otherwise it is left running.
        again: bool,
    },
    /// Its guest agent answers after all.
    VmVerified {
        /// The VM whose guest agent answers.
        vm: VmName,
        /// Where it runs.
        host: HostId,
    },
    /// A host is being emptied for maintenance.
    MaintenanceBegun {
        /// The host that is being emptied.
        host: HostId,
        /// How many VMs run on it.
        vms: u32,
    },
    /// A host in maintenance is empty.
    MaintenanceReached {
        /// The host that is empty.
        host: HostId,
    },
    /// A host takes VMs again.
    MaintenanceLeft {
        /// The host that takes VMs again.
        host: HostId,
    },
    /// The owner asks a host to move a VM, or to shut it down.
    VmOrdered {
        /// The VM that is to move, or to stop.
        vm: VmName,
        /// Where it runs.
        host: HostId,
        /// What is asked.
        order: OrderKind,
    },
    /// The host could not.
    VmOrderFailed {
        /// The VM that was to move, or to stop.
        vm: VmName,
        /// Where it runs.
        host: HostId,
        /// What was asked.
        order: OrderKind,
        /// Why it could not, in words.
        reason: Arc<str>,
    },
    /// Protection of the VMs of a datastore is suspended.
    ProtectionSuspended {
        /// The datastore whose VMs are not protected for now.
        datastore: DatastoreName,
        /// For how long yet.
        left: Span,
    },
    /// Protection of the VMs of a datastore goes on.
    ProtectionResumed {
        /// The datastore whose VMs are protected again.
        datastore: DatastoreName,
        /// Why the suspension ended, in words.
        reason: Arc<str>,
    },
    /// Not all VMs would come back after the failures that admission control asks for.
    AdmissionNotMet {
        /// What would happen.
        objection: Arc<str>,
    },
    /// They would again.
    AdmissionMet,
    /// A person has said that this host is down: its VMs are restarted without waiting for what it may hold.
    HostConfirmedDown {
        /// The host that a person has found to be down.
        host: HostId,
    },
}
