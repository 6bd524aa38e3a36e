//! All timing of the protocol, in one place: the three presets, every derived time with its sum written out, and the
//! inequalities that safety and calm rest on. [`Timing::check`] is called at start: a configuration that breaks one is refused.

use crate::time::Span;
use alloc::format;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// How fast the clocks of two hosts may drift apart, in parts per million. Quartz is within 100 ppm; NTP slews by at
/// most 500 ppm; the bound doubles their sum and rounds up.
pub const DRIFT_PPM: u64 = 2_000;

/// The longest that freezing a VM may take after its lease ended: 6.6 ms was measured for the cgroup freezer on a busy
/// two-core machine; 250 ms leaves room for a loaded host.
pub const FREEZE_BOUND: Span = Span::from_millis(250);

/// Libvirt that has not answered for so long is an alarm, and what the guard has seen end since then has ended. A restart of
/// libvirtd takes seconds, a minute where there are hundreds of VMs; when it answers in time it says itself why a VM stopped, and
/// its user's word is worth waiting for (I4).
pub const LIBVIRT_PATIENCE: Span = Span::from_secs(60);

/// The times that the protocol runs on. The three that a user may set; everything else is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Interval of network heartbeats and of datastore heartbeats.
    pub heartbeat: Span,
    /// How long a run lease (and an ownership) lasts, from the start of the write or request that renews it.
    pub lease: Span,
    /// How long no evidence of a host must have been seen before it may be called failed.
    pub failure_timeout: Span,
}

impl Timing {
    /// The default: what most clusters should run with.
    pub const STANDARD: Timing = Timing {
        heartbeat: Span::from_millis(1_000),
        lease: Span::from_millis(3_000),
        failure_timeout: Span::from_millis(4_500),
    };
    /// For quiet, fast networks and storage.
    pub const SWIFT: Timing = Timing {
        heartbeat: Span::from_millis(250),
        lease: Span::from_millis(1_000),
        failure_timeout: Span::from_millis(1_500),
    };
    /// For storage that stalls for long.
    pub const PATIENT: Timing = Timing {
        heartbeat: Span::from_millis(1_000),
        lease: Span::from_millis(10_000),
        failure_timeout: Span::from_millis(15_000),
    };

    /// The preset of that name, if there is one.
    pub fn preset(name: &str) -> Option<Timing> {
        match name {
            "standard" => Some(Timing::STANDARD),
            "swift" => Some(Timing::SWIFT),
            "patient" => Some(Timing::PATIENT),
            _ => None,
        }
    }

    /// No network heartbeat (or answer to one) for this long: the other side is silent. Three heartbeats: two may be lost.
    pub fn network_timeout(&self) -> Span {
        self.heartbeat.scaled(3, 1)
    }

    /// No step for this long: this host stood still. Whoever takes part wakes at least once per heartbeat.
    pub fn standstill(&self) -> Span {
        self.heartbeat.scaled(2, 1)
    }

    /// Silence after which a host is called failed when most hosts have gone silent at once: two failure time-outs.
    pub fn storm_timeout(&self) -> Span {
        self.failure_timeout.scaled(2, 1)
    }

    /// How long an owner may rely on a promise, from when it sent what the promise answers. The other side keeps it
    /// for a whole failure time-out from when it received that: less the drift of two clocks, and the freeze bound.
    pub fn promise(&self) -> Span {
        self.failure_timeout - self.failure_timeout.scaled(2 * DRIFT_PPM, 1_000_000) - FREEZE_BOUND
    }

    /// Silence after which a host is looked at more closely (pinged, its registers read more often): a heartbeat and a half.
    pub fn suspicion(&self) -> Span {
        self.heartbeat.scaled(3, 2)
    }

    /// How long candidates collect each other's ranks. Silence of a primary (3 heartbeats) and this (1 heartbeat)
    /// make 4 heartbeats: an election is done within two network time-outs (6).
    pub fn election_window(&self) -> Span {
        self.heartbeat
    }

    /// How often registers of a suspicious host, or of a datastore that one contends for, are read.
    pub fn close_look(&self) -> Span {
        self.heartbeat.scaled(1, 4)
    }

    /// How often everything on a datastore is read again although nothing seems to have changed: five heartbeats. Hints
    /// by network make this rare path matter only when the network is gone.
    pub fn resync(&self) -> Span {
        self.heartbeat.scaled(5, 1)
    }

    /// How long this host must have had no answer of any kind before it believes that it is isolated, unless the cluster says
    /// otherwise: 20 / 3 failure time-outs (30 s with the default times, as in vSphere), and no more than a minute unless a
    /// failure time-out is longer. A switch that starts anew is back by then as a rule; what an isolation response stops is not.
    pub fn isolation_timeout(&self) -> Span {
        self.failure_timeout.scaled(20, 3).min(Span::from_secs(60).max(self.failure_timeout))
    }

    /// How much later than it could the next ping of an isolation address goes out, when so many in a row were not answered. The first
    /// two go out at once. Then up to half a heartbeat, not always the same, so that a network that comes and goes at a steady pace
    /// meets a ping while it is there.
    pub fn ping_offset(&self, missed: u32) -> Span {
        if missed < 2 {
            Span::ZERO
        } else {
            self.heartbeat.scaled(u64::from(missed.wrapping_mul(13) % 32), 64)
        }
    }

    /// How long a granted host may leave a grant unclaimed before it is given to another: two failure time-outs.
    pub fn claim_timeout(&self) -> Span {
        self.failure_timeout.scaled(2, 1)
    }

    /// Refuses times that can't be safe or can't be calm. The text names the inequality, with its numbers, and the remedy.
    pub fn check(&self) -> Result<(), String> {
        let needed = self.lease + self.lease.scaled(DRIFT_PPM, 1_000_000) + FREEZE_BOUND;
        if self.failure_timeout <= needed {
            return Err(format!(
                "failure_timeout ({}) must be greater than lease ({}) x (1 + {DRIFT_PPM} ppm drift) + freeze bound ({}) = {needed}: \
                 otherwise a VM could be restarted before its old host has stopped it; raise failure_timeout or lower lease",
                self.failure_timeout, self.lease, FREEZE_BOUND
            ));
        }
        if self.heartbeat < Span::from_millis(50) {
            return Err(format!(
                "heartbeat ({}) must be at least 0.050 s: below that, ordinary delays look like failures; raise heartbeat",
                self.heartbeat
            ));
        }
        if self.lease < self.heartbeat.scaled(5, 2) {
            return Err(format!(
                "lease ({}) must be at least 2.5 x heartbeat ({}): otherwise one lost heartbeat freezes VMs; raise lease or lower heartbeat",
                self.lease, self.heartbeat
            ));
        }
        if self.failure_timeout > Span::from_secs(600) {
            return Err(format!(
                "failure_timeout ({}) must be at most 600 s: nothing would be restarted for that long; lower it",
                self.failure_timeout
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_hold_their_own_inequalities() {
        for name in ["standard", "swift", "patient"] {
            let timing = Timing::preset(name).expect("a preset");
            assert_eq!(timing.check(), Ok(()), "{name}");
        }
        assert_eq!(Timing::preset("fast"), None);
    }

    #[test]
    fn each_preset_waits_for_its_own_time_before_it_believes_in_isolation() {
        let seconds = |name| Timing::preset(name).map(|timing| timing.isolation_timeout());
        assert_eq!(seconds("swift"), Some(Span::from_secs(10)));
        assert_eq!(seconds("standard"), Some(Span::from_secs(30)));
        assert_eq!(seconds("patient"), Some(Span::from_secs(60)));
    }

    #[test]
    fn pings_are_not_in_step_with_what_comes_and_goes() {
        let timing = Timing::STANDARD;
        let mut at = Span::ZERO;
        // Away for 1.2 s, back for 0.8 s. A ping that is lost ends after a second.
        let sent = (2..22).map(|missed| {
            at = at + Span::from_secs(1) + timing.ping_offset(missed);
            at.0 % 2_000_000
        });
        assert!(sent.filter(|at| *at > 1_200_000).count() > 3);
    }

    #[test]
    fn each_inequality_is_refused_by_name() {
        let t = Timing::STANDARD;
        let late = Timing { failure_timeout: t.lease, ..t }.check().unwrap_err();
        assert!(late.contains("failure_timeout (3.000 s) must be greater than lease (3.000 s)"), "{late}");
        let hasty = Timing { heartbeat: Span::from_millis(10), ..t }.check().unwrap_err();
        assert!(hasty.contains("heartbeat (0.010 s) must be at least"), "{hasty}");
        let tight = Timing { lease: Span::from_millis(2_000), ..t }.check().unwrap_err();
        assert!(tight.contains("at least 2.5 x heartbeat"), "{tight}");
        let endless = Timing { failure_timeout: Span::from_secs(601), ..t }.check().unwrap_err();
        assert!(endless.contains("at most 600 s"), "{endless}");
    }
}
