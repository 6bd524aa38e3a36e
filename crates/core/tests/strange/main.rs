//! A core among peers, disks and a guard that say anything that can be said: it does not panic, it does not grow without bound, and
//! what it must not believe changes nothing.
//!
//! Overflow is checked in tests, so absurd numbers show here. What it does not do: decide whether its decisions are right; the
//! simulator does.

mod dice;
mod shell;

use dice::Dice;
use mainstay_core::message::{Body, Heartbeat, HeartbeatAck, Message, OwnedDatastore, Rank};
use mainstay_core::*;
use mainstay_testkit::made;
pub use shell::RUN;
use shell::{Disks, Shell, config};

const SECOND: Span = Span(1_000_000);

fn peer() -> HostId {
    HostId::new("host-2")
}

fn message(incarnation: u64, sequence: u64, body: Body) -> Message {
    Message { incarnation: Incarnation(incarnation), sequence, files: None, body }
}

fn from_peer(message: Message) -> Input {
    Input::Message { from: peer(), message }
}

/// A core that has become primary and owner of its datastores, with honest disks and silent peers.
fn primary(dice: &mut Dice) -> Shell {
    let mut shell = Shell::new(Disks::Honest);
    shell.run_until(Time(40_000_000), dice);
    let view = shell.core.view(shell.now);
    assert_eq!(view.primary.as_ref(), Some(&config().me), "{view:?}");
    shell
}

/// A core that follows `host-2`.
fn secondary(dice: &mut Dice) -> Shell {
    let mut shell = Shell::new(Disks::Honest);
    shell.run_until(Time(1_500_000), dice);
    let rank = Rank { datastores: 2, host: peer() };
    shell.give(from_peer(message(5, 1, Body::Announce { rank, owned: 2 })), dice);
    shell.run_until(shell.now + SECOND, dice);
    assert_eq!(shell.core.view(shell.now).primary, Some(peer()));
    shell
}

/// Whether the input does no more than a tick at the same moment would.
fn is_ignored(core: &Core, now: Time, input: Input) -> Result<(), String> {
    let (mut told, mut ticked) = (core.clone(), core.clone());
    let (mut effects, mut tick_effects) = (Vec::new(), Vec::new());
    told.step(now, input, &mut effects);
    ticked.step(now, Input::Tick, &mut tick_effects);
    if effects != tick_effects {
        return Err(format!("effects {effects:?}, of a tick {tick_effects:?}"));
    }
    if told != ticked {
        return Err("the core is another one than after a tick".to_owned());
    }
    Ok(())
}

/// Whether the late message of a former run does no more than a tick would, and is forgotten with the next one of the present run.
fn is_forgotten(core: &Core, now: Time, late: Message, next: Message) -> Result<(), String> {
    let (mut told, mut ticked) = (core.clone(), core.clone());
    let (mut effects, mut tick_effects) = (Vec::new(), Vec::new());
    for (core, input, effects) in
        [(&mut told, from_peer(late), &mut effects), (&mut ticked, Input::Tick, &mut tick_effects)]
    {
        core.step(now, input, effects);
        core.step(now, from_peer(next.clone()), effects);
    }
    if effects != tick_effects {
        return Err(format!("effects {effects:?}, of a tick {tick_effects:?}"));
    }
    if told != ticked {
        return Err("the core is another one than after a tick".to_owned());
    }
    Ok(())
}

/// What no message may lead to while the disks say nothing of the kind.
fn assert_harmless(effects: &[Effect], now: Time) {
    for effect in effects {
        match effect {
            Effect::Vm { action, .. } => panic!("a message made it touch a VM: {action:?}"),
            Effect::Guard(GuardOrder::Lease { until, .. }) => {
                assert!(*until <= now + config().timing.lease, "a lease until {until} at {now}");
            }
            Effect::Guard(GuardOrder::Hold { until, .. }) => panic!("a message made it hold until {until}"),
            Effect::Guard(GuardOrder::Kill { vm } | GuardOrder::Thaw { vm, .. }) => {
                panic!("a message made it thaw or kill {vm}");
            }
            Effect::Guard(
                GuardOrder::Alive { .. }
                | GuardOrder::Watch { .. }
                | GuardOrder::WatchAlso { .. }
                | GuardOrder::EndHold { .. }
                | GuardOrder::Pace { .. }
                | GuardOrder::Adopt { .. },
            )
            | Effect::Send { .. }
            | Effect::Disk { .. }
            | Effect::Ping { .. }
            | Effect::PingIsolation { .. }
            | Effect::ReplaceGuard
            | Effect::StoreXml { .. }
            | Effect::Event(_)
            | Effect::Reply { .. } => {}
        }
    }
}

fn any_messages(seeds: std::ops::Range<u64>, edges: bool) {
    for seed in seeds {
        let mut dice = Dice::new(seed, edges);
        let mut shell = Shell::new(Disks::Honest);
        for _ in 0..150 {
            let input = Input::Message { from: dice.host(), message: dice.message() };
            let mut effects = shell.give(input, &mut dice);
            if dice.one_in(3) {
                let end = shell.now + Span(dice.below(800_000));
                effects.extend(shell.run_until(end, &mut dice));
            }
            assert_harmless(&effects, shell.now);
        }
    }
}

fn anything(seeds: std::ops::Range<u64>, edges: bool) {
    for seed in seeds {
        let mut dice = Dice::new(seed, edges);
        let mut shell = Shell::new(Disks::Strange);
        for _ in 0..80 {
            match dice.below(3) {
                0 => drop(shell.give(Input::Guard(dice.report()), &mut dice)),
                1 => {
                    let input = Input::Message { from: dice.host(), message: dice.message() };
                    shell.give(input, &mut dice);
                }
                _ => drop({
                    let end = shell.now + Span(dice.below(2_000_000));
                    shell.run_until(end, &mut dice)
                }),
            }
        }
    }
}

#[test]
fn any_message_is_survived_and_touches_no_vm() {
    any_messages(0..60, true);
}

#[test]
fn any_register_report_and_message_is_survived() {
    anything(0..60, false);
}

#[test]
fn any_register_with_numbers_at_the_very_end_is_survived() {
    anything(1_000..1_060, true);
}

#[test]
fn a_message_that_was_seen_changes_nothing() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed, true);
        let mut shell = if seed % 2 == 0 { primary(&mut dice) } else { secondary(&mut dice) };
        let run = 1_000 + seed;
        let mut seen = Vec::new();
        for sequence in 1..12 {
            // Numbers are skipped: what is lost does not matter.
            let message = message(run, sequence * 3, dice.body());
            seen.push(message.clone());
            shell.give(from_peer(message), &mut dice);
            shell.run_until(shell.now + Span(50_000), &mut dice);
            for replayed in &seen {
                let result = is_ignored(&shell.core, shell.now, from_peer(replayed.clone()));
                assert_eq!(result, Ok(()), "seed {seed}, {replayed:?}");
            }
            // Overtaken by the one above, and never seen itself.
            let late = Message { sequence: sequence * 3 - 1, ..seen[0].clone() };
            assert_eq!(is_ignored(&shell.core, shell.now, from_peer(late)), Ok(()), "seed {seed}");
        }
    }
}

#[test]
fn messages_of_former_runs_and_of_strangers_change_nothing() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed, true);
        let mut shell = if seed % 2 == 0 { primary(&mut dice) } else { secondary(&mut dice) };
        for run in 1..=8 {
            let first = message(9_000 + run, 1, dice.body());
            shell.give(from_peer(first), &mut dice);
            shell.run_until(shell.now + Span(50_000), &mut dice);
            for former in 1..run {
                let late = message(9_000 + former, dice.number(), dice.body());
                let next = message(9_000 + run, 2, dice.body());
                let result = is_forgotten(&shell.core, shell.now, late.clone(), next);
                assert_eq!(result, Ok(()), "seed {seed}, run {run}: {late:?}");
            }
            for stranger in ["host-1", "host-99", ""] {
                let input = Input::Message { from: HostId::new(stranger), message: dice.message() };
                assert_eq!(is_ignored(&shell.core, shell.now, input), Ok(()), "{stranger:?}");
            }
        }
    }
}

/// The lease that an acknowledgement led to.
fn lease_of(effects: &[Effect]) -> Option<Time> {
    effects.iter().find_map(|effect| match effect {
        Effect::Guard(GuardOrder::Lease { until, .. }) => Some(*until),
        _ => None,
    })
}

#[test]
fn an_absurd_acknowledgement_gives_no_longer_lease_than_an_honest_one() {
    let mut dice = Dice::new(1, false);
    let mut shell = secondary(&mut dice);
    let now = shell.now;
    let ack = |echo: Time, run: Incarnation, lease: Span| {
        let owned = OwnedDatastore {
            datastore: DatastoreName::new("ds1"),
            epoch: Epoch(1),
            list: None,
            lease,
            hold: None,
        };
        let body = Body::HeartbeatAck(HeartbeatAck {
            echo,
            run,
            sent: now,
            owned: vec![owned],
            heartbeat_datastores: Vec::new(),
        });
        from_peer(message(5, 100, body))
    };
    let lease = config().timing.lease;
    let answer = |input: Input| {
        let mut core = shell.core.clone();
        let mut effects = Vec::new();
        core.step(now, input, &mut effects);
        lease_of(&effects)
    };
    assert_eq!(answer(ack(now, RUN, lease)), Some(now + lease));
    assert_eq!(answer(ack(now, RUN, Span(u64::MAX))), Some(now + lease), "longer than a lease is");
    assert_eq!(answer(ack(now + Span(1), RUN, lease)), None, "an answer to what was not sent yet");
    assert_eq!(answer(ack(Time(u64::MAX), RUN, Span(u64::MAX))), None);
    assert_eq!(answer(ack(now, Incarnation(RUN.0 - 1), lease)), None, "an answer to a former run");
    let early = Time(now.0 - 500_000);
    assert_eq!(answer(ack(early, RUN, lease)), Some(early + lease), "counted from the request");
    shell.run_until(now + SECOND, &mut dice);
}

/// How much a core holds: its text's length is near enough.
fn size_of(core: &Core) -> usize {
    format!("{core:?}").len()
}

#[test]
fn a_core_does_not_grow_with_what_it_is_told() {
    let mut dice = Dice::new(3, false);
    let mut shell = Shell::new(Disks::Strange);
    let mut sizes = Vec::new();
    for _ in 0..6 {
        for _ in 0..400 {
            let input = Input::Message { from: dice.host(), message: dice.message() };
            shell.give(input, &mut dice);
            shell.give(Input::Guard(dice.report()), &mut dice);
            if dice.one_in(4) {
                shell.run_until(shell.now + Span(300_000), &mut dice);
            }
        }
        sizes.push(size_of(&shell.core));
    }
    // Lists of up to 300 come and go, so sizes vary; what grows without bound would double from batch to batch.
    let early = sizes[..3].iter().max().copied().unwrap_or(0);
    let late = sizes[3..].iter().max().copied().unwrap_or(0);
    assert!(late < 2 * early.max(200_000), "{sizes:?}");
}

#[test]
fn a_huge_heartbeat_is_forgotten_with_the_next() {
    let mut dice = Dice::new(4, false);
    let mut shell = primary(&mut dice);
    let beat = |datastores: Vec<DatastoreName>, sequence: u64| {
        let power_on = datastores.iter().map(|name| (name.clone(), u64::MAX).into()).collect();
        let body = Body::Heartbeat(Box::new(Heartbeat {
            sent: Time(1),
            datastores,
            power_on,
            ..made::heartbeat_message()
        }));
        from_peer(message(8, sequence, body))
    };
    shell.give(beat(Vec::new(), 1), &mut dice);
    let before = size_of(&shell.core);
    let many = (0..20_000).map(|index| DatastoreName::new(&format!("ds{index}"))).collect();
    shell.give(beat(many, 2), &mut dice);
    shell.give(beat(Vec::new(), 3), &mut dice);
    assert!(size_of(&shell.core) < before + 10_000, "{} after {before}", size_of(&shell.core));
}

/// Which registers were named as unreadable, and whether the core became owner of a datastore.
fn named_and_owned(damaged: RegisterId) -> (Vec<String>, bool) {
    let mut dice = Dice::new(6, false);
    let mut shell = Shell::new(Disks::Honest);
    shell.damaged.push(damaged);
    let effects = shell.run_until(Time(60_000_000), &mut dice);
    let named = effects.iter().filter_map(|effect| match effect {
        Effect::Event(Event::RegisterUnreadable { datastore, register, reason }) => {
            assert!(reason.contains("elsewhere"), "{reason}");
            Some(format!("{datastore} {register}"))
        }
        _ => None,
    });
    let owns = |effect: &Effect| matches!(effect, Effect::Event(Event::OwnershipAcquired { .. }));
    (named.collect(), effects.iter().any(owns))
}

#[test]
fn an_unreadable_register_is_named_once_and_never_counts_as_empty() {
    let (named, owned) = named_and_owned(RegisterId::Ownership(HostId::new("host-9")));
    assert_eq!((named, owned), (vec![], true), "nothing is damaged");
    // R2: that host may own the datastore or hold VMs there, for all that can be read.
    let (mut named, owned) = named_and_owned(RegisterId::Ownership(peer()));
    named.sort();
    assert_eq!((named, owned), (vec!["ds1 host-2-owner".into(), "ds2 host-2-owner".into()], false));
}

/// A register on `ds1` that the core finds at its start, and what it is about.
type Found = (&'static str, RegisterId, RegisterValue);

fn numbers_at_their_end() -> Vec<Found> {
    let (me, other) = (config().me, peer());
    let block = |incarnation: u64| register::OwnershipBlock {
        boot: BootId([2; 16]),
        incarnation: Incarnation(incarnation),
        ..made::ownership_block(Epoch(1))
    };
    let beat =
        |epoch: u64, counter: u64| Some(register::OwnerBeat { epoch: Epoch(epoch), counter, released: true });
    let promised = Some(register::Ballot { round: u64::MAX, host: other.clone() });
    let of = |block| RegisterValue::Ownership(block);
    let power_on = made::power_on_list(u64::MAX, Vec::new());
    let (mine, theirs) = (RegisterId::Ownership(me.clone()), RegisterId::Ownership(other));
    vec![
        (
            "another's last epoch",
            theirs.clone(),
            of(register::OwnershipBlock { beat: beat(u64::MAX, 1), ..block(1) }),
        ),
        ("another's last ballot", theirs, of(register::OwnershipBlock { promised, ..block(1) })),
        ("its own last beat", mine, of(register::OwnershipBlock { beat: beat(1, u64::MAX), ..block(1) })),
        ("its own last power-on list", RegisterId::PowerOn(me), RegisterValue::PowerOn(power_on)),
    ]
}

#[test]
fn registers_with_numbers_at_their_end_are_survived() {
    let mut panicked = Vec::new();
    for (about, id, value) in numbers_at_their_end() {
        let run = std::panic::catch_unwind(|| {
            let mut dice = Dice::new(1, false);
            let mut shell = Shell::new(Disks::Honest);
            shell.put(DatastoreName::new("ds1"), id, value);
            shell.run_until(Time(60_000_000), &mut dice);
        });
        if run.is_err() {
            panicked.push(about);
        }
    }
    assert!(panicked.is_empty(), "{panicked:?}");
}

/// Whether a secondary that got that hint reads the protected list of epoch 1, whose owner shows itself.
fn reads_the_list_after(hint: Epoch) -> bool {
    let mut dice = Dice::new(2, false);
    let mut shell = secondary(&mut dice);
    let datastore = DatastoreName::new("ds1");
    let block = register::OwnershipBlock {
        boot: BootId([2; 16]),
        incarnation: Incarnation(5),
        beat: Some(register::OwnerBeat { epoch: Epoch(1), counter: 1, released: false }),
        ..made::ownership_block(Epoch(1))
    };
    shell.put(datastore.clone(), RegisterId::Ownership(peer()), RegisterValue::Ownership(block));
    let stamp = register::ListStamp { epoch: hint, version: 1 };
    shell.give(from_peer(message(5, 50, Body::ListChanged { datastore, stamp })), &mut dice);
    let mut effects = Vec::new();
    for sequence in 51..80 {
        let body = Body::Announce { rank: Rank { datastores: 2, host: peer() }, owned: 2 };
        shell.give(from_peer(message(5, sequence, body)), &mut dice);
        effects.extend(shell.run_until(shell.now + Span(500_000), &mut dice));
    }
    let list = RegisterId::ProtectedList(Epoch(1));
    effects.iter().any(|effect| match effect {
        Effect::Disk { action: DiskAction::Read(ids), .. } => ids.contains(&list),
        _ => false,
    })
}

#[test]
fn a_hint_of_the_present_epoch_is_followed() {
    assert!(reads_the_list_after(Epoch(1)));
}

#[test]
fn a_false_hint_does_not_keep_a_host_from_its_grants() {
    assert!(reads_the_list_after(Epoch(1 << 40)));
}

#[test]
fn a_host_with_a_long_id_may_lose_a_contention() {
    let me = HostId::new("host-12345678901234");
    let mut dice = Dice::new(3, false);
    let mut shell = Shell::with(Disks::Strange, Config { me, ..config() });
    shell.run_until(Time(120_000_000), &mut dice);
}

#[test]
fn a_core_does_not_grow_with_reports_about_vms_that_nobody_watches() {
    let mut dice = Dice::new(5, false);
    let mut shell = primary(&mut dice);
    let before = size_of(&shell.core);
    for number in 0..2_000_u128 {
        let vm = VmId(number.to_be_bytes());
        shell.give(Input::Guard(GuardReport::Vm { vm, state: ProcessState::Absent }), &mut dice);
    }
    assert!(size_of(&shell.core) < before + 10_000, "{} after {before}", size_of(&shell.core));
}
