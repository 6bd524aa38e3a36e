//! All hosts by how much of one resource they have free, so that "who has enough" needs no look at each of them.

use crate::bits::HostSet;
use alloc::vec::Vec;

/// So many hosts between two marks. A set for each mark costs memory, hosts between two marks are gone through.
const STEP: usize = 64;

/// Hosts by what they have free, the least first; among equals the smaller position.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranked {
    entries: Vec<(u64, u32)>,
    /// At each mark the hosts before it.
    marks: Vec<HostSet>,
}

impl Ranked {
    pub fn new(free: impl Iterator<Item = u64>) -> Self {
        let mut entries: Vec<(u64, u32)> = free.zip(0u32..).collect();
        entries.sort_unstable();
        let mut ranked = Self { entries, marks: Vec::new() };
        ranked.mark();
        ranked
    }

    /// A host now has another amount free.
    pub fn change(&mut self, host: u32, before: u64, after: u64) {
        if let Ok(at) = self.entries.binary_search(&(before, host)) {
            self.entries.remove(at);
        }
        let at = self.entries.partition_point(|entry| *entry < (after, host));
        self.entries.insert(at, (after, host));
        self.mark();
    }

    fn mark(&mut self) {
        self.marks.clear();
        let mut before = HostSet::none(self.entries.len());
        for step in self.entries.chunks(STEP) {
            self.marks.push(before.clone());
            step.iter().for_each(|(_, host)| before.put(*host));
        }
        self.marks.push(before);
    }

    /// Those that have enough, with what they have, the least first.
    pub fn from(&self, demand: u64) -> &[(u64, u32)] {
        &self.entries[self.too_small(demand)..]
    }

    /// Takes those out of the set that have not enough.
    pub fn keep_enough(&self, demand: u64, hosts: &mut HostSet) {
        let end = self.too_small(demand);
        let mark = end / STEP;
        hosts.drop_all(&self.marks[mark]);
        self.entries[mark * STEP..end].iter().for_each(|(_, host)| hosts.remove(*host));
    }

    fn too_small(&self, demand: u64) -> usize {
        self.entries.partition_point(|(free, _)| *free < demand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_have_enough_are_those_found_by_looking_at_each() {
        let mut free: Vec<u64> = (0..300).map(|host| host * 7919 % 101).collect();
        let mut ranked = Ranked::new(free.iter().copied());
        for round in 0..300u64 {
            let (host, after) = ((round * 31 % 300) as u32, round * 17 % 120);
            ranked.change(host, free[host as usize], after);
            free[host as usize] = after;
            for demand in [0, 1, 50, 63, 64, 100, 119, 120] {
                let enough = |host: &u32| free[*host as usize] >= demand;
                let expected: Vec<u32> = (0..300).filter(enough).collect();
                let mut hosts = HostSet::all(300);
                ranked.keep_enough(demand, &mut hosts);
                assert_eq!(hosts.iter().collect::<Vec<_>>(), expected);
                let mut listed: Vec<u32> = ranked.from(demand).iter().map(|(_, host)| *host).collect();
                assert!(ranked.from(demand).is_sorted());
                listed.sort_unstable();
                assert_eq!(listed, expected);
            }
        }
    }
}
