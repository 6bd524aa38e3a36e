//! A host's monotonic clock: starts anew with each boot, and runs a little too fast or too slow.

use mainstay_core::Time;

const MILLION: i64 = 1_000_000;

/// A host's clock over virtual time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// When it started, in virtual microseconds.
    pub started: u64,
    /// What it showed then.
    pub base: u64,
    /// How much too fast it runs, in parts per million.
    pub drift_ppm: i64,
}

impl Clock {
    /// What it shows at that virtual instant.
    pub fn local(&self, at: u64) -> Time {
        let passed = at.saturating_sub(self.started) as i64;
        Time(self.base + (passed + passed * self.drift_ppm / MILLION) as u64)
    }

    /// From that virtual instant on it runs that much too fast. What it shows does not jump.
    pub fn drift(&mut self, at: u64, drift_ppm: i64) {
        *self = Clock { base: self.local(at).0, started: at, drift_ppm };
    }

    /// The first virtual instant at which it shows at least `local`.
    pub fn when(&self, local: Time) -> u64 {
        let wanted = local.0.saturating_sub(self.base).min(1 << 40) as i64;
        let mut at = self.started + (wanted * MILLION / (MILLION + self.drift_ppm)) as u64;
        while self.local(at) < Time(self.base + wanted as u64) {
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_local() {
        for drift_ppm in [-1000, -7, 0, 3, 1000] {
            let clock = Clock { started: 5_000, base: 77, drift_ppm };
            for local in [77, 78, 1_000_000, 123_456_789] {
                let at = clock.when(Time(local));
                assert!(clock.local(at) >= Time(local), "{drift_ppm} {local}");
                assert!(
                    at == 5_000 || clock.local(at - 1) < Time(local) + mainstay_core::Span(1),
                    "{drift_ppm} {local}"
                );
            }
        }
    }

    #[test]
    fn another_drift_makes_no_jump() {
        let mut clock = Clock { started: 0, base: 7, drift_ppm: 1000 };
        let before = clock.local(5_000_000);
        clock.drift(5_000_000, -1000);
        assert_eq!(clock.local(5_000_000), before);
        assert_eq!(clock.local(6_000_000), before + mainstay_core::Span(999_000));
    }

    #[test]
    fn a_fast_clock_gains() {
        let clock = Clock { started: 0, base: 0, drift_ppm: 1000 };
        assert_eq!(clock.local(1_000_000_000), Time(1_001_000_000));
    }
}
