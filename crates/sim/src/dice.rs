//! The only source of chance: a seeded ChaCha stream, and the few distributions that the world draws from it.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A seeded stream of chance.
#[derive(Clone, Debug)]
pub struct Dice(ChaCha8Rng);

/// How long something takes, in microseconds: `base` plus up to `spread`; with `tail_permille`, up to `tail` more. Real storage
/// and networks are quick nearly always and very late sometimes; a simulator without the tail simulates friends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// The shortest it can be, in microseconds.
    pub base: u64,
    /// Uniformly up to that much more.
    pub spread: u64,
    /// How many of a thousand are late.
    pub tail_permille: u64,
    /// Late ones take uniformly up to that much more.
    pub tail: u64,
}

impl Dice {
    /// The stream of that seed. Different `stream`s of one seed are independent.
    pub fn seeded(seed: u64, stream: u64) -> Dice {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Dice(rng)
    }

    /// Uniform in `0..n`; 0 when `n` is 0. (The modulo's bias does not matter at 64 bits.)
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.0.next_u64() % n }
    }

    /// Uniform in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True with that many chances out of a thousand.
    pub fn permille(&mut self, chances: u64) -> bool {
        self.below(1000) < chances
    }

    /// An index into something of that length.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// One of them; `None` when there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let index = self.index(of.len());
        of.get(index)
    }

    /// Draws a latency, in microseconds.
    pub fn latency(&mut self, of: Latency) -> u64 {
        let quick = of.base + self.below(of.spread);
        if self.permille(of.tail_permille) { quick + self.below(of.tail) } else { quick }
    }
}
