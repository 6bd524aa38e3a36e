//! The ping, on the loopback interface and in network namespaces of its own: who answers, who is silent, and what counts
//! for neither.

use mainstay_agent::config::AgentConfig;
use mainstay_agent::ping::{PingResult, PingTargets, Pinger};
use mainstay_core::ids::HostId;
use mainstay_testkit::PATIENCE;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// How long those are waited for that never answer; the others answer at once, and only a machine that stands still is late.
const HEARTBEAT: Duration = Duration::from_millis(500);

#[tokio::test]
async fn ping_of_loopback_is_answered() {
    let pinger = Pinger::start();
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse().expect("address");
        match pinger.ping(address, PATIENCE).await {
            PingResult::Answered { rtt } => assert!(rtt < PATIENCE),
            PingResult::NoAnswer => panic!("{address} did not answer"),
            PingResult::CannotSend { why } | PingResult::Impossible { why } => {
                println!("skipped {address}: {why}");
            }
        }
    }
}

#[tokio::test]
async fn many_pings_at_once_do_not_take_each_others_answers() {
    let pinger = Pinger::start();
    let pings: Vec<_> = (1..=50_u8)
        .map(|last| {
            let pinger = pinger.clone();
            tokio::spawn(async move { pinger.ping(IpAddr::from([127, 0, 0, last]), PATIENCE).await })
        })
        .collect();
    for ping in pings {
        match ping.await.expect("ping") {
            PingResult::Answered { .. } => {}
            PingResult::CannotSend { why } | PingResult::Impossible { why } => println!("skipped: {why}"),
            PingResult::NoAnswer => panic!("no answer"),
        }
    }
}

/// Runs a ping in a network namespace of its own, which ends with its thread; `None` without the privileges for that.
fn ping_in_own_namespace(
    setup: fn() -> Option<()>,
    address: &'static str,
    patience: Duration,
) -> Option<PingResult> {
    let in_namespace = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        setup()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        let address = address.parse().expect("address");
        Some(runtime.block_on(Pinger::start().ping(address, patience)))
    };
    std::thread::spawn(in_namespace).join().expect("no panic")
}

#[test]
fn ping_of_a_silent_host_gets_no_answer() {
    fn loopback_up() -> Option<()> {
        let mut ip = std::process::Command::new("ip");
        let done = ip.args(["link", "set", "lo", "up"]).status().ok()?;
        done.success().then_some(())
    }
    fn loopback_up_and_silent() -> Option<()> {
        loopback_up()?;
        // Below /proc/sys/net a thread sees its own namespace.
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").ok()
    }
    let Some(control) = ping_in_own_namespace(loopback_up, "127.0.0.1", PATIENCE) else {
        println!("skipped: needs root and `ip`");
        return;
    };
    assert!(matches!(control, PingResult::Answered { .. }), "{control:?}");
    match ping_in_own_namespace(loopback_up_and_silent, "127.0.0.1", HEARTBEAT) {
        Some(result) => assert_eq!(result, PingResult::NoAnswer),
        None => println!("skipped: /proc/sys/net is read-only"),
    }
}

#[test]
fn ping_without_a_route_says_that_it_cannot_send() {
    for address in ["192.0.2.1", "2001:db8::1"] {
        match ping_in_own_namespace(|| Some(()), address, PATIENCE) {
            Some(PingResult::CannotSend { why }) => assert!(why.contains("ip route get"), "{why}"),
            Some(other) => panic!("{address}: {other:?}"),
            None => println!("skipped: needs root"),
        }
    }
}

/// A host in a network namespace of its own: 10.8.0.1 on a network with nobody else, and a default gateway there. `None`
/// without the privileges for that.
fn lonely_host<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let in_namespace = move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
        for command in [
            "link set lo up",
            "link add mgmt type veth peer name far",
            "link set far up",
            "link set mgmt up",
            "addr add 10.8.0.1/24 dev mgmt",
            "route add default via 10.8.0.254",
        ] {
            let done = std::process::Command::new("ip").args(command.split(' ')).status().ok()?;
            done.success().then_some(())?;
        }
        Some(work())
    };
    std::thread::spawn(in_namespace).join().expect("no panic")
}

/// A configuration of that host whose peers have these addresses.
fn lonely_config(peers: &[&[&str]]) -> AgentConfig {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().display();
    let key = dir.path().join("key");
    std::fs::write(&key, "5a".repeat(32)).expect("a key file");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("its mode");
    let mut text = format!(
        "state_dir = \"{root}\"\n[cluster]\nid = \"1ab0001a\"\nname = \"lab\"\nkey_file = \"{root}/key\"\n\
         [host]\nid = \"host-1\"\nname = \"h1\"\naddress = \"10.8.0.1:7780\"\n\
         [isolation]\naddresses = [\"10.8.0.7\"]\n[[datastore]]\nname = \"ds1\"\npath = \"{root}\"\n"
    );
    for (n, addresses) in (2..).zip(peers) {
        let addresses: Vec<String> = addresses.iter().map(|ip| format!("\"{ip}:{}\"", 7780 + n)).collect();
        text += &format!(
            "[[peer]]\nid = \"host-{n}\"\nname = \"h{n}\"\naddresses = [{}]\n",
            addresses.join(", ")
        );
    }
    AgentConfig::parse(Path::new("agent.toml"), &text).expect("a good file")
}

#[test]
fn a_host_is_pinged_at_all_its_addresses_and_isolation_addresses_by_their_number() {
    let seen = lonely_host(|| {
        let mut config = lonely_config(&[&["10.8.0.2", "127.0.0.1"], &["10.8.0.3", "10.8.0.4"]]);
        let names: Vec<String> = config.isolation.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["10.8.0.7", "default gateway 10.8.0.254"]);
        // Refused in a file, since it would always answer; here just this is wanted.
        config.isolation.addresses.push(IpAddr::from([127, 0, 0, 1]));
        let mut targets = PingTargets::new(&config, HEARTBEAT);
        targets.warn_of_gaps();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut seen = Vec::new();
            for host in ["host-2", "host-3"] {
                seen.push(targets.host(&HostId::new(host)).await);
            }
            for index in 0..4 {
                seen.push(targets.isolation(index).await);
            }
            // The gateway's interface goes down, and with it its route: it still counts as one that does not answer.
            let down = std::process::Command::new("ip").args(["link", "set", "mgmt", "down"]).status();
            assert!(down.expect("ip").success());
            seen.push(targets.isolation(2).await);
            seen
        })
    });
    match seen {
        // host-2, host-3; 10.8.0.7, 127.0.0.1, the gateway, one that is not there; the gateway.
        Some(seen) => assert_eq!(seen, [true, false, false, true, false, false, false]),
        None => println!("skipped: needs root and `ip`"),
    }
}

#[test]
fn without_the_privilege_for_pings_nobody_is_taken_for_silent() {
    let seen = lonely_host(|| {
        let config = lonely_config(&[&["10.8.0.2"]]);
        // The thread's own; in a new namespace, `ping_group_range` lets nobody ping without it.
        let mut mine = rustix::thread::capabilities(None).expect("capabilities");
        mine.effective.remove(rustix::thread::CapabilitySet::NET_RAW);
        rustix::thread::set_capabilities(None, mine).expect("fewer capabilities");
        let why = Pinger::check(IpAddr::from([10, 8, 0, 2])).expect_err("no socket");
        assert!(why.contains("CAP_NET_RAW") && why.contains("ping_group_range"), "{why}");
        let mut targets = PingTargets::new(&config, HEARTBEAT);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async { [targets.host(&HostId::new("host-2")).await, targets.isolation(0).await] })
    });
    match seen {
        Some(seen) => assert_eq!(seen, [true, true]),
        None => println!("skipped: needs root and `ip`"),
    }
}
