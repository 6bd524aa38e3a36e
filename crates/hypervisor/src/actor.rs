//! The acting thread: takes operations, runs each on a pool thread, and answers each exactly once.
//!
//! Operations of one lane ([`crate::lane`]) run one after the other, in the order of submission; of each kind of lane a few at
//! once. Each running operation has a connection to itself (see [`crate::libvirt`] for why), taken from the idle ones or
//! opened. So operations go on while the observer reconnects, and one that hangs hinders no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::News;
use crate::calls::CallPool;
use crate::error::{Error, OpError};
use crate::event::{Config, Event, GuestAnswer, Op, OpOutput};
use crate::lane::{self, Lane};
use crate::libvirt::Connection;
use crate::operations::{self, Ticket, migration};

/// So many connections that no operation uses are kept for the next ones.
const IDLE_MAX: usize = 4;

/// An order to abort has no effect on a migration that has not yet begun to send: it is given again.
const ABORT_AGAIN: Duration = Duration::from_secs(1);

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
    lane: Lane,
    deadline: Instant,
}

struct Running {
    id: u64,
    lane: Lane,
    allowed: Duration,
    phase: Phase,
    ticket: Ticket,
}

#[derive(Clone, Copy)]
enum Phase {
    Works {
        deadline: Instant,
    },
    /// A migration that took too long.
    Aborting {
        again: Instant,
        give_up: Instant,
    },
    /// Its result was told; it keeps its place in the lane until it really ends.
    Told,
}

impl Phase {
    fn wake(self) -> Option<Instant> {
        match self {
            Phase::Works { deadline } => Some(deadline),
            Phase::Aborting { again, give_up } => Some(again.min(give_up)),
            Phase::Told => None,
        }
    }
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
            .filter_map(|running| running.phase.wake())
            .chain(self.waiting.iter().map(|waiting| waiting.deadline));
        deadlines.min()
    }

    fn done(&self, id: u64, result: Result<OpOutput, OpError>) {
        self.news.tell(Event::Done { id, result });
    }

    fn on_submit(&mut self, id: u64, op: Op) {
        match Lane::of(&op) {
            Ok(lane) => {
                let deadline = Instant::now() + lane::time_to_wait(&op, &self.config);
                self.waiting.push_back(Waiting { id, op, lane, deadline });
            }
            Err(error) => self.done(id, Err(error)),
        }
    }

    fn on_finished(&mut self, call: u64, result: Result<OpOutput, OpError>) {
        let Some(running) = self.running.remove(&call) else {
            tracing::info!(?result, "an operation that was given up has ended");
            return;
        };
        match running.phase {
            Phase::Works { .. } => self.done(running.id, result),
            Phase::Aborting { .. } => {
                let seconds = running.allowed.as_secs();
                self.done(running.id, result.map_err(|error| migration::aborted(error, seconds)));
            }
            Phase::Told => tracing::debug!(?result, "a call has ended after its time"),
        }
    }

    /// What runs now gets no answer any more, or none in time.
    fn on_lost(&mut self, why: &str) {
        let running: Vec<u64> = self.running.keys().copied().collect();
        for call in running {
            self.give_up(call, Err(OpError::ConnectionLost { message: why.to_owned() }));
        }
    }

    fn on_time(&mut self, now: Instant) {
        let due = |running: &Running| running.phase.wake().is_some_and(|wake| wake <= now);
        let late: Vec<u64> =
            self.running.iter().filter(|(_, running)| due(running)).map(|(call, _)| *call).collect();
        for call in late {
            self.on_late(now, call);
        }
        while let Some(position) = self.waiting.iter().position(|waiting| waiting.deadline <= now) {
            if let Some(waiting) = self.waiting.remove(position) {
                let why = "earlier operations did not end in time".to_owned();
                self.done(waiting.id, Err(OpError::NotAttempted { why }));
            }
        }
        self.pump();
    }

    fn on_late(&mut self, now: Instant, call: u64) {
        let Some(running) = self.running.get_mut(&call) else { return };
        let lane = running.lane;
        let timed_out = Err(OpError::TimedOut { seconds: running.allowed.as_secs() });
        match (lane, running.phase) {
            (Lane::Migration(_), Phase::Works { .. }) => {
                let give_up = now + self.config.op_timeout;
                running.phase = Phase::Aborting { again: now + ABORT_AGAIN, give_up };
                self.abort(lane);
            }
            (Lane::Migration(_), Phase::Aborting { give_up, .. }) if now < give_up => {
                running.phase = Phase::Aborting { again: now + ABORT_AGAIN, give_up };
                self.abort(lane);
            }
            (Lane::GuestPing(_), Phase::Works { .. }) => {
                self.give_up(call, Ok(OpOutput::Guest(GuestAnswer::Silent)));
            }
            (Lane::Domain(_) | Lane::GuestCommand(_) | Lane::Migration(_) | Lane::Host, _)
            | (Lane::GuestPing(_), Phase::Aborting { .. } | Phase::Told) => {
                tracing::warn!(uuid = %lane.uuid(), "libvirtd did not finish an operation in time; its outcome is unknown");
                self.give_up(call, timed_out);
            }
        }
    }

    /// Tells the result of an operation that goes on without us.
    fn give_up(&mut self, call: u64, result: Result<OpOutput, OpError>) {
        let Some(mut running) = self.running.remove(&call) else { return };
        running.ticket.give_up();
        let told = matches!(running.phase, Phase::Told);
        let id = running.id;
        if running.lane.is_kept_while_hung() {
            running.phase = Phase::Told;
            self.running.insert(call, running);
        }
        if !told {
            self.done(id, result);
        }
    }

    fn abort(&self, lane: Lane) {
        let (idle, uri, uuid) = (Arc::clone(&self.idle), self.config.uri.clone(), lane.uuid());
        let spawned = self.pool.spawn(move || {
            let aborted = connection_for_op(&idle, &uri).and_then(|connection| {
                let aborted = migration::abort(&connection, uuid);
                give_back(&idle, connection);
                aborted
            });
            if let Err(error) = aborted {
                tracing::info!(%uuid, %error, "a migration that takes too long could not be aborted");
            }
        });
        if let Err(refusal) = spawned {
            tracing::warn!(%uuid, why = refusal.text(), "a migration that takes too long is not aborted");
        }
    }

    fn pump(&mut self) {
        let mut held: Vec<Lane> = self.running.values().map(|running| running.lane).collect();
        let mut position = 0;
        while let Some(lane) = self.waiting.get(position).map(|waiting| waiting.lane) {
            let alike = held.iter().filter(|other| other.same_kind(lane)).count();
            if held.contains(&lane) || alike >= lane.in_flight_max() {
                position += 1;
                continue;
            }
            if let Some(waiting) = self.waiting.remove(position)
                && self.start_op(waiting)
            {
                held.push(lane);
            }
        }
    }

    /// False when it could not be started, which was then told.
    fn start_op(&mut self, waiting: Waiting) -> bool {
        let Waiting { id, op, lane, deadline: _ } = waiting;
        let call = self.next_call;
        self.next_call += 1;
        let ticket = Ticket::default();
        let allowed = lane::time_to_run(&op, &self.config);
        let (messages, idle, uri) = (self.messages.clone(), Arc::clone(&self.idle), self.config.uri.clone());
        let (job_ticket, migrate_unsafe) = (ticket.clone(), self.config.migrate_unsafe);
        let spawned = self.pool.spawn(move || {
            let result = connection_for_op(&idle, &uri).and_then(|connection| {
                let result = operations::perform(&connection, &op, lane.uuid(), migrate_unsafe, &job_ticket);
                give_back(&idle, connection);
                result
            });
            // Nobody receives after the end.
            let _ = messages.send(Message::Finished { call, result });
        });
        match spawned {
            Ok(()) => {
                let phase = Phase::Works { deadline: Instant::now() + allowed };
                self.running.insert(call, Running { id, lane, allowed, phase, ticket });
                true
            }
            Err(refusal) => {
                self.done(id, Err(OpError::NotAttempted { why: refusal.text() }));
                false
            }
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
    if connection.is_alive() && kept.len() < IDLE_MAX {
        kept.push(connection);
    } else {
        drop(kept);
        drop(connection);
    }
}
