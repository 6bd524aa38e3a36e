//! The VMs of this host, between core and libvirt: what libvirt shows becomes inputs, what the core wants becomes libvirt's
//! operations.
//!
//! Invariants: every `Vm` effect is answered by exactly one `VmDone`; an error, a time-out or a lost connection never becomes
//! "stopped"; a domain that is being prepared shows as `Prepared` until it has been resumed; of what is known of a domain, an
//! older answer changes nothing.
//!
//! No I/O here: what needs a datastore, libvirt or a timer comes out as an [`Errand`] and comes back as [`VmNews`].

mod autostart;
mod going_down;
mod guests;
mod migration;
mod needs;
mod observe;
mod offers;
mod prepare;

use autostart::Autostart;
pub use autostart::{LISTS_INTERVAL, Listed, Lists};
pub use going_down::GoingDown;
use mainstay_core::ids::{DatastoreName, OpId, VmId, XmlId};
use mainstay_core::{Capacity, Domain, DomainState, Event, Input, Time, VmAction, VmOutcome};
use mainstay_hypervisor as hv;
pub use migration::{Destination, Migrations};
pub use needs::Mounts;
pub use observe::xml_id;
use offers::Offers;
use prepare::Preparing;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often the lock of an image is looked at while somebody holds it: a fifth of a second is little against what storages
/// take to let go (seconds), and costs one open and close each.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// When libvirt says "shut off" while QEMU still lives (a process that dies in a hung write), it is read again after this.
const DYING_INTERVAL: Duration = Duration::from_millis(300);

/// What has to be done elsewhere.
#[derive(Debug)]
pub enum Errand {
    /// An operation of libvirt; comes back as [`VmNews::Hypervisor`].
    Libvirt(u64, hv::Op),
    /// Read the domain XML; comes back as [`VmNews::XmlLoaded`].
    LoadXml {
        /// For which preparation.
        op: OpId,
        /// Where it is.
        datastore: DatastoreName,
        /// The VM whose XML it is.
        vm: VmId,
        /// The version of the XML, by the hash of its text.
        xml: XmlId,
    },
    /// Look whether these images are free; comes back as [`VmNews::Probed`].
    Probe {
        /// For which preparation.
        op: OpId,
        /// The paths of the images whose locks are looked at.
        images: Vec<PathBuf>,
    },
    /// Bring the news after that time.
    Later(Duration, VmNews),
    /// Replace what is remembered of protected VMs; comes back as [`VmNews::Remembered`].
    Remember(String),
    /// Record an event of this host.
    Tell(Box<Event>),
}

/// What comes back, and what libvirt tells by itself.
#[derive(Debug)]
pub enum VmNews {
    /// What libvirt's adapter tells.
    Hypervisor(hv::Event),
    /// The domain XML, or why not.
    XmlLoaded(OpId, Result<String, String>),
    /// Whether the images are free, or why that can't be said.
    Probed(OpId, Result<ImageState, String>),
    /// It is time to look at the images again.
    ProbeAgain(OpId),
    /// It is time to read a domain again.
    ReadAgain(hv::DomainUuid),
    /// The protected lists, as they are known now.
    Lists(Box<Lists>),
    /// What is remembered is on disk, or why not.
    Remembered(Result<(), String>),
    /// It is time to ask again what the host can give to VMs; of that round of questions.
    OffersAgain(u64),
}

/// What a look at images has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageState {
    /// Nobody holds them.
    Free,
    /// Somebody does; in words.
    Held(String),
}

/// An operation of libvirt that is under way.
#[derive(Debug)]
enum Pending {
    Start(OpId),
    Resume(OpId, VmId),
    Destroy(OpId, VmId),
    Shutdown(OpId),
    Undefine(OpId),
    Migrate(OpId, VmId),
    /// And the command that is run if the agent answers.
    GuestPing(OpId, VmId, Option<Arc<str>>),
    GuestCommand(OpId),
    /// Switched on or off.
    Autostart(VmId, bool),
    /// Of that round of questions.
    Offers(u64),
    /// Ordered at that time, asked later.
    Read(Time),
}

/// A domain as it was last told to the core, with what it takes to store it.
#[derive(Debug)]
struct Known {
    domain: Domain,
    /// When libvirt was asked.
    as_of: Time,
    /// libvirt does not know it any more. Kept until the next complete snapshot: answers that were asked for earlier may
    /// still come, and the core may have to be told as of a later time.
    gone: bool,
    /// Whether libvirtd starts it at boot.
    autostart: bool,
    /// Its XML, under the name that `domain.spec` gives it.
    xml: Option<(XmlId, Arc<str>)>,
}

/// When an operation of this agent ended; `None` while it is under way. What libvirt was asked before says nothing about it.
type Ended = Option<Time>;

/// The VMs of this host.
#[derive(Debug)]
pub struct Vms {
    mounts: Mounts,
    migrations: Migrations,
    offers: Offers,
    autostart: Autostart,
    going_down: GoingDown,
    known: BTreeMap<VmId, Known>,
    /// What libvirt said when it stopped, and when that came; the state that follows tells less.
    causes: BTreeMap<VmId, (hv::StopCause, Time)>,
    /// Created paused by this agent and not resumed yet, and when the start ended.
    prepared: BTreeMap<VmId, Ended>,
    /// Destroyed by this agent: not their user's will.
    destroyed: BTreeMap<VmId, Ended>,
    preparing: BTreeMap<OpId, Preparing>,
    pending: BTreeMap<u64, Pending>,
    next_pending: u64,
    /// When libvirt was last asked for everything, and answered: what was not known then did not exist.
    complete: Option<Time>,
    /// What libvirt last said of this host, and how many domains ran when the core was last told.
    host: Option<(hv::HostInfo, u32)>,
    /// Counts for the API.
    pub counters: Counters,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Snapshots of libvirt that were not complete.
    pub incomplete_snapshots: u64,
    /// Looks at images that found a lock.
    pub images_held: u64,
}

impl Vms {
    /// VMs whose disks lie on these datastores, and how they are moved.
    pub fn new(mounts: Mounts, migrations: Migrations) -> Vms {
        Vms {
            mounts,
            migrations,
            offers: Offers::default(),
            autostart: Autostart::default(),
            going_down: GoingDown::default(),
            known: BTreeMap::new(),
            causes: BTreeMap::new(),
            prepared: BTreeMap::new(),
            destroyed: BTreeMap::new(),
            preparing: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_pending: 0,
            complete: None,
            host: None,
            counters: Counters::default(),
        }
    }

    /// With another place to learn that the host goes down.
    pub fn in_host(mut self, going_down: GoingDown) -> Vms {
        self.going_down = going_down;
        self
    }

    /// The XML of that version, if the domain still has it.
    pub fn xml(&self, vm: VmId, xml: XmlId) -> Option<Arc<str>> {
        let (id, text) = self.known.get(&vm)?.xml.as_ref()?;
        (*id == xml).then(|| Arc::clone(text))
    }

    /// Whether a start that the core ordered is under way: from its order on until the VM has been resumed, or is known not to
    /// be there.
    pub fn is_starting(&self, vm: VmId) -> bool {
        self.prepared.contains_key(&vm) || self.is_preparing(vm)
    }

    /// Begins what the core wants.
    pub fn act(&mut self, op: OpId, action: VmAction, inputs: &mut Vec<Input>, errands: &mut Vec<Errand>) {
        match action {
            VmAction::Prepare { vm, name, datastore, xml, token } => {
                tracing::debug!(vm = &*name, %token, "preparing");
                self.preparing.insert(op, Preparing::new(vm));
                errands.push(Errand::LoadXml { op, datastore, vm, xml });
            }
            VmAction::Resume { vm } => {
                let operation = hv::Op::Resume { uuid: uuid(vm) };
                self.submit(Pending::Resume(op, vm), operation, errands);
            }
            VmAction::Destroy { vm } => {
                self.cancel(vm, inputs);
                self.destroyed.insert(vm, None);
                self.submit(Pending::Destroy(op, vm), hv::Op::Destroy { uuid: uuid(vm) }, errands);
            }
            VmAction::Shutdown { vm } => {
                self.submit(Pending::Shutdown(op), hv::Op::Shutdown { uuid: uuid(vm) }, errands);
            }
            VmAction::Undefine { vm } => {
                self.submit(Pending::Undefine(op), hv::Op::Undefine { uuid: uuid(vm) }, errands);
            }
            VmAction::Migrate { vm, to } => self.migrate(op, vm, &to, inputs, errands),
            VmAction::AskGuest { vm, command } => {
                let ping = hv::Op::GuestPing { uuid: uuid(vm) };
                self.submit(Pending::GuestPing(op, vm, command), ping, errands);
            }
        }
    }

    /// Takes in what came from libvirt and the workers. What follows for the core goes to `inputs`, work to do to `errands`.
    pub fn on_news(&mut self, now: Time, news: VmNews, inputs: &mut Vec<Input>, errands: &mut Vec<Errand>) {
        match news {
            VmNews::Hypervisor(event) => self.on_event(now, event, inputs, errands),
            VmNews::XmlLoaded(op, result) => self.on_xml(op, result, inputs, errands),
            VmNews::Probed(op, result) => self.on_probed(op, result, inputs, errands),
            VmNews::ProbeAgain(op) => self.probe(op, errands),
            VmNews::ReadAgain(uuid) => self.submit(Pending::Read(now), hv::Op::Read { uuid }, errands),
            VmNews::Lists(lists) => self.on_lists(now, *lists, errands),
            VmNews::Remembered(result) => self.on_remembered(result, errands),
            VmNews::OffersAgain(round) => self.ask_offers_again(round, errands),
        }
        self.recount(inputs);
    }

    /// libvirt tells of the host only now and then. Whether a host is empty, people wait for.
    fn recount(&mut self, inputs: &mut Vec<Input>) {
        let Some((info, told)) = &self.host else { return };
        if self.running() != *told {
            let info = info.clone();
            inputs.push(Input::Capacity(self.capacity(info)));
        }
    }

    /// How many domains are there, protected or not.
    fn running(&self) -> u32 {
        let running = |known: &&Known| !matches!(known.domain.state, DomainState::Stopped(_));
        u32::try_from(self.known.values().filter(running).count()).unwrap_or(u32::MAX)
    }

    fn submit(&mut self, pending: Pending, operation: hv::Op, errands: &mut Vec<Errand>) {
        self.next_pending += 1;
        self.pending.insert(self.next_pending, pending);
        errands.push(Errand::Libvirt(self.next_pending, operation));
    }

    fn on_event(&mut self, now: Time, event: hv::Event, inputs: &mut Vec<Input>, errands: &mut Vec<Errand>) {
        match event {
            // Of VMs, the snapshot that follows is what counts.
            hv::Event::Connected => self.ask_offers(errands),
            hv::Event::Lost { why } => {
                // The core makes the event of it; this is only the reason.
                tracing::info!(why, "libvirt is lost");
                inputs.push(Input::HypervisorLost);
            }
            hv::Event::HostInfo(info) => {
                let capacity = self.capacity(info);
                inputs.push(Input::Capacity(capacity));
            }
            hv::Event::Snapshot { as_of, domains, unanswered, strays, complete } => {
                for silent in &unanswered {
                    tracing::debug!(vm = silent.name, why = silent.why, "libvirt does not tell about it");
                }
                let strays = strays.iter().map(|stray| VmId(stray.uuid.0)).collect();
                if complete {
                    self.on_complete_snapshot(as_of, &domains, &strays, inputs, errands);
                } else {
                    self.on_partial_snapshot(&domains, &strays, inputs, errands);
                }
            }
            hv::Event::Changed(domain) => self.on_shown(&domain, inputs, errands),
            hv::Event::Removed { as_of, uuid, name: _ } => self.on_gone(as_of, VmId(uuid.0), inputs),
            hv::Event::Stopped { uuid, name: _, cause } => {
                self.causes.insert(VmId(uuid.0), (cause, now));
            }
            hv::Event::Done { id, result } => {
                if let Some(pending) = self.pending.remove(&id) {
                    self.on_done(now, pending, result, inputs, errands);
                }
            }
        }
    }

    fn on_done(
        &mut self,
        now: Time,
        pending: Pending,
        result: Result<hv::OpOutput, hv::OpError>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        match pending {
            Pending::Start(op) => {
                if let Some(vm) = self.on_started(now, op, result, inputs, errands) {
                    look_afresh(vm, errands);
                }
            }
            Pending::Resume(op, vm) => {
                if result.is_ok() {
                    self.prepared.remove(&vm);
                }
                inputs.push(done(op, result));
                look_afresh(vm, errands);
            }
            Pending::Destroy(op, vm) => {
                let result = or_not_there(result);
                if result.as_ref().is_err_and(|error| !error.outcome_unknown()) {
                    self.destroyed.remove(&vm);
                } else if let Some(ended) = self.destroyed.get_mut(&vm) {
                    *ended = Some(now);
                }
                inputs.push(done(op, result));
                look_afresh(vm, errands);
            }
            Pending::Shutdown(op) => inputs.push(done(op, result)),
            Pending::Undefine(op) => inputs.push(done(op, or_not_there(result))),
            Pending::Migrate(op, vm) => {
                inputs.push(done(op, result));
                look_afresh(vm, errands);
            }
            Pending::GuestPing(op, vm, command) => {
                self.on_guest_answer(op, vm, command, result, inputs, errands);
            }
            Pending::GuestCommand(op) => inputs.push(guests::on_command_ended(op, result)),
            Pending::Autostart(vm, on) => self.on_autostart_done(now, (vm, on), result, errands),
            Pending::Offers(round) => self.on_offers(round, result, inputs, errands),
            Pending::Read(ordered) => match result {
                Ok(hv::OpOutput::Domain(domain)) => self.on_shown(&domain, inputs, errands),
                Err(hv::OpError::NoSuchDomain { uuid }) => self.on_gone(ordered, VmId(uuid.0), inputs),
                // The next event or snapshot tells.
                Ok(_) | Err(_) => {}
            },
        }
    }

    fn capacity(&mut self, info: hv::HostInfo) -> Capacity {
        let (total, domains) = (info.memory_bytes >> 20, self.running());
        let capacity = Capacity {
            memory_mib: total,
            memory_free_mib: observe::memory_available_mib()
                .unwrap_or(info.memory_free_bytes >> 20)
                .min(total),
            cpus: info.cpus,
            domains,
        };
        self.host = Some((info, domains));
        capacity
    }
}

/// Has a VM read after an operation, so that the core soon knows what became of it. By way of the queue: the core counts only
/// what was asked for after it heard that the operation is done.
fn look_afresh(vm: VmId, errands: &mut Vec<Errand>) {
    errands.push(Errand::Later(Duration::ZERO, VmNews::ReadAgain(uuid(vm))));
}

fn uuid(vm: VmId) -> hv::DomainUuid {
    hv::DomainUuid(vm.0)
}

/// What does not exist is destroyed and undefined.
fn or_not_there(result: Result<hv::OpOutput, hv::OpError>) -> Result<hv::OpOutput, hv::OpError> {
    match result {
        Err(hv::OpError::NoSuchDomain { .. }) => Ok(hv::OpOutput::Done),
        other => other,
    }
}

fn done(op: OpId, result: Result<hv::OpOutput, hv::OpError>) -> Input {
    let outcome = match result {
        Ok(_) => VmOutcome::Done,
        Err(error) if error.outcome_unknown() => VmOutcome::Unknown(error.to_string().into()),
        Err(error) => VmOutcome::Failed(error.to_string().into()),
    };
    Input::VmDone { op, outcome }
}
