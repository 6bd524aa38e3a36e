//! A guard, an agent's end of its socket, and processes to be guarded.

use mainstay_guard::freezer::Freezer;
use mainstay_guard::link::{Frames, frame};
use mainstay_guard::{DatastoreSettings, FromGuard, LogSettings, Service, Settings, Stopper, ToGuard};
use mainstay_testkit::{PATIENCE, wait_for, wait_until};
use mainstay_words::ids::{DatastoreName, HostId, Incarnation, VmId};
use mainstay_words::{GuardOrder, GuardReport, ProcessState, Span, Time, Timing};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

/// A lease that does not end while such a machine, or its disk, stands still for some seconds.
const TIMING: Timing = Timing {
    heartbeat: Span::from_millis(250),
    lease: Span::from_secs(6),
    failure_timeout: Span::from_secs(8),
};

/// A VM that no other test uses, also not one in another process.
pub fn fresh_vm() -> VmId {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let mut id = *b"guardtest.......";
    id[9] = NEXT.fetch_add(1, Ordering::Relaxed);
    id[10..14].copy_from_slice(&std::process::id().to_le_bytes());
    VmId(id)
}

/// A process that never rests and has a VM's id on its command line. Ends with this value.
pub struct Busy {
    pub vm: VmId,
    pid: u32,
    child: Mutex<Child>,
}

impl Busy {
    pub fn start() -> Busy {
        Busy::start_as(fresh_vm())
    }

    pub fn start_as(vm: VmId) -> Busy {
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done", "-uuid", &vm.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .expect("sh");
        let pid = child.id();
        wait_until("the process", || mainstay_processes::is_qemu_of(pid, vm));
        Busy { vm, pid, child: Mutex::new(child) }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// By a freezer's group, or by a signal: no thread executes, and none ever will by itself.
    pub fn is_frozen(&self) -> bool {
        let process = mainstay_guard::qemu::Process::open(self.pid, self.vm).expect("it is there");
        Freezer::find().prepare(self.vm, process).state() == ProcessState::Frozen
    }

    /// Waits for its end, after somebody else has killed it.
    pub fn reap(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        wait_until("its end", || child.try_wait().expect("its state").is_some());
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is frozen by version 1 dies only when it is thawed.
        let freezer = Freezer::find().without_unified();
        let process = mainstay_guard::qemu::Process::open(self.pid, self.vm);
        let _ = child.kill();
        if let Some(process) = process.filter(|_| freezer.has_groups()) {
            freezer.prepare(self.vm, process).thaw();
        }
        let _ = child.wait();
        Freezer::find().remove_leftovers();
    }
}

/// A directory with a datastore, settings, and whatever a guard leaves.
pub struct World {
    directory: tempfile::TempDir,
    settings: Settings,
}

impl World {
    pub fn new() -> World {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ds1");
        std::fs::create_dir(&path).expect("a datastore");
        let settings = Settings {
            host: HostId::new("host-1"),
            cluster_id: "1ab0001a".into(),
            cluster_name: "lab".into(),
            datastores: vec![DatastoreSettings {
                name: DatastoreName::new("ds1"),
                path,
                allow_unmounted: true,
            }],
            timing: TIMING,
            runtime_dir: directory.path().join("run"),
            watchdog: None,
            log: LogSettings::default(),
        };
        World { directory, settings }
    }

    pub fn datastore(&self) -> DatastoreName {
        DatastoreName::new("ds1")
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ds1")
    }

    pub fn take_datastore_away(&self) {
        std::fs::rename(self.path(), self.directory.path().join("gone")).expect("renamed");
    }

    pub fn give_datastore_back(&self) {
        std::fs::rename(self.directory.path().join("gone"), self.path()).expect("renamed");
    }

    pub fn guard(&self, freezer: Freezer) -> Guarding {
        let service = Service::start(self.settings.clone(), freezer).expect("it starts");
        let stopper = service.stopper();
        Guarding { stopper, thread: Some(std::thread::spawn(move || service.run())) }
    }

    pub fn settings_file(&self) -> PathBuf {
        self.directory.path().join("guard.json")
    }

    /// The real program.
    pub fn guard_process(&self) -> GuardProcess {
        let file = self.settings_file();
        self.settings.store(&file).expect("stored");
        let log = self.directory.path().join("guard.log");
        let child = Command::new(env!("CARGO_BIN_EXE_mainstay-guard"))
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stderr(File::options().create(true).append(true).open(&log).expect("a log"))
            .spawn()
            .expect("the guard");
        GuardProcess { child, log }
    }

    pub fn wait_until_kept(&self, vm: VmId) {
        let file = self.settings.runtime_dir.join(mainstay_guard::kept::KEPT_FILE);
        let is_kept = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&vm.to_string()));
        wait_until("the VM in what is kept", is_kept);
    }

    /// A FIFO in the place of a watchdog.
    pub fn add_watchdog(&mut self) -> Fifo {
        let path = self.directory.path().join("watchdog");
        assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        self.settings.watchdog = Some(path.clone());
        // Also for writing, so that neither side has to wait for the other.
        let fifo = File::options().read(true).write(true).open(path).expect("a FIFO");
        // A test whose guard does not feed must end.
        rustix::fs::fcntl_setfl(&fifo, rustix::fs::OFlags::NONBLOCK).expect("not blocking");
        Fifo(fifo)
    }
}

pub struct Fifo(File);

impl Fifo {
    /// Reads until those bytes have come, one after the other.
    pub fn wait_for(&self, wanted: &[u8]) {
        let mut seen = Vec::new();
        wait_until("the watchdog to be fed", || {
            let mut byte = [0];
            match (&self.0).read(&mut byte) {
                Ok(count) => seen.extend_from_slice(&byte[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
            }
            seen.windows(wanted.len()).any(|window| window == wanted)
        });
    }
}

/// A guard on a thread of this process.
pub struct Guarding {
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Guarding {
    fn drop(&mut self) {
        self.stopper.stop("the test is over");
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(std::thread::panicking() || ended.is_ok(), "the guard panicked");
        }
    }
}

pub struct GuardProcess {
    child: Child,
    log: PathBuf,
}

impl GuardProcess {
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Ends it in an orderly way; gives its log.
    pub fn stop(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        assert!(self.child.wait().expect("ended").success());
        std::fs::read_to_string(&self.log).expect("a log")
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An agent's end.
pub struct Agent {
    stream: UnixStream,
    frames: Frames,
    term: Option<u64>,
}

impl Agent {
    /// Waits for a guard, and says hello to it.
    pub fn connect(world: &World) -> Agent {
        let stream = wait_for("a guard that listens", || UnixStream::connect(world.settings.socket()).ok());
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let mut agent = Agent { stream, frames: Frames::default(), term: None };
        match agent.next() {
            Some(FromGuard::Hello { settings, .. }) => assert_eq!(settings, world.settings),
            other => panic!("no hello: {other:?}"),
        }
        agent.send(&ToGuard::Hello { version: "test".into() });
        agent.order(&GuardOrder::Alive { incarnation: Incarnation(1), files: None });
        agent
    }

    fn send(&mut self, message: &ToGuard) {
        self.stream.write_all(&frame(message).expect("short")).expect("sent");
    }

    pub fn order(&mut self, order: &GuardOrder) {
        self.send(&ToGuard::Order(order.clone()));
    }

    pub fn watch(&mut self, vms: &[VmId]) {
        let datastore = DatastoreName::new("ds1");
        self.order(&GuardOrder::Watch { datastore, vms: vms.to_vec() });
    }

    /// `None` at the end of the connection.
    fn next(&mut self) -> Option<FromGuard> {
        loop {
            if let Some(message) = self.frames.take() {
                let message = message.expect("understood");
                if let FromGuard::Report(GuardReport::Lease { term, .. }) = &message {
                    self.term = Some(*term);
                }
                return Some(message);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.frames.push(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// The latest term heard of.
    pub fn terms(&self) -> Option<u64> {
        self.term
    }

    pub fn first_report(&mut self) -> GuardReport {
        match self.next() {
            Some(FromGuard::Report(report)) => report,
            other => panic!("no report: {other:?}"),
        }
    }

    /// Other reports come again and again.
    fn wait_for_report<T>(&mut self, what: &str, pick: impl Fn(&GuardReport) -> Option<T>) -> T {
        wait_for(what, || match self.next() {
            Some(FromGuard::Report(report)) => pick(&report),
            Some(_) => None,
            None => panic!("the guard has closed the connection"),
        })
    }

    pub fn wait_for_vm(&mut self, wanted: VmId, wanted_state: ProcessState) {
        self.wait_for_report(&format!("{wanted_state:?}"), |report| {
            let fits =
                matches!(report, GuardReport::Vm { vm, state } if (*vm, *state) == (wanted, wanted_state));
            fits.then_some(())
        });
    }

    pub fn lease(&mut self, fits: impl Fn(u64, Time) -> bool) -> (u64, Time) {
        self.wait_for_report("such a lease", |report| {
            let GuardReport::Lease { term, until, .. } = report else { return None };
            fits(*term, *until).then_some((*term, *until))
        })
    }

    pub fn wait_for_end(&mut self) {
        wait_until("the end of the connection", || self.next().is_none());
    }

    /// Without reading anything.
    pub fn order_until_closed(&mut self, order: &GuardOrder) {
        let bytes = frame(&ToGuard::Order(order.clone())).expect("short");
        while self.stream.write_all(&bytes).is_ok() {}
    }
}
