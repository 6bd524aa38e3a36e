//! What can be done to a world: faults, repairs, and what users and guests do. The generator draws them, scenario files name them.

use mainstay_core::{Command, DatastoreName, HostId};
use serde::{Deserialize, Serialize};

/// The registers that a host writes on each datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostRegister {
    /// Its datastore heartbeat.
    Heartbeat,
    /// Its power-on list.
    PowerOn,
    /// Its ownership block.
    Ownership,
}

/// Something done to the world at an instant. One that makes no sense at its instant (killing a dead agent) does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The host loses its power.
    PowerOff {
        /// Which.
        host: HostId,
    },
    /// The host boots; its agent comes up with it.
    PowerOn {
        /// Which.
        host: HostId,
    },
    /// The host stands still as a whole, with its guests, its agent and its guard.
    HostPause {
        /// Which.
        host: HostId,
    },
    /// It goes on.
    HostResume {
        /// Which.
        host: HostId,
    },
    /// The wall clock of a host jumps. Nothing comes of it: the protocol knows only clocks that never jump.
    ClockStep {
        /// Which.
        host: HostId,
        /// How far, in seconds; negative is back.
        seconds: i64,
    },
    /// The clock of a host runs that much too fast from now on.
    ClockDrift {
        /// Which.
        host: HostId,
        /// In millionths; negative is too slow.
        ppm: i64,
    },
    /// SIGKILL to the agent.
    AgentKill {
        /// Where.
        host: HostId,
    },
    /// SIGKILL to the guard; another is started at once.
    GuardKill {
        /// Where.
        host: HostId,
    },
    /// SIGSTOP to the guard: it neither renews nor freezes.
    GuardHang {
        /// Where.
        host: HostId,
    },
    /// SIGCONT to the guard.
    GuardResume {
        /// Where.
        host: HostId,
    },
    /// The agent starts.
    AgentStart {
        /// Where.
        host: HostId,
    },
    /// From now on the host writes and says what only a newer release understands.
    Upgrade {
        /// Which.
        host: HostId,
    },
    /// SIGSTOP to the agent.
    AgentHang {
        /// Where.
        host: HostId,
    },
    /// SIGCONT to the agent.
    AgentResume {
        /// Where.
        host: HostId,
    },
    /// The host's management network is cut, both ways.
    NetworkCut {
        /// Which.
        host: HostId,
    },
    /// It is back.
    NetworkHeal {
        /// Which.
        host: HostId,
    },
    /// The gateway, which is the hosts' isolation address, answers nobody.
    GatewayDown,
    /// It answers again.
    GatewayUp,
    /// Nothing passes from one host to another (the other way still goes).
    LinkCut {
        /// The sender.
        from: HostId,
        /// The receiver.
        to: HostId,
    },
    /// That passes again.
    LinkHeal {
        /// The sender.
        from: HostId,
        /// The receiver.
        to: HostId,
    },
    /// So many of a thousand datagrams are lost (in place of the setup's own rate, when that is less).
    Loss {
        /// How many.
        permille: u64,
    },
    /// So many of a thousand datagrams arrive twice.
    Duplicate {
        /// How many.
        permille: u64,
    },
    /// Datagrams and pings take longer: beyond a time-out, or out of order when the spread is large.
    NetworkLate {
        /// Those of that host only.
        host: Option<HostId>,
        /// At least so many milliseconds.
        ms: u64,
        /// And up to so many more.
        #[serde(default)]
        spread_ms: u64,
    },
    /// All operations on the datastore fail.
    DatastoreCut {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// Operations on the datastore do not end until it is healed.
    DatastoreHang {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// Operations take so many times as long.
    DatastoreSlow {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
        /// How many times.
        factor: u64,
    },
    /// Reads work, writes fail.
    DatastoreReadOnly {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// The next writes fail and leave their registers damaged: unreadable until the next write that lands.
    DatastoreTorn {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
        /// How many writes of each host.
        count: u32,
    },
    /// Both copies of a host's register are destroyed where they lie: unreadable until the next write that lands.
    RegisterDestroy {
        /// On which datastore.
        datastore: DatastoreName,
        /// Whose.
        host: HostId,
        /// Which of its registers.
        register: HostRegister,
    },
    /// The datastore works again.
    DatastoreHeal {
        /// Which.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// No file can be created on the datastore any more (what is laid out can still be written).
    DatastoreFull {
        /// Which.
        datastore: DatastoreName,
    },
    /// There is room again.
    DatastoreFree {
        /// Which.
        datastore: DatastoreName,
    },
    /// SIGKILL to libvirtd; QEMU processes go on.
    LibvirtKill {
        /// Where.
        host: HostId,
    },
    /// SIGSTOP to libvirtd.
    LibvirtHang {
        /// Where.
        host: HostId,
    },
    /// Libvirtd works again, started or continued.
    LibvirtUp {
        /// Where.
        host: HostId,
    },
    /// The next starts on that host fail.
    StartFailures {
        /// Where.
        host: HostId,
        /// How many.
        count: u32,
    },
    /// The guest resets itself: QEMU goes on.
    GuestReset {
        /// Which VM.
        vm: String,
    },
    /// The guest powers itself off.
    GuestPowerOff {
        /// Which VM.
        vm: String,
    },
    /// SIGKILL to QEMU.
    QemuKill {
        /// Which VM.
        vm: String,
    },
    /// `virsh shutdown` (and the guest obeys).
    UserShutdown {
        /// Which VM.
        vm: String,
    },
    /// `virsh destroy`.
    UserDestroy {
        /// Which VM.
        vm: String,
    },
    /// `virsh save`: its state goes into a file, and it is off.
    UserSave {
        /// Which VM.
        vm: String,
    },
    /// `virsh start`, with the definition brought along where it is missing.
    UserStart {
        /// Which VM.
        vm: String,
        /// Where.
        host: HostId,
    },
    /// `virsh migrate --live`.
    UserMigrate {
        /// Which VM.
        vm: String,
        /// To where.
        to: HostId,
        /// How long the memory is copied before the source stops; by chance when left out.
        takes_ms: Option<u64>,
        /// How long after that the target goes on, when nothing is in the way; by chance when left out.
        handover_ms: Option<u64>,
        /// `--undefinesource`: the source keeps no definition of it; by chance when left out.
        undefine_source: Option<bool>,
    },
    /// `virsh domjobabort`: a migration under way is given up.
    UserAbortMigration {
        /// Which VM.
        vm: String,
    },
    /// An operator has it protected again.
    Protect {
        /// Which VM.
        vm: String,
    },
    /// An operator takes it out of protection.
    Unprotect {
        /// Which VM.
        vm: String,
    },
    /// The agent in a guest is removed: it answers no more, from the next question on.
    GuestAgentRemove {
        /// Of which VM.
        vm: String,
    },
    /// A person asks the primary for something.
    Command {
        /// What.
        command: Command,
    },
}
