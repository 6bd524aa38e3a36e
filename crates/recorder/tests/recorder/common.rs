//! Cores of a simulated cluster with recorders, and the replay of what they recorded.

use mainstay_core::{Config, Core, Effect, Input, Span, Time, View};
use mainstay_recorder::{
    Counts, End, Identity, Options, Recorder, Segment, divergence, must_agree, read_segment, segments_of,
};
use mainstay_sim::Node;
use mainstay_testkit::PATIENCE;
use mainstay_testkit::made::config;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What recorders of simulated hosts are started with; each host has a folder of its own in `dir`.
#[derive(Clone)]
pub struct Wish {
    pub dir: PathBuf,
    pub bytes_max: u64,
    pub segment_bytes_max: u64,
    pub queue_max: usize,
}

thread_local! {
    static WISH: RefCell<Option<Wish>> = const { RefCell::new(None) };
}

/// Has the cores that [`recorded_core`] makes on this thread recorded like that.
pub fn record_with(wish: Wish) {
    WISH.with_borrow_mut(|present| *present = Some(wish));
}

pub fn identity(config: Config) -> Identity {
    Identity { cluster: "1ab0001a".into(), software: "0.1.0".into(), config }
}

/// A real core whose inputs are recorded as an agent does it.
struct Recorded {
    core: Core,
    recorder: Option<Recorder>,
}

pub fn recorded_core(config: Config, now: Time) -> Result<Box<dyn Node>, String> {
    let wish = WISH.with_borrow(|wish| wish.clone()).expect("record_with was called on this thread");
    let options = Options {
        segment_bytes_max: wish.segment_bytes_max,
        queue_max: wish.queue_max,
        ..Options::new(wish.dir.join(config.me.as_str()), wish.bytes_max)
    };
    let recorder = Recorder::start(options, identity(config.clone())).map_err(|error| error.to_string())?;
    Ok(Box::new(Recorded { core: Core::new(config, now)?, recorder: Some(recorder) }))
}

impl Node for Recorded {
    fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if let Some(recorder) = &mut self.recorder {
            recorder.record(now, &input, &self.core);
        }
        self.core.step(now, input, effects);
    }

    fn next_deadline(&self) -> Time {
        self.core.next_deadline()
    }

    fn view(&self, now: Time) -> Option<View> {
        Some(self.core.view(now))
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let closed = self.recorder.take().is_none_or(|recorder| recorder.close(PATIENCE));
        assert!(closed || std::thread::panicking(), "the recorder ends");
    }
}

/// What came out of replaying a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub segments: usize,
    pub steps: usize,
    /// Checkpoints that the replay had to agree with, and did.
    pub agreed: usize,
    pub lost: u64,
}

/// Replays all segments of a folder; panics where one is not whole or a checkpoint does not agree.
pub fn replay(dir: &Path) -> Replayed {
    let mut replayed = Replayed::default();
    let mut former: Option<(Segment, Core)> = None;
    for path in segments_of(dir).expect("a recording") {
        let segment = read_segment(&path).expect("a whole segment");
        assert!(matches!(segment.end, End::Whole | End::Broken { .. }), "{path:?}: {:?}", segment.end);
        if let Some((before, core)) = &former
            && must_agree(before, &segment.header)
        {
            assert_eq!(divergence(core, &segment.checkpoint.core), None, "{path:?}");
            replayed.agreed += 1;
        }
        replayed.segments += 1;
        replayed.steps += segment.steps.len();
        replayed.lost += segment.header.lost_before;
        let core = run(&segment);
        former = Some((segment, core));
    }
    replayed
}

/// The core at the end of a segment.
pub fn run(segment: &Segment) -> Core {
    let mut core = segment.checkpoint.core.clone();
    for step in &segment.steps {
        core.step(step.at, step.input.clone(), &mut Vec::new());
    }
    core
}

/// A driver of one core with a recorder: no disk ever answers it, a tick comes each 100 ms.
pub struct Lonely {
    pub core: Core,
    pub recorder: Recorder,
    pub now: Time,
}

impl Lonely {
    pub fn start(options: Options) -> Lonely {
        let now = Time(1_000_000);
        let core = Core::new(config(), now).expect("a core");
        let recorder = Recorder::start(options, identity(config())).expect("a recorder");
        Lonely { core, recorder, now }
    }

    pub fn step(&mut self) {
        self.now += Span::from_millis(100);
        self.recorder.record(self.now, &Input::Tick, &self.core);
        self.core.step(self.now, Input::Tick, &mut Vec::new());
    }

    /// Steps until the counts are as wanted.
    pub fn step_until(&mut self, what: &str, wanted: impl Fn(Counts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !wanted(self.recorder.counts()) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.recorder.counts());
            self.step();
            std::thread::yield_now();
        }
    }
}
