//! What does not belong there: a second agent, a stranger's packets, a wrong key, damaged registers.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use mainstay_words::HostState;

use crate::support::{Alarm, Cluster, alarms, calm};

/// The bytes of a slot's header and a good part of its body, made something else.
fn damage(c: &Cluster, file: &str, slots: &[u64]) {
    let path = c.lab.dir().join("store/ds1/.mainstay/1ab0001a-lab").join(file);
    let file = File::options().read(true).write(true).open(&path).expect("the register's file");
    for slot in slots {
        let mut bytes = [0u8; 64];
        file.read_exact_at(&mut bytes, slot * 4096).expect("its bytes");
        file.write_all_at(&bytes.map(|b| b ^ 0x5a), slot * 4096).expect("written");
    }
    file.sync_all().expect("flushed");
}

/// What `mainstay datastore show` says of the slots of a file: how many are damaged, and whether a value is left.
fn shown(c: &Cluster, file: &str) -> (usize, bool) {
    let binary = c.lab.agent_binary().expect("the program").display().to_string();
    let argv = [binary.as_str(), "datastore", "show", "/srv/ds1", "--json"];
    let text = c.host(2).exec(&argv).expect("shown");
    let clusters: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let registers = clusters[0]["registers"].as_array().expect("registers").clone();
    let of_file =
        registers.into_iter().find(|r| r["file"] == file).unwrap_or_else(|| panic!("no {file}: {text}"));
    let damaged = of_file["damaged_slots"].as_array().map_or(0, Vec::len);
    (damaged, !of_file["value"].is_null())
}

/// It is refused or counted, and changes nothing.
pub fn bad_input(c: &mut Cluster) {
    c.step("a second agent on a host is refused", calm(), |c| {
        let before = c.running();
        let h1 = c.host(1);
        let binary = c.lab.agent_binary().expect("the agent").display().to_string();
        let argv = [binary.as_str(), "agent", "--config", "/etc/mainstay/agent.toml"];
        let limit = Duration::from_secs(30);
        let refused = h1.output(&argv, limit).expect("it ends");
        assert!(!refused.success && refused.stderr.contains("another agent (process "), "{refused:?}");
        assert!(refused.stderr.contains("stop it first"), "{refused:?}");

        // Nor can it write the same registers from another state directory.
        let config = fs::read_to_string(h1.agent_config()).expect("the configuration");
        let config = config
            .replace("/var/lib/mainstay", "/var/lib/mainstay/second")
            .replace(":7780\"\n\n[[peer]]", ":7781\"\n\n[[peer]]")
            .replacen("10.77.0.1:7780", "10.77.0.1:7781", 1)
            .replace("agent.sock", "second.sock");
        fs::write(h1.dir().join("etc-mainstay/second.toml"), config).expect("another configuration");
        let argv = [binary.as_str(), "agent", "--config", "/etc/mainstay/second.toml"];
        let refused = h1.output(&argv, limit).expect("it ends");
        let said = format!("{}{}", refused.stdout, refused.stderr);
        assert!(!refused.success && said.contains("another agent runs as host-1"), "{refused:?}");
        c.settle(&[]);
        c.assert_untouched(&before);
    });

    c.step("a stranger's packets are counted", calm(), |c| {
        let counted = c.wait_for("its counters", || c.local(1)).counters.get("net.garbage_packets").copied();
        let before = (c.running(), counted.unwrap_or(0));
        let script = "for i in 1 2 3 4 5 6 7 8; do echo \"nonsense number $i, of some length\" > /dev/udp/10.77.0.1/7780; done";
        c.host(2).exec(&["bash", "-c", script]).expect("sent");
        c.wait("them to be counted", || c.counter(1, "net.garbage_packets") >= before.1 + 8);
        c.settle(&[]);
        c.assert_untouched(&before.0);
    });

    c.step(
        "an agent with another key is refused",
        calm().perhaps(&[Alarm::AgentUnreachable(1), Alarm::Storm]),
        |c| {
            let before = c.running();
            let h1 = c.host(1);
            let key = h1.dir().join("etc-mainstay/cluster.key");
            let good = fs::read(&key).expect("the key");
            h1.kill_agent().expect("killed");
            fs::write(&key, "f".repeat(64) + "\n").expect("another key");
            h1.start_agent().expect("started");
            c.wait("both sides to count it", || {
                c.counter(1, "net.wrong_key") > 0
                    && c.counter(2, "net.wrong_key") + c.counter(3, "net.wrong_key") > 0
            });
            // It writes its heartbeats all the same, so it is alive.
            c.wait("it to be called partitioned", || {
                c.status_by(2).is_ok_and(|s| {
                    s.view
                        .hosts
                        .iter()
                        .any(|h| h.host.as_str() == "host-1" && h.state == HostState::Partitioned)
                })
            });
            h1.kill_agent().expect("killed");
            fs::write(&key, good).expect("the good key");
            h1.start_agent().expect("started");
            c.settle(&[]);
            c.assert_untouched(&before);
        },
    );
}

/// They are told, and restart nothing.
pub fn damaged_registers(c: &mut Cluster) {
    let file = "host-1-hb";
    // It writes one of the two slots a second later: whether somebody reads before that is a matter of moments.
    let perhaps = calm().perhaps(&[Alarm::RegisterUnreadable(file)]);
    c.step("a living host's heartbeat is damaged: it is written anew", perhaps, |c| {
        let before = c.running();
        damage(c, file, &[0, 1]);
        c.wait("it to be whole again", || shown(c, file) == (0, true));
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    let expected = [Alarm::AgentUnreachable(1), Alarm::RegisterUnreadable(file)];
    // What the hung processes themselves say when they go on: the last write seems to have taken as long, and the lease is over.
    let itself =
        [Alarm::DatastoreLost("ds1"), Alarm::GuardLost(1), Alarm::Frozen("vm1"), Alarm::Frozen("vm2")];
    c.step("a silent host's heartbeat is damaged", alarms(&expected).perhaps(&itself), |c| {
        let before = c.running();
        // The guard writes the heartbeat, also without the agent.
        c.host(1).hang_agent().expect("hung");
        c.host(1).hang_guard().expect("hung");
        c.wait("its agent to be called unreachable", || c.host_state(1) == Some(HostState::AgentUnreachable));
        damage(c, file, &[0]);
        assert_eq!(shown(c, file), (1, true), "one slot is left");
        damage(c, file, &[1]);
        assert_eq!(shown(c, file), (2, false), "none is left");
        c.wait("it to be counted", || {
            c.status().is_some_and(|s| s.view.datastores[0].unreadable_registers > 0)
        });
        std::thread::sleep(Duration::from_secs(6));
        let state = c.wait_for("a primary's answer", || c.host_state(1));
        assert_eq!(state, HostState::AgentUnreachable, "{}", c.story());
        c.assert_untouched(&before);
        c.host(1).resume_guard().expect("resumed");
        c.host(1).resume_agent().expect("resumed");
        c.settle(&[]);
        assert_eq!(before, c.running(), "{}", c.story());
    });
}
