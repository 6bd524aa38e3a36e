//! Runs the core: takes what happens outside as inputs, ticks when the core wants it, and hands out its effects.
//!
//! Invariant: nothing here ever blocks. Datastores and libvirt have threads of their own; what they have to say arrives in
//! the same queue as everything else. One task owns the core, so there is nothing to lock and each step is whole.
//!
//! What it does not do: interpret. What an effect means outside, and what outside news mean to the core, is the matter of
//! [`Outside`].

use crate::clock;
use crate::journal::Journal;
use mainstay_core::{Command, Core, Effect, Input, RehearsalScene, Time, View, VmId};
use mainstay_recorder::Recorder;
use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// How many inputs are taken before deadlines are looked at again, so that a flood can't starve the heartbeats.
const INPUTS_AT_ONCE: usize = 64;

/// A core whose deadline does not move on although it ticks would keep a processor busy: it is ticked this often at most.
const TICK_MIN: Duration = Duration::from_millis(1);

/// Everything outside the core: datastores, libvirt, network.
pub trait Outside {
    /// What it hears from its own threads.
    type News: Send + 'static;

    /// Sets an effect going. `Event` and `Reply` never come here. What is known at once is appended to `inputs`.
    fn carry_out(&mut self, effect: Effect, inputs: &mut Vec<Input>);

    /// Takes news, and appends what the core should know of them.
    fn on_news(&mut self, news: Self::News, inputs: &mut Vec<Input>);

    /// Whether a start of that VM, ordered by the core, is under way here.
    fn is_starting(&self, vm: VmId) -> bool;

    /// Adds its counters.
    fn count(&self, counters: &mut BTreeMap<String, u64>);
}

/// What the driver's queue holds.
pub enum Request<News> {
    /// For the core, as it is.
    Input(Input),
    /// For [`Outside`], which may make inputs of it.
    News(News),
    /// The agent stops: the core hands over, and the driver ends once that is done.
    Stop,
}

/// What the API asks.
pub enum Question {
    /// What does the core believe?
    Look(oneshot::Sender<Looked>),
    /// A person wants something done.
    Operate(Command, oneshot::Sender<Result<String, String>>),
    /// What does a rehearsal need?
    Rehearse(oneshot::Sender<RehearsalScene>),
    /// Is the agent itself starting that VM here?
    IsStarting(VmId, oneshot::Sender<bool>),
}

/// The answer to [`Question::Look`].
#[derive(Clone, Debug)]
pub struct Looked {
    /// What the core believes.
    pub view: View,
    /// What was counted.
    pub counters: BTreeMap<String, u64>,
}

/// The driver's queue, as others see it. Unbounded: each sender is bounded by itself (operations of the core, packets that
/// the transport holds, domains of the host), and a full queue would make threads wait that must not.
pub type Queue<News> = mpsc::UnboundedSender<Request<News>>;

/// Feeds the core with inputs and ticks, one after the other, and hands its effects to [`Outside`].
pub struct Driver<O: Outside> {
    core: Core,
    outside: O,
    journal: Journal,
    recorder: Option<Recorder>,
    queue: mpsc::UnboundedReceiver<Request<O::News>>,
    questions: mpsc::Receiver<Question>,
    asked: BTreeMap<u64, oneshot::Sender<Result<String, String>>>,
    next_request: u64,
    steps: u64,
    /// The time of the last step.
    stepped: Time,
    effects_carried_out: u64,
    /// Kept for their allocations.
    effects: Vec<Effect>,
    inputs: Vec<Input>,
    /// Operations of the core on datastores that are not done: what a stopping agent waits for.
    disk_operations: i64,
}

impl<O: Outside> Driver<O> {
    /// A driver whose core has taken no step yet.
    pub fn new(
        core: Core,
        outside: O,
        journal: Journal,
        recorder: Option<Recorder>,
        queue: mpsc::UnboundedReceiver<Request<O::News>>,
        questions: mpsc::Receiver<Question>,
    ) -> Driver<O> {
        Driver {
            core,
            outside,
            journal,
            recorder,
            queue,
            questions,
            asked: BTreeMap::new(),
            next_request: 0,
            steps: 0,
            stepped: Time(0),
            effects_carried_out: 0,
            effects: Vec::new(),
            inputs: Vec::new(),
            disk_operations: 0,
        }
    }

    /// Runs until [`Request::Stop`] has been carried out, or all senders of the queue are gone. `on_first_steps` is told when the core has begun.
    pub async fn run(&mut self, on_first_steps: impl FnOnce()) {
        self.step(Input::Tick);
        on_first_steps();
        let mut stopping = false;
        let mut sleep = pin!(sleep_until(Instant::now()));
        loop {
            sleep.as_mut().reset(self.wake_at());
            tokio::select! {
                // What has come in before what is due: after a standstill the others are heard first. Each step looks at
                // the clock, too, so a full queue delays nothing.
                biased;
                request = self.queue.recv() => {
                    let Some(request) = request else { return };
                    stopping |= self.take(request);
                    for _ in 1..INPUTS_AT_ONCE {
                        let Ok(request) = self.queue.try_recv() else { break };
                        stopping |= self.take(request);
                    }
                }
                () = sleep.as_mut() => self.step(Input::Tick),
                Some(question) = self.questions.recv() => self.answer(question),
            }
            if stopping && self.disk_operations <= 0 {
                return;
            }
        }
    }

    /// The core's deadline on tokio's clock, and no earlier than [`TICK_MIN`] from now when it has passed already.
    fn wake_at(&self) -> Instant {
        let ahead = Duration::from_micros(self.core.next_deadline().since(clock::now()).0);
        // tokio's clock stands still in suspend, the core's doesn't: looking once a second bounds the delay after that.
        Instant::now() + ahead.clamp(TICK_MIN, Duration::from_secs(1))
    }

    /// Takes one request; tells whether it was to stop.
    fn take(&mut self, request: Request<O::News>) -> bool {
        match request {
            Request::Input(input) => self.step(input),
            Request::News(news) => {
                self.outside.on_news(news, &mut self.inputs);
                self.feed();
            }
            Request::Stop => {
                self.step(Input::Stop);
                return true;
            }
        }
        false
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Look(answer) => {
                // An asker that went away is not an error.
                let _ = answer.send(self.look());
            }
            Question::Rehearse(answer) => {
                let _ = answer.send(self.core.rehearsal_scene(clock::now()));
            }
            Question::IsStarting(vm, answer) => {
                let _ = answer.send(self.outside.is_starting(vm));
            }
            Question::Operate(command, answer) => {
                self.asked.retain(|_, answer| !answer.is_closed());
                let request = self.next_request;
                self.next_request += 1;
                self.asked.insert(request, answer);
                self.step(Input::Operator { request, command });
            }
        }
    }

    fn look(&self) -> Looked {
        let mut counters = BTreeMap::new();
        self.outside.count(&mut counters);
        counters.insert("core.steps".into(), self.steps);
        counters.insert("core.effects".into(), self.effects_carried_out);
        counters.insert("events.newest".into(), self.journal.newest());
        counters.insert("events.lines_dropped".into(), self.journal.lines_dropped());
        if let Some(recorder) = &self.recorder {
            let counts = recorder.counts();
            counters.insert("recorder.steps".into(), counts.recorded);
            counters.insert("recorder.steps_lost".into(), counts.lost);
            counters.insert("recorder.bytes".into(), counts.bytes);
        }
        Looked { view: self.core.view(clock::now()), counters }
    }

    /// One step, and the steps that follow from effects whose outcome is known at once.
    fn step(&mut self, input: Input) {
        self.inputs.push(input);
        self.feed();
    }

    fn feed(&mut self) {
        // In the order of arrival; carrying out effects may append more.
        let mut inputs = std::mem::take(&mut self.inputs);
        let mut next = 0;
        while next < inputs.len() {
            let input = std::mem::replace(&mut inputs[next], Input::Tick);
            next += 1;
            self.disk_operations -= i64::from(matches!(input, Input::DiskDone { .. }));
            self.steps += 1;
            // Strictly later than the step before: what was begun in one step counts as before what is learned in the next.
            let now = Time(clock::now().0.max(self.stepped.0 + 1));
            self.stepped = now;
            // Before the step: an input that the core can't bear is the last one in the recording.
            if let Some(recorder) = &mut self.recorder {
                recorder.record(now, &input, &self.core);
            }
            self.core.step(now, input, &mut self.effects);
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out(effect, &mut inputs);
            }
            self.effects = effects;
        }
        inputs.clear();
        self.inputs = inputs;
    }

    fn carry_out(&mut self, effect: Effect, inputs: &mut Vec<Input>) {
        self.effects_carried_out += 1;
        match effect {
            Effect::Event(event) => self.journal.record(clock::now(), event),
            Effect::Reply { request, command: _, result } => {
                if let Some(answer) = self.asked.remove(&request) {
                    // An asker that went away is not an error.
                    let _ = answer.send(result);
                }
            }
            Effect::Disk { .. } => {
                self.disk_operations += 1;
                self.outside.carry_out(effect, inputs);
            }
            Effect::Send { .. }
            | Effect::Ping { .. }
            | Effect::PingIsolation { .. }
            | Effect::Guard(_)
            | Effect::ReplaceGuard
            | Effect::Vm { .. }
            | Effect::StoreXml { .. } => {
                self.outside.carry_out(effect, inputs);
            }
        }
    }
}
