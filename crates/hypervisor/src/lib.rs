//! Virtual machines on this host, by libvirt.
//!
//! What: observation of the domains and of the host; the few operations that Mainstay needs (start paused, resume,
//! suspend, shut down, destroy, undefine, read the XML, migrate); what a VM needs of a host and what this one offers; whether a
//! guest's agent answers.
//!
//! Why a crate of its own: libvirt's calls have no deadline, libvirtd may hang, die or be restarted at any moment, and
//! one QEMU in uninterruptible sleep makes calls about it hang for as long as its datastore does. Here all of that ends:
//! every call runs on a thread that can be abandoned, the number of abandoned threads is bounded ([`HUNG_CALLS_MAX`]),
//! and what reaches the caller says honestly what is known and what is not.
//!
//! # Invariants
//!
//! * Neither [`Hypervisor::submit`] nor dropping a [`Hypervisor`] ever waits for libvirt.
//! * An error, a time-out or a lost connection never turns into "the VM is off". A domain is reported as shut off, or as
//!   removed, only when libvirtd answered exactly that. While libvirtd is silent, nothing is reported except
//!   [`Event::Lost`] and snapshots that say that they are incomplete.
//! * News are levels: [`Event::Changed`] and [`Event::Snapshot`] carry the present state, re-read after each libvirt
//!   event and every [`Config::resync_interval`]. [`Event::Stopped`] is the one edge, because libvirt tells some causes
//!   in no other way (see [`StopCause`]).
//! * Whatever is told of a domain carries when libvirt was asked for it (`as_of`, CLOCK_BOOTTIME), taken before the first
//!   call. It was so at some moment between then and the telling, so what was done before `as_of` shows in it. News of
//!   several threads may arrive in another order than they were asked for: the later `as_of` counts.
//!
//! # What it does not do
//!
//! It takes no decision, knows no cluster, and retries no operation. It does not freeze VMs: the guard does, and it uses
//! `mainstay-processes` only, which needs no libvirt.
//!
//! # Threads
//!
//! Per [`Hypervisor`]: `hv-observer` (one connection that observes, one that pings) and `hv-actor` (a connection per running
//! operation, at most 13: see `lane.rs`); neither ever calls libvirt itself. Each call runs on a short-lived thread `hv-call`, one at a
//! time per connection. Per process: `hv-events`, libvirt's event loop.

mod actor;
mod calls;
mod clock;
mod domain;
mod error;
mod event;
pub mod fake;
mod lane;
mod libvirt;
mod metadata;
mod names;
mod observer;
mod offers;
mod operations;
mod spec;
pub mod stop_cause;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

pub use calls::HUNG_CALLS_MAX;
pub use domain::{Domain, DomainState, DomainUuid, PauseReason};
pub use error::{Error, OpError, XmlError};
pub use event::{Config, Event, GuestAnswer, GuestExit, HostInfo, Op, OpOutput, Stray, Unanswered};
pub use metadata::{Metadata, Priority, Reservation};
pub use names::{NAME_MAX, NAMES_MAX};
pub use offers::HostOffers;
pub use spec::{CpuMode, Disk, DiskSource, Interface, InterfaceKind, Needs, Room, Spec};
pub use stop_cause::StopCause;

/// What the agent holds: the real [`Hypervisor`] or the [`fake::FakeHypervisor`].
pub trait Handle: Send + Sync {
    /// Asks for an operation; never blocks. The result arrives as [`Event::Done`] with the same id, exactly once, unless
    /// the handle is dropped before. Operations on one domain are carried out in the order of submission, but for those that
    /// [`Op`] names.
    fn submit(&self, id: u64, op: Op);
}

/// Where news go. It is called from this crate's threads and must not block.
pub type Sink = Box<dyn Fn(Event) + Send + Sync>;

/// The sink, and the flag that silences it once the handle is dropped.
#[derive(Clone)]
pub(crate) struct News {
    sink: Arc<dyn Fn(Event) + Send + Sync>,
    silenced: Arc<AtomicBool>,
}

impl News {
    pub(crate) fn new(sink: Sink) -> News {
        News { sink: Arc::from(sink), silenced: Arc::new(AtomicBool::new(false)) }
    }

    pub(crate) fn tell(&self, event: Event) {
        if !self.silenced.load(Ordering::Acquire) {
            (self.sink)(event);
        }
    }

    pub(crate) fn silence(&self) {
        self.silenced.store(true, Ordering::Release);
    }
}

/// The VMs of this host, by libvirt. Dropping it stops its threads without waiting for calls that hang.
pub struct Hypervisor {
    observer: mpsc::Sender<observer::Message>,
    actor: mpsc::Sender<actor::Message>,
    news: News,
}

impl Hypervisor {
    /// Starts the threads. They connect, and reconnect after a loss, by themselves (at least one attempt per second);
    /// libvirtd need not be running. All news go to `sink`, from this crate's threads; it must not block.
    pub fn start(config: Config, sink: Sink) -> Result<Hypervisor, Error> {
        config.check()?;
        libvirt::start_event_loop()?;
        let news = News::new(sink);
        let pool = calls::CallPool::new(HUNG_CALLS_MAX);
        let actor = actor::start(config.clone(), pool.clone(), news.clone())?;
        let observer = match observer::start(config, pool, news.clone(), actor.clone()) {
            Ok(observer) => observer,
            Err(error) => {
                // A failed send means that the thread is gone already.
                let _ = actor.send(actor::Message::Stop);
                return Err(error);
            }
        };
        Ok(Hypervisor { observer, actor, news })
    }

    /// Orders an operation; [`Handle::submit`] says when it is answered and with what.
    pub fn submit(&self, id: u64, op: Op) {
        if self.actor.send(actor::Message::Submit { id, op }).is_err() {
            // The actor's thread ended (a panic, which is a bug): nothing was done, and the caller must hear it.
            self.news.tell(Event::Done {
                id,
                result: Err(OpError::NotAttempted {
                    why: "the acting thread has ended; restart the agent".into(),
                }),
            });
        }
    }

    /// Asks for a fresh [`Event::Snapshot`] now instead of at the next interval.
    pub fn resync(&self) {
        // A failed send means that the observer's thread ended; its absence shows by missing snapshots.
        let _ = self.observer.send(observer::Message::Resync);
    }
}

impl Handle for Hypervisor {
    fn submit(&self, id: u64, op: Op) {
        Hypervisor::submit(self, id, op);
    }
}

impl Drop for Hypervisor {
    fn drop(&mut self) {
        self.news.silence();
        // Failed sends mean that the threads are gone already.
        let _ = self.observer.send(observer::Message::Stop);
        let _ = self.actor.send(actor::Message::Stop);
    }
}
