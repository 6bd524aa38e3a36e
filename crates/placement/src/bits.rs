//! Sets of hosts, one bit each.

use alloc::vec;
use alloc::vec::Vec;

/// A set of host positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostSet(Vec<u64>);

impl HostSet {
    pub fn none(hosts: usize) -> Self {
        Self(vec![0; hosts.div_ceil(64)])
    }

    pub fn all(hosts: usize) -> Self {
        let mut set = Self(vec![u64::MAX; hosts.div_ceil(64)]);
        if let (Some(last), rest @ 1..) = (set.0.last_mut(), hosts % 64) {
            *last = (1 << rest) - 1;
        }
        set
    }

    pub fn has(&self, host: u32) -> bool {
        self.0.get(host as usize / 64).is_some_and(|word| word >> (host % 64) & 1 == 1)
    }

    pub fn put(&mut self, host: u32) {
        if let Some(word) = self.0.get_mut(host as usize / 64) {
            *word |= 1 << (host % 64);
        }
    }

    pub fn remove(&mut self, host: u32) {
        if let Some(word) = self.0.get_mut(host as usize / 64) {
            *word &= !(1 << (host % 64));
        }
    }

    pub fn set(&mut self, host: u32, there: bool) {
        if there { self.put(host) } else { self.remove(host) }
    }

    /// Becomes the other set, without a new place in memory.
    pub fn become_like(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }

    /// Keeps only this one, if it is there.
    pub fn keep_only(&mut self, host: u32) {
        let there = self.has(host);
        self.0.fill(0);
        self.set(host, there);
    }

    /// The members, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).step_by(64).zip(&self.0).flat_map(|(first, word)| {
            let mut rest = *word;
            core::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                Some(first + bit)
            })
        })
    }

    pub fn keep(&mut self, other: &Self) {
        let others = other.0.iter().copied().chain(core::iter::repeat(0));
        for (word, other) in self.0.iter_mut().zip(others) {
            *word &= other;
        }
    }

    pub fn add_all(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub fn drop_all(&mut self, other: &Self) {
        for (word, out) in self.0.iter_mut().zip(&other.0) {
            *word &= !out;
        }
    }
}
