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

    pub fn keep(&mut self, other: &Self) {
        for (index, word) in self.0.iter_mut().enumerate() {
            *word &= other.0.get(index).copied().unwrap_or(0);
        }
    }

    pub fn drop_all(&mut self, other: &Self) {
        for (word, out) in self.0.iter_mut().zip(&other.0) {
            *word &= !out;
        }
    }
}
