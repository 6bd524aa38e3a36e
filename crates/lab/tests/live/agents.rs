//! Agents that die: VMs go on, and nobody takes them for a failed host's.

use std::time::{Duration, Instant};

use mainstay_words::Event;
use mainstay_words::HostState;
use mainstay_words::view::Role;

use crate::support::{Alarm, Cluster, alarms, calm, id};

/// An agent that was away for less, and had last been heard at most a heartbeat before, is no alarm: three heartbeats, less some time
/// to be reached.
const UNNOTICED: Duration = Duration::from_millis(1_500);

/// By what a primary says; on a busy machine it may let us wait for that.
fn primary_of(c: &Cluster) -> usize {
    c.wait_for("a primary's answer", || c.primary())
}

/// How another host is judged, by what a primary says.
fn state_of(c: &Cluster, host: usize) -> HostState {
    c.wait_for("a primary's answer", || c.host_state(host))
}

/// That is no alarm, unless this machine is so busy that the agent takes longer than its silence is borne.
fn restart_agent(c: &Cluster, host: usize) {
    let killed = Instant::now();
    c.host(host).kill_agent().expect("killed");
    c.host(host).start_agent().expect("started");
    c.wait("it to answer", || c.local(host).is_some());
    let away = killed.elapsed();
    // Whoever has a part in the cluster has been heard.
    c.wait("it to take part again", || c.local(host).is_some_and(|l| l.view.role != Role::Candidate));
    c.settle(&[]);
    let alarmed = |e: &Event| matches!(e, Event::HostStateChanged { host: of, to: HostState::AgentUnreachable, .. } if *of == id(host));
    assert!(away >= UNNOTICED || !c.seen(alarmed), "it was away for {away:?}\n{}", c.story());
}

/// VMs go on, and nobody takes them for a failed host's.
pub fn agents_are_killed(c: &mut Cluster) {
    let primary = primary_of(c);
    let secondary = if primary == 1 { 2 } else { 1 };
    let perhaps = calm().perhaps(&[Alarm::AgentUnreachable(secondary)]);
    c.step("a secondary's agent is killed and started again", perhaps, |c| {
        let before = c.running();
        restart_agent(c, secondary);
        c.assert_untouched(&before);
        assert_eq!(primary_of(c), primary);
    });
    let perhaps = calm().perhaps(&[Alarm::AgentUnreachable(primary)]);
    c.step("the primary's agent is killed and started again", perhaps, |c| {
        let before = c.running();
        restart_agent(c, primary);
        c.assert_untouched(&before);
    });

    let primary = primary_of(c);
    let secondary = if primary == 1 { 2 } else { 1 };
    let unreachable = [Alarm::AgentUnreachable(secondary)];
    c.step("a secondary's agent stays dead for 7 s", alarms(&unreachable), |c| {
        let before = c.running();
        c.host(secondary).kill_agent().expect("killed");
        c.wait("its agent to be called unreachable", || {
            c.host_state(secondary) == Some(HostState::AgentUnreachable)
        });
        std::thread::sleep(Duration::from_secs(7));
        assert_eq!(state_of(c, secondary), HostState::AgentUnreachable);
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
        let now = primary_of(c);
        c.host(primary).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        assert_eq!(primary_of(c), now, "who returns does not take over");
    });
}
