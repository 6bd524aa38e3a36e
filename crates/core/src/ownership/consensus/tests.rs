//! All interleavings of two contenders for one datastore: writes that land at any time between start and answer, reads at any
//! time, stale sightings, retries. An epoch never has two owners.

use super::*;
use crate::store::Sighting;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use mainstay_testkit::made;

const TIMING: Timing = Timing::STANDARD;

#[derive(Clone, Debug)]
struct Contender {
    machine: Consensus,
    /// What it last read of the other and of the former owner, and whether that stood still between two scans.
    seen: [(Option<OwnershipBlock>, bool); 2],
    scanned: bool,
    /// A write under way: its contents, and whether it has landed.
    write: Option<(OwnershipBlock, bool)>,
    /// A read of all blocks is due.
    reads: bool,
    tries: u8,
}

#[derive(Clone, Debug)]
struct World {
    contenders: [Contender; 2],
    /// Blocks on disk: the two contenders', then the former owner's.
    disk: [Option<OwnershipBlock>; 3],
    owners: BTreeSet<(Epoch, usize)>,
    now: Time,
}

fn host(index: usize) -> HostId {
    HostId::new(["host-1", "host-2", "host-3"][index])
}

fn block(instance: u64, beat: Option<u64>) -> OwnershipBlock {
    OwnershipBlock {
        boot: BootId([0; 16]),
        beat: beat.map(|epoch| OwnerBeat { epoch: Epoch(epoch), counter: 1, released: false }),
        ..made::ownership_block(Epoch(instance))
    }
}

fn start() -> World {
    let contender = |index: usize| Contender {
        machine: Consensus::new(host(index), BootId([0; 16]), Incarnation(index as u64), None),
        seen: [(None, false), (None, false)],
        scanned: false,
        write: None,
        reads: false,
        tries: 0,
    };
    World {
        contenders: [contender(0), contender(1)],
        disk: [None, None, Some(block(1, Some(1)))],
        owners: BTreeSet::new(),
        now: Time(0) + Span::from_secs(100),
    }
}

impl World {
    fn blocks(&self, index: usize) -> Blocks {
        let others = [1 - index, 2];
        let mut blocks = Blocks::new();
        for (slot, other) in others.into_iter().enumerate() {
            let (value, still) = self.contenders[index].seen[slot].clone();
            let first_seen = if still { Time(0) } else { self.now };
            let sighting = Sighting { value, first_seen, last_read: self.now };
            blocks.insert(host(other), self.contenders[index].scanned.then_some(sighting));
        }
        blocks
    }

    fn take(&mut self, index: usize, next: Next) -> Result<(), String> {
        let contender = &mut self.contenders[index];
        match next {
            Next::Nothing | Next::Ended { .. } => {}
            Next::Write => contender.write = Some((contender.machine.block.clone(), false)),
            Next::ReadAll => contender.reads = true,
            Next::Begun { .. } => {
                let epoch = contender.machine.block.instance;
                self.owners.insert((epoch, index));
                if self.owners.contains(&(epoch, 1 - index)) {
                    return Err(format!("two owners of epoch {epoch}"));
                }
            }
        }
        Ok(())
    }

    /// All worlds that may come next.
    fn successors(&self) -> Vec<Result<World, String>> {
        let mut worlds = Vec::new();
        for index in 0..2 {
            let mut push = |act: &dyn Fn(&mut World) -> Result<(), String>| {
                let mut world = self.clone();
                worlds.push(act(&mut world).map(|()| world));
            };
            let contender = &self.contenders[index];
            push(&|world| {
                let others = [1 - index, 2];
                for (slot, other) in others.into_iter().enumerate() {
                    let value = world.disk[other].clone();
                    let still =
                        world.contenders[index].scanned && world.contenders[index].seen[slot].0 == value;
                    world.contenders[index].seen[slot] = (value, still);
                }
                world.contenders[index].scanned = true;
                Ok(())
            });
            if contender.write.is_none() && !contender.reads && contender.tries < 2 {
                push(&|world| {
                    // Enough for any back-off to be over; leases are not what is looked at here.
                    world.now += Span::from_secs(60);
                    let blocks = world.blocks(index);
                    let now = world.now;
                    let contender = &mut world.contenders[index];
                    let timeouts = BTreeMap::new();
                    let grounds =
                        Grounds { blocks: &blocks, timeouts: &timeouts, promised: Time(0), released: None };
                    let next = contender.machine.contend(&grounds, &TIMING, now);
                    contender.tries += u8::from(next != Next::Nothing);
                    world.take(index, next)
                });
            }
            if let Some((block, landed)) = &contender.write {
                if !landed {
                    push(&|world| {
                        world.disk[index] = Some(block.clone());
                        world.contenders[index].write = Some((block.clone(), true));
                        Ok(())
                    });
                } else {
                    push(&|world| {
                        let now = world.now;
                        world.contenders[index].write = None;
                        let next = world.contenders[index].machine.on_written(now, &TIMING, now);
                        world.take(index, next)
                    });
                }
            }
            if contender.reads {
                push(&|world| {
                    let now = world.now;
                    world.contenders[index].reads = false;
                    let blocks = [1 - index, 2]
                        .into_iter()
                        .map(|other| (host(other), world.disk[other].clone()))
                        .collect();
                    // A fresh confirm, so that time does not matter here.
                    if let Stage::Reading(Phase::Confirm { started }) =
                        &mut world.contenders[index].machine.stage
                    {
                        *started = now;
                    }
                    let next = world.contenders[index].machine.on_all_read(&blocks, &TIMING, now);
                    world.take(index, next)
                });
            }
        }
        worlds
    }

    /// Equal for worlds that behave alike: time only moves forward and is always past every back-off.
    fn key(&self) -> (u64, u64) {
        let mut world = self.clone();
        world.now = Time(0);
        for contender in &mut world.contenders {
            match &mut contender.machine.stage {
                Stage::Idle { not_before } => *not_before = Time(0),
                Stage::Owned { lease_end } => *lease_end = Time(0),
                Stage::Writing(phase) | Stage::Reading(phase) => {
                    if let Phase::Confirm { started } = phase {
                        *started = Time(0);
                    }
                }
            }
            contender.machine.beat_due = Time(0);
            contender.machine.retries = 0;
            // An epoch that was learned long ago or just now: the clock jumps past the difference.
            if let Some(learned) = &mut contender.machine.learned {
                learned.at = Time(0);
            }
        }
        // The text is long and there are many worlds: 128 bits of it are enough (FNV-1a twice, from two bases).
        let text = format!("{world:?}");
        let hash = |base: u64| {
            text.bytes().fold(base, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
        };
        (hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142))
    }
}

/// Explores everything; returns the number of worlds, the ends in which each host won, and the first violation.
fn explore(tamper: fn(&mut World)) -> (usize, BTreeSet<(Epoch, usize)>, Option<String>) {
    let mut known: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut todo = alloc::vec![start()];
    let mut won = BTreeSet::new();
    while let Some(world) = todo.pop() {
        won.extend(world.owners.iter().copied());
        for next in world.successors() {
            match next {
                Err(violation) => return (known.len(), won, Some(violation)),
                Ok(mut next) => {
                    tamper(&mut next);
                    if known.insert(next.key()) {
                        todo.push(next);
                    }
                }
            }
        }
    }
    (known.len(), won, None)
}

#[test]
fn no_interleaving_gives_an_epoch_two_owners() {
    let (worlds, won, violation) = explore(|_| {});
    assert_eq!(violation, None);
    // Not vacuous: either may win epoch 2, and an epoch may follow.
    assert!(worlds > 10_000, "only {worlds} worlds");
    assert!(won.contains(&(Epoch(2), 0)) && won.contains(&(Epoch(2), 1)), "{won:?}");
    assert!(won.iter().any(|(epoch, _)| *epoch > Epoch(2)), "{won:?}");
}

/// The exploration can find something: without the promise on disk (phase one forgotten), two hosts win one epoch.
#[test]
fn without_promises_the_exploration_finds_two_owners() {
    let (_, _, violation) = explore(|world| {
        for block in world.disk[..2].iter_mut().flatten() {
            block.promised = None;
        }
    });
    assert!(violation.is_some_and(|text| text.starts_with("two owners of epoch")));
}

#[test]
fn an_owner_counts_its_ownership_from_the_start_of_the_write() {
    let mut machine = Consensus::new(host(0), BootId([0; 16]), Incarnation(1), None);
    machine.block.instance = Epoch(2);
    let begun = Time(0) + Span::from_secs(10);
    machine.stage = Stage::Owned { lease_end: begun + TIMING.lease };
    // A beat that was started a second ago and is answered now prolongs the ownership by two seconds, not three.
    let answered = begun + Span::from_secs(1);
    assert_eq!(machine.on_written(begun, &TIMING, answered), Next::Nothing);
    assert_eq!(machine.left(answered), Some(Span::from_secs(2)));
    // One that is answered after the ownership ran out does not revive it (R22).
    let late = begun + Span::from_secs(4);
    assert_eq!(machine.on_written(begun + Span::from_secs(2), &TIMING, late), Next::ReadAll);
    assert_eq!(machine.epoch(late), None);
}

/// R6: two hosts whose files lacked each other beat in one epoch. One of them gives it up, and then the other.
#[test]
fn a_later_epoch_waits_for_each_of_two_owners() {
    let now = Time(0) + Span::from_secs(100);
    let beats = |released| OwnershipBlock {
        beat: Some(OwnerBeat { epoch: Epoch(2), counter: 1, released }),
        ..made::ownership_block(Epoch(2))
    };
    let seen = |released: [bool; 2]| -> Blocks {
        let sighting = |released| Sighting { value: Some(beats(released)), first_seen: now, last_read: now };
        [1, 2].map(|other| (host(other), Some(sighting(released[other - 1])))).into_iter().collect()
    };
    let mut machine = Consensus::new(host(0), BootId([0; 16]), Incarnation(1), None);
    machine.block.instance = Epoch(2);
    machine.stage = Stage::Owned { lease_end: now + TIMING.lease };
    assert_eq!(machine.other_owner(&seen([true, true])), None);
    assert_eq!(machine.other_owner(&seen([false, true])), Some(host(1)));
    machine.release();
    let timeouts = BTreeMap::new();
    for released in [[false, true], [true, false], [false, false], [true, true]] {
        let blocks = seen(released);
        let grounds = Grounds { blocks: &blocks, timeouts: &timeouts, promised: Time(0), released: None };
        let next = if released == [true, true] { Next::Write } else { Next::Nothing };
        assert_eq!(machine.contend(&grounds, &TIMING, now), next, "{released:?}");
    }
}
