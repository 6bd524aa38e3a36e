//! The observer's questions to libvirt: which wait, which are under way, and how each is asked on a pool thread.
//!
//! Invariant: one call at a time on the observing connection, and one per question, also when its connection was replaced.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Message, Observer, Pair, Round};
use crate::clock;
use crate::domain::DomainUuid;
use crate::libvirt::{self, Connection, Listener};

/// A libvirtd that hangs lets so many attempts to connect hang before it is left alone until one of them returns.
const STUCK_ATTEMPTS_MAX: usize = 3;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Open,
    List,
    Host,
    /// `announce`: tell the result as a change, at once.
    Read {
        uuid: DomainUuid,
        announce: bool,
    },
    Strays,
    Ping,
}

impl What {
    /// Of each of these, one call at a time.
    pub(super) fn key(self) -> (u8, Option<DomainUuid>) {
        match self {
            What::Open => (0, None),
            What::List => (1, None),
            What::Host => (2, None),
            What::Read { uuid, announce: _ } => (3, Some(uuid)),
            What::Strays => (4, None),
            What::Ping => (5, None),
        }
    }
}

/// A question under way.
pub(super) struct Call {
    pub(super) what: What,
    pub(super) generation: u64,
    pub(super) deadline: Instant,
    /// It passed its deadline.
    pub(super) stuck: bool,
}

impl Observer {
    pub(super) fn is_busy(&self, what: What) -> bool {
        let mut same = self.calls.values().filter(|call| call.what.key() == what.key());
        if what == What::Open {
            // An attempt that is stuck does not keep from the next, which may reach a restarted libvirtd; a few do.
            return same.clone().any(|call| !call.stuck) || same.count() >= STUCK_ATTEMPTS_MAX;
        }
        same.next().is_some()
    }

    /// Starts queued calls, as many as may be in flight.
    pub(super) fn pump(&mut self) {
        if self.link.observing.is_none() {
            return;
        }
        let mut later = VecDeque::new();
        // One call at a time on the connection; looking for strays does not use it.
        while !self
            .calls
            .values()
            .any(|call| !call.stuck && call.generation == self.link.generation && call.what != What::Ping)
        {
            let Some(what) = self.queue.pop_front() else { break };
            let same = self.calls.values().find(|call| call.what.key() == what.key());
            match same.map(|call| call.stuck) {
                None => self.call(what),
                // Results of one domain must not overtake each other.
                Some(false) => later.push_back(what),
                Some(true) => self.unresolve(what, "an earlier question about it still hangs in libvirtd"),
            }
        }
        later.append(&mut self.queue);
        self.queue = later;
    }

    pub(super) fn call(&mut self, what: What) {
        let id = self.next_call;
        self.next_call += 1;
        let messages = self.messages.clone();
        let connection =
            if what == What::Ping { self.link.pinging.clone() } else { self.link.observing.clone() };
        let deadline = Instant::now() + self.config.call_timeout;
        let generation = if what == What::Open { self.link.generation + 1 } else { self.link.generation };
        let spawned = match (what, connection) {
            (What::Open, _) => {
                self.link.generation = generation;
                let listener = Listener { generation, messages: messages.clone() };
                let uri = self.config.uri.clone();
                self.pool.spawn(move || {
                    // Nobody receives after the end: then the connection is closed here, on this thread.
                    let result = Connection::open(&uri, Some(listener))
                        .and_then(|observing| Ok(Pair { observing, pinging: Connection::open(&uri, None)? }));
                    let _ = messages.send(Message::Opened { call: id, result });
                })
            }
            (What::List, Some(connection)) => self.pool.spawn(move || {
                let as_of = clock::now();
                let _ = messages.send(Message::Listed { call: id, as_of, result: connection.list() });
            }),
            (What::Host, Some(connection)) => {
                let known = self.host_uuid;
                self.pool.spawn(move || {
                    let _ = messages.send(Message::Host { call: id, result: connection.host_info(known) });
                })
            }
            (What::Read { uuid, .. }, Some(connection)) => self.pool.spawn(move || {
                let as_of = clock::now();
                let result = Box::new(connection.read(as_of, uuid));
                let _ = messages.send(Message::Read { call: id, as_of, result });
            }),
            (What::Strays, Some(_)) => {
                let active: Vec<DomainUuid> = self.round.iter().flat_map(Round::active).collect();
                self.pool.spawn(move || {
                    let _ = messages.send(Message::Strays { call: id, strays: libvirt::strays(&active) });
                })
            }
            (What::Ping, Some(connection)) => self.pool.spawn(move || {
                let _ = messages.send(Message::Pinged { call: id, result: connection.ping() });
            }),
            (What::List | What::Host | What::Read { .. } | What::Strays | What::Ping, None) => return,
        };
        match spawned {
            Ok(()) => {
                self.calls.insert(id, Call { what, generation, deadline, stuck: false });
            }
            Err(refusal) => {
                let why = refusal.text();
                if what == What::Open {
                    self.lose(&why);
                } else {
                    self.unresolve(what, &why);
                }
            }
        }
    }

    /// A call is over: gives what it was, and whether its result still counts.
    pub(super) fn end_call(&mut self, id: u64) -> Option<(What, bool)> {
        let call = self.calls.remove(&id)?;
        if call.stuck {
            // Too late to be believed, but it can be asked again now.
            match call.what {
                What::Read { uuid, .. } if self.link.observing.is_some() => {
                    self.queue.push_back(What::Read { uuid, announce: true })
                }
                What::List | What::Host | What::Strays | What::Open | What::Ping | What::Read { .. } => {
                    self.due.resync = Instant::now()
                }
            }
        }
        Some((call.what, !call.stuck))
    }
}
