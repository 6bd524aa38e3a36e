//! The management network breaks while the storage is kept, in every way: nobody is taken for dead, no VM is touched.

use std::time::{Duration, Instant};

use mainstay_lab::{Cut, Direction, Net};
use mainstay_words::HostState;

use crate::support::{Alarm, Cluster, Expect, Setup, alarms, calm, id};

/// Once a host is called partitioned or isolated, whatever would follow wrongly (a restart, a response) follows within a second or
/// two: the failure time-out is over by then.
const AFTERWARDS: Duration = Duration::from_secs(3);

const ALL: [&str; 6] = ["vm1", "vm2", "vm3", "vm4", "vm5", "vm6"];

/// The state of a host in the view of another that is primary itself.
fn waits_for_state(c: &Cluster, host: usize, by: usize, state: HostState) {
    c.wait(&format!("h{by} to call h{host} {state}"), || {
        c.status_by(by).is_ok_and(|s| {
            s.complete && s.view.hosts.iter().find(|h| h.host == id(host)).map(|h| h.state) == Some(state)
        })
    });
}

/// A fault, what is to be seen then, its undoing: and no VM is touched.
fn nothing_is_touched(
    c: &mut Cluster,
    name: &str,
    expect: Expect,
    fault: impl FnOnce(&Cluster),
    undo: impl FnOnce(&Cluster),
) {
    c.step(name, expect, |c| {
        let before = c.running();
        c.watched(|watch| {
            let began = Instant::now();
            fault(c);
            c.assert_untouched(&before);
            undo(c);
            c.settle(&[]);
            c.assert_untouched(&before);
            watch.figure(&name.replace(' ', "_"), began, 1, &ALL);
        });
    });
}

/// Nobody is taken for dead.
pub fn network_breaks(c: &mut Cluster) {
    let (fault, undo) = (
        |c: &Cluster| {
            c.lab.split(Net::Mgmt, &[&[1], &[2, 3]]).expect("split");
            waits_for_state(c, 1, 3, HostState::Partitioned);
            std::thread::sleep(AFTERWARDS);
        },
        |c: &Cluster| c.lab.unsplit(Net::Mgmt).expect("joined"),
    );
    nothing_is_touched(c, "a secondary is partitioned", calm().perhaps(&[Alarm::Storm]), fault, undo);

    for (host, by, name) in [(1, 2, "a secondary is cut off"), (3, 2, "the primary is cut off")] {
        let fault = move |c: &Cluster| {
            c.host(host).cut(Net::Mgmt, Cut::Silent).expect("cut");
            c.wait("the others to call it isolated", || {
                [by, 3].iter().any(|by| {
                    c.status_by(*by).is_ok_and(|s| {
                        let its = s.view.hosts.iter().find(|h| h.host == id(host)).map(|h| h.state);
                        s.view.host != id(host) && s.complete && its == Some(HostState::Isolated)
                    })
                })
            });
            std::thread::sleep(AFTERWARDS);
        };
        let undo = move |c: &Cluster| c.host(host).join(Net::Mgmt).expect("joined");
        let expect = alarms(&[Alarm::Isolated(host)]).perhaps(&[Alarm::Storm]);
        nothing_is_touched(c, name, expect, fault, undo);
    }

    let each = alarms(&[Alarm::Isolated(1), Alarm::Isolated(2), Alarm::Isolated(3)]).perhaps(&[Alarm::Storm]);
    let fault = |c: &Cluster| {
        for host in 1..=3 {
            c.host(host).cut(Net::Mgmt, Cut::Silent).expect("cut");
        }
        std::thread::sleep(Duration::from_secs(60));
    };
    let undo = |c: &Cluster| {
        for host in 1..=3 {
            c.host(host).join(Net::Mgmt).expect("joined");
        }
    };
    nothing_is_touched(c, "all are cut off for 60 s", each, fault, undo);

    for (direction, name) in
        [(Direction::In, "a secondary hears nobody"), (Direction::Out, "nobody hears a secondary")]
    {
        let fault = move |c: &Cluster| {
            c.host(1).drop_direction(Net::Mgmt, direction).expect("dropped");
            std::thread::sleep(Duration::from_millis(7_500));
        };
        let undo = |c: &Cluster| c.host(1).undrop(Net::Mgmt).expect("undone");
        nothing_is_touched(c, name, calm().perhaps(&[Alarm::Isolated(1), Alarm::Storm]), fault, undo);
    }

    for (host, name) in [(1, "the network of a secondary flaps"), (3, "the network of the primary flaps")] {
        let fault = move |c: &Cluster| {
            for _ in 0..3 {
                c.host(host).cut(Net::Mgmt, Cut::Carrier).expect("cut");
                std::thread::sleep(Duration::from_millis(1_500));
                c.host(host).join(Net::Mgmt).expect("joined");
                std::thread::sleep(Duration::from_millis(1_000));
            }
        };
        let perhaps = calm().perhaps(&[Alarm::Isolated(host), Alarm::Storm]);
        nothing_is_touched(c, name, perhaps, fault, |_| {});
    }
}

#[test]
fn four_hosts_two_against_two() {
    let setup = Setup { hosts: 4, vms: &[1, 2, 3, 4], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let primary = c.primary().map(id);
    c.step("two against two", calm().perhaps(&[Alarm::Storm]), |c| {
        let before = c.running();
        c.watched(|watch| {
            let began = Instant::now();
            c.lab.split(Net::Mgmt, &[&[1, 2], &[3, 4]]).expect("split");
            waits_for_state(c, 1, 4, HostState::Partitioned);
            waits_for_state(c, 4, 2, HostState::Partitioned);
            std::thread::sleep(AFTERWARDS);
            c.assert_untouched(&before);
            // Of a primary, asked there or through a host that follows it.
            let owner = |by: usize| {
                let status = || c.status_by(by).ok().filter(|s| s.complete);
                c.wait_for("a primary's view", status).view.datastores[0].owner.clone()
            };
            assert_eq!(
                (owner(4), owner(2)),
                (primary.clone(), primary.clone()),
                "one owner for two primaries"
            );
            c.lab.unsplit(Net::Mgmt).expect("joined");
            c.settle(&[]);
            c.assert_untouched(&before);
            watch.figure("two_against_two", began, 1, &["vm1", "vm2", "vm3", "vm4"]);
        });
    });
    c.step(
        "two against two, and one of them fails",
        alarms(&[Alarm::Failed(1)]).perhaps(&[Alarm::Storm]),
        |c| {
            let before = c.boots();
            c.watched(|watch| {
                c.lab.split(Net::Mgmt, &[&[1, 2], &[3, 4]]).expect("split");
                waits_for_state(c, 1, 4, HostState::Partitioned);
                let began = Instant::now();
                c.power_off(1);
                c.wait("its VM to run elsewhere", || watch.booted("vm1", began).is_some());
                watch.figure("two_against_two_then_one_fails", began, 1, &["vm1"]);
                c.lab.unsplit(Net::Mgmt).expect("joined");
                c.settle(&[]);
                c.assert_restarted_once(&before, &["vm1".to_string()].into());
            });
        },
    );
    c.down();
}
