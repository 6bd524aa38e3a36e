//! The acting thread: takes operations, runs each on a pool thread, and answers each exactly once.
//!
//! Operations on one domain run one after the other, in the order of submission; up to four domains at once. Its connection
//! is its own, opened when it is needed, so that operations go on while the observer reconnects and the other way round.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::News;
use crate::calls::CallPool;
use crate::domain::DomainUuid;
use crate::error::{Error, OpError};
use crate::event::{Config, Event, Op, OpOutput};
use crate::libvirt::Connection;
use crate::operations::{self, Ticket};

/// As in the observer: libvirtd serves five requests per client, and keepalives need one.
const IN_FLIGHT_MAX: usize = 4;

/// What the actor can be told.
pub(crate) enum Message {
    Submit { id: u64, op: Op },
    Finished { call: u64, result: Result<OpOutput, OpError> },
    Stop,
}

/// The connection that operations share. The lock is held for moments only, never during a call.
type Shared = Arc<Mutex<Option<Arc<Connection>>>>;

struct Waiting {
    id: u64,
    op: Op,
    uuid: DomainUuid,
    deadline: Instant,
}

struct Running {
    id: u64,
    uuid: DomainUuid,
    deadline: Instant,
    ticket: Ticket,
}

struct Actor {
    config: Config,
    pool: CallPool,
    news: News,
    messages: Sender<Message>,
    shared: Shared,
    waiting: VecDeque<Waiting>,
    running: BTreeMap<u64, Running>,
    next_call: u64,
    graveyard: Vec<Arc<Connection>>,
}

pub(crate) fn start(config: Config, pool: CallPool, news: News) -> Result<Sender<Message>, Error> {
    let (messages, inbox) = mpsc::channel();
    let actor = Actor {
        config,
        pool,
        news,
        messages: messages.clone(),
        shared: Shared::default(),
        waiting: VecDeque::new(),
        running: BTreeMap::new(),
        next_call: 0,
        graveyard: Vec::new(),
    };
    let spawned = thread::Builder::new().name("hv-actor".into()).spawn(move || actor.run(&inbox));
    spawned.map(|_| messages).map_err(|source| Error::Thread { name: "hv-actor", source })
}

impl Actor {
    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let pause = self.next_wake().map(|wake| wake.saturating_duration_since(Instant::now()));
            match inbox.recv_timeout(pause.unwrap_or(Duration::from_secs(60))) {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Message::Submit { id, op }) => self.on_submit(id, op),
                Ok(Message::Finished { call, result }) => self.on_finished(call, result),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.on_time(Instant::now());
        }
        for running in self.running.values() {
            running.ticket.give_up();
        }
        self.replace_connection();
    }

    fn next_wake(&self) -> Option<Instant> {
        let deadlines = self.running.values().map(|running| running.deadline).chain(self.waiting.iter().map(|waiting| waiting.deadline));
        let burial = (!self.graveyard.is_empty()).then(|| Instant::now() + Duration::from_secs(1));
        deadlines.chain(burial).min()
    }

    fn done(&self, id: u64, result: Result<OpOutput, OpError>) {
        self.news.tell(Event::Done { id, result });
    }

    fn on_submit(&mut self, id: u64, op: Op) {
        match operations::subject(&op) {
            Ok(uuid) => self.waiting.push_back(Waiting { id, op, uuid, deadline: Instant::now() + self.config.op_timeout }),
            Err(error) => self.done(id, Err(error)),
        }
    }

    fn on_finished(&mut self, call: u64, result: Result<OpOutput, OpError>) {
        match self.running.remove(&call) {
            Some(running) => self.done(running.id, result),
            None => tracing::info!(?result, "an operation that was given up has ended"),
        }
    }

    fn on_time(&mut self, now: Instant) {
        for connection in std::mem::take(&mut self.graveyard) {
            self.bury(connection);
        }
        let late: Vec<u64> = self.running.iter().filter(|(_, running)| running.deadline <= now).map(|(call, _)| *call).collect();
        for call in &late {
            if let Some(running) = self.running.remove(call) {
                running.ticket.give_up();
                tracing::warn!(uuid = %running.uuid, "libvirtd did not finish an operation in time; its outcome is unknown");
                self.done(running.id, Err(OpError::TimedOut { seconds: self.config.op_timeout.as_secs() }));
            }
        }
        if !late.is_empty() {
            // What hangs uses up one of the few requests of its connection.
            self.replace_connection();
        }
        while let Some(position) = self.waiting.iter().position(|waiting| waiting.deadline <= now) {
            if let Some(waiting) = self.waiting.remove(position) {
                let why = "earlier operations did not end in time".to_owned();
                self.done(waiting.id, Err(OpError::NotAttempted { why }));
            }
        }
        self.pump();
    }

    fn pump(&mut self) {
        let mut held: Vec<DomainUuid> = self.running.values().map(|running| running.uuid).collect();
        let mut position = 0;
        while self.running.len() < IN_FLIGHT_MAX {
            let Some(uuid) = self.waiting.get(position).map(|waiting| waiting.uuid) else { break };
            if held.contains(&uuid) {
                position += 1;
                continue;
            }
            held.push(uuid);
            if let Some(waiting) = self.waiting.remove(position) {
                self.start_op(waiting);
            }
        }
    }

    fn start_op(&mut self, waiting: Waiting) {
        let Waiting { id, op, uuid, deadline } = waiting;
        let call = self.next_call;
        self.next_call += 1;
        let ticket = Ticket::default();
        let (messages, shared, uri) = (self.messages.clone(), Arc::clone(&self.shared), self.config.uri.clone());
        let job_ticket = ticket.clone();
        let spawned = self.pool.spawn(move || {
            let result = connection_for_op(&shared, &uri).and_then(|connection| operations::perform(&connection, &op, uuid, &job_ticket));
            // Nobody receives after the end.
            let _ = messages.send(Message::Finished { call, result });
        });
        match spawned {
            Ok(()) => {
                self.running.insert(call, Running { id, uuid, deadline, ticket });
            }
            Err(refusal) => self.done(id, Err(OpError::NotAttempted { why: refusal.text() })),
        }
    }

    fn replace_connection(&mut self) {
        let old = self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(connection) = old {
            self.bury(connection);
        }
    }

    /// Closing makes calls, too: on a thread of its own. See the observer's.
    fn bury(&mut self, connection: Arc<Connection>) {
        let spare = Arc::clone(&connection);
        match self.pool.spawn(move || drop(connection)) {
            Ok(()) => self.graveyard.extend(Arc::into_inner(spare).map(Arc::new)),
            Err(_) => self.graveyard.push(spare),
        }
    }
}

/// On a pool thread: the shared connection if it is alive, else a new one, which is then shared.
fn connection_for_op(shared: &Shared, uri: &str) -> Result<Arc<Connection>, OpError> {
    let present = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(connection) = present
        && connection.is_alive()
    {
        return Ok(connection);
    }
    let opened = Connection::open(uri, None).map_err(|failure| OpError::NotAttempted { why: format!("cannot connect to {uri}: {}", failure.message) })?;
    let opened = Arc::new(opened);
    // The one that is replaced is closed here, after the lock is released.
    let replaced = shared.lock().unwrap_or_else(PoisonError::into_inner).replace(Arc::clone(&opened));
    drop(replaced);
    Ok(opened)
}
