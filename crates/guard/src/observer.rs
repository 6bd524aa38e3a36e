//! Looks whether what was asked of a VM's process has come about, on a thread of its own: so the thread that keeps deadlines
//! never waits for a process to stop, go on or die.

use crate::freezer::{Freezer, Hold};
use crate::service::Message;
use mainstay_words::{ProcessState, VmId};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// After that it is said what is so, wanted or not; then the guard tries again. The freezer of cgroup version 2 takes 0.3 to 6.6 ms.
const PATIENCE: Duration = Duration::from_millis(15);

/// Between looks at a process that is about to stop or go on.
const SOON: Duration = Duration::from_micros(200);

/// Between looks at a process that was killed: it may hang in a datastore for as long as that does.
const LATER: Duration = Duration::from_millis(10);

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever is so.
    Anything,
    /// That it be frozen.
    Frozen,
    /// That it run.
    Runs,
    /// That it be gone. Waited for without end.
    Gone,
}

/// A look to be taken.
#[derive(Debug)]
pub struct Look {
    /// The VM whose processes these are.
    pub vm: VmId,
    /// The processes that hold it here.
    pub holds: Vec<Hold>,
    /// What they are watched for.
    pub wanted: Wanted,
}

/// What was seen.
#[derive(Debug)]
pub struct Seen {
    /// The VM whose process was watched.
    pub vm: VmId,
    /// What its processes do, all together.
    pub state: ProcessState,
    /// They, with what was found out about them.
    pub holds: Vec<Hold>,
    /// What was looked for.
    pub wanted: Wanted,
}

/// The thread that watches processes.
pub struct Observer {
    looks: Sender<Look>,
}

impl Observer {
    /// Starts the thread. Fails where the system gives no more threads.
    pub fn start(freezer: Freezer, news: Sender<Message>) -> std::io::Result<Observer> {
        let (looks, receiver) = channel();
        std::thread::Builder::new()
            .name("observe".into())
            .stack_size(crate::service::STACK)
            .spawn(move || run(&freezer, &receiver, &news))?;
        Ok(Observer { looks })
    }

    /// Has a look taken. A later one for the same VM takes the place of an earlier one, except of one that waits for its end.
    pub fn look(&self, look: Look) {
        // The thread ends with this handle only.
        let _ = self.looks.send(look);
    }
}

fn run(freezer: &Freezer, looks: &Receiver<Look>, news: &Sender<Message>) {
    let mut open: Vec<(Look, Instant)> = Vec::new();
    loop {
        let received = if open.is_empty() {
            looks.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            let is_urgent = open.iter().any(|(look, _)| look.wanted != Wanted::Gone);
            looks.recv_timeout(if is_urgent { SOON } else { LATER })
        };
        match received {
            // Others may have come meanwhile: all of them before the first look.
            Ok(look) => {
                for look in std::iter::once(look).chain(looks.try_iter()) {
                    take(freezer, &mut open, look);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let mut index = 0;
        while let Some((look, patience)) = open.get(index) {
            let state = together(&look.holds);
            let is_done = match look.wanted {
                Wanted::Anything => true,
                Wanted::Frozen => state != ProcessState::Runs || now >= *patience,
                Wanted::Runs => state != ProcessState::Frozen || now >= *patience,
                Wanted::Gone => state == ProcessState::Absent,
            };
            if !is_done {
                index += 1;
                continue;
            }
            let (Look { vm, holds, wanted }, _) = open.swap_remove(index);
            if news.send(Message::Seen(Seen { vm, state, holds, wanted })).is_err() {
                return;
            }
        }
    }
}

fn take(freezer: &Freezer, open: &mut Vec<(Look, Instant)>, mut look: Look) {
    let is_end = look.wanted == Wanted::Gone;
    open.retain(|(other, _)| other.vm != look.vm || (other.wanted == Wanted::Gone) != is_end);
    if look.wanted == Wanted::Anything {
        prepare(freezer, &mut look);
    }
    open.push((look, Instant::now() + PATIENCE));
}

/// Ahead of the first freeze, which is then a single write.
fn prepare(freezer: &Freezer, look: &mut Look) {
    for hold in look.holds.iter_mut().filter(|hold| !hold.is_prepared()) {
        *hold = freezer.prepare(look.vm, hold.process.clone());
    }
}

/// Frozen only if nothing of the VM runs.
fn together(holds: &[Hold]) -> ProcessState {
    let mut all = ProcessState::Absent;
    for hold in holds {
        all = match (hold.state(), all) {
            (ProcessState::Runs, _) | (_, ProcessState::Runs) => ProcessState::Runs,
            (ProcessState::Frozen, _) | (_, ProcessState::Frozen) => ProcessState::Frozen,
            (ProcessState::Absent | ProcessState::Ended, ProcessState::Absent | ProcessState::Ended) => {
                ProcessState::Absent
            }
        };
    }
    all
}
