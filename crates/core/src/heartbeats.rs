//! The network heartbeat between a secondary and its primary, both ways: what is said, and what the answer brings.
//!
//! A heartbeat says what the primary needs to know of a host. Its answer passes leases on (R50) and asks for promises
//! (R25), which go out with the next heartbeat.
//!
//! Invariant: a lease counts from the start of the request, and only for the run of the agent that made it (R50).
//! It does not: judge anybody by heartbeats; that is `hosts`.

use crate::config::Config;
use crate::datastores::Datastores;
use crate::guard_side::GuardSide;
use crate::heartbeat_datastores::HeartbeatDatastores;
use crate::ids::{DatastoreName, HostId, Incarnation};
use crate::local_vms::LocalVms;
use crate::message::{
    Body, HALTED_MAX, Heartbeat, HeartbeatAck, HeldFor, OwnedDatastore, PowerOnVersion, Promise,
};
use crate::out::Out;
use crate::suspension::Answer;
use crate::time::{Span, Time};
use alloc::collections::BTreeMap;
use serde::{Deserialize, Serialize};

/// This host's part in the exchange of heartbeats.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Heartbeats {
    /// When the next one to the primary is due.
    due: Time,
    /// R25: what that one promises.
    promises: BTreeMap<DatastoreName, Promise>,
    /// The datastores by whose heartbeats hosts are judged.
    datastores: HeartbeatDatastores,
}

/// Of a heartbeat that is to be answered.
pub(crate) struct Request<'a> {
    pub(crate) from: &'a HostId,
    /// The run of the agent that sent it.
    pub(crate) run: Incarnation,
    /// When it was sent, by the sender's clock.
    pub(crate) sent: Time,
}

impl Heartbeats {
    pub(crate) fn new(now: Time) -> Heartbeats {
        Heartbeats { due: now, promises: BTreeMap::new(), datastores: HeartbeatDatastores::default() }
    }

    pub(crate) fn datastores(&self) -> &HeartbeatDatastores {
        &self.datastores
    }

    pub(crate) fn datastores_mut(&mut self) -> &mut HeartbeatDatastores {
        &mut self.datastores
    }

    /// There is another primary: it is to hear of this host at once.
    pub(crate) fn hurry(&mut self, now: Time) {
        self.due = now;
    }

    /// When the next one is due, if there is a primary to send it to.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// As a secondary: sends one if it is due or there is news for the primary.
    pub(crate) fn send(
        &mut self,
        primary: &HostId,
        news: bool,
        heartbeat: impl FnOnce() -> Heartbeat,
        interval: Span,
        out: &mut Out<'_>,
    ) {
        let due = out.now >= self.due;
        if due {
            self.due = out.now + interval;
        }
        if due || news {
            let promises = self.promises.values().cloned().collect();
            out.send(primary, Body::Heartbeat(Heartbeat { promises, ..heartbeat() }.into()));
        }
    }

    /// The primary's answer: leases on what it owns, and what this host may promise in return.
    pub(crate) fn on_ack(
        &mut self,
        ack: HeartbeatAck,
        config: &Config,
        datastores: &mut Datastores,
        guard: &mut GuardSide,
        out: &mut Out<'_>,
    ) {
        let ours = ack.run == config.incarnation && ack.echo <= out.now;
        let lease = config.timing.lease;
        self.promises.clear();
        self.datastores.on_told(ack.heartbeat_datastores);
        for owned in ack.owned {
            let Some(datastore) = datastores.get_mut(&owned.datastore) else { continue };
            if let Some(stamp) = owned.list {
                datastore.on_list_hint(stamp);
            }
            if !ours {
                continue;
            }
            guard.pass(&owned.datastore, ack.echo + owned.lease.min(lease), out);
            let answer = Answer { echo: ack.echo, hold: owned.hold, written: owned.list.is_some() };
            datastore.on_answer(answer, out);
            if datastore.promise(owned.epoch, out.now) {
                let promise =
                    Promise { datastore: owned.datastore.clone(), epoch: owned.epoch, echo: ack.sent };
                self.promises.insert(owned.datastore, promise);
            }
        }
    }

    /// Hosts' files differ: the next heartbeat promises nothing.
    pub(crate) fn promise_nothing(&mut self) {
        self.promises.clear();
    }

    /// As the primary: answers a heartbeat with what this host owns.
    pub(crate) fn answer(
        &self,
        request: &Request<'_>,
        datastores: &Datastores,
        lease: Span,
        out: &mut Out<'_>,
    ) {
        let owned = datastores.all().filter_map(|datastore| {
            let list = datastore.list()?;
            let left = datastore.ownership().left(out.now)?;
            #[cfg(feature = "broken-rules")]
            let left = if datastore.breaks(crate::BrokenRule::AckBeyondOwnership) { lease } else { left };
            Some(OwnedDatastore {
                datastore: datastore.name().clone(),
                epoch: list.epoch(),
                list: list.on_disk(),
                lease: lease.min(left),
                hold: list.suspension().hold(out.now),
            })
        });
        let ack = HeartbeatAck {
            echo: request.sent,
            run: request.run,
            sent: out.now,
            owned: owned.collect(),
            heartbeat_datastores: self.datastores.chosen().to_vec(),
        };
        out.send(request.from, Body::HeartbeatAck(ack));
    }
}

/// What this host says of itself; it promises nothing yet.
pub(crate) fn heartbeat(
    datastores: &Datastores,
    vms: &LocalVms,
    guard: &GuardSide,
    failure_timeout: Span,
    now: Time,
) -> Heartbeat {
    let unwritten = datastores.all().filter(|datastore| datastore.is_unwritten(vms.domains()));
    let held = datastores.all().filter_map(|datastore| {
        Some(HeldFor { datastore: datastore.name().clone(), left: datastore.own_hold().left(now)? })
    });
    let power_on = datastores.all().filter_map(|datastore| {
        let version = datastore.own().power_on()?.version;
        Some(PowerOnVersion { datastore: datastore.name().clone(), version })
    });
    Heartbeat {
        sent: now,
        datastores: datastores.connected().map(|datastore| datastore.name().clone()).collect(),
        power_on: power_on.collect(),
        capacity: vms.capacity(),
        hypervisor_well: vms.is_well(),
        promises: alloc::vec::Vec::new(),
        failure_timeout: Some(failure_timeout),
        unwritten: unwritten.map(|datastore| datastore.name().clone()).collect(),
        arriving: datastores.all().flat_map(|datastore| datastore.arriving(vms.domains())).collect(),
        held: held.collect(),
        guard: guard.word(),
        guard_error: guard.error().filter(|_| !guard.word().is_guarded()).cloned(),
        halted: datastores
            .all()
            .flat_map(|datastore| datastore.claims().halted(vms.domains()))
            .take(HALTED_MAX)
            .collect(),
    }
}
