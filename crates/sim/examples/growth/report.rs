//! The tables: first what counts, then each kind of input and effect.

use crate::Size;
use crate::meter::{Count, Meter, What, meters};
use mainstay_core::HostId;
use std::collections::BTreeMap;
use std::time::Duration;

/// A role of a host: all hosts in it together, so that a mean can be taken.
#[derive(Default)]
struct Hosts {
    sum: Meter,
    hosts: u64,
    seconds: u64,
}

/// Prints what all meters have counted. `total` is the CPU time of the whole simulation.
pub fn print(size: Size, total: Duration, primary: &HostId) {
    let new = || Hosts { seconds: size.seconds, ..Hosts::default() };
    let (mut first, mut others) = (new(), new());
    for (host, meter) in meters() {
        if host == *primary { first.add(&meter) } else { others.add(&meter) }
    }
    let Size { hosts, vms_per_host, datastores, seconds } = size;
    println!(
        "{hosts} hosts, {vms_per_host} VMs on each, {datastores} datastores, {seconds} s; all per host and second"
    );
    let each = total.as_secs_f64() * 1e3 / (hosts * seconds) as f64;
    println!("the whole simulation, this bench's own work included: {each:.2} ms of CPU\n");
    summary(&first, &others);
    details(&first, &others);
}

impl Hosts {
    fn add(&mut self, meter: &Meter) {
        for (what, count) in &meter.counts {
            let sum = self.sum.counts.entry(what.clone()).or_default();
            sum.times += count.times;
            sum.cpu += count.cpu;
            sum.bytes += count.bytes;
        }
        self.sum.memory += meter.memory;
        self.sum.view += meter.view;
        self.hosts += 1;
    }

    fn of(&self, wanted: fn(&What) -> bool) -> Count {
        let mut sum = Count::default();
        for (_, count) in self.sum.counts.iter().filter(|(what, _)| wanted(what)) {
            sum.times += count.times;
            sum.cpu += count.cpu;
            sum.bytes += count.bytes;
        }
        sum
    }

    /// Per host and second.
    fn rate(&self, amount: f64) -> f64 {
        amount / (self.hosts * self.seconds).max(1) as f64
    }

    /// The mean per host.
    fn mean(&self, amount: f64) -> f64 {
        amount / self.hosts.max(1) as f64
    }
}

type Row = (&'static str, fn(&Hosts) -> f64);

const SUMMARY: [Row; 14] = [
    ("steps", |hosts| hosts.rate(hosts.of(is_step).times as f64)),
    ("a step, us", |hosts| us(hosts.of(is_step)) / hosts.of(is_step).times.max(1) as f64),
    ("the core (steps and next_deadline), ms of CPU", |hosts| {
        hosts.rate(us(hosts.of(is_step)) + us(hosts.of(is_deadline))) / 1e3
    }),
    ("reading and writing formats, ms of CPU", |hosts| hosts.rate(us(hosts.of(is_format))) / 1e3),
    ("registers read", |hosts| hosts.rate(hosts.of(is_read).times as f64)),
    ("KiB read", |hosts| hosts.rate(hosts.of(is_read).bytes as f64) / 1024.0),
    ("registers written (the guard's heartbeats left out)", |hosts| {
        hosts.rate(hosts.of(is_write).times as f64)
    }),
    ("KiB written", |hosts| hosts.rate(hosts.of(is_write).bytes as f64) / 1024.0),
    ("messages received", |hosts| hosts.rate(hosts.of(is_received).times as f64)),
    ("KiB received", |hosts| hosts.rate(hosts.of(is_received).bytes as f64) / 1024.0),
    ("messages sent", |hosts| hosts.rate(hosts.of(is_sent).times as f64)),
    ("KiB sent", |hosts| hosts.rate(hosts.of(is_sent).bytes as f64) / 1024.0),
    ("memory of the core, KiB", |hosts| hosts.mean(hosts.sum.memory as f64) / 1024.0),
    ("one view, us of CPU", |hosts| hosts.mean(hosts.sum.view.as_secs_f64() * 1e6)),
];

fn is_step(what: &What) -> bool {
    matches!(what, What::Step(_))
}

fn is_deadline(what: &What) -> bool {
    matches!(what, What::Deadline)
}

fn is_read(what: &What) -> bool {
    matches!(what, What::Read(_))
}

fn is_write(what: &What) -> bool {
    matches!(what, What::Write(_))
}

fn is_received(what: &What) -> bool {
    matches!(what, What::Received(_))
}

fn is_sent(what: &What) -> bool {
    matches!(what, What::Sent(_))
}

fn is_format(what: &What) -> bool {
    is_read(what) || is_write(what) || is_received(what) || is_sent(what)
}

fn us(count: Count) -> f64 {
    count.cpu.as_secs_f64() * 1e6
}

fn summary(first: &Hosts, others: &Hosts) {
    println!("{:<52} {:>12} {:>12}", "", "primary", "a secondary");
    for (name, value) in SUMMARY {
        println!("{name:<52} {:>12.2} {:>12.2}", value(first), value(others));
    }
}

fn details(first: &Hosts, others: &Hosts) {
    println!("\n{:<40} {:>30} | {:>30}", "", "primary: times, us each, bytes", "a secondary: the same");
    let mut rows: BTreeMap<&What, ()> = BTreeMap::new();
    rows.extend(first.sum.counts.keys().chain(others.sum.counts.keys()).map(|what| (what, ())));
    for what in rows.keys() {
        let cells = |hosts: &Hosts| {
            let count = hosts.sum.counts.get(*what).copied().unwrap_or_default();
            let each = us(count) / count.times.max(1) as f64;
            format!(
                "{:>9.2} {each:>9.2} {:>10.0}",
                hosts.rate(count.times as f64),
                hosts.rate(count.bytes as f64)
            )
        };
        println!("{:<40} {} | {}", name(what), cells(first), cells(others));
    }
}

fn name(what: &What) -> String {
    match what {
        What::Step(kind) => format!("step: {kind}"),
        What::Deadline => "next_deadline".to_string(),
        What::Read(kind) => format!("read: {kind}"),
        What::Write(kind) => format!("write: {kind}"),
        What::Received(kind) => format!("received: {kind}"),
        What::Sent(kind) => format!("sent: {kind}"),
        What::Effect(kind) => format!("effect: {kind}"),
    }
}
