//! What an agent uses while nothing happens.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;
use mainstay_api::Local;
use mainstay_lab::Lab;
use mainstay_words::view::Role;
use serde::Serialize;

use crate::cli::drill::{api, scene};
use crate::cli::ending;

/// One agent at rest.
#[derive(Debug, Clone, Serialize)]
pub struct Rest {
    /// The host on which the agent runs.
    pub host: String,
    /// Whether the agent was primary meanwhile.
    pub primary: bool,
    /// Resident memory in MB (10^6 bytes), pages shared with other programs (libraries) included.
    pub rss_mb: f64,
    /// The same with shared pages divided among those that share them.
    pub pss_mb: f64,
    /// What is its alone: heap, stacks and the like.
    pub anonymous_mb: f64,
    /// Per cent of one core.
    pub cpu_percent: f64,
    /// Bytes and operations per second by name: `disk_read`, `disk_written`, `disk_reads`, `disk_writes`, `net_sent`,
    /// `net_received`. The network's are payload, without the headers of QUIC, UDP and IP.
    pub per_second: BTreeMap<String, f64>,
}

/// Counters of the agent that add up to each rate.
const RATES: [(&str, &str, &str); 6] = [
    ("disk_read", "datastore.", ".bytes_read"),
    ("disk_written", "datastore.", ".bytes_written"),
    ("disk_reads", "datastore.", ".reads"),
    ("disk_writes", "datastore.", ".writes"),
    ("net_sent", "net.", "bytes_sent"),
    ("net_received", "net.", "bytes_received"),
];

struct Sample {
    taken: Instant,
    cpu_seconds: f64,
    local: Local,
    pid: i32,
}

fn sample(lab: &Lab, host: usize) -> anyhow::Result<Sample> {
    let host = lab.host(host)?;
    let pid = host.agent_pid()?.context("the agent does not run")?;
    let local = api::get(&scene::socket(&host), "/v1/local")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let cpu_seconds = cpu_seconds(&stat, rustix::param::clock_ticks_per_second())
        .with_context(|| format!("/proc/{pid}/stat makes no sense"))?;
    Ok(Sample { taken: Instant::now(), cpu_seconds, local, pid })
}

/// User and system time from `/proc/PID/stat`.
fn cpu_seconds(stat: &str, ticks_per_second: u64) -> Option<f64> {
    // The name, in parentheses, may hold anything; user and system time are the 14th and 15th field of all.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / ticks_per_second as f64)
}

/// A value of `/proc/PID/smaps_rollup`, in MB.
fn memory(rollup: &str, name: &str) -> Option<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0 / 1e6)
}

fn sum(counters: &BTreeMap<String, u64>, begin: &str, end: &str) -> u64 {
    counters.iter().filter(|(name, _)| name.starts_with(begin) && name.ends_with(end)).map(|(_, v)| v).sum()
}

/// Watches all agents for that long.
pub fn measure(lab: &Lab, length: Duration) -> anyhow::Result<Vec<Rest>> {
    let hosts = 1..=lab.config().hosts;
    let before = hosts.clone().map(|h| sample(lab, h)).collect::<Result<Vec<_>, _>>()?;
    ending::pause(length)?;
    let after = hosts.map(|h| sample(lab, h)).collect::<Result<Vec<_>, _>>()?;
    before.iter().zip(&after).map(|(before, after)| rest(before, after)).collect()
}

fn rest(before: &Sample, after: &Sample) -> anyhow::Result<Rest> {
    let seconds = (after.taken - before.taken).as_secs_f64();
    let path = format!("/proc/{}/smaps_rollup", after.pid);
    let rollup = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let memory = |name| memory(&rollup, name).with_context(|| format!("{path} has no {name}"));
    let rate = |begin: &str, end: &str| {
        let grown = sum(&after.local.counters, begin, end) - sum(&before.local.counters, begin, end);
        grown as f64 / seconds
    };
    Ok(Rest {
        host: after.local.host.to_string(),
        primary: after.local.view.role == Role::Primary,
        rss_mb: memory("Rss")?,
        pss_mb: memory("Pss")?,
        anonymous_mb: memory("Anonymous")?,
        cpu_percent: 100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds,
        per_second: RATES.iter().map(|(name, begin, end)| (name.to_string(), rate(begin, end))).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_difficult_name() {
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 30 20 0 0";
        assert_eq!(cpu_seconds(stat, 100), Some(0.5));
        assert_eq!(cpu_seconds("12 (a", 100), None);
    }

    #[test]
    fn memory_is_in_megabytes_and_names_are_whole() {
        let rollup = "Pss:  100 kB\nPss_Anon:  7 kB\nRss:  1000 kB\n";
        assert_eq!(memory(rollup, "Rss"), Some(1.024));
        assert_eq!(memory(rollup, "Pss"), Some(0.1024));
        assert_eq!(memory(rollup, "Swap"), None);
    }

    #[test]
    fn counters_of_all_datastores_add_up() {
        let counters: BTreeMap<String, u64> = [
            ("datastore.ds1.writes", 3),
            ("datastore.ds2.writes", 4),
            ("datastore.ds2.bytes_written", 9),
            ("net.bytes_sent", 5),
        ]
        .map(|(name, value)| (name.to_string(), value))
        .into();
        assert_eq!(sum(&counters, "datastore.", ".writes"), 7);
        assert_eq!(sum(&counters, "net.", "bytes_sent"), 5);
    }
}
