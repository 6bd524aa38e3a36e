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

impl Action {
    /// The agent starts, with the file that it had.
    pub fn agent_start(host: HostId) -> Action {
        Action::AgentStart { host, knows: None, serves: None }
    }
}

/// Something done to the world at an instant. One that makes no sense at its instant (killing a dead agent) does nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// The host loses its power.
    PowerOff {
        /// The host that loses its power; its guests and its agent end with it.
        host: HostId,
    },
    /// The host boots; its agent comes up with it.
    PowerOn {
        /// The host that boots.
        host: HostId,
    },
    /// The host stands still as a whole, with its guests, its agent and its guard.
    HostPause {
        /// The host that stands still.
        host: HostId,
    },
    /// It goes on.
    HostResume {
        /// The host that goes on.
        host: HostId,
    },
    /// The wall clock of a host jumps. Nothing comes of it: the protocol knows only clocks that never jump.
    ClockStep {
        /// The host whose wall clock jumps.
        host: HostId,
        /// How far, in seconds; negative is back.
        seconds: i64,
    },
    /// The clock of a host runs that much too fast from now on.
    ClockDrift {
        /// The host whose clock drifts, monotonic time included.
        host: HostId,
        /// In millionths; negative is too slow.
        ppm: i64,
    },
    /// SIGKILL to the agent.
    AgentKill {
        /// The host whose agent ends.
        host: HostId,
    },
    /// SIGKILL to the guard; another is started at once.
    GuardKill {
        /// The host whose guard ends.
        host: HostId,
    },
    /// SIGSTOP to the guard: it neither renews nor freezes.
    GuardHang {
        /// The host whose guard stands still.
        host: HostId,
    },
    /// SIGCONT to the guard.
    GuardResume {
        /// The host whose guard goes on.
        host: HostId,
    },
    /// The guard ends, and can't be started.
    GuardDown {
        /// The host that has no guard from now on.
        host: HostId,
    },
    /// The guard can be started again, and is.
    GuardUp {
        /// The host whose guard starts.
        host: HostId,
    },
    /// The agent is told to stop, and ends in order.
    AgentStop {
        /// The host whose agent stops.
        host: HostId,
    },
    /// The agent starts.
    AgentStart {
        /// The host on which an agent starts.
        host: HostId,
        /// With another `agent.toml` than before: these are the other hosts in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        knows: Option<Vec<HostId>>,
        /// And these the datastores.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serves: Option<Vec<DatastoreName>>,
    },
    /// From now on the host writes and says what only a newer release understands.
    Upgrade {
        /// The host that gets the newer release.
        host: HostId,
    },
    /// SIGSTOP to the agent.
    AgentHang {
        /// The host whose agent stands still.
        host: HostId,
    },
    /// SIGCONT to the agent.
    AgentResume {
        /// The host whose agent goes on.
        host: HostId,
    },
    /// The host's management network is cut, both ways.
    NetworkCut {
        /// The host that is cut off.
        host: HostId,
    },
    /// It is back.
    NetworkHeal {
        /// The host that is connected again.
        host: HostId,
    },
    /// The gateway, which is the hosts' isolation address, answers nobody.
    GatewayDown,
    /// It answers again.
    GatewayUp,
    /// Nothing passes from one host to another (the other way still goes).
    LinkCut {
        /// The host whose datagrams do not pass.
        from: HostId,
        /// The host that does not receive them.
        to: HostId,
    },
    /// That passes again.
    LinkHeal {
        /// The host whose datagrams pass again.
        from: HostId,
        /// The host that receives them again.
        to: HostId,
    },
    /// So many of a thousand datagrams are lost (in place of the setup's own rate, when that is less).
    Loss {
        /// Lost datagrams of a thousand, 0 to 1,000.
        permille: u64,
    },
    /// So many of a thousand datagrams arrive twice.
    Duplicate {
        /// Doubled datagrams of a thousand, 0 to 1,000.
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
        /// The datastore that is cut.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// Operations on the datastore do not end until it is healed.
    DatastoreHang {
        /// The datastore that hangs.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// Operations take so many times as long.
    DatastoreSlow {
        /// The datastore that is slow.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
        /// How many times.
        factor: u64,
    },
    /// Reads work, writes fail.
    DatastoreReadOnly {
        /// The datastore that takes no writes.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// The next writes fail and leave their registers damaged: unreadable until the next write that lands.
    DatastoreTorn {
        /// The datastore whose writes are torn.
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
        /// The host that owns the register.
        host: HostId,
        /// Which of its registers.
        register: HostRegister,
    },
    /// A host's register is gone: its file was removed by hand, or another file system is mounted there.
    RegisterForget {
        /// On which datastore.
        datastore: DatastoreName,
        /// The host that owns the register.
        host: HostId,
        /// Which of its registers.
        register: HostRegister,
    },
    /// Both copies of the newest protected list are destroyed where they lie.
    ListDestroy {
        /// On which datastore.
        datastore: DatastoreName,
    },
    /// All protected lists are gone: their file was removed.
    ListForget {
        /// On which datastore.
        datastore: DatastoreName,
    },
    /// A snapshot of the datastore is taken: of all registers and domain XMLs.
    DatastoreSnapshot {
        /// Of which datastore.
        datastore: DatastoreName,
    },
    /// The datastore is as it was when its last snapshot was taken.
    DatastoreRestore {
        /// The datastore that is put back.
        datastore: DatastoreName,
    },
    /// The datastore works again.
    DatastoreHeal {
        /// The datastore that is healed.
        datastore: DatastoreName,
        /// For that host only.
        host: Option<HostId>,
    },
    /// No file can be created on the datastore any more (what is laid out can still be written).
    DatastoreFull {
        /// The datastore that is full.
        datastore: DatastoreName,
    },
    /// There is room again.
    DatastoreFree {
        /// The datastore that has room again.
        datastore: DatastoreName,
    },
    /// SIGKILL to libvirtd; QEMU processes go on.
    LibvirtKill {
        /// The host whose libvirtd ends.
        host: HostId,
    },
    /// SIGSTOP to libvirtd.
    LibvirtHang {
        /// The host whose libvirtd stands still.
        host: HostId,
    },
    /// Libvirtd works again, started or continued.
    LibvirtUp {
        /// The host whose libvirtd works again.
        host: HostId,
    },
    /// The next starts on that host fail.
    StartFailures {
        /// The host on which starts fail.
        host: HostId,
        /// How many starts fail, from now on.
        count: u32,
    },
    /// The guest resets itself: QEMU goes on.
    GuestReset {
        /// The VM whose guest resets, by name.
        vm: String,
    },
    /// The guest powers itself off.
    GuestPowerOff {
        /// The VM whose guest powers off, by name.
        vm: String,
    },
    /// SIGKILL to QEMU.
    QemuKill {
        /// The VM whose QEMU is killed, by name.
        vm: String,
    },
    /// `virsh shutdown` (and the guest obeys).
    UserShutdown {
        /// The VM that is shut down, by name.
        vm: String,
    },
    /// `virsh destroy`: QEMU ends at once, by its user's wish.
    UserDestroy {
        /// The VM that is destroyed, by name.
        vm: String,
    },
    /// `virsh save`: its state goes into a file, and it is off.
    UserSave {
        /// The VM that is saved, by name.
        vm: String,
    },
    /// `virsh start`, with the definition brought along where it is missing.
    UserStart {
        /// The VM that is started, by name.
        vm: String,
        /// The host on which its user starts it.
        host: HostId,
    },
    /// Libvirtd starts a definition that it finds on its host, as it does at boot with `autostart`: neither hook nor agent is asked.
    Autostart {
        /// The VM, by name.
        vm: String,
        /// The host whose libvirtd starts it.
        host: HostId,
    },
    /// `virsh migrate --live`.
    UserMigrate {
        /// The VM that is migrated, by name.
        vm: String,
        /// The host to which it moves.
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
        /// The VM whose migration is given up, by name.
        vm: String,
    },
    /// An operator has it protected again.
    Protect {
        /// The VM that is protected again, by name.
        vm: String,
    },
    /// An operator takes it out of protection.
    Unprotect {
        /// The VM that is taken out of protection, by name.
        vm: String,
    },
    /// The agent in a guest is removed: it answers no more, from the next question on.
    GuestAgentRemove {
        /// Of which VM.
        vm: String,
    },
    /// A person asks the primary for something.
    Command {
        /// The command, as the API would give it to the primary.
        command: Command,
    },
}
