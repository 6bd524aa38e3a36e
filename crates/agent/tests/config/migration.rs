//! How live migrations reach the other hosts.

use super::Fixture;
use mainstay_agent::config::AgentConfig;
use std::path::Path;
use std::time::Duration;

#[test]
fn migrations_go_to_names_or_addresses_as_configured() {
    let fixture = Fixture::new();
    let parse = |more: &str| {
        let text = format!("{}{more}", fixture.text);
        AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good configuration")
    };
    let config = parse("");
    let (how, peer) = (&config.migration, &config.peers[0]);
    assert_eq!(how.uri(peer), "qemu+ssh://h2/system");
    assert_eq!(how.data_uri(peer).as_deref(), Some("tcp://10.77.0.2"));
    assert_eq!((how.allow_unsafe, how.timeout), (false, Duration::from_secs(3_600)));
    let config = parse(
        "[migration]\nuri = \"qemu+tcp://{address}/system\"\ndata_uri = \"\"\nunsafe = true\ntimeout_s = 60\n",
    );
    let how = &config.migration;
    let mut peer = config.peers[0].clone();
    assert_eq!(how.uri(&peer), "qemu+tcp://10.77.0.2/system");
    assert_eq!(how.data_uri(&peer), None);
    assert_eq!((how.allow_unsafe, how.timeout), (true, Duration::from_secs(60)));
    peer.addresses = vec!["[fd00::2]:7780".parse().expect("an address")];
    assert_eq!(how.uri(&peer), "qemu+tcp://[fd00::2]/system");
}

#[test]
fn each_bad_thing_of_migrations_is_refused_with_its_line() {
    let fixture = Fixture::new();
    let reached = |what: &str, uri: &str, example: &str| {
        format!(
            "line 18: migration {what} \"{uri}\" does not say how each host is reached: write a URI with {{host}} (its name) or {{address}} (its first address) in it, such as {example}"
        )
    };
    for (line, expected) in [
        (
            "uri = \"qemu+ssh://h2/system\"",
            reached("uri", "qemu+ssh://h2/system", "qemu+ssh://{host}/system"),
        ),
        ("uri = \"{host}\"", reached("uri", "{host}", "qemu+ssh://{host}/system")),
        (
            "uri = \"qemu+ssh://{host}/{name}\"",
            reached("uri", "qemu+ssh://{host}/{name}", "qemu+ssh://{host}/system"),
        ),
        ("data_uri = \"tcp://10.77.0.9\"", reached("data_uri", "tcp://10.77.0.9", "tcp://{address}")),
        ("timeout_s = 5", "line 18: timeout_s = 5 is not usable: write 10 to 86400 seconds".into()),
    ] {
        let refusal = fixture.refusal("[timing]\n", &format!("[migration]\n{line}\n[timing]\n"));
        assert_eq!(refusal, format!("agent.toml, {expected}"));
    }
}
