//! What goes in (configuration, operations) and what comes out (news, results).

use std::time::Duration;

use mainstay_words::Time;

use crate::domain::{Domain, DomainUuid};
use crate::error::{Error, OpError};
use crate::offers::HostOffers;
use crate::stop_cause::StopCause;

/// How to reach libvirt, and how patient to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// The libvirt URI. `qemu:///system` on a host.
    pub uri: String,
    /// Time between two full snapshots. Shorter finds lost events earlier, and costs about four short calls per domain.
    pub resync_interval: Duration,
    /// How long a reading call may take before its thread is abandoned, and how long libvirtd may leave a ping (one per
    /// second) unanswered before it is called lost.
    pub call_timeout: Duration,
    /// How long an operation may take. Longer, since starting QEMU on slow storage takes long. Migrations and what is asked
    /// of guests have their own.
    pub op_timeout: Duration,
    /// Whether VMs are migrated also where libvirt calls it unsafe: with disks that the host caches, on storage that it does
    /// not know to be coherent between hosts. Wrong, it corrupts disks.
    pub migrate_unsafe: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            uri: "qemu:///system".into(),
            resync_interval: Duration::from_secs(10),
            call_timeout: Duration::from_secs(4),
            op_timeout: Duration::from_secs(30),
            migrate_unsafe: false,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.uri.contains('\0') {
            return Err(Error::Config {
                what: "uri",
                value: format!("{:?}", self.uri),
                remedy: "remove the NUL character",
            });
        }
        let spans = [
            ("resync_interval", self.resync_interval),
            ("call_timeout", self.call_timeout),
            ("op_timeout", self.op_timeout),
        ];
        for (what, span) in spans {
            if span < Duration::from_millis(100) || span > Duration::from_secs(3600) {
                return Err(Error::Config {
                    what,
                    value: format!("{span:?}"),
                    remedy: "use 100 ms to 1 hour",
                });
            }
        }
        Ok(())
    }
}

/// An operation, on a domain or about the host. One that names a domain which is already in the wanted state succeeds.
///
/// Those on one domain are carried out in the order of submission, except for [`Op::GuestPing`], [`Op::GuestCommand`] and
/// [`Op::Migrate`]: they run beside the others, so that a VM can be destroyed while its guest is silent or while it migrates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Defines the domain (persistent, autostart off) and starts it with its CPUs stopped.
    ///
    /// If the domain is active already, in whatever state, nothing is changed: [`OpOutput::AlreadyActive`]. If the start
    /// fails, the host is left as it was found: a definition made here is undefined, one that was replaced is put back.
    /// Refused with [`OpError::SavedState`] where a managed-save image would be continued.
    StartPaused {
        /// The definition; its `<uuid>` is required, so that a retry can't make a second domain.
        xml: String,
    },
    /// Lets the CPUs run.
    Resume {
        /// The domain, which has to be active. One that runs already stays so.
        uuid: DomainUuid,
    },
    /// Stops the CPUs.
    Suspend {
        /// The domain, which has to be active.
        uuid: DomainUuid,
    },
    /// Asks the guest to shut down (ACPI, or its agent where the domain has one). Done when asked, not when it is off.
    Shutdown {
        /// The domain, which has to be active.
        uuid: DomainUuid,
    },
    /// Ends QEMU at once. Done when libvirt saw the process end.
    Destroy {
        /// The domain, which has to be active.
        uuid: DomainUuid,
    },
    /// Removes the definition of a domain that is shut off; NVRAM and TPM state stay. An active domain is refused.
    Undefine {
        /// The domain, which has to be shut off.
        uuid: DomainUuid,
    },
    /// Whether libvirtd starts the domain when it starts itself, which mostly is at boot. A transient domain is refused:
    /// [`OpError::WrongState`].
    SetAutostart {
        /// The domain, which has to be persistent. It may be active or not.
        uuid: DomainUuid,
        /// Whether it is to be started.
        on: bool,
    },
    /// Reads the domain, after it was submitted and never before.
    Read {
        /// The domain to read; it need not exist.
        uuid: DomainUuid,
    },
    /// Asks what this host can give to VMs besides room: [`OpOutput::HostOffers`].
    HostOffers,
    /// Asks whether the guest's agent answers, for 2 s: [`OpOutput::Guest`]. A VM that does not run is
    /// [`OpError::WrongState`].
    GuestPing {
        /// The domain, whose guest is asked.
        uuid: DomainUuid,
    },
    /// Runs a command in the guest by its agent, and waits for its end: [`OpOutput::GuestEnded`]. Its output is not read.
    GuestCommand {
        /// The domain in whose guest the command runs.
        uuid: DomainUuid,
        /// The program, as the guest finds it. Not a shell's line.
        path: String,
        /// The program's arguments, passed on as they are.
        args: Vec<String>,
        /// How long it is waited for. The agent can't end a command: it runs on.
        timeout: Duration,
    },
    /// Live migration from libvirtd to libvirtd. Afterwards the domain is as persistent on the destination as it was here,
    /// and no longer here. (Autostart is not carried along.) It is waited for its turn, and then for its end, `timeout` each;
    /// after that it is aborted: [`OpError::MigrationAborted`]. Where that has no effect within [`Config::op_timeout`], since
    /// the other libvirtd hangs, it is [`OpError::TimedOut`]; it ends, with the VM here, when that one answers or is gone, and
    /// until then libvirt refuses another. It goes on when the handle is dropped.
    Migrate {
        /// The domain, which has to be active here.
        uuid: DomainUuid,
        /// The destination's libvirt as this host's libvirtd reaches it, such as `qemu+tls://host2/system`.
        destination_uri: String,
        /// Where the memory is sent, such as `tcp://10.0.1.2`. `None`: to the name that the destination gives itself, which
        /// this host must be able to resolve.
        data_uri: Option<String>,
        /// How long it may take.
        timeout: Duration,
    },
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpOutput {
    /// The domain was started here, by this operation, and is paused.
    Started {
        /// The domain that was started.
        uuid: DomainUuid,
        /// Its QEMU. `None`: libvirt reports it started, but the process is gone already or can't be seen from here.
        pid: Option<u32>,
    },
    /// The domain was active before; nothing was changed.
    AlreadyActive {
        /// The domain that was found active.
        uuid: DomainUuid,
        /// Its QEMU's process. `None`: it can't be seen from here.
        pid: Option<u32>,
    },
    /// It was done, or there was nothing to do.
    Done,
    /// The domain, for [`Op::Read`].
    Domain(Box<Domain>),
    /// What the host can give to VMs, for [`Op::HostOffers`].
    HostOffers(Box<HostOffers>),
    /// Whether the guest agent answers, for [`Op::GuestPing`].
    Guest(GuestAnswer),
    /// How the command in the guest ended, for [`Op::GuestCommand`].
    GuestEnded(GuestExit),
}

/// What a guest's agent says when it is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAnswer {
    /// The guest agent has answered.
    Answers,
    /// The domain has no channel for it: it can never answer.
    NoChannel,
    /// It does not answer: not (yet) started, not installed, or the guest hangs. Or libvirtd did not tell in time.
    Silent,
}

/// How a command in a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestExit {
    /// By itself, with this code; 0 is success.
    Code(i32),
    /// By a signal (on Windows: an unhandled exception).
    Signal(i32),
    /// Not in time. It may still run.
    StillRuns,
}

/// The host, as libvirt describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo {
    /// The host's name, as libvirt knows it.
    pub hostname: String,
    /// Its UUID, where libvirt tells one.
    pub uuid: Option<DomainUuid>,
    /// Active logical CPUs.
    pub cpus: u32,
    /// Installed memory, in bytes.
    pub memory_bytes: u64,
    /// Memory that is free right now, without what the kernel could reclaim.
    pub memory_free_bytes: u64,
    /// libvirt's version, as major * 1,000,000 + minor * 1,000 + release.
    pub libvirt_version: u32,
}

/// A domain that libvirt did not tell about in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswered {
    /// The domain about which libvirt does not answer.
    pub uuid: DomainUuid,
    /// Its name, as far as known from before.
    pub name: String,
    /// Why nothing is known of it, in words for people.
    pub why: String,
}

/// A QEMU process of which libvirt knows no active domain: it is being started or ended right now, or libvirt has
/// forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// From its command line.
    pub uuid: DomainUuid,
    /// The process id of its QEMU.
    pub pid: u32,
}

/// News and results.
#[derive(Clone, Debug)]
pub enum Event {
    /// libvirtd answers. A snapshot follows.
    Connected,
    /// libvirtd is gone or silent. This says nothing about VMs: they run on without it.
    Lost {
        /// How the connection was lost, in words for people.
        why: String,
    },
    /// The host; on connecting and with every snapshot.
    HostInfo(HostInfo),
    /// All domains: after connecting and at every interval.
    Snapshot {
        /// When libvirt was asked for the list: a domain that came later may be missing. Each domain was read after that,
        /// and has its own `as_of`.
        as_of: Time,
        /// Those that were read.
        domains: Vec<Domain>,
        /// Those that could not be read. They may well be running.
        unanswered: Vec<Unanswered>,
        /// QEMU processes beyond the active domains.
        strays: Vec<Stray>,
        /// Whether this is everything. Only then may the absence of a domain be taken as "not defined here".
        complete: bool,
    },
    /// A domain's present state, re-read because libvirt announced a change.
    Changed(Box<Domain>),
    /// libvirt was asked and answered that it does not know the domain any more (undefined, or transient and ended).
    Removed {
        /// When libvirt was asked.
        as_of: Time,
        /// The domain that has gone.
        uuid: DomainUuid,
        /// The name that it had.
        name: String,
    },
    /// A domain stopped: the cause, as libvirt's events tell it. Comes before the matching `Changed` or `Removed`.
    /// Missed while the connection is lost: the state in the next snapshot tells then, less precisely.
    Stopped {
        /// The domain that has stopped.
        uuid: DomainUuid,
        /// Its name on this host.
        name: String,
        /// Why it stopped, as far as libvirt tells.
        cause: StopCause,
    },
    /// The result of an operation.
    Done {
        /// The number that was given to `submit`.
        id: u64,
        /// What came of it.
        result: Result<OpOutput, OpError>,
    },
}
