//! Two hosts and no third vote: each path of each of them goes, alone and together.

use std::time::{Duration, Instant};

use mainstay_api::EventRecord;
use mainstay_lab::{Cut, Net};
use mainstay_words::Event;

use crate::support::{Alarm, Cluster, Expect, Setup, alarms, id};

/// Past the failure time-out and the time-out of the storage.
const QUIET: Duration = Duration::from_secs(8);

/// Past what an isolated host takes until it responds.
const AFTERWARDS: Duration = Duration::from_secs(2);

#[test]
fn two_hosts_lose_each_path() {
    let setup = Setup { hosts: 2, vms: &[1, 1, 2, 2], ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    let all = ["vm1", "vm2", "vm3", "vm4"];

    let lost = || alarms(&[Alarm::DatastoreLost("ds1")]);
    let isolated = |h| alarms(&[Alarm::Isolated(h)]).perhaps(&[Alarm::Isolated(3 - h), Alarm::Storm]);
    let cases: [(&str, usize, Net, Expect); 4] = [
        ("network of one", 1, Net::Mgmt, isolated(1)),
        ("network of the owner", 2, Net::Mgmt, isolated(2)),
        ("storage of the owner", 2, Net::Storage, lost()),
        ("storage of the other", 1, Net::Storage, lost()),
    ];
    for (name, host, net, expect) in cases {
        c.step(&format!("two hosts: {name} is cut"), expect, |c| {
            let before = c.running();
            c.watched(|watch| {
                let began = Instant::now();
                c.host(host).cut(net, Cut::Silent).expect("cut");
                if net == Net::Mgmt {
                    let isolated =
                        |e: &EventRecord| e.host == id(host) && matches!(e.event, Some(Event::HostIsolated));
                    c.wait("it to find itself isolated", || c.events().iter().any(isolated));
                    eprintln!("  isolated after {:.1} s", began.elapsed().as_secs_f64());
                }
                std::thread::sleep(QUIET.saturating_sub(began.elapsed()).max(AFTERWARDS));
                c.assert_untouched(&before);
                c.lab.heal().expect("healed");
                c.settle(&[]);
                c.assert_untouched(&before);
                watch.figure(&format!("two_hosts_{}_cut", name.replace(' ', "_")), began, host, &all);
            });
        });
    }

    for (host, mine) in [(1, ["vm1", "vm2"]), (2, ["vm3", "vm4"])] {
        let expected = [Alarm::Failed(host), Alarm::Frozen(mine[0]), Alarm::Frozen(mine[1])];
        let mut perhaps = vec![Alarm::Isolated(host), Alarm::DatastoreLost("ds1"), Alarm::Storm];
        // On its return, its kernel may answer a ping before its agent is heard.
        perhaps.extend([Alarm::AgentUnreachable(host), Alarm::SeenBy(host)]);
        perhaps.extend(all.map(Alarm::Frozen));
        c.step(&format!("two hosts: h{host} loses both"), alarms(&expected).perhaps(&perhaps), |c| {
            let (before, moved) = (c.boots(), c.vms_on(host));
            c.watched(|watch| {
                let began = Instant::now();
                for net in Net::ALL {
                    c.host(host).cut(net, Cut::Silent).expect("cut");
                }
                c.wait("its VMs to run on the other", || {
                    moved.iter().all(|vm| watch.booted(vm, began).is_some())
                });
                c.lab.heal().expect("healed");
                c.settle(&[]);
                watch.figure(&format!("two_hosts_h{host}_loses_both"), began, host, &mine);
            });
            c.assert_restarted_once(&before, &moved);
        });
    }
    c.down();
}
