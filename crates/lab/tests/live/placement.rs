//! Where VMs come back and in which order: as the rehearsal has it, the highest priorities first and, if not all find room, only those.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use mainstay_api::{EventRecord, Rehearsal};
use mainstay_lab::{DatastoreConfig, GuestAgent, VmOptions};
use mainstay_words::ids::HostId;
use mainstay_words::view::{VmState, VmView};
use mainstay_words::{Event, HostPlan};
use serde_json::Value;

use crate::support::{Alarm, Boots, Cluster, Expect, Setup, alarms, calm, id, returning};
use crate::watch::{Happened, Watch};

/// The VMs of the order, in the waves in which they must come; and how their definitions are.
const WAVES: [(&str, &[&str]); 4] =
    [("highest", &["dns"]), ("high", &["db1", "db2"]), ("high", &["app"]), ("low", &["batch"])];

/// So long after its boot the agent of `dns`, for which all others wait, is silent.
const SILENT: Duration = Duration::from_secs(4);

/// So long after its boot the command that tells whether `db1` is ready fails.
const NOT_READY: Duration = Duration::from_secs(3);

const COMMAND: &str = "/usr/bin/db-is-ready --quiet";

/// By so much a look may come later than what it sees: the machine is busy.
const LATE: Duration = Duration::from_millis(500);

/// VMs that want much CPU, in percent of a host's; on which host they begin.
const BIG: [(&str, &str, u64, usize); 7] = [
    ("c1", "highest", 19, 1),
    ("c2", "high", 19, 1),
    ("c3", "medium", 19, 1),
    ("c4", "low", 19, 1),
    ("c5", "lowest", 19, 1),
    ("half", "lowest", 55, 2),
    ("most", "lowest", 70, 3),
];

fn define(c: &Cluster, host: usize, vm: &str, priority: &str, cpu_mhz: Option<u64>) {
    let guest_agent = match vm {
        "dns" => Some(GuestAgent::answering_after(SILENT)),
        "db1" => Some(GuestAgent { answers_after: Duration::ZERO, commands_succeed_after: NOT_READY }),
        _ => None,
    };
    let options = VmOptions { priority: Some(priority.into()), cpu_mhz, guest_agent, ..VmOptions::default() };
    c.lab.define_vm(host, vm, &options).expect("a VM");
}

/// What a host's processors have in all, as its libvirt says.
fn cpu_mhz(c: &Cluster) -> u64 {
    let info = c.host(1).virsh(&["nodeinfo"]).expect("nodeinfo");
    let number = |name: &str| -> u64 {
        let line = info.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("{name}: {info}"));
        line.split_whitespace().find_map(|word| word.parse().ok()).expect("a number")
    };
    number("CPU(s):") * number("CPU frequency:")
}

/// The plan for a host's failure, as soon as it knows so many VMs of it.
fn plan_for(c: &Cluster, host: usize, vms: usize) -> HostPlan {
    c.wait_for("the rehearsal to know the VMs", || {
        let rehearsal: Rehearsal = c.client(2).get("/v1/rehearsal").ok()?;
        let plan = rehearsal.rehearsed.hosts.into_iter().find(|plan| plan.host == id(host))?;
        (plan.placed.len() + plan.left_out.len() == vms).then_some(plan)
    })
}

/// Asserts that each VM of the plan runs where the plan has it.
fn assert_followed(c: &Cluster, plan: &HostPlan) {
    for placed in &plan.placed {
        let hosts = c.lab.hosts_running(&placed.name).expect("the runners");
        let hosts: Vec<HostId> = hosts.into_iter().map(id).collect();
        assert_eq!(hosts, std::slice::from_ref(&placed.to), "{placed:?}\n{}", c.story());
    }
}

fn booted(watch: &Watch, vms: &[&str], since: Instant) -> Option<Vec<Duration>> {
    vms.iter().map(|vm| watch.booted(vm, since)).collect()
}

fn seconds(times: &[Duration]) -> (f64, f64) {
    let of = |time: Option<&Duration>| time.map_or(0.0, Duration::as_secs_f64);
    (of(times.iter().min()), of(times.iter().max()))
}

/// Whether the owner's list, on disk, says of the VM that its guest's agent has answered: only then is a restart a success only
/// when it answers again.
fn owner_knows_agent(c: &Cluster, vm: &str) -> bool {
    fn says_so(value: &Value, vm: &str) -> bool {
        match value {
            Value::Object(of) => {
                of.get("name").is_some_and(|name| name == vm)
                    && of.get("has_agent").is_some_and(|has| *has == Value::Bool(true))
                    || of.values().any(|below| says_so(below, vm))
            }
            Value::Array(all) => all.iter().any(|below| says_so(below, vm)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }
    let shown = c.done(2, &["datastore", "show", "/srv/ds1", "--json"]);
    serde_json::from_str(&shown).is_ok_and(|shown: Value| says_so(&shown, vm))
}

/// Each wave's VMs get a QEMU only when those of the wave before have one, and by the agents' events it is so too. (Whether a guest
/// ticks before another does is also a matter of who gets a processor: `running` is what libvirt says.)
fn assert_order(c: &Cluster, watch: &Watch, began: Instant) {
    let mut before = Duration::ZERO;
    let mut started_before = 0.0;
    for (index, (_, vms)) in WAVES.iter().enumerate() {
        let (first, last) = seconds(&booted(watch, vms, began).expect("they have booted"));
        let there: Option<Vec<Happened>> = vms.iter().map(|vm| watch.started_off(1, vm, began)).collect();
        let there = there.expect("they have a QEMU");
        let first_there = there.iter().map(|when| when.latest).min().unwrap_or_default();
        let started: Vec<f64> = vms
            .iter()
            .map(|name| {
                let of_it = |e: &Event| matches!(e, Event::VmStarted { vm, .. } if *vm.name == **name);
                c.wait_for("its start to be told", || c.when(of_it)).0
            })
            .collect();
        eprintln!("figure: wave_{} first={first:.2} last={last:.2}", index + 1);
        assert!(first_there > before, "wave {index} was there before the one before it\n{}", c.story());
        let first_started = started.iter().copied().fold(f64::MAX, f64::min);
        assert!(first_started > started_before, "wave {index} started too early\n{}", c.story());
        before = there.iter().map(|when| when.earliest).max().unwrap_or_default();
        started_before = started.iter().copied().fold(0.0, f64::max);
    }
}

/// `dns` counts as restarted, and the others start, only when its agent has answered; `app` starts only when the command in
/// `db1` has succeeded. `began_unix_us` is `began` by the clock of the events.
fn assert_guests_were_waited_for(c: &Cluster, watch: &Watch, began: Instant, began_unix_us: u64) {
    // Where the watch was kept from looking, what counts is when it may have been.
    let boot = |vm: &str| watch.boot(vm, began).expect("it has booted");
    let answered = watch.agent_answered("dns", began).expect("its agent has answered");
    let (second, third) = (boot("db1").latest.min(boot("db2").latest), boot("app").latest);
    eprintln!(
        "figure: agent_waited_for dns={:.2} answered={:.2} wave_2={:.2} db1={:.2} app={:.2}",
        boot("dns").latest.as_secs_f64(),
        answered.latest.as_secs_f64(),
        second.as_secs_f64(),
        boot("db1").latest.as_secs_f64(),
        third.as_secs_f64()
    );
    let story = || c.story();
    assert!(
        answered.latest + LATE >= boot("dns").earliest + SILENT,
        "dns answered before it could\n{}",
        story()
    );
    assert!(second > answered.earliest, "wave 2 did not wait for the agent of dns\n{}", story());
    assert!(
        third + LATE >= boot("db1").earliest + NOT_READY,
        "app did not wait for the command in db1\n{}",
        story()
    );

    let is_it =
        |e: &EventRecord| matches!(&e.event, Some(Event::VmRestarted { vm, .. }) if &*vm.name == "dns");
    let told = c.events().into_iter().find(is_it).unwrap_or_else(|| panic!("{}", story())).at_unix_us;
    let told = Duration::from_micros(told.saturating_sub(began_unix_us));
    eprintln!("figure: agent_verified dns_restarted={:.2}", told.as_secs_f64());
    assert!(told + LATE >= answered.earliest, "verified unheard\n{}", story());
    let when = |what: &dyn Fn(&Event) -> bool| c.wait_for("it to be told", || c.when(what)).0;
    let restarted = when(&|e: &Event| matches!(e, Event::VmRestarted { vm, .. } if &*vm.name == "dns"));
    let started = |name: &'static str| {
        when(&move |e: &Event| matches!(e, Event::VmStarted { vm, .. } if &*vm.name == name))
    };
    assert!(restarted <= started("db1").min(started("db2")), "{}", story());

    let boots = c.lab.guest_record("db1").expect("its record").boots;
    let runs = format!("EXEC db1 {boots} ");
    let host = c.lab.hosts_running("db1").expect("the runners")[0];
    let log = c.lab.serial_log(host, "db1").expect("its serial line");
    let tries = log.lines().filter(|line| line.starts_with(&runs)).count();
    eprintln!("  the command in db1 was run {tries} times");
    assert!(tries >= 1, "{log}");
}

fn in_order(c: &mut Cluster) {
    c.step("priorities, a group that waits, ready conditions", calm(), |c| {
        for (priority, vms) in WAVES {
            for vm in vms {
                // `dns` has it from its metadata, the others from the command line.
                let of_xml = if priority == "highest" { priority } else { "medium" };
                define(c, 1, vm, of_xml, None);
            }
        }
        define(c, 1, "spare", "disabled", None);
        c.wait("all to be known", || {
            c.status().is_some_and(|s| s.view.vms.iter().filter(|v| v.protected).count() >= 5)
        });
        for (priority, vms) in &WAVES[1..] {
            for vm in *vms {
                c.done(1, &["vm", "priority", vm, priority]);
            }
        }
        for vm in WAVES.iter().flat_map(|(_, vms)| *vms) {
            match *vm {
                "dns" => c.done(2, &["vm", "ready", vm, "agent"]),
                "db1" => c.done(2, &["vm", "ready", vm, "command", "--command", COMMAND]),
                _ => c.done(2, &["vm", "ready", vm, "running"]),
            };
        }
        c.done(3, &["group", "set", "db", "--vm", "db1", "--vm", "db2"]);
        c.done(3, &["group", "set", "app", "--vm", "app", "--after", "db"]);
        let why = c.refused(3, &["group", "set", "db", "--vm", "db1", "--vm", "db2", "--after", "app"]);
        assert!(why.contains("app") && why.contains("db"), "the circle is named: {why}");
        let why = c.refused(1, &["vm", "priority", "app", "highest"]);
        assert!(why.contains("app"), "a higher priority can't wait for a lower one: {why}");
        eprintln!("  refused: {}", why.trim());
        // Only of a guest whose agent has ever answered is an answer expected again.
        for vm in ["dns", "db1"] {
            c.wait("its agent to answer", || c.lab.guest_record(vm).is_ok_and(|r| r.agent_answers > 0));
            c.wait("the owner to know that", || owner_knows_agent(c, vm));
        }
    });

    c.step(
        "the host of them all fails: they come back in order, where the plan has them",
        alarms(&[Alarm::Failed(1)]),
        |c| {
            let before = c.boots();
            let plan = plan_for(c, 1, 5);
            assert!(plan.left_out.is_empty(), "{plan:?}");
            let wave = |name: &str| plan.placed.iter().find(|p| &*p.name == name).map(|p| p.wave);
            for (index, (_, vms)) in WAVES.iter().enumerate() {
                for vm in *vms {
                    assert_eq!(wave(vm), Some(index as u32 + 1), "{vm}: {plan:?}");
                }
            }
            eprintln!("{}", c.done(2, &["rehearse", "--host", "h1"]));
            let asked = Instant::now();
            let played = c.done(2, &["rehearse", "--fail", "h1"]);
            eprintln!("{played}\n  played in {:.1} s", asked.elapsed().as_secs_f64());
            let all = WAVES.iter().flat_map(|(_, vms)| *vms);
            assert!(all.into_iter().all(|vm| played.contains(vm)), "{played}");
            for waits in ["until its guest agent answers", "until the command in its guest succeeds"] {
                assert!(played.contains(waits), "{waits}: {played}");
            }
            let at_hand = c.watched(|watch| {
                let (began, clock) = (Instant::now(), SystemTime::now());
                c.power_off(1);
                // Two hosts that are as good as each other change places in the plan with every MiB, and all hosts of a lab
                // have the same memory: what counts is the plan at hand when the host failed. Its first VM is on its way.
                let intended =
                    |e: &Event| matches!(e, Event::TakeoverIntended { vm, .. } if &*vm.name == "dns");
                c.wait("its failover to begin", || c.seen(intended));
                let at_hand = plan_for(c, 1, 4);
                for (_, vms) in WAVES {
                    c.wait("the wave", || booted(watch, vms, began).is_some());
                }
                // A guest ticks before its host's agent has heard that it was started, and before the owner has.
                for vm in WAVES.iter().flat_map(|(_, vms)| *vms) {
                    let of_it =
                        |e: &Event| matches!(e, Event::VmRestarted { vm: of, .. } if *of.name == **vm);
                    c.wait("it to be told", || c.seen(of_it));
                }
                assert_order(c, watch, began);
                let clock = clock.duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
                let clock = u64::try_from(clock.as_micros()).expect("a clock before the year 500000");
                assert_guests_were_waited_for(c, watch, began, clock);
                let all: Vec<&str> = WAVES.iter().flat_map(|(_, vms)| *vms).copied().collect();
                watch.figure("in_order", began, 1, &all);
                at_hand
            });
            assert_followed(c, &at_hand);
            let as_foretold = plan
                .placed
                .iter()
                .filter(|one| at_hand.placed.iter().any(|it| it.to == one.to && it.vm == one.vm));
            eprintln!(
                "  as foretold before the failure: {} of {}",
                as_foretold.count(),
                at_hand.placed.len()
            );
            c.settle(&["spare"]);
            let moved = WAVES.iter().flat_map(|(_, vms)| *vms).map(ToString::to_string).collect();
            c.assert_restarted_once(&before, &moved);
            let given_up = |e: &Event| matches!(e, Event::OrderGivenUp { .. });
            assert!(!c.seen(given_up), "{}", c.story());
        },
    );
}

/// Those VMs that run, and how often each has booted more than before.
fn came_back(c: &Cluster, before: &Boots) -> BTreeMap<String, u32> {
    let grew = |(vm, boots): (String, u32)| (boots > before[&vm]).then(|| (vm.clone(), boots - before[&vm]));
    c.boots().into_iter().filter_map(grew).collect()
}

/// More VMs than room after a failure: that is said, sooner or later.
fn crowded() -> Expect {
    calm().perhaps(&[Alarm::Admission])
}

fn over_full(c: &mut Cluster) {
    let perhaps = returning(&[1]).perhaps(&[Alarm::Admission]);
    c.step("it returns, and VMs come that do not all fit on two hosts", perhaps, |c| {
        c.power_on(1);
        c.settle(&["spare"]);
        let mhz = cpu_mhz(c);
        for (vm, priority, percent, host) in BIG {
            define(c, host, vm, priority, Some(mhz * percent / 100));
        }
        c.settle(&["spare"]);
        // Admission control only warns: it says who would not come back.
        let said = c.wait_for("admission control to object", || {
            Some(c.done(2, &["admission", "show"])).filter(|said| said.contains("c5"))
        });
        eprintln!("{said}");
        let why = c.refused(2, &["host", "maintenance", "enter", "h1"]);
        eprintln!("  refused: {}", why.trim());
        assert!(why.contains("c5") && why.contains("MHz"), "{why}");
    });

    c.step("admission control refuses: libvirt's hook keeps a VM from starting", crowded(), |c| {
        let before = c.running();
        c.done(3, &["admission", "set", "proved", "--failures", "1", "--refuse"]);
        let options = VmOptions { cpu_mhz: Some(cpu_mhz(c) * 30 / 100), ..VmOptions::default() };
        c.lab.create_disk("c6", &options).expect("a disk");
        c.lab.define_existing(2, "c6", &options).expect("defined");
        let output = c.host(2).virsh_output(&["start", "c6"]).expect("virsh runs");
        eprintln!("  {}", output.stderr.trim());
        assert!(!output.success && output.stderr.contains("c6"), "{output:?}\n{}", c.story());
        c.done(3, &["admission", "set", "proved", "--failures", "1", "--warn"]);
        c.host(2).virsh(&["undefine", "c6"]).expect("undefined");
        let mut after = c.running();
        after.remove("c6");
        assert_eq!(before, after);
    });

    let expected = alarms(&[Alarm::Failed(1), Alarm::WaitsForHost]).perhaps(&[Alarm::Admission]);
    c.step("it fails again: the highest come back, the others are named with what they lack", expected, |c| {
        let before = c.boots();
        let plan = plan_for(c, 1, 5);
        let names = |vms: &[&str]| -> BTreeSet<String> { vms.iter().map(ToString::to_string).collect() };
        let left: BTreeSet<String> = plan.left_out.iter().map(|vm| vm.name.to_string()).collect();
        assert_eq!(left, names(&["c4", "c5"]), "{plan:?}");
        c.watched(|watch| {
            let began = Instant::now();
            c.power_off(1);
            c.wait("the highest", || booted(watch, &["c1", "c2", "c3"], began).is_some());
            for vm in ["c4", "c5"] {
                let view = c.wait_for("the others to wait", || {
                    let waits = |v: &VmView| v.note.as_ref().is_some_and(|note| note.contains("no host can take it"));
                    c.vm_view(vm).filter(waits)
                });
                assert_eq!(view.state, VmState::Waiting, "{view:?}");
                let note = view.note.unwrap_or_default();
                eprintln!("  {vm}: {note}");
                assert!(note.contains("host-2") && note.contains("host-3") && note.contains("MHz"), "{note}");
            }
            let waits = |e: &Event| matches!(e, Event::VmWaitsForHost { vm, reasons } if &*vm.name == "c5" && reasons.len() >= 2);
            c.wait("an alarm that names them", || c.seen(waits));
            c.wait("it to stand", || {
                let Some(status) = c.status() else { return false };
                let stands = |wanted: &&str| status.alarms.iter().any(|a| a.text.starts_with(*wanted));
                ["c4 waits", "c5 waits"].iter().all(stands)
            });
            watch.figure("over_full", began, 1, &["c1", "c2", "c3"]);
        });
        assert_followed(c, &plan);
        // Ten beats of another VM: eight rounds of everything that agents do.
        c.lab.wait_for_beats("half", 10, crate::support::LONG).expect("it beats");
        let back: BTreeSet<String> = came_back(c, &before).into_keys().collect();
        assert_eq!(back, names(&["c1", "c2", "c3"]), "{}", c.story());
    });

    // Its libvirt is there a moment after its agent: it is said once more what they wait for.
    let perhaps = returning(&[1]).perhaps(&[Alarm::Admission, Alarm::WaitsForHost]);
    c.step("it returns: the others run at once", perhaps, |c| {
        let before = c.boots();
        c.watched(|watch| {
            let began = Instant::now();
            c.power_on(1);
            c.settle(&["spare", "c6"]);
            watch.figure("room_again", began, 1, &["c4", "c5"]);
        });
        let back: BTreeSet<String> = came_back(c, &before).into_keys().collect();
        assert_eq!(back, ["c4", "c5"].map(String::from).into(), "{}", c.story());
    });
}

#[test]
fn three_hosts_come_back_in_order_and_the_highest_when_room_is_short() {
    let datastores = vec![DatastoreConfig::local("ds1")];
    // The standard times: with the swift ones a machine that stands still for a second freezes guests, and rightly so.
    let setup = Setup { vms: &[], datastores, ..Setup::default() };
    let Some(mut c) = Cluster::up(setup) else { return };
    in_order(&mut c);
    over_full(&mut c);
    c.down();
}
