//! A core with a meter around it: counts what goes in and out, and the CPU time that it takes.
//!
//! The bytes are those of the real formats: each message is written and read as on the wire, each register as on the disk. What that
//! costs is counted as well, apart from the core's own time.

use mainstay_core::{
    Config, Core, DiskAction, DiskOutcome, Effect, HostId, Input, Message, ReadRegister, RegisterId,
    RegisterValue, Time, View,
};
use mainstay_formats::wire::{decode_message, encode_message, kind};
use mainstay_formats::{ClusterId, decode_slot, encode_slot, layout};
use mainstay_sim::Node;
use rustix::time::{ClockId, clock_gettime};
use stats_alloc::Region;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Duration;

/// What is measured now.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is measured.
    Off,
    /// Steps, deadlines, and what goes in and out.
    Steps,
    /// Memory, and the time that a view takes.
    Views,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A step of the core, by the kind of its input.
    Step(String),
    /// A question for the next deadline.
    Deadline,
    /// A register that was read: both slots.
    Read(&'static str),
    /// A register that was written: one slot.
    Write(&'static str),
    /// A message that came.
    Received(&'static str),
    /// A message that was sent.
    Sent(&'static str),
    /// Another effect of a step.
    Effect(&'static str),
}

/// How often, in how much time, with how many bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// How often it happened.
    pub times: u64,
    /// The CPU time that it took.
    pub cpu: Duration,
    /// The bytes that were moved.
    pub bytes: u64,
}

/// All that one host did.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// What was counted.
    pub counts: BTreeMap<What, Count>,
    /// Bytes that a copy of the core takes.
    pub memory: u64,
    /// CPU time of one view.
    pub view: Duration,
}

// A node is made by a plain function, which can't carry a meter. All nodes of a world run in one thread.
thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Off) };
    static METERS: RefCell<BTreeMap<HostId, Meter>> = RefCell::default();
}

/// From now on measures this.
pub fn measure(mode: Mode) {
    MODE.set(mode);
}

/// What was measured, by host.
pub fn meters() -> BTreeMap<HostId, Meter> {
    METERS.with_borrow(Clone::clone)
}

/// Runs something, and says how much CPU time this thread spent on it.
pub fn cpu_time_of<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let begin = cpu_time();
    let result = run();
    (cpu_time().saturating_sub(begin), result)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

impl Meter {
    fn add(&mut self, what: What, cpu: Duration, bytes: usize) {
        let count = self.counts.entry(what).or_default();
        count.times += 1;
        count.cpu += cpu;
        count.bytes += bytes as u64;
    }
}

/// Makes the node of a host: a real core with a meter around it.
pub fn metered_core(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    let cluster =
        ClusterId::parse("6f1c0c1e-3c1f-4a5e-9f10-0123456789ab").map_err(|error| error.to_string())?;
    Ok(Box::new(Metered { me: config.me.clone(), cluster, core: Core::new(config, now)? }))
}

struct Metered {
    me: HostId,
    cluster: ClusterId,
    core: Core,
}

impl Node for Metered {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if MODE.get() != Mode::Steps {
            return self.core.step(now, input, effects);
        }
        let mut meter = METERS.with_borrow_mut(|meters| meters.remove(&self.me)).unwrap_or_default();
        self.count_input(&input, &mut meter);
        let what = What::Step(kind_of_input(&input));
        let before = effects.len();
        let (cpu, ()) = cpu_time_of(|| self.core.step(now, input, effects));
        meter.add(what, cpu, 0);
        effects[before..].iter().for_each(|effect| self.count_effect(effect, &mut meter));
        METERS.with_borrow_mut(|meters| meters.insert(self.me.clone(), meter));
    }

    fn next_deadline(&self) -> Time {
        let (cpu, deadline) = cpu_time_of(|| self.core.next_deadline());
        if MODE.get() == Mode::Steps {
            self.with_meter(|meter| meter.add(What::Deadline, cpu, 0));
        }
        deadline
    }

    fn view(&self, now: Time) -> Option<View> {
        let (cpu, view) = cpu_time_of(|| self.core.view(now));
        if MODE.get() == Mode::Views {
            let region = Region::new(crate::ALLOCATOR);
            let copy = black_box(self.core.clone());
            let change = region.change();
            drop(copy);
            let memory = change.bytes_allocated.saturating_sub(change.bytes_deallocated);
            self.with_meter(|meter| (meter.memory, meter.view) = (memory as u64, cpu));
        }
        Some(view)
    }
}

impl Metered {
    fn with_meter(&self, change: impl FnOnce(&mut Meter)) {
        METERS.with_borrow_mut(|meters| change(meters.entry(self.me.clone()).or_default()));
    }

    fn count_input(&self, input: &Input, meter: &mut Meter) {
        match input {
            Input::Message { message, .. } => self.count_received(message, meter),
            Input::DiskDone { outcome: DiskOutcome::Read(registers), .. } => {
                registers.iter().for_each(|one| self.count_read(&one.id, &one.found, meter));
            }
            _ => {}
        }
    }

    fn count_received(&self, message: &Message, meter: &mut Meter) {
        let bytes = encode_message(&self.cluster, message).expect("a message that can be written");
        let (cpu, _) = cpu_time_of(|| black_box(decode_message(&self.cluster, &bytes)));
        meter.add(What::Received(kind(&message.body)), cpu, bytes.len());
    }

    /// Whoever reads a register reads and understands both of its slots.
    fn count_read(&self, id: &RegisterId, value: &ReadRegister, meter: &mut Meter) {
        let (mut cpu, mut length) = (Duration::ZERO, layout::BLOCK);
        if let ReadRegister::Value(value) = value {
            let slot = self.slot(id, value);
            (cpu, _) = cpu_time_of(|| black_box(decode_slot(&self.cluster, id, &slot)));
            length = layout::round_up(slot.len());
        }
        meter.add(What::Read(kind_of_register(id)), 2 * cpu, 2 * length);
    }

    fn count_effect(&self, effect: &Effect, meter: &mut Meter) {
        match effect {
            Effect::Send { message, .. } => {
                let (cpu, bytes) = cpu_time_of(|| encode_message(&self.cluster, message));
                let bytes = bytes.expect("a message that can be written");
                meter.add(What::Sent(kind(&message.body)), cpu, bytes.len());
            }
            Effect::Disk { action: DiskAction::Write(id, value), .. } => {
                let (cpu, slot) = cpu_time_of(|| self.slot(id, value));
                meter.add(What::Write(kind_of_register(id)), cpu, layout::round_up(slot.len()));
            }
            Effect::Disk { action: DiskAction::Read(_), .. } => {
                meter.add(What::Effect("order to read"), Duration::ZERO, 0);
            }
            Effect::Guard(_) => meter.add(What::Effect("order to the guard"), Duration::ZERO, 0),
            Effect::Ping { .. } | Effect::PingIsolation { .. } => {
                meter.add(What::Effect("ping"), Duration::ZERO, 0);
            }
            Effect::Event(_) => meter.add(What::Effect("event"), Duration::ZERO, 0),
            _ => meter.add(What::Effect("other"), Duration::ZERO, 0),
        }
    }

    fn slot(&self, id: &RegisterId, value: &RegisterValue) -> Vec<u8> {
        // Any sequence number of a usual length.
        encode_slot(&self.cluster, id, 12_345, value).expect("a register that can be written")
    }
}

fn kind_of_register(id: &RegisterId) -> &'static str {
    match id {
        RegisterId::Heartbeat(_) => "heartbeat",
        RegisterId::PowerOn(_) => "power-on list",
        RegisterId::Ownership(_) => "ownership block",
        RegisterId::ProtectedList(_) => "protected list",
    }
}

fn kind_of_input(input: &Input) -> String {
    match input {
        Input::Tick => "tick".to_string(),
        Input::Message { message, .. } => format!("message {}", kind(&message.body)),
        Input::DiskDone { outcome: DiskOutcome::Read(registers), .. } => {
            let kinds: BTreeSet<&str> = registers.iter().map(|one| kind_of_register(&one.id)).collect();
            format!("read of {}", kinds.into_iter().collect::<Vec<_>>().join(", "))
        }
        Input::DiskDone { outcome: DiskOutcome::Written, .. } => "written".to_string(),
        Input::DiskDone { outcome: DiskOutcome::Failed(_), .. } => "failed on disk".to_string(),
        Input::Guard(_) | Input::GuardLost | Input::GuardFailed { .. } => "report of the guard".to_string(),
        Input::Domains { .. } | Input::Domain { .. } | Input::Capacity(_) | Input::Offers(_) => {
            "libvirt".to_string()
        }
        _ => "other".to_string(),
    }
}
