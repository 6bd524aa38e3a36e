//! The observing thread: keeps one connection, turns libvirt's events into levels, and tells when libvirtd is silent.
//!
//! It makes no call itself. Calls run on pool threads and come back as messages, each with a deadline here. A call that
//! passes its deadline is *stuck*: its connection is replaced (one call at a time per connection), and the same thing is
//! not asked again until the stuck call has returned, so that one VM whose QEMU hangs holds at most one thread. A second
//! connection asks libvirtd a trifle every second: if that is stuck, libvirtd as a whole is silent.
//!
//! Invariant: a domain is reported as removed or shut off only from an answer of libvirt.

mod question;
mod round;

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mainstay_words::Time;

use self::question::{Call, What};
use self::round::Round;
use crate::News;
use crate::actor;
use crate::calls::CallPool;
use crate::clock;
use crate::domain::{Domain, DomainState, DomainUuid};
use crate::error::{CallFailure, Error};
use crate::event::{Config, Event, HostInfo, Stray};
use crate::libvirt::Connection;
use crate::stop_cause::StopTracker;

/// Between the answer to a ping and the next one.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// libvirtd is back at most this long before we are.
const BACKOFF_MAX: Duration = Duration::from_millis(800);

/// The connection that observes, and the one that pings.
pub(crate) struct Pair {
    observing: Connection,
    pinging: Connection,
}

/// What the observer can be told.
pub(crate) enum Message {
    Opened { call: u64, result: Result<Pair, CallFailure> },
    Listed { call: u64, as_of: Time, result: Result<Vec<(DomainUuid, String)>, CallFailure> },
    Host { call: u64, result: Result<HostInfo, CallFailure> },
    Read { call: u64, as_of: Time, result: Box<Result<Option<Domain>, CallFailure>> },
    Strays { call: u64, strays: Vec<Stray> },
    Pinged { call: u64, result: Result<(), CallFailure> },
    Lifecycle { generation: u64, uuid: DomainUuid, name: String, event: i32, detail: i32 },
    Altered { generation: u64, uuid: DomainUuid, name: String },
    Closed { generation: u64, why: String },
    Resync,
    Stop,
}

struct Observer {
    config: Config,
    pool: CallPool,
    news: News,
    messages: Sender<Message>,
    actor: Sender<actor::Message>,
    link: Link,
    due: Due,
    next_call: u64,
    calls: BTreeMap<u64, Call>,
    queue: VecDeque<What>,
    round: Option<Round>,
    names: BTreeMap<DomainUuid, String>,
    stops: StopTracker,
    host_uuid: Option<DomainUuid>,
}

/// The connections to libvirt.
#[derive(Default)]
struct Link {
    observing: Option<Arc<Connection>>,
    pinging: Option<Arc<Connection>>,
    /// Counts pairs of connections: what an earlier one still says is dropped.
    generation: u64,
    /// Told `Connected` and not yet `Lost`. `None`: neither was told yet.
    connected: Option<bool>,
    /// Connections whose closing found no free thread.
    graveyard: Vec<Connection>,
}

/// When something is to be done next.
struct Due {
    /// How long to wait after the next failed attempt to connect.
    backoff: Duration,
    attempt: Instant,
    resync: Instant,
    ping: Instant,
}

pub(crate) fn start(
    config: Config,
    pool: CallPool,
    news: News,
    actor: Sender<actor::Message>,
) -> Result<Sender<Message>, Error> {
    let (messages, inbox) = mpsc::channel();
    let now = Instant::now();
    let observer = Observer {
        config,
        pool,
        news,
        messages: messages.clone(),
        actor,
        link: Link::default(),
        due: Due { backoff: BACKOFF_MIN, attempt: now, resync: now, ping: now },
        next_call: 0,
        calls: BTreeMap::new(),
        queue: VecDeque::new(),
        round: None,
        names: BTreeMap::new(),
        stops: StopTracker::default(),
        host_uuid: None,
    };
    let spawned = thread::Builder::new().name("hv-observer".into()).spawn(move || observer.run(&inbox));
    spawned.map(|_| messages).map_err(|source| Error::Thread { name: "hv-observer", source })
}

impl Observer {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            self.on_time(Instant::now());
            match inbox.recv_timeout(self.next_wake().saturating_duration_since(Instant::now())) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.on_message(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.queue.clear();
        self.bury_connections();
    }

    fn next_wake(&self) -> Instant {
        let deadlines = self.calls.values().filter(|call| !call.stuck).map(|call| call.deadline);
        let next =
            if self.link.observing.is_none() { self.due.attempt } else { self.due.resync.min(self.due.ping) };
        // Never later than a second, so that refused calls and buried connections are tried again.
        deadlines
            .chain([next, Instant::now() + Duration::from_secs(1)])
            .min()
            .unwrap_or(next)
            .max(Instant::now() + Duration::from_millis(1))
    }

    fn on_time(&mut self, now: Instant) {
        for connection in mem::take(&mut self.link.graveyard) {
            self.bury(Arc::new(connection));
        }
        let late: Vec<u64> = self
            .calls
            .iter()
            .filter(|(_, call)| !call.stuck && call.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.on_late(id);
        }
        if self.link.observing.is_none() {
            if now >= self.due.attempt && !self.is_busy(What::Open) {
                self.due.attempt = now + self.due.backoff;
                self.due.backoff = (self.due.backoff * 2).min(BACKOFF_MAX);
                self.call(What::Open);
            }
        } else if now >= self.due.resync && self.round.is_none() {
            self.start_round(now);
        }
        if self.link.pinging.is_some() && now >= self.due.ping && !self.is_busy(What::Ping) {
            self.call(What::Ping);
        }
        self.pump();
        self.finish_round();
    }

    /// A call passed its deadline.
    fn on_late(&mut self, id: u64) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.stuck = true;
        let (what, generation) = (call.what, call.generation);
        tracing::warn!(?what, timeout = ?self.config.call_timeout, "libvirtd did not answer in time");
        match what {
            What::Open => self.lose("libvirtd does not answer an attempt to connect (it hangs)"),
            What::List | What::Host | What::Read { .. } => {
                self.unresolve(what, "libvirtd did not answer in time about it");
                if generation == self.link.generation {
                    // Whether libvirtd as a whole is silent shows with the attempt to connect anew.
                    self.bury_connections();
                    self.due.attempt = Instant::now();
                }
            }
            What::Ping if generation == self.link.generation => {
                self.lose("libvirtd does not answer (it hangs)")
            }
            What::Strays => self.resolve_strays(Vec::new()),
            What::Ping => {}
        }
    }

    fn start_round(&mut self, now: Instant) {
        self.due.resync = now + self.config.resync_interval;
        self.round = Some(Round::default());
        self.queue.push_back(What::Host);
        if self.is_busy(What::List) {
            // An earlier list hangs, as it does when one QEMU can't be ended: ask about each known domain.
            self.expect_known();
        } else {
            self.queue.push_back(What::List);
        }
    }

    fn expect_known(&mut self) {
        let known: Vec<(DomainUuid, String)> =
            self.names.iter().map(|(uuid, name)| (*uuid, name.clone())).collect();
        self.expect(clock::now(), false, known);
    }

    fn expect(&mut self, as_of: Time, answered: bool, domains: Vec<(DomainUuid, String)>) {
        let Some(round) = self.round.as_mut() else { return };
        round.expect(as_of, answered, domains.iter().map(|(uuid, _)| *uuid));
        for (uuid, name) in domains {
            self.names.insert(uuid, name);
            self.queue.push_back(What::Read { uuid, announce: false });
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Opened { call, result } => self.on_opened(call, result),
            Message::Listed { call, as_of, result } => {
                let Some((_, true)) = self.end_call(call) else { return };
                match result {
                    Ok(domains) => self.expect(as_of, true, domains),
                    Err(failure) => self.on_failure(What::List, &failure),
                }
            }
            Message::Host { call, result } => {
                let Some((_, true)) = self.end_call(call) else { return };
                match result {
                    Ok(host) => {
                        self.host_uuid = host.uuid;
                        self.news.tell(Event::HostInfo(host));
                    }
                    Err(failure) => self.on_failure(What::Host, &failure),
                }
            }
            Message::Read { call, as_of, result } => {
                let Some((what @ What::Read { uuid, announce }, true)) = self.end_call(call) else { return };
                match *result {
                    Ok(Some(domain)) => self.on_domain(domain, announce),
                    Ok(None) => self.on_no_domain(as_of, uuid),
                    Err(failure) => self.on_failure(what, &failure),
                }
            }
            Message::Strays { call, strays } => {
                if let Some((_, true)) = self.end_call(call) {
                    self.resolve_strays(strays);
                }
            }
            Message::Pinged { call, result } => {
                self.due.ping = Instant::now() + PING_INTERVAL;
                let generation = self.calls.get(&call).map(|call| call.generation);
                let Some((_, true)) = self.end_call(call) else { return };
                match result {
                    Err(failure) if failure.connection_lost && generation == Some(self.link.generation) => {
                        self.lose(&failure.message)
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Message::Lifecycle { generation, uuid, name, event, detail }
                if generation == self.link.generation =>
            {
                if let Some(cause) = self.stops.on_event(uuid, event, detail) {
                    self.news.tell(Event::Stopped { uuid, name: name.clone(), cause });
                }
                self.want_read(uuid, name);
            }
            Message::Altered { generation, uuid, name } if generation == self.link.generation => {
                self.want_read(uuid, name)
            }
            Message::Closed { generation, why } if generation == self.link.generation => self.lose(&why),
            // Of a connection that was replaced.
            Message::Lifecycle { .. } | Message::Altered { .. } | Message::Closed { .. } => {}
            Message::Resync => self.due.resync = Instant::now(),
            Message::Stop => {}
        }
    }

    fn want_read(&mut self, uuid: DomainUuid, name: String) {
        self.names.insert(uuid, name);
        let read = What::Read { uuid, announce: true };
        if !self.queue.contains(&read) {
            self.queue.push_back(read);
        }
    }

    fn on_opened(&mut self, id: u64, result: Result<Pair, CallFailure>) {
        let generation = self.calls.get(&id).map(|call| call.generation);
        let counts = self.end_call(id).is_some_and(|(_, counts)| counts);
        match result {
            Ok(pair) if counts && generation == Some(self.link.generation) => {
                self.link.observing = Some(Arc::new(pair.observing));
                self.link.pinging = Some(Arc::new(pair.pinging));
                self.due.ping = Instant::now() + PING_INTERVAL;
                self.due.backoff = BACKOFF_MIN;
                self.due.resync = Instant::now();
                self.round = None;
                self.queue.retain(|what| matches!(what, What::Read { announce: true, .. }));
                if self.link.connected != Some(true) {
                    self.link.connected = Some(true);
                    self.news.tell(Event::Connected);
                }
            }
            Ok(pair) => {
                self.bury(Arc::new(pair.observing));
                self.bury(Arc::new(pair.pinging));
            }
            Err(failure) if counts => {
                self.lose(&format!("cannot connect to {}: {}", self.config.uri, failure.message))
            }
            Err(_) => {}
        }
    }

    fn on_domain(&mut self, mut domain: Domain, announce: bool) {
        match domain.state {
            DomainState::ShutOff { cause } => {
                domain.state = DomainState::ShutOff { cause: self.stops.refine(domain.uuid, cause) }
            }
            DomainState::Running
            | DomainState::Paused { .. }
            | DomainState::ShuttingDown
            | DomainState::Crashed
            | DomainState::PmSuspended
            | DomainState::NoState => self.stops.saw_active(domain.uuid),
        }
        self.names.insert(domain.uuid, domain.name.clone());
        if announce {
            self.news.tell(Event::Changed(Box::new(domain.clone())));
        }
        if let Some(round) = self.round.as_mut() {
            round.on_domain(domain);
        }
    }

    fn on_no_domain(&mut self, as_of: Time, uuid: DomainUuid) {
        self.stops.forget(uuid);
        if let Some(round) = self.round.as_mut() {
            round.on_no_domain(as_of, uuid);
        }
        if let Some(name) = self.names.remove(&uuid) {
            self.news.tell(Event::Removed { as_of, uuid, name });
        }
    }

    fn on_failure(&mut self, what: What, failure: &CallFailure) {
        if failure.connection_lost {
            // The failed call may be of a connection that was replaced in the meantime: then there is nothing to lose.
            if self.link.observing.as_ref().is_some_and(|connection| !connection.is_alive()) {
                self.lose(&failure.message);
                return;
            }
        } else {
            tracing::warn!(?what, message = %failure.message, "libvirt refused a reading call");
        }
        self.unresolve(what, &failure.message);
    }

    /// A question of the round got no answer.
    fn unresolve(&mut self, what: What, why: &str) {
        match what {
            What::List if self.round.is_some() => self.expect_known(),
            What::Read { uuid, .. } => {
                if let Some(round) = self.round.as_mut() {
                    round.on_no_answer(uuid, why);
                }
            }
            What::Strays => self.resolve_strays(Vec::new()),
            What::Open | What::Host | What::List | What::Ping => {}
        }
    }

    fn resolve_strays(&mut self, strays: Vec<Stray>) {
        if let Some(round) = self.round.as_mut() {
            round.on_strays(strays);
        }
    }

    fn finish_round(&mut self) {
        let Some(round) = self.round.as_ref() else { return };
        if self.link.observing.is_none() || !round.has_all_domains() {
            return;
        }
        if !round.has_strays() {
            // Asked last: a domain that was started during the round is not taken for a stray, unless it is that new.
            if !self.queue.contains(&What::Strays) && !self.is_busy(What::Strays) {
                self.queue.push_back(What::Strays);
                self.pump();
            } else if self.calls.values().any(|call| call.what == What::Strays && call.stuck) {
                self.resolve_strays(Vec::new());
            }
            return;
        }
        if let Some(snapshot) = self.round.take().and_then(|round| round.finish(&mut self.names)) {
            self.news.tell(snapshot);
        }
    }

    /// libvirtd is gone or silent.
    fn lose(&mut self, why: &str) {
        self.bury_connections();
        self.stops.connection_lost();
        self.round = None;
        self.queue.clear();
        if self.link.connected != Some(false) {
            self.link.connected = Some(false);
            // The actor first: what is submitted because of the news is not among what was lost. A failed send means that it
            // has ended.
            let _ = self.actor.send(actor::Message::Lost { why: why.to_owned() });
            self.news.tell(Event::Lost { why: why.to_owned() });
        }
    }

    fn bury_connections(&mut self) {
        for connection in [self.link.observing.take(), self.link.pinging.take()].into_iter().flatten() {
            self.bury(connection);
        }
    }

    /// Closing makes calls, too: on a thread of its own. While a call is under way on the connection, that call's thread
    /// has a share in it, and closes it when the call returns.
    fn bury(&mut self, connection: Arc<Connection>) {
        let Some(last) = Arc::into_inner(connection) else { return };
        // Kept aside, because a refused thread would drop it here.
        let slot = Arc::new(Mutex::new(Some(last)));
        let theirs = Arc::clone(&slot);
        let take =
            |slot: &Mutex<Option<Connection>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if self.pool.spawn(move || drop(take(&theirs))).is_err() {
            self.link.graveyard.extend(take(&slot));
        }
    }
}
