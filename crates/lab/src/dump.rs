//! The lab in text, for error messages: what is on, what is broken, where VMs run, and the ends of all logs.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::config::Net;
use crate::lab::Lab;

/// The last lines of a file, or nothing.
fn tail(path: &Path, lines: usize) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].iter().map(|l| (*l).to_string()).collect()
}

impl Lab {
    /// The lab as it stands, for people. Never fails: what can't be found out is left out.
    pub fn dump(&self) -> String {
        let mut text = self.overview();
        for host in self.hosts() {
            let dir = host.dir();
            for (path, lines) in [
                (host.agent_log(), 25),
                (host.guard_log(), 15),
                (dir.join("log/libvirtd.log"), 8),
                (dir.join("init.log"), 5),
            ] {
                let lines = tail(&path, lines);
                if !lines.is_empty() {
                    let _ = writeln!(text, "--- {} (end)\n    {}", path.display(), lines.join("\n    "));
                }
            }
        }
        text
    }

    /// Hosts, faults and VMs in a few lines.
    pub fn overview(&self) -> String {
        let Ok(state) = self.state() else { return "the lab is gone\n".into() };
        let mut text = String::new();
        for host in self.hosts() {
            let h = &state.hosts[host.number - 1];
            let power = match (h.on, h.hung) {
                (false, _) => "off",
                (true, true) => "on, hangs",
                (true, false) => "on",
            };
            let running = |r: crate::Result<bool>| if r.unwrap_or(false) { "runs" } else { "-" };
            let _ = write!(
                text,
                "{:<4} {power:<10} {}  libvirtd {:<4}  agent {:<4}  guard {:<4}",
                host.name(),
                host.address(Net::Mgmt),
                running(host.libvirtd_runs()),
                running(host.agent_pid().map(|p| p.is_some())),
                running(host.guard_pid().map(|p| p.is_some())),
            );
            for net in Net::ALL {
                let link = state.faults.link(host.number, net);
                if link != crate::LinkFaults::default() {
                    let _ = write!(text, "  {}: {}", net.bridge(), faults_in_words(&link));
                }
            }
            text.push('\n');
        }
        for split in &state.faults.splits {
            let _ = writeln!(text, "{} is split: {:?}", split.net.bridge(), split.groups);
        }
        for (net, from, to) in &state.faults.pairs {
            let _ = writeln!(text, "{}: h{from} is not heard by h{to}", net.bridge());
        }
        for vm in state.vms.keys() {
            let runners: Vec<String> = self
                .runners(vm)
                .unwrap_or_default()
                .iter()
                .map(|r| format!("h{}{}", r.host, if r.stopped { " (stopped)" } else { "" }))
                .collect();
            let place = if runners.is_empty() { "nowhere".to_string() } else { runners.join(", ") };
            let record = match self.guest_record(vm) {
                Ok(r) => format!("boots {} beats {} offs {} splits {}", r.boots, r.beats, r.offs, r.splits),
                Err(_) => "no record".into(),
            };
            let _ = writeln!(text, "{vm:<8} runs {place:<16} {record}");
        }
        text
    }
}

/// What is wrong with a link, in a few words.
fn faults_in_words(link: &crate::LinkFaults) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(link.cut.map(|cut| format!("cut ({cut:?})").to_lowercase()));
    words.extend(link.dropped.iter().map(|direction| format!("drops all {direction:?}bound").to_lowercase()));
    if link.loss_percent > 0 {
        words.push(format!("loses {} %", link.loss_percent));
    }
    if link.no_gateway {
        words.push("can't reach the gateway".into());
    }
    words.join(", ")
}
