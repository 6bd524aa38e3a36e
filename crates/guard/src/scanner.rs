//! Finds the processes of VMs, on a thread of its own: reading a command line may block for as long as that process is stuck.
//!
//! A process once known is not read again. A scan that is stuck in one process is given up: another thread scans on without that
//! one. What is stuck there is either no VM of ours or one that is known already, as a rule: QEMU gets stuck when it has run for
//! a while.

use crate::qemu::{Identity, Process};
use crate::service::Message;
use mainstay_processes as processes;
use mainstay_words::VmId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long reading one process's command line may take before the scan is given up: it takes microseconds.
const STUCK_AFTER: Duration = Duration::from_millis(500);

/// Scans that hang at a time. Each holds a thread; beyond that something else is wrong with the host.
const THREADS_MAX: u64 = 16;

/// All processes of VMs, as one scan has found them.
#[derive(Debug)]
pub struct Scan {
    /// The latest request that it answers.
    pub number: u64,
    /// The processes that were found, for each VM.
    pub found: BTreeMap<VmId, Vec<Process>>,
}

#[derive(Default)]
struct Shared {
    known: BTreeMap<Identity, (VmId, Process)>,
    /// Reading their command lines hangs.
    stuck: BTreeSet<Identity>,
    reading: Option<(Identity, Instant)>,
    /// The thread that is to scan; earlier ones end when they come back.
    turn: u64,
    /// Threads that hung and came back.
    returned: u64,
}

/// The thread that scans, and what replaces it.
pub struct Scanner {
    requests: Sender<u64>,
    shared: Arc<Mutex<Shared>>,
    news: Sender<Message>,
    asked: u64,
    answered: u64,
}

impl Scanner {
    /// Starts the thread.
    pub fn start(news: Sender<Message>) -> std::io::Result<Scanner> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let requests = spawn(&shared, &news, 0)?;
        Ok(Scanner { requests, shared, news, asked: 0, answered: 0 })
    }

    /// Has a scan begun from now on, and gives its number. Several requests may be answered by one scan.
    pub fn ask(&mut self) -> u64 {
        self.asked += 1;
        // The thread ends with this handle only.
        let _ = self.requests.send(self.asked);
        self.asked
    }

    /// Takes note of an answer.
    pub fn on_answer(&mut self, number: u64) {
        self.answered = self.answered.max(number);
    }

    /// Replaces the thread if it is stuck.
    pub fn look_after(&mut self) {
        if self.answered == self.asked {
            return;
        }
        let turn = {
            let mut shared = lock(&self.shared);
            let Some((identity, since)) = shared.reading else { return };
            if since.elapsed() < STUCK_AFTER || shared.turn - shared.returned >= THREADS_MAX {
                return;
            }
            tracing::warn!(
                pid = identity.0,
                "reading this process's command line hangs: looking for VMs without it"
            );
            shared.stuck.insert(identity);
            shared.reading = None;
            shared.turn += 1;
            shared.turn
        };
        match spawn(&self.shared, &self.news, turn) {
            Ok(requests) => {
                self.requests = requests;
                let _ = self.requests.send(self.asked);
            }
            Err(error) => tracing::error!(%error, "no thread to look for VMs with"),
        }
    }
}

/// Held for moments only, never while something is read.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(shared: &Arc<Mutex<Shared>>, news: &Sender<Message>, turn: u64) -> std::io::Result<Sender<u64>> {
    let (requests, receiver) = channel();
    let (shared, news) = (Arc::clone(shared), news.clone());
    std::thread::Builder::new()
        .name(format!("scan {turn}"))
        .stack_size(crate::service::STACK)
        .spawn(move || run(&shared, &receiver, &news, turn))?;
    Ok(requests)
}

fn run(shared: &Mutex<Shared>, requests: &Receiver<u64>, news: &Sender<Message>, turn: u64) {
    // Going through all processes of a big host is work for tens of milliseconds: not at real-time priority.
    crate::realtime::give_up_priority();
    while let Ok(first) = requests.recv() {
        let number = requests.try_iter().last().unwrap_or(first);
        let pids = match processes::all_pids() {
            Ok(pids) => pids,
            Err(error) => {
                tracing::error!(%error, "VMs can't be looked for");
                continue;
            }
        };
        let mut found: BTreeMap<VmId, Vec<Process>> = BTreeMap::new();
        let mut present = BTreeSet::new();
        for pid in pids {
            let Some(start) = processes::start_time(pid) else { continue };
            present.insert((pid, start));
            match look_at(shared, (pid, start), turn) {
                Ok(Some((vm, process))) => found.entry(vm).or_default().push(process),
                Ok(None) => {}
                Err(Replaced) => {
                    lock(shared).returned += 1;
                    return;
                }
            }
        }
        {
            let mut shared = lock(shared);
            shared.known.retain(|identity, _| present.contains(identity));
            shared.stuck.retain(|identity| present.contains(identity));
        }
        if news.send(Message::Scanned(Scan { number, found })).is_err() {
            return;
        }
    }
}

/// Another thread scans.
struct Replaced;

fn look_at(
    shared: &Mutex<Shared>,
    identity: Identity,
    turn: u64,
) -> Result<Option<(VmId, Process)>, Replaced> {
    {
        let mut shared = lock(shared);
        if shared.turn != turn {
            return Err(Replaced);
        }
        if let Some((vm, process)) = shared.known.get(&identity) {
            return Ok(process.exists().then(|| (*vm, process.clone())));
        }
        if shared.stuck.contains(&identity) {
            return Ok(None);
        }
        shared.reading = Some((identity, Instant::now()));
    }
    let looked = processes::vm_of(identity.0)
        .and_then(|vm| Some((vm, Process::open(identity.0, vm)?)))
        .filter(|(_, process)| process.start == identity.1);
    let mut shared = lock(shared);
    shared.stuck.remove(&identity);
    if let Some((vm, process)) = &looked {
        shared.known.insert(identity, (*vm, process.clone()));
    }
    if shared.turn != turn {
        return Err(Replaced);
    }
    shared.reading = None;
    Ok(looked)
}
