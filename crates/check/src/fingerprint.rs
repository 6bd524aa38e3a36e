//! The normal form of a state, as 64 bits.
//!
//! A core is hashed by its derived `Hash`. Its times are told from all other numbers by their size: the clock of host i
//! begins at (i + 1) << 44. Two things are forgotten about a time: how long ago it was, beyond [`OLD`]; and the microseconds
//! by which steps of one instant follow each other (see [`crate::world`]).
//!
//! What is not forgotten: counters of operations and messages, so that two runs of different lengths are told apart although
//! nothing may follow from it. That costs states, not findings.

use std::hash::Hasher;

/// Nothing in the protocol looks back further than this.
const OLD: u64 = 70_000_000;

/// Times are told apart at this resolution: instants are 12.5 ms apart at least, and the steps of an instant take less.
const RESOLUTION: u64 = 12_500;

/// Where the clock of a host begins.
pub(crate) fn clock_base(host: usize) -> u64 {
    (host as u64 + 1) << 44
}

pub(crate) struct Fingerprint {
    state: u64,
    now: u64,
    hosts: u64,
}

impl Fingerprint {
    /// Of a state at that time, in microseconds since the world began.
    pub(crate) fn new(now: u64, hosts: usize) -> Fingerprint {
        Fingerprint { state: 0x9E37_79B9_7F4A_7C15, now, hosts: hosts as u64 }
    }

    fn mix(&mut self, value: u64) {
        self.state = (self.state.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.state ^= self.state >> 32;
    }
}

impl Hasher for Fingerprint {
    fn finish(&self) -> u64 {
        let mixed = (self.state ^ (self.state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed ^ (mixed >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        for byte in chunks.remainder() {
            self.mix(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn write_u64(&mut self, value: u64) {
        let host = value >> 44;
        if host == 0 || host > self.hosts {
            return self.mix(value);
        }
        let at = value - (host << 44);
        let at = if at + OLD < self.now { 0 } else { (at + RESOLUTION / 2) / RESOLUTION + 1 };
        self.mix((host << 44) | at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::Hash;

    fn of(now: u64, value: impl Hash) -> u64 {
        let mut hasher = Fingerprint::new(now, 2);
        value.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn steps_of_one_instant_are_alike_and_instants_are_not() {
        let at = |micros: u64| clock_base(1) + 30_000_000 + micros;
        assert_eq!(of(31_000_000, at(0)), of(31_000_000, at(40)));
        assert_ne!(of(31_000_000, at(0)), of(31_000_000, at(250_000)));
        assert_ne!(of(31_000_000, at(0)), of(31_000_000, clock_base(0) + 30_000_000));
    }

    #[test]
    fn what_is_long_ago_is_long_ago() {
        let now = 100_000_000;
        assert_eq!(of(now, clock_base(0) + 1_000_000), of(now, clock_base(0) + 20_000_000));
        assert_ne!(of(now, clock_base(0) + 1_000_000), of(now, clock_base(0) + 40_000_000));
    }

    #[test]
    fn other_numbers_are_what_they_are() {
        assert_ne!(of(0, 1_u64), of(0, 40_u64));
        assert_ne!(of(0, u64::MAX), of(0, u64::MAX - 1));
    }
}
