//! What a batch of seeds must have seen at least once: a batch that never sees a failover proves nothing about failovers.

use std::collections::BTreeMap;

/// Counts interesting things by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sometimes {
    counts: BTreeMap<&'static str, u64>,
}

/// What a batch of some hundred seeds has to see.
pub const REQUIRED: [&str; 50] = [
    "admission not met",
    "agent unreachable seen",
    "datastore lost",
    "failover of a primary",
    "failover of a secondary",
    "frozen",
    "guard hung",
    "guard killed",
    "host paused",
    "hypervisor lost",
    "intended stop honoured",
    "isolation response applied",
    "isolation response stopped",
    "isolation seen",
    "late write landed after its host had died",
    "lease ended while its host was paused",
    "maintenance begun",
    "maintenance reached",
    "migration adopted",
    "migration begun without image locks",
    "migration given up",
    "migration lost its source",
    "not protectable",
    "order given",
    "order given up",
    "ownership changed hands",
    "partition seen",
    "paused by an I/O error",
    "protected again by operator",
    "protection resumed",
    "protection suspended",
    "rebooted host noticed it",
    "register torn",
    "responsibility taken",
    "restart after a crash of QEMU",
    "restart took several attempts",
    "shut down for maintenance",
    "shutdown timed out",
    "start failed",
    "start waited for an image lock",
    "storm suspected",
    "takeover cancelled",
    "takeover intended",
    "thawed",
    "two primaries at once",
    "unprotected by operator",
    "user started it elsewhere",
    "waited for others",
    "went on after an I/O error",
    "write reported failed but landed",
];

impl Sometimes {
    /// Counts one occurrence of what is named so in the list above.
    pub fn saw(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// How often it happened.
    pub fn count(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Sometimes) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// What never happened although it must.
    pub fn missing(&self) -> Vec<&'static str> {
        REQUIRED.into_iter().filter(|what| self.count(what) == 0).collect()
    }

    /// A line for each, also for what must have been seen and was not.
    pub fn table(&self) -> String {
        let mut counts = self.counts.clone();
        for what in REQUIRED {
            counts.entry(what).or_default();
        }
        let never = |count: u64| if count == 0 { "  <- never seen" } else { "" };
        counts.iter().map(|(what, count)| format!("{count:>10} {what}{}\n", never(*count))).collect()
    }

    /// All counts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(what, count)| (*what, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_seen_is_named() {
        let mut seen = Sometimes::default();
        assert_eq!(seen.missing(), REQUIRED);
        seen.saw(REQUIRED[0]);
        assert_eq!(seen.missing(), REQUIRED[1..]);
    }

    #[test]
    fn required_is_sorted_and_has_nothing_twice() {
        assert!(REQUIRED.is_sorted_by(|a, b| a < b));
    }
}
