//! Networks: the switch stays where it is, and cuts of every kind do what they say and are healed.

use super::{LONG, answers, default_lab, pings};
use mainstay_lab::{Cut, Direction, Lab, Net};

/// The switch's hardware address as `host` sees it; asking goes over the wire.
fn switch_mac(lab: &Lab, host: usize, net: Net) -> String {
    assert!(answers(lab, host, &net.switch_address()));
    let argv = ["ip", "-4", "neigh", "show", "to", &net.switch_address(), "dev", net.nic()];
    let line = lab.host(host).unwrap().exec(&argv).unwrap();
    let mac = line.split_whitespace().skip_while(|w| *w != "lladdr").nth(1);
    mac.unwrap_or_else(|| panic!("no address in '{line}'")).to_string()
}

#[test]
fn a_host_that_comes_or_goes_leaves_the_storage_server_where_it_was() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    for host in 1..=3 {
        let witness = host % 3 + 1;
        let before = Net::ALL.map(|net| switch_mac(&lab, witness, net));
        let h = lab.host(host).unwrap();
        h.power_off().unwrap();
        assert_eq!(before, Net::ALL.map(|net| switch_mac(&lab, witness, net)), "host {host} went");
        h.power_on().unwrap();
        assert_eq!(before, Net::ALL.map(|net| switch_mac(&lab, witness, net)), "host {host} came");
    }
}

fn carrier(lab: &Lab, host: usize, net: Net) -> String {
    let path = format!("/sys/class/net/{}/carrier", net.nic());
    lab.host(host).unwrap().exec(&["cat", &path]).unwrap()
}

#[test]
fn networks_are_cut_as_told_and_healed() {
    if !Lab::ready_for_live_tests() {
        return;
    }
    let lab = default_lab();
    let h1 = lab.host(1).unwrap();
    let all_well =
        || answers(&lab, 1, "10.77.0.2") && answers(&lab, 2, "10.77.0.3") && answers(&lab, 1, "10.78.0.254");
    assert!(all_well());

    h1.cut(Net::Mgmt, Cut::Silent).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2") && !pings(&lab, 1, "10.77.0.254") && !pings(&lab, 2, "10.77.0.1"));
    assert!(answers(&lab, 1, "10.78.0.254") && answers(&lab, 2, "10.77.0.3"));
    assert_eq!(carrier(&lab, 1, Net::Mgmt), "1");
    h1.join(Net::Mgmt).unwrap();
    assert!(all_well());

    h1.cut(Net::Storage, Cut::Carrier).unwrap();
    assert_eq!(carrier(&lab, 1, Net::Storage), "0");
    h1.join(Net::Storage).unwrap();
    lab.wait_until("the link to be back", LONG, || answers(&lab, 1, "10.78.0.254")).unwrap();

    lab.split(Net::Mgmt, &[&[1, 2], &[3]]).unwrap();
    assert!(answers(&lab, 1, "10.77.0.2") && !pings(&lab, 1, "10.77.0.3") && !pings(&lab, 3, "10.77.0.2"));
    assert!(answers(&lab, 3, "10.77.0.254"));
    lab.unsplit(Net::Mgmt).unwrap();

    h1.set_gateway_reachable(Net::Mgmt, false).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.254") && answers(&lab, 1, "10.77.0.2"));
    h1.set_gateway_reachable(Net::Mgmt, true).unwrap();

    // One way: h2 hears nothing of h1, while h1 hears h2. Seen in the counters of h1's card.
    let received = || -> u64 {
        let path = "/sys/class/net/eth0/statistics/rx_packets";
        h1.exec(&["cat", path]).unwrap().parse().unwrap()
    };
    h1.drop_direction(Net::Mgmt, Direction::Out).unwrap();
    let before = received();
    assert!(!pings(&lab, 2, "10.77.0.1"));
    assert!(received() > before, "what others send must still arrive");
    h1.undrop(Net::Mgmt).unwrap();

    lab.drop_pair(Net::Mgmt, 1, 2, true).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2") && answers(&lab, 1, "10.77.0.3"));
    h1.lose_packets(Net::Mgmt, 100).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.3"));
    lab.heal().unwrap();
    assert!(all_well());

    h1.firewall_drop(Net::Mgmt, Direction::Out).unwrap();
    assert!(!pings(&lab, 1, "10.77.0.2"));
    h1.firewall_clear().unwrap();
    assert!(all_well());

    // A fault outlives the power cycle, as a broken switch does.
    h1.cut(Net::Mgmt, Cut::Carrier).unwrap();
    h1.power_off().unwrap();
    h1.power_on().unwrap();
    assert_eq!(carrier(&lab, 1, Net::Mgmt), "0");
    lab.heal().unwrap();
    lab.wait_until("all to be well", LONG, all_well).unwrap();
}
