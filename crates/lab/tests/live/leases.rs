//! Storage goes, alone or with the network: whoever is still acknowledged goes on, whoever is not is frozen before anybody
//! else may start the same VM, and goes on or is removed when contact returns.

use std::time::{Duration, Instant};

use mainstay_lab::{Cut, Net, Runner};
use mainstay_words::Event;

use crate::support::{Alarm, Cluster, Setup, alarms};

const ALL: [&str; 6] = ["vm1", "vm2", "vm3", "vm4", "vm5", "vm6"];

/// Both paths of a host go, one four seconds after the other; it comes back when its VMs run elsewhere.
fn loses_both(c: &mut Cluster, name: &str, host: usize, first: Net, second: Net) {
    let on = c.vms_on(host);
    let vms: Vec<&'static str> = ALL.into_iter().filter(|vm| on.contains(*vm)).collect();
    let vms = &vms;
    let mut expected: Vec<Alarm> = vms.iter().map(|vm| Alarm::Frozen(vm)).collect();
    expected.push(Alarm::Failed(host));
    // On its return, its kernel may answer a ping before its agent is heard.
    let back = Alarm::AgentUnreachable(host);
    let alone = Alarm::SeenBy(host);
    let perhaps = [Alarm::Isolated(host), Alarm::DatastoreLost("ds1"), Alarm::Storm, back, alone];
    c.step(name, alarms(&expected).perhaps(&perhaps), |c| {
        let (before, moved) = (c.boots(), c.vms_on(host));
        c.watched(|watch| {
            c.host(host).cut(first, Cut::Silent).expect("cut");
            std::thread::sleep(Duration::from_secs(4));
            let began = Instant::now();
            c.host(host).cut(second, Cut::Silent).expect("cut");
            c.wait("its VMs to run elsewhere", || vms.iter().all(|vm| watch.booted(vm, began).is_some()));
            for vm in vms {
                assert!(watch.frozen(vm, host, began).is_some(), "{vm} was not frozen\n{}", c.story());
            }
            c.lab.heal().expect("healed");
            let healed = Instant::now();
            c.settle(&[]);
            for vm in vms {
                assert!(watch.gone(vm, host, healed).is_some(), "{vm}'s old copy is still there");
            }
            watch.figure(&name.replace(' ', "_"), began, host, vms);
        });
        c.assert_restarted_once(&before, &moved);
    });
}

/// The host executes on as long as it is acknowledged by network.
pub fn storage_goes_alone(c: &mut Cluster) {
    let owner = c.primary().expect("a primary");
    let secondary = (1..=3).find(|h| *h != owner).expect("a secondary");
    for (host, name) in [(secondary, "storage of a secondary is cut"), (owner, "storage of the owner is cut")]
    {
        c.step(name, alarms(&[Alarm::DatastoreLost("ds1")]), |c| {
            let before = c.running();
            c.watched(|watch| {
                let began = Instant::now();
                c.host(host).cut(Net::Storage, Cut::Silent).expect("cut");
                std::thread::sleep(Duration::from_secs(10));
                c.assert_untouched(&before);
                c.host(host).join(Net::Storage).expect("joined");
                c.settle(&[]);
                c.assert_untouched(&before);
                watch.figure(&name.replace(' ', "_"), began, host, &ALL);
            });
        });
    }
}

/// Everybody loses everything, and nobody's VMs more than a moment.
pub fn both_switches_reboot(c: &mut Cluster) {
    let perhaps = [1, 2, 3].map(Alarm::Isolated);
    let expect = alarms(&ALL.map(Alarm::Frozen)).perhaps(&perhaps);
    // When contact returns after more than a failure time-out, a kernel may answer a ping before its agent is heard.
    let expect = expect.perhaps(&[1, 2, 3].map(Alarm::AgentUnreachable));
    let expect = expect.perhaps(&[Alarm::DatastoreLost("ds1"), Alarm::Storm]);
    let owner = c.primary().expect("a primary");
    c.step("both switches reboot: all are frozen, and go on", expect, |c| {
        let before = c.running();
        let on = |host: usize| -> Vec<&'static str> {
            let on = c.vms_on(host);
            ALL.into_iter().filter(|vm| on.contains(*vm)).collect()
        };
        c.watched(|watch| {
            let began = Instant::now();
            for host in 1..=3 {
                for net in Net::ALL {
                    c.host(host).cut(net, Cut::Silent).expect("cut");
                }
            }
            c.wait("all to be frozen", || {
                (1..=3).all(|h| on(h).iter().all(|vm| watch.frozen(vm, h, began).is_some()))
            });
            c.lab.heal().expect("healed");
            c.settle(&[]);
            assert_eq!(before, c.running(), "nothing but a pause\n{}", c.story());
            assert!(c.seen(|e| matches!(e, Event::VmThawed { .. })), "{}", c.story());
            for host in 1..=3 {
                let role = if host == owner { "owner" } else { "secondary" };
                watch.figure(&format!("both_switches_reboot_{role}"), began, host, &on(host));
            }
        });
    });
}

#[test]
fn three_hosts_network_and_storage_go_one_after_the_other_and_for_good() {
    let Some(mut c) = Cluster::up(Setup { vms: &[1, 1, 2, 2, 3, 3], ..Setup::default() }) else { return };
    let primary = c.primary().expect("a primary");
    let secondary = (1..=3).find(|h| *h != primary).expect("a secondary");
    loses_both(&mut c, "network then storage of a secondary", secondary, Net::Mgmt, Net::Storage);
    let primary = c.primary().expect("a primary");
    loses_both(&mut c, "storage then network of the primary", primary, Net::Storage, Net::Mgmt);
    agent_hangs_and_all_is_cut_for_good(&mut c);
    c.down();
}

fn agent_hangs_and_all_is_cut_for_good(c: &mut Cluster) {
    let primary = c.primary();
    let host =
        (1..=3).find(|h| primary != Some(*h) && !c.vms_on(*h).is_empty()).expect("a secondary with a VM");
    let on = c.vms_on(host);
    let mine: Vec<&'static str> = ALL.into_iter().filter(|vm| on.contains(*vm)).collect();
    let mut perhaps: Vec<Alarm> = mine.iter().map(|vm| Alarm::Frozen(vm)).collect();
    perhaps.extend([Alarm::AgentUnreachable(host), Alarm::Isolated(host)]);
    perhaps.extend([Alarm::DatastoreLost("ds1"), Alarm::Storm]);
    let expect = alarms(&[Alarm::Failed(host)]).perhaps(&perhaps);
    c.step("agent hangs, then the host is cut off for good", expect, |c| {
        let (before, moved) = (c.boots(), c.vms_on(host));
        c.watched(|watch| {
            c.host(host).hang_agent().expect("hung");
            std::thread::sleep(Duration::from_secs(2));
            let began = Instant::now();
            for net in Net::ALL {
                c.host(host).cut(net, Cut::Silent).expect("cut");
            }
            c.wait("its VMs to run elsewhere", || mine.iter().all(|vm| watch.booted(vm, began).is_some()));
            let old: Vec<Runner> = mine
                .iter()
                .map(|vm| {
                    let copies = c.lab.runners(vm).expect("the runners");
                    *copies.iter().find(|r| r.host == host).expect("the old copy is still there")
                })
                .collect();
            let ticks = || -> Vec<Option<u64>> { old.iter().map(Runner::cpu_ticks).collect() };
            let before = ticks();
            std::thread::sleep(Duration::from_secs(6));
            assert_eq!(ticks(), before, "the frozen copies never execute again");
            watch.figure("agent_hangs_and_all_cut_for_good", began, host, &mine);
            c.power_off(host);
            c.lab.heal().expect("healed");
            c.settle(&[]);
        });
        c.assert_restarted_once(&before, &moved);
    });
}

#[test]
fn three_hosts_storage_hangs() {
    let setup = Setup { vms: &[1, 2, 3], storage_patience: Duration::from_secs(120), ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    c.step("the storage hangs for one host", alarms(&[Alarm::DatastoreLost("ds1")]), |c| {
        let before = c.running();
        c.watched(|watch| {
            let began = Instant::now();
            c.host(1).hang_datastore("ds1").expect("hung");
            std::thread::sleep(Duration::from_secs(8));
            c.assert_untouched(&before);
            c.host(1).unhang_datastore("ds1").expect("it goes on");
            c.settle(&[]);
            c.assert_untouched(&before);
            watch.figure("storage_hangs_for_one", began, 1, &ALL[..3]);
        });
    });
    c.step("the storage hangs for all for 60 s", alarms(&[Alarm::DatastoreLost("ds1")]), |c| {
        let before = c.running();
        c.watched(|watch| {
            let began = Instant::now();
            c.lab.hang_datastore("ds1").expect("hung");
            std::thread::sleep(Duration::from_secs(60));
            c.assert_untouched(&before);
            c.lab.unhang_datastore("ds1").expect("it goes on");
            c.settle(&[]);
            c.assert_untouched(&before);
            watch.figure("storage_hangs_for_all_for_60_s", began, 1, &ALL[..3]);
        });
    });
    c.down();
}
