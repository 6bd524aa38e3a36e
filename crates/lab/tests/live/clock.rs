//! The wall clock of a host's agent and guard jumps: nothing decides by it.

use std::time::{Duration, SystemTime};

use mainstay_api::EventRecord;
use mainstay_lab::{Cut, Net};
use mainstay_words::{Event, Severity};

use crate::support::{Alarm, Cluster, calm, touches_a_vm};

const HOUR: i64 = 3600;

/// Longer than a failure time-out.
const QUIET: Duration = Duration::from_secs(6);

/// How many seconds after now an event is said to have come.
fn ahead(event: &EventRecord) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(event.at_unix_us / 1_000_000).expect("a time")
        - i64::try_from(now.as_secs()).expect("a time")
}

/// Agent and guard of a host run on a clock that jumps an hour ahead, then an hour back behind the others; and in each of these
/// hours the host is off the network long enough to lose its connections and to stand for election, so that all greetings are made anew.
pub fn wall_clock_jumps(c: &mut Cluster) {
    // A primary that is cut off does not stand for election.
    let primary = c.primary().expect("a primary");
    let host = (1..=3).find(|h| *h != primary).expect("a secondary");
    let begins = [Alarm::GuardLost(host), Alarm::AgentUnreachable(host), Alarm::Isolated(host), Alarm::Storm];
    c.step("agent and guard get a clock of their own", calm().perhaps(&begins[..2]), |c| {
        let before = c.running();
        c.host(host).restart_agent_with_own_clock().expect("restarted");
        c.settle(&[]);
        c.assert_untouched(&before);
    });
    for (hours, name) in
        [(1, "the wall clock jumps an hour ahead"), (-1, "the wall clock jumps two hours back")]
    {
        c.step(name, calm().perhaps(&begins[2..]), |c| {
            let (before, told) = (c.running(), c.events_of(host).len());
            // In the order in which they came: its times are stepped.
            let since = || c.events_of(host).split_off(told);
            c.watched(|watch| {
                let began = std::time::Instant::now();
                c.host(host).step_clock(hours * HOUR).expect("stepped");
                std::thread::sleep(QUIET);
                c.assert_untouched(&before);
                let alarmed: Vec<_> = since().into_iter().filter(|r| r.severity == Severity::Alarm).collect();
                assert!(alarmed.is_empty(), "{alarmed:?}");

                c.host(host).cut(Net::Mgmt, Cut::Silent).expect("cut");
                let stands = |e: &Event| matches!(e, Event::ElectionStarted { .. });
                let election = c.wait_for("it to stand for election", || {
                    since().into_iter().find(|r| r.event.as_ref().is_some_and(stands))
                });
                let ahead = ahead(&election);
                assert!((ahead - hours * HOUR).abs() < 60, "{ahead} s ahead: the clock has not jumped");
                c.host(host).join(Net::Mgmt).expect("joined");
                c.settle(&[]);
                c.assert_untouched(&before);
                let touched: Vec<_> =
                    since().into_iter().filter(|r| r.event.as_ref().is_some_and(touches_a_vm)).collect();
                assert!(touched.is_empty(), "{touched:?}");
                watch.figure(
                    &name.replace(' ', "_"),
                    began,
                    host,
                    &["vm1", "vm2", "vm3", "vm4", "vm5", "vm6"],
                );
            });
        });
    }
    c.step("agent and guard have the host's clock again", calm().perhaps(&begins[..2]), |c| {
        let before = c.running();
        c.host(host).stop_agent().expect("stopped");
        c.host(host).kill_guard().expect("killed");
        c.host(host).start_agent().expect("started");
        c.settle(&[]);
        c.assert_untouched(&before);
        let last = c.events_of(host).pop().expect("its agent has told that it was started");
        assert!(ahead(&last).abs() < 60, "it tells the time of day again: {last:?}");
    });
}
