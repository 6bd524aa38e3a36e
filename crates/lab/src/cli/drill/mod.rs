//! A drill: a lab with agents and protected VMs, one host's power loss, and the truth about what came of it. The demo shows
//! one, the benchmark measures many.
//!
//! What counts as "runs again" comes from outside: a QEMU process in another host's cgroup and the guest's own record on its
//! disk. What the agents say is shown and timed beside it, never believed.

pub mod api;
pub mod follow;
pub mod scene;
pub mod truth;

use std::time::{Duration, SystemTime};

/// Microseconds since 1970 by this machine's clock, which all hosts of a lab share.
pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// `host-3`, `host-12` in a text become `h3`, `h12`, as the hosts of a lab are called.
pub fn with_host_names(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("host-") {
        let (before, found) = rest.split_at(at);
        let number = &found["host-".len()..];
        let begins_a_word = !before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        out.push_str(before);
        let is_id = begins_a_word && number.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(if is_id { "h" } else { "host-" });
        rest = number;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_ids_in_texts_become_the_labs_names() {
        assert_eq!(with_host_names("vm1 of host-3 runs again on host-12"), "vm1 of h3 runs again on h12");
        assert_eq!(with_host_names("ghost-1, host-wide, host-"), "ghost-1, host-wide, host-");
    }
}
