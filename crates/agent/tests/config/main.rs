//! Each thing that can be wrong in a configuration is refused with file, line, reason and remedy.

mod migration;
mod networks_and_isolation;

use mainstay_agent::config::{AgentConfig, IsolationResponse, LogFormat, LogLevel};
use mainstay_core::{Span, Timing};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// A directory with a key file and a datastore, and a configuration that names them.
struct Fixture {
    dir: tempfile::TempDir,
    text: String,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().display().to_string();
        fs::create_dir(dir.path().join("ds1")).expect("a datastore");
        fs::create_dir(dir.path().join("ds2")).expect("a datastore");
        fs::write(dir.path().join("file"), "").expect("a file");
        write_key(&dir.path().join("key"), &"5a".repeat(32), 0o600);
        let text = format!(
            r#"state_dir = "/var/lib/mainstay"
[cluster]
id = "1AB0001a"
name = "lab"
key_file = "{root}/key"
[host]
id = "host-1"
name = "h1"
address = "10.77.0.1:7780"
[[peer]]
id = "host-2"
name = "h2"
address = "10.77.0.2:7780"
[[datastore]]
name = "ds1"
path = "{root}/ds1"
[timing]
preset = "standard"
"#
        );
        Fixture { dir, text }
    }

    fn root(&self) -> String {
        self.dir.path().display().to_string()
    }

    /// The refusal of the configuration with `from` replaced by `to`, with the fixture's directory written as ROOT.
    fn refusal(&self, from: &str, to: &str) -> String {
        assert!(self.text.contains(from), "the fixture has no {from:?}");
        let text = self.text.replacen(from, to, 1);
        let error = AgentConfig::parse(Path::new("agent.toml"), &text).expect_err(to);
        error.to_string().replace(&self.root(), "ROOT")
    }
}

fn write_key(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("a key file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

#[test]
fn a_good_file_is_taken_with_defaults() {
    let fixture = Fixture::new();
    let config = AgentConfig::parse(Path::new("agent.toml"), &fixture.text).expect("a good file");
    assert_eq!(config.cluster_id, "1ab0001a");
    assert_eq!(config.key.0, [0x5a; 32]);
    assert_eq!(config.peers.len(), 1);
    assert_eq!(config.timing, Timing::STANDARD);
    assert_eq!(config.concurrent_starts, 4);
    assert_eq!(config.libvirt_uri, "qemu:///system");
    assert_eq!(config.api_socket, Path::new("/run/mainstay/agent.sock"));
    assert_eq!((config.log_format, config.log_level), (LogFormat::Text, LogLevel::Info));
    assert_eq!(config.member("h2").map(|member| member.id.as_str()), Some("host-2"));
    assert_eq!(config.me.addresses, ["10.77.0.1:7780".parse().expect("an address")]);
    assert!(config.isolation.addresses.is_empty() && config.isolation.use_default_gateway);
    assert_eq!(config.isolation.response, IsolationResponse::Leave);
    assert_eq!(config.isolation.shutdown_timeout, Duration::from_secs(300));
    assert!(!format!("{config:?}").contains("90"), "the key must not be in Debug output");
}

#[test]
fn single_times_override_the_preset() {
    let fixture = Fixture::new();
    let text = fixture
        .text
        .replace("\"standard\"", "\"patient\"\nfailure_timeout = \"12500ms\"\nheartbeat = \"2s\"");
    let config = AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good file");
    let expected = Timing {
        heartbeat: Span::from_secs(2),
        lease: Timing::PATIENT.lease,
        failure_timeout: Span::from_millis(12_500),
    };
    assert_eq!(config.timing, expected);
}

#[test]
fn each_bad_thing_is_refused_with_its_line() {
    let fixture = Fixture::new();
    let ds1 = format!("path = \"{}/ds1\"", fixture.root());
    let ds_at = |path: &str| format!("path = \"{}/{path}\"", fixture.root());
    let table: Vec<(&str, String, &str)> = vec![
        (
            "name = \"lab\"",
            "name = \"lab\"\ncolour = 1".into(),
            "agent.toml, line 5: unknown field `colour`, expected one of `id`, `name`, `key_file`: remove it, or correct its spelling",
        ),
        (
            "[timing]",
            "[timimg]".into(),
            "agent.toml, line 17: unknown field `timimg`, expected one of `state_dir`, `cluster`, `host`, `peer`, `network`, `datastore`, `libvirt`, `timing`, `restart`, `migration`, `isolation`, `heartbeat`, `das`, `api`, `recorder`, `guard`, `log`: remove it, or correct its spelling",
        ),
        (
            "name = \"lab\"\n",
            String::new(),
            "agent.toml, line 2: missing field `name`: add it (see agent.example.toml)",
        ),
        ("name = \"lab\"", "name = lab".into(), "agent.toml, line 4: "),
        (
            "name = \"lab\"",
            "name = 3".into(),
            "agent.toml, line 4: invalid type: integer `3`, expected a string: see agent.example.toml for how it is written",
        ),
        (
            "1AB0001a",
            "1ab".into(),
            "agent.toml, line 3: cluster id \"1ab\" is not 8 to 32 hexadecimal digits: make one with: openssl rand -hex 4, and use the same on all hosts",
        ),
        (
            "1AB0001a",
            "xyz00011".into(),
            "agent.toml, line 3: cluster id \"xyz00011\" is not 8 to 32 hexadecimal digits: make one with: openssl rand -hex 4, and use the same on all hosts",
        ),
        (
            "\"lab\"",
            "\"../lab\"".into(),
            "agent.toml, line 4: cluster name \"../lab\" is not usable: use 1 to 64 letters, digits, '-', '_' and '.', not beginning with '.'",
        ),
        (
            "id = \"host-2\"",
            "id = \"host-1\"".into(),
            "agent.toml, line 11: host id host-1 is used twice: each host needs an id of its own, given once and never used again",
        ),
        (
            "name = \"h2\"",
            "name = \"h1\"".into(),
            "agent.toml, line 12: host name h1 is used twice: give each host a name of its own",
        ),
        (
            "name = \"h2\"",
            "name = \"host-1\"".into(),
            "agent.toml, line 12: host name host-1 is used twice: give each host a name of its own",
        ),
        (
            "10.77.0.2:7780",
            "10.77.0.1:7780".into(),
            "agent.toml, line 13: address 10.77.0.1:7780 is used twice: give each host an address of its own",
        ),
        (
            "\"host-1\"",
            "\"h1\"".into(),
            "agent.toml, line 7: host id \"h1\" is not of the form host-NUMBER: write for example host-1",
        ),
        (
            "\"host-1\"",
            "\"host-01\"".into(),
            "agent.toml, line 7: host id \"host-01\" is not of the form host-NUMBER: write for example host-1",
        ),
        (
            "10.77.0.1:7780",
            "h1.example:7780".into(),
            "agent.toml, line 9: address \"h1.example:7780\" is not IP:PORT: write for example 10.77.0.1:7780, or [fd00::1]:7780 (no host names: they would need a name server after a failure)",
        ),
        (
            "10.77.0.1:7780",
            "0.0.0.0:7780".into(),
            "agent.toml, line 9: address 0.0.0.0:7780 can't be reached by other hosts: write the host's own address and a port that is not 0",
        ),
        (
            &ds1,
            ds_at("missing"),
            "agent.toml, line 16: datastore path ROOT/missing does not exist: mount the datastore there, or correct the path",
        ),
        (
            &ds1,
            ds_at("file"),
            "agent.toml, line 16: datastore path ROOT/file is not a directory: name the directory where the datastore is mounted",
        ),
        (
            &ds1,
            "path = \"ds1\"".into(),
            "agent.toml, line 16: path \"ds1\" is not an absolute path: write it from the root, beginning with /",
        ),
        (
            "[timing]",
            format!("[[datastore]]\nname = \"ds1\"\n{}\n[timing]", ds_at("ds2")),
            "agent.toml, line 18: datastore name ds1 is used twice: give each datastore a name of its own, the same on all hosts",
        ),
        (
            "[timing]",
            format!("[[datastore]]\nname = \"ds2\"\n{}\n[timing]", ds_at("ds1/")),
            "agent.toml, line 19: path ROOT/ds1 is used twice, ds1 has it too: name each datastore once",
        ),
        (
            "\"standard\"",
            "\"fast\"".into(),
            "agent.toml, line 18: there is no timing preset \"fast\": use standard, swift or patient",
        ),
        (
            "\"standard\"",
            "\"standard\"\nlease = \"3 min\"".into(),
            "agent.toml, line 19: \"3 min\" is not a time: write whole seconds or milliseconds, for example 3s or 4500ms",
        ),
        (
            "\"standard\"",
            "\"standard\"\nfailure_timeout = \"3s\"".into(),
            "agent.toml, line 17: failure_timeout (3.000 s) must be greater than lease (3.000 s) x (1 + 2000 ppm drift) + freeze bound (0.250 s) = 3.256 s: otherwise a VM could be restarted before its old host has stopped it; raise failure_timeout or lower lease",
        ),
        (
            "[timing]",
            "[restart]\nconcurrent_starts = 0\n[timing]".into(),
            "agent.toml, line 18: concurrent_starts must be at least 1",
        ),
        (
            "[timing]",
            "[log]\nlevel = \"loud\"\n[timing]".into(),
            "agent.toml, line 18: unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`: see agent.example.toml for how it is written",
        ),
        (
            "state_dir = \"/var",
            "state_dir = \"var".into(),
            "agent.toml, line 1: state_dir \"var/lib/mainstay\" is not an absolute path: write it from the root, beginning with /",
        ),
    ];
    for (from, to, expected) in table {
        let refusal = fixture.refusal(from, &to);
        if expected.ends_with(": ") {
            assert!(refusal.starts_with(expected), "{to}: {refusal}");
        } else {
            assert_eq!(refusal, expected, "{to}");
        }
    }
}

#[test]
fn no_datastore_is_refused() {
    let fixture = Fixture::new();
    let section = format!("[[datastore]]\nname = \"ds1\"\npath = \"{}/ds1\"\n", fixture.root());
    assert_eq!(
        fixture.refusal(&section, ""),
        "agent.toml, line 1: no datastore is configured: name at least one that the hosts share, as [[datastore]] with name and path"
    );
}

#[test]
fn a_key_that_others_may_read_or_that_is_none_is_refused() {
    let fixture = Fixture::new();
    let key = fixture.dir.path().join("key");
    let make_one = "make it on one host with: openssl rand -hex 32 > ROOT/key; chmod 600 ROOT/key, and copy it to all others";
    write_key(&key, &"5a".repeat(32), 0o640);
    assert_eq!(
        fixture.refusal("[host]", "[host]"),
        "agent.toml, line 5: key file ROOT/key may be read by others (mode 0640): chmod 600 ROOT/key"
    );
    for bad in ["", "5a", &"5".repeat(65), &"zz".repeat(32)] {
        write_key(&key, bad, 0o600);
        assert_eq!(
            fixture.refusal("[host]", "[host]"),
            format!("agent.toml, line 5: key file ROOT/key does not hold 64 hexadecimal digits: {make_one}")
        );
    }
    fs::remove_file(&key).expect("remove the key");
    assert_eq!(
        fixture.refusal("[host]", "[host]"),
        format!(
            "agent.toml, line 5: key file ROOT/key can't be read: No such file or directory (os error 2): {make_one}"
        )
    );
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let error = AgentConfig::load(Path::new("/nowhere/agent.toml")).expect_err("no file");
    assert_eq!(
        error.to_string(),
        "configuration /nowhere/agent.toml can't be read: No such file or directory (os error 2); name the right file with --config"
    );
}

#[test]
fn the_example_is_a_good_configuration() {
    let fixture = Fixture::new();
    let text = include_str!("../../../../docs/agent.example.toml")
        .replace("/etc/mainstay/cluster.key", &format!("{}/key", fixture.root()))
        .replace("/srv/ds1", &format!("{}/ds1", fixture.root()));
    AgentConfig::parse(Path::new("agent.example.toml"), &text).expect("a good example");
}
