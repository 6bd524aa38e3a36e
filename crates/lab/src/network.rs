//! The two networks: a namespace that plays the switches, and the hosts' cards plugged into it.
//!
//! All faults of the network are made in the switch, where hosts can't see them; they are one nftables ruleset that is
//! computed anew from the state and swapped in atomically. So undoing a fault can't leave a rule behind, and any two
//! faults may overlap. The exception is [`Cut::Carrier`], which takes the port down and is meant to be seen.

use std::fmt::Write as _;

use crate::config::{self, LabConfig, Net};
use crate::error::Result;
use crate::exec::{TOOL_LIMIT, run, run_with};
use crate::state::{Cut, Direction, NetFaults};

/// Runs a list of `ip` commands, in a namespace or in this machine's own.
fn ip_batch(what: &str, ns: Option<&str>, commands: &str) -> Result<()> {
    let argv: Vec<&str> = match ns {
        Some(ns) => vec!["ip", "-n", ns, "-batch", "-"],
        None => vec!["ip", "-batch", "-"],
    };
    run_with(what, &argv, Some(commands), TOOL_LIMIT).map(drop)
}

/// Makes the switches.
pub(crate) fn create_switch(config: &LabConfig) -> Result<()> {
    let ns = config.switch_ns();
    run("create the switch", &["ip", "netns", "add", &ns])?;
    let mut commands = "link set lo up\n".to_string();
    for net in Net::ALL {
        let (bridge, address, mac) = (net.bridge(), net.switch_address(), net.mac(config::SWITCH));
        // forward_delay 0: a port that comes up forwards at once, instead of listening for 15 seconds.
        // An address of its own: left to itself, a bridge takes the lowest of its ports' and changes it whenever that
        // port comes or goes. Then nobody reaches the storage server until the hosts have asked for it anew.
        let _ = writeln!(
            commands,
            "link add {bridge} address {mac} type bridge forward_delay 0 mcast_snooping 0"
        );
        let _ = writeln!(commands, "addr add {address}/24 dev {bridge}\nlink set {bridge} up");
    }
    ip_batch("set up the switch", Some(&ns), &commands)
}

/// Makes a host's network namespace and plugs its cards in, as far as they are not cut.
pub(crate) fn plug_host(config: &LabConfig, host: usize, faults: &NetFaults) -> Result<()> {
    let (switch, ns) = (config.switch_ns(), config.host_ns(host));
    run("create a host's network", &["ip", "netns", "add", &ns])?;
    let mut cables = String::new();
    let mut inside = "link set lo up\n".to_string();
    let mut ports = String::new();
    for net in Net::ALL {
        let (port, nic, mac, address) = (net.port(host), net.nic(), net.mac(host), net.address(host));
        let _ = writeln!(
            cables,
            "link add {port} netns {switch} type veth peer name {nic} address {mac} netns {ns}"
        );
        let _ = writeln!(inside, "addr add {address}/24 dev {nic}\nlink set {nic} up");
        let up = if faults.link(host, net).cut == Some(Cut::Carrier) { "down" } else { "up" };
        let _ = writeln!(ports, "link set {port} master {}\nlink set {port} {up}", net.bridge());
    }
    ip_batch("plug a host in", None, &cables)?;
    ip_batch("set a host's ports up", Some(&switch), &ports)?;
    ip_batch("set a host's cards up", Some(&ns), &inside)?;
    let route = format!("route add default via {} dev {}\n", Net::Mgmt.switch_address(), Net::Mgmt.nic());
    ip_batch("set a host's gateway", Some(&ns), &route)
}

/// Takes a host's ports down at once, as power loss does: what its processes say while dying reaches nobody.
pub(crate) fn ports_down(config: &LabConfig, host: usize) -> Result<()> {
    let commands: String = Net::ALL.iter().map(|n| format!("link set {} down\n", n.port(host))).collect();
    ip_batch("take a host's ports down", Some(&config.switch_ns()), &commands)
}

/// Pulls a host's cards out and forgets its network namespace. Its half-dead connections go with it: kept, they would
/// speak up again as soon as the host is back, which no machine does after a power loss.
pub(crate) fn unplug_host(config: &LabConfig, host: usize) -> Result<()> {
    let commands: String = Net::ALL.iter().map(|n| format!("link del {}\n", n.port(host))).collect();
    ip_batch("unplug a host", Some(&config.switch_ns()), &commands)?;
    run("delete a host's network", &["ip", "netns", "del", &config.host_ns(host)]).map(drop)
}

/// Makes the networks as broken as the state says, no more and no less.
pub(crate) fn apply_faults(config: &LabConfig, faults: &NetFaults, powered: &[bool]) -> Result<()> {
    let switch = config.switch_ns();
    let mut ports = String::new();
    for (i, _) in powered.iter().enumerate().filter(|(_, on)| **on) {
        for net in Net::ALL {
            let up = if faults.link(i + 1, net).cut == Some(Cut::Carrier) { "down" } else { "up" };
            let _ = writeln!(ports, "link set {} {up}", net.port(i + 1));
        }
    }
    ip_batch("set ports up or down", Some(&switch), &ports)?;
    let argv = ["nsenter", &format!("--net=/run/netns/{switch}"), "nft", "-f", "-"];
    run_with("set the switch's faults", &argv, Some(&ruleset(faults)), TOOL_LIMIT).map(drop)
}

/// The switch's ruleset for these faults.
pub(crate) fn ruleset(faults: &NetFaults) -> String {
    let (mut arriving, mut leaving, mut to_switch, mut across) =
        (String::new(), String::new(), String::new(), String::new());
    for (&host, nets) in &faults.links {
        for (&net, link) in nets {
            let port = net.port(host);
            let silent = link.cut == Some(Cut::Silent);
            if silent || link.dropped.contains(&Direction::Out) {
                let _ = writeln!(arriving, "  iifname \"{port}\" drop");
            }
            if silent || link.dropped.contains(&Direction::In) {
                let _ = writeln!(leaving, "  oifname \"{port}\" drop");
            }
            if link.loss_percent > 0 {
                // nft refuses a comparison that is always true.
                let lost = match link.loss_percent {
                    100.. => "drop".to_string(),
                    percent => format!("numgen random mod 100 < {percent} drop"),
                };
                let _ = writeln!(arriving, "  iifname \"{port}\" {lost}");
                let _ = writeln!(leaving, "  oifname \"{port}\" {lost}");
            }
            if link.no_gateway {
                let _ = writeln!(to_switch, "  iifname \"{port}\" drop");
            }
        }
    }
    for split in &faults.splits {
        for (i, group) in split.groups.iter().enumerate() {
            for other in split.groups.iter().enumerate().filter(|(j, _)| *j != i).flat_map(|(_, g)| g) {
                for host in group {
                    let (from, to) = (split.net.port(*host), split.net.port(*other));
                    let _ = writeln!(across, "  iifname \"{from}\" oifname \"{to}\" drop");
                }
            }
        }
    }
    for (net, from, to) in &faults.pairs {
        let _ = writeln!(across, "  iifname \"{}\" oifname \"{}\" drop", net.port(*from), net.port(*to));
    }
    let chain = |name: &str, hook: &str, rules: &str| {
        format!(" chain {name} {{\n  type filter hook {hook} priority 0;\n{rules} }}\n")
    };
    // Declaring the table before deleting it makes the deletion succeed when there was none; all in one transaction.
    format!(
        "table bridge faults\ndelete table bridge faults\ntable bridge faults {{\n{}{}{}{}}}\n",
        chain("arriving", "prerouting", &arriving),
        chain("leaving", "postrouting", &leaving),
        chain("to_switch", "input", &to_switch),
        chain("across", "forward", &across),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Split;

    #[test]
    fn healthy_networks_have_no_rules() {
        assert!(!ruleset(&NetFaults::default()).contains("drop"));
    }

    #[test]
    fn a_silent_cut_drops_both_ways_and_a_pulled_cable_needs_no_rule() {
        let mut faults = NetFaults::default();
        faults.link_mut(2, Net::Mgmt).cut = Some(Cut::Silent);
        let rules = ruleset(&faults);
        assert!(rules.contains("iifname \"h2mgmt\" drop") && rules.contains("oifname \"h2mgmt\" drop"));
        faults.link_mut(2, Net::Mgmt).cut = Some(Cut::Carrier);
        assert!(!ruleset(&faults).contains("drop"));
    }

    #[test]
    fn one_way_is_one_way() {
        let mut faults = NetFaults::default();
        faults.link_mut(1, Net::Storage).dropped.push(Direction::Out);
        let rules = ruleset(&faults);
        assert!(rules.contains("iifname \"h1storage\" drop") && !rules.contains("oifname"));
    }

    #[test]
    fn losing_everything_is_dropping() {
        let mut faults = NetFaults::default();
        faults.link_mut(1, Net::Mgmt).loss_percent = 30;
        assert!(ruleset(&faults).contains("iifname \"h1mgmt\" numgen random mod 100 < 30 drop"));
        faults.link_mut(1, Net::Mgmt).loss_percent = 100;
        assert!(ruleset(&faults).contains("iifname \"h1mgmt\" drop"));
    }

    #[test]
    fn a_split_parts_groups_and_leaves_the_rest_alone() {
        let split = Split { net: Net::Mgmt, groups: vec![vec![1, 2], vec![3]] };
        let rules = ruleset(&NetFaults { splits: vec![split], ..NetFaults::default() });
        for (a, b) in [(1, 3), (3, 1), (2, 3), (3, 2)] {
            assert!(rules.contains(&format!("iifname \"h{a}mgmt\" oifname \"h{b}mgmt\" drop")), "{rules}");
        }
        assert_eq!(rules.matches("drop").count(), 4);
    }
}
