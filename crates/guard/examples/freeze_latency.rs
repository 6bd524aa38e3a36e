//! How long does a VM execute after its lease has ended? `cargo run -p mainstay-guard --example freeze_latency`
//!
//! A real guard in this process, at the priority that it has in production; a process with two busy threads that write the
//! time into shared memory stands for QEMU. Each round gives a short lease, lets it end, and compares its end with the last time
//! that the process has written.

use mainstay_guard::freezer::Freezer;
use mainstay_guard::link::{Frames, frame};
use mainstay_guard::{
    DatastoreSettings, FromGuard, LogSettings, Service, Settings, ToGuard, clock, log, realtime,
};
use mainstay_words::ids::{DatastoreName, HostId, VmId};
use mainstay_words::{GuardOrder, GuardReport, ProcessState, Span, Time, Timing};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};

const ROUNDS: usize = 200;
const THREADS: usize = 2;
const LEASE: Span = Span::from_millis(30);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|argument| argument == "busy") {
        be_busy(Path::new(&arguments[place + 1]));
    }
    log::start(&LogSettings { json: false, level: "warn".into() }).expect("a log");
    let directory = std::env::temp_dir().join(format!("freeze-latency-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let found = Freezer::find();
    let legacy = found.clone().without_unified();
    let mut freezers = vec![("SIGSTOP", Freezer::by_signal())];
    if legacy.has_groups() {
        freezers.insert(0, ("cgroup version 1", legacy.clone()));
    }
    if found != legacy {
        freezers.insert(0, ("cgroup version 2", found));
    }
    // Before the priority is taken: they are to be ordinary processes.
    let runs: Vec<Run> = freezers
        .into_iter()
        .zip(0..)
        .map(|((name, freezer), n)| Run::new(name, freezer, n, &directory))
        .collect();
    realtime::take();
    for run in runs {
        run.measure();
    }
    std::fs::remove_dir_all(&directory).expect("removed");
    log::flush();
}

/// One word per thread, shared with the process that writes them.
fn words(path: &Path) -> &'static [AtomicU64; THREADS] {
    let file = File::options().read(true).write(true).open(path).expect("shared memory");
    let length = THREADS * size_of::<u64>();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // Safety: a mapping of its own, never unmapped, of a file that is as long and never shortened.
    let place = unsafe { mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) };
    // Safety: aligned to a page, and any bytes are a valid value.
    unsafe { &*place.expect("mapped").cast() }
}

fn be_busy(path: &Path) -> ! {
    let words = words(path);
    for word in words.iter().skip(1) {
        std::thread::spawn(move || write_times(word));
    }
    write_times(&words[0])
}

fn write_times(word: &AtomicU64) -> ! {
    loop {
        word.store(clock::now().0, Ordering::Relaxed);
    }
}

struct Run {
    name: &'static str,
    freezer: Freezer,
    vm: VmId,
    child: Child,
    words: &'static [AtomicU64; THREADS],
    settings: Settings,
}

impl Run {
    fn new(name: &'static str, freezer: Freezer, number: u8, directory: &Path) -> Run {
        let path = directory.join(format!("times-{number}"));
        std::fs::write(&path, [0u8; THREADS * size_of::<u64>()]).expect("shared memory");
        let mut id = *b"freezelatency...";
        id[13] = number;
        id[14..].copy_from_slice(&std::process::id().to_le_bytes()[..2]);
        let vm = VmId(id);
        let child = Command::new(std::env::current_exe().expect("own path"))
            .arg("busy")
            .arg(&path)
            .args(["-uuid", &vm.to_string()])
            .spawn()
            .expect("a busy process");
        // Stands still until it is its turn.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("stopped");
        let settings = Settings {
            host: HostId::new("host-1"),
            cluster_id: "1ab0001a".into(),
            cluster_name: "lab".into(),
            // Not there: leases come from the agent only.
            datastores: vec![DatastoreSettings {
                name: DatastoreName::new("ds1"),
                path: directory.join("missing"),
                allow_unmounted: true,
            }],
            timing: Timing::STANDARD,
            runtime_dir: directory.join(format!("run-{number}")),
            watchdog: None,
            log: LogSettings::default(),
        };
        Run { name, freezer, vm, child, words: words(&path), settings }
    }

    fn measure(mut self) {
        let service = Service::start(self.settings.clone(), self.freezer.clone()).expect("a guard");
        let stopper = service.stopper();
        let guard = std::thread::spawn(move || service.run());
        let mut agent = Agent::connect(&self.settings.socket());
        agent.order(GuardOrder::Watch { datastore: DatastoreName::new("ds1"), vms: vec![self.vm] });
        agent.wait_for(self.vm, ProcessState::Frozen);
        let mut late: Vec<u64> = (0..ROUNDS).map(|_| self.round(&mut agent)).collect();
        late.sort_unstable();
        println!(
            "{:<18} {ROUNDS} rounds, lease end to last instruction: min {} us, median {} us, p99 {} us, max {} us",
            self.name,
            late[0],
            late[ROUNDS / 2],
            late[ROUNDS * 99 / 100],
            late[ROUNDS - 1],
        );
        agent.order(GuardOrder::Kill { vm: self.vm });
        self.child.wait().expect("it ends");
        agent.wait_for(self.vm, ProcessState::Ended);
        stopper.stop("measured");
        guard.join().expect("no panic");
        self.freezer.remove_leftovers();
    }

    fn round(&self, agent: &mut Agent) -> u64 {
        let until = clock::now() + LEASE;
        agent.order(GuardOrder::Lease { datastore: DatastoreName::new("ds1"), until });
        let term = agent.term(until);
        agent.order(GuardOrder::Thaw { vm: self.vm, term });
        agent.wait_for(self.vm, ProcessState::Runs);
        agent.wait_for(self.vm, ProcessState::Frozen);
        let last = self.words.iter().map(|word| word.load(Ordering::Relaxed)).max().unwrap_or(0);
        Time(last).since(until).0
    }
}

struct Agent {
    stream: UnixStream,
    frames: Frames,
}

impl Agent {
    fn connect(path: &Path) -> Agent {
        let stream = UnixStream::connect(path).expect("the guard listens");
        let mut agent = Agent { stream, frames: Frames::default() };
        agent.send(&ToGuard::Hello { version: "measurement".into() });
        agent
    }

    fn send(&mut self, message: &ToGuard) {
        self.stream.write_all(&frame(message).expect("short")).expect("sent");
    }

    fn order(&mut self, order: GuardOrder) {
        self.send(&ToGuard::Order(order));
    }

    fn next(&mut self) -> FromGuard {
        loop {
            if let Some(message) = self.frames.take() {
                return message.expect("understood");
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).expect("a report");
            assert!(count > 0, "the guard has ended");
            self.frames.push(&buffer[..count]);
        }
    }

    fn term(&mut self, wanted: Time) -> u64 {
        loop {
            if let FromGuard::Report(GuardReport::Lease { term, until, .. }) = self.next()
                && until == wanted
            {
                return term;
            }
        }
    }

    fn wait_for(&mut self, wanted: VmId, wanted_state: ProcessState) {
        loop {
            if let FromGuard::Report(GuardReport::Vm { vm, state }) = self.next()
                && (vm, state) == (wanted, wanted_state)
            {
                return;
            }
        }
    }
}
