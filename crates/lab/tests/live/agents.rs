//! Agents that die: VMs go on, and nobody takes them for a failed host's.

use std::time::Duration;

use mainstay_core::host_liveness::HostState;

use crate::support::{Alarm, Cluster, Setup, alarms, calm};

#[test]
fn three_hosts_agents_are_killed_and_vms_go_on() {
    let Some(mut c) = Cluster::up(Setup::default()) else { return };

    c.step("a secondary's agent is killed and started again", calm(), |c| {
        let before = c.running();
        let h1 = c.host(1);
        h1.kill_agent().expect("killed");
        h1.start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(c.primary(), Some(3));
    });
    c.step("the primary's agent is killed and started again", calm(), |c| {
        let before = c.running();
        let h3 = c.host(3);
        h3.kill_agent().expect("killed");
        h3.start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
    });

    let primary = c.primary().expect("a primary");
    let secondary = if primary == 1 { 2 } else { 1 };
    let unreachable = [Alarm::AgentUnreachable(secondary)];
    c.step("a secondary's agent stays dead for 20 s", alarms(&unreachable), |c| {
        let before = c.running();
        c.host(secondary).kill_agent().expect("killed");
        c.wait("its agent to be called unreachable", || {
            c.host_state(secondary) == Some(HostState::AgentUnreachable)
        });
        std::thread::sleep(Duration::from_secs(20));
        assert_eq!(c.host_state(secondary), Some(HostState::AgentUnreachable));
        c.assert_untouched(&before);
        c.host(secondary).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    let unreachable = [Alarm::AgentUnreachable(primary)];
    c.step("the primary's agent stays dead for 5 s", alarms(&unreachable), |c| {
        let before = c.running();
        c.host(primary).kill_agent().expect("killed");
        c.wait("another primary to call its agent unreachable", || {
            c.host_state(primary) == Some(HostState::AgentUnreachable)
        });
        std::thread::sleep(Duration::from_secs(5));
        c.assert_untouched(&before);
        let now = c.primary().expect("a primary");
        c.host(primary).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(c.primary(), Some(now), "who returns does not take over");
    });
    c.down();
}
