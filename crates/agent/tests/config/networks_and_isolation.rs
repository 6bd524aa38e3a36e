//! Management networks with their addresses, isolation addresses and the isolation response, also by their names of old.

use super::Fixture;
use mainstay_agent::config::{AgentConfig, IsolationResponse};
use std::path::Path;
use std::time::Duration;

#[test]
fn several_addresses_of_which_the_allowed_ones_are_used() {
    let fixture = Fixture::new();
    let text = fixture
        .text
        .replace(
            "address = \"10.77.0.1:7780\"",
            "addresses = [\"10.77.0.1:7780\", \"192.0.2.1:7780\", \"[fd00::1]:7780\"]",
        )
        .replace(
            "[[datastore]]",
            "[network]\nallow_networks = [\"10.77.0.0/24\", \"fd00::/16\"]\n[[datastore]]",
        );
    let config = AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good file");
    let written: Vec<String> = config.me.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(written, ["10.77.0.1:7780", "[fd00::1]:7780"]);
    assert_eq!(config.peers[0].addresses.len(), 1);
}

#[test]
fn isolation_by_the_names_of_today_and_of_old() {
    let fixture = Fixture::new();
    let today = "[network]\nallow_networks = [\"10.77.0.0/24\"]\n[isolation]\naddresses = [\"10.77.0.254\", \"10.77.0.253\"]\n\
                 use_default_gateway = false\nresponse = \"power_off\"\nshutdown_timeout = 60\n";
    let of_old = "[das]\nallowNetwork0 = \"10.77.0.0/24\"\nisolationaddress1 = \"10.77.0.253\"\n\
                  isolationAddress0 = \"10.77.0.254\"\n\"das.useDefaultIsolationAddress\" = \"False\"\n\
                  isolationResponse = \"powerOff\"\nisolationShutdownTimeout = \"60\"\n";
    for section in [today, of_old] {
        let text = format!("{}{section}", fixture.text);
        let config = AgentConfig::parse(Path::new("agent.toml"), &text).expect(section);
        assert_eq!(config.isolation.response, IsolationResponse::PowerOff, "{section}");
        assert_eq!(config.isolation.shutdown_timeout, Duration::from_secs(60), "{section}");
        let core = config.core(mainstay_core::ids::BootId([0; 16]), mainstay_core::ids::Incarnation(1));
        let names: Vec<&str> = core.isolation_addresses.iter().map(|name| &**name).collect();
        assert_eq!(names, ["10.77.0.254", "10.77.0.253"], "{section}");
    }
}

#[test]
fn each_bad_thing_of_networks_and_isolation_is_refused_with_its_line() {
    let fixture = Fixture::new();
    let eleven = |item: &str| format!("[{}]", [item; 11].join(", "));
    let address = "address = \"10.77.0.2:7780\"";
    let end = "[timing]";
    let table: Vec<(&str, String, &str)> = vec![
        (
            address,
            String::new(),
            "line 11: host host-2 has no address: write address = \"IP:PORT\", or addresses = [\"IP:PORT\", ...] with one per management network",
        ),
        (
            address,
            "addresses = []".into(),
            "line 11: host host-2 has no address: write address = \"IP:PORT\", or addresses = [\"IP:PORT\", ...] with one per management network",
        ),
        (
            address,
            format!("{address}\naddresses = [\"10.78.0.2:7780\"]"),
            "line 14: host host-2 has both address and addresses: keep one of the two; addresses holds several",
        ),
        (
            address,
            format!("addresses = {}", eleven("\"10.78.0.2:7780\"")),
            "line 13: 11 addresses of one host are too many: name at most 10",
        ),
        (
            address,
            "addresses = [\"10.78.0.2:7780\",\n\"10.77.0.1:7780\"]".into(),
            "line 14: address 10.77.0.1:7780 is used twice: give each host an address of its own",
        ),
        (
            end,
            "[network]\nallow_networks = [\"10.77.0.1/32\", \"10.78.0.0/16\"]\n[timing]".into(),
            "line 13: host host-2 has no address in the allowed networks (10.77.0.1/32, 10.78.0.0/16): give it an address there, or add its network to allow_networks",
        ),
        (
            end,
            "[network]\nallow_networks = [\"10.77.0.0/24\",\n\"Management Network\"]\n[timing]".into(),
            "line 19: \"Management Network\" is not a network: write address and prefix length, for example 10.77.0.0/24 (networks have no names here)",
        ),
        (
            end,
            "[das]\nallowNetwork0 = \"10.77.0.0/33\"\n[timing]".into(),
            "line 18: \"10.77.0.0/33\" is not a network: write address and prefix length, for example 10.77.0.0/24 (networks have no names here)",
        ),
        (
            end,
            format!("[network]\nallow_networks = {}\n[timing]", eleven("\"10.77.0.0/24\"")),
            "line 18: 11 allowed networks are too many: name at most 10",
        ),
        (
            end,
            "[isolation]\naddresses = [\"gateway\"]\n[timing]".into(),
            "line 18: isolation address \"gateway\" is not an IP address: write for example 10.77.0.254 (no host names: they would need a name server after a failure)",
        ),
        (
            end,
            "[isolation]\naddresses = [\"10.77.0.1\"]\n[timing]".into(),
            "line 18: isolation address 10.77.0.1 is this host's own, which answers also when the host is isolated: write the address of another machine that is always there, such as a router or the storage",
        ),
        (
            end,
            "[isolation]\naddresses = [\"fe80::1\"]\n[timing]".into(),
            "line 18: isolation address fe80::1 can't be pinged: write the address of one machine that is always there, such as a router or the storage",
        ),
        (
            end,
            "[isolation]\naddresses = [\"10.77.0.9\", \"10.77.0.9\"]\n[timing]".into(),
            "line 18: isolation address 10.77.0.9 is given twice: name each address once",
        ),
        (
            end,
            format!("[isolation]\naddresses = {}\n[timing]", eleven("\"10.77.0.9\"")),
            "line 18: 11 isolation addresses are too many: name at most 10",
        ),
        (
            end,
            "[isolation]\naddresses = []\n[das]\nisolationAddress3 = \"10.77.0.9\"\n[timing]".into(),
            "line 20: [das] isolationAddressN is the name of old for [isolation] addresses, and both are given: keep one of the two",
        ),
        (
            end,
            "[isolation]\nresponse = \"reset\"\n[timing]".into(),
            "line 18: there is no isolation response \"reset\": use leave, shutdown or power_off",
        ),
        (
            end,
            "[isolation]\nshutdown_timeout = 0\n[timing]".into(),
            "line 18: a shutdown_timeout of 0 s is not possible: use 1 to 86400 seconds; for powering off at once, response = \"power_off\"",
        ),
        (
            end,
            "[das]\nisolationShutdownTimeout = \"5 min\"\n[timing]".into(),
            "line 18: [das] isolationShutdownTimeout can't be \"5 min\": write a whole number",
        ),
        (
            end,
            "[das]\nuseDefaultIsolationAddress = 1\n[timing]".into(),
            "line 18: [das] useDefaultIsolationAddress can't be 1: write true or false",
        ),
        (
            end,
            "[das]\nisolationAddress10 = \"10.77.0.9\"\n[timing]".into(),
            "line 18: there is no option isolationAddress10 of old here: use allowNetwork0 to 9, isolationAddress0 to 9, useDefaultIsolationAddress, isolationResponse, isolationShutdownTimeout, isolationPolicyDelaySec or heartbeatDsPerHost, or remove it",
        ),
        (
            end,
            "[das]\nisolationResponse = \"none\"\n\"das.isolationresponse\" = \"powerOff\"\n[timing]".into(),
            "line 18: [das] isolationResponse is given twice: keep one of the two",
        ),
    ];
    for (from, to, expected) in table {
        assert_eq!(fixture.refusal(from, &to), format!("agent.toml, {expected}"), "{to}");
    }
}
