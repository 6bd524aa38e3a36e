//! Agents that die: VMs go on, and nobody takes them for a failed host's.

use std::time::Duration;

use mainstay_core::host_liveness::HostState;

use crate::support::{Alarm, Cluster, alarms, calm};

/// VMs go on, and nobody takes them for a failed host's.
pub fn agents_are_killed(c: &mut Cluster) {
    let primary = c.primary().expect("a primary");
    let secondary = if primary == 1 { 2 } else { 1 };
    c.step("a secondary's agent is killed and started again", calm(), |c| {
        let before = c.running();
        let host = c.host(secondary);
        host.kill_agent().expect("killed");
        host.start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(c.primary(), Some(primary));
    });
    c.step("the primary's agent is killed and started again", calm(), |c| {
        let before = c.running();
        let host = c.host(primary);
        host.kill_agent().expect("killed");
        host.start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
    });

    let primary = c.primary().expect("a primary");
    let secondary = if primary == 1 { 2 } else { 1 };
    let unreachable = [Alarm::AgentUnreachable(secondary)];
    c.step("a secondary's agent stays dead for 7 s", alarms(&unreachable), |c| {
        let before = c.running();
        c.host(secondary).kill_agent().expect("killed");
        c.wait("its agent to be called unreachable", || {
            c.host_state(secondary) == Some(HostState::AgentUnreachable)
        });
        std::thread::sleep(Duration::from_secs(7));
        assert_eq!(c.host_state(secondary), Some(HostState::AgentUnreachable));
        c.assert_untouched(&before);
        c.host(secondary).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    let unreachable = [Alarm::AgentUnreachable(primary)];
    c.step("the primary's agent stays dead for 3 s", alarms(&unreachable), |c| {
        let before = c.running();
        c.host(primary).kill_agent().expect("killed");
        c.wait("another primary to call its agent unreachable", || {
            c.host_state(primary) == Some(HostState::AgentUnreachable)
        });
        std::thread::sleep(Duration::from_secs(3));
        c.assert_untouched(&before);
        let now = c.primary().expect("a primary");
        c.host(primary).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(c.primary(), Some(now), "who returns does not take over");
    });
}
