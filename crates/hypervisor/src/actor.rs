//! The acting thread: takes operations, runs each on a pool thread, and answers each exactly once.
//!
//! Operations on one domain run one after the other, in the order of submission; up to four domains at once. Each running
//! operation has a connection to itself (see [`crate::libvirt`] for why), taken from the idle ones or opened. So operations
//! go on while the observer reconnects, and one that hangs hinders no other.

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

/// At most so many operations run at once: each occupies a thread of libvirtd, which has 20 by default for everybody.
const IN_FLIGHT_MAX: usize = 4;

/// What the actor can be told.
pub(crate) enum Message {
    Submit {
        id: u64,
        op: Op,
    },
    Finished {
        call: u64,
        result: Result<OpOutput, OpError>,
    },
    /// The observer finds libvirtd silent or gone.
    Lost {
        why: String,
    },
    Stop,
}

/// Connections that no operation uses. The lock is held for moments only, never during a call.
type Idle = Arc<Mutex<Vec<Connection>>>;

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
    idle: Idle,
    waiting: VecDeque<Waiting>,
    running: BTreeMap<u64, Running>,
    next_call: u64,
}

pub(crate) fn start(config: Config, pool: CallPool, news: News) -> Result<Sender<Message>, Error> {
    let (messages, inbox) = mpsc::channel();
    let actor = Actor {
        config,
        pool,
        news,
        messages: messages.clone(),
        idle: Idle::default(),
        waiting: VecDeque::new(),
        running: BTreeMap::new(),
        next_call: 0,
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
                Ok(Message::Lost { why }) => self.on_lost(&why),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.on_time(Instant::now());
        }
        for running in self.running.values() {
            running.ticket.give_up();
        }
        let idle = Arc::clone(&self.idle);
        // Closing makes calls: on a thread of its own. Refused, the connections go with the last operation's thread.
        let closing = self.pool.spawn(move || drop(take_all(&idle)));
        if let Err(refusal) = closing {
            tracing::debug!(why = refusal.text(), "idle connections are not closed");
        }
    }

    fn next_wake(&self) -> Option<Instant> {
        let deadlines = self
            .running
            .values()
            .map(|running| running.deadline)
            .chain(self.waiting.iter().map(|waiting| waiting.deadline));
        deadlines.min()
    }

    fn done(&self, id: u64, result: Result<OpOutput, OpError>) {
        self.news.tell(Event::Done { id, result });
    }

    fn on_submit(&mut self, id: u64, op: Op) {
        match operations::subject(&op) {
            Ok(uuid) => self.waiting.push_back(Waiting {
                id,
                op,
                uuid,
                deadline: Instant::now() + self.config.op_timeout,
            }),
            Err(error) => self.done(id, Err(error)),
        }
    }

    fn on_finished(&mut self, call: u64, result: Result<OpOutput, OpError>) {
        match self.running.remove(&call) {
            Some(running) => self.done(running.id, result),
            None => tracing::info!(?result, "an operation that was given up has ended"),
        }
    }

    /// What runs now gets no answer any more, or none in time.
    fn on_lost(&mut self, why: &str) {
        for running in std::mem::take(&mut self.running).into_values() {
            running.ticket.give_up();
            self.done(running.id, Err(OpError::ConnectionLost { message: why.to_owned() }));
        }
    }

    fn on_time(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, running)| running.deadline <= now)
            .map(|(call, _)| *call)
            .collect();
        for call in &late {
            if let Some(running) = self.running.remove(call) {
                running.ticket.give_up();
                tracing::warn!(uuid = %running.uuid, "libvirtd did not finish an operation in time; its outcome is unknown");
                self.done(running.id, Err(OpError::TimedOut { seconds: self.config.op_timeout.as_secs() }));
            }
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
        let (messages, idle, uri) = (self.messages.clone(), Arc::clone(&self.idle), self.config.uri.clone());
        let job_ticket = ticket.clone();
        let spawned = self.pool.spawn(move || {
            let result = connection_for_op(&idle, &uri).and_then(|connection| {
                let result = operations::perform(&connection, &op, uuid, &job_ticket);
                give_back(&idle, connection);
                result
            });
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
}

fn take_all(idle: &Idle) -> Vec<Connection> {
    std::mem::take(&mut *idle.lock().unwrap_or_else(PoisonError::into_inner))
}

/// On a pool thread: an idle connection that is alive, else a new one.
fn connection_for_op(idle: &Idle, uri: &str) -> Result<Connection, OpError> {
    loop {
        // The lock is released before a dead one is dropped.
        let present = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match present {
            Some(connection) if connection.is_alive() => return Ok(connection),
            Some(dead) => drop(dead),
            None => break,
        }
    }
    Connection::open(uri, None).map_err(|failure| OpError::NotAttempted {
        why: format!("cannot connect to {uri}: {}", failure.message),
    })
}

/// On a pool thread, after an operation: keeps the connection for the next, or closes it.
fn give_back(idle: &Idle, connection: Connection) {
    let mut kept = idle.lock().unwrap_or_else(PoisonError::into_inner);
    if connection.is_alive() && kept.len() < IN_FLIGHT_MAX {
        kept.push(connection);
    } else {
        drop(kept);
        drop(connection);
    }
}
