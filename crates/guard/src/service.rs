//! The loop that runs [`mainstay_guard_core::Guard`]: waits for its next deadline or for news, steps, and carries out what comes of it,
//! freezes first.
//!
//! Invariant: nothing here waits for anything but its own queue. The queue needs no bound: each sender has few messages under way.

use crate::beats::Beats;
use crate::clock;
use crate::error::GuardError;
use crate::freezer::Freezer;
use crate::kept::{Keeper, Kept};
use crate::link::FromGuard;
use crate::lock::GuardLock;
use crate::observer::{Observer, Seen};
use crate::scanner::{Scan, Scanner};
use crate::settings::Settings;
use crate::socket::{self, Outbox};
use crate::vms::Vms;
use crate::watchdog::Watchdog;
use mainstay_guard_core::{Guard, GuardConfig, GuardEffect, GuardInput};
use mainstay_words::ids::{BootId, Incarnation};
use mainstay_words::{GuardOrder, Span, Time};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The stack of each thread: locked in memory as far as it is used.
pub const STACK: usize = 256 * 1024;

/// The queue's clock stands still in suspend, the guard's does not: looking this often bounds the delay after that.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Between two looks at all processes, for those that nobody has told of.
const REFRESH_INTERVAL: Span = Span::from_secs(5);

/// What the loop hears.
#[derive(Debug)]
pub enum Message {
    /// For the state machine, as it is.
    Input(GuardInput),
    /// The observer has looked at a VM.
    Seen(Seen),
    /// The scanner has gone through all processes.
    Scanned(Scan),
    /// The guard is to end.
    End(String),
}

/// The guard's machine with its clock, files, threads and agent.
pub struct Service {
    guard: Guard,
    vms: Vms,
    beats: Beats,
    outbox: Arc<Outbox>,
    keeper: Keeper,
    kept: Kept,
    watchdog: Option<Watchdog>,
    heartbeat: Span,
    news: Sender<Message>,
    queue: Receiver<Message>,
    /// Kept for its allocation.
    effects: Vec<GuardEffect>,
    next_refresh: Time,
    next_pet: Time,
    socket: std::path::PathBuf,
    // The last one to go: the next guard starts when it is free.
    _lock: GuardLock,
}

/// Ends a guard from elsewhere.
#[derive(Clone)]
pub struct Stopper(Sender<Message>);

impl Stopper {
    /// Has it end, with that reason in its log.
    pub fn stop(&self, reason: &str) {
        // It may have ended already.
        let _ = self.0.send(Message::End(reason.into()));
    }
}

impl Service {
    /// Starts all threads. Leases and watched VMs of a former run in this boot go on.
    pub fn start(settings: Settings, freezer: Freezer) -> Result<Service, GuardError> {
        settings.timing.check().map_err(GuardError::Timing)?;
        let lock = GuardLock::take(&settings.runtime_dir)?;
        let listener = socket::bind(&settings.socket())?;
        let boot = boot_id()?;
        let kept = Kept::load(&settings.runtime_dir, boot);
        let no_thread =
            |source| GuardError::System { what: "a thread of the guard can't be started", source };
        let (news, queue) = channel();
        let config = GuardConfig {
            me: settings.host.clone(),
            datastores: settings.datastores.iter().map(|datastore| datastore.name.clone()).collect(),
            timing: settings.timing,
            boot,
            incarnation: draw_incarnation()?,
            leases: kept.leases.clone(),
            holds: kept.holds.clone(),
        };
        let watchdog = settings.watchdog.as_deref().map(|path| {
            Watchdog::open(path).map_err(|source| GuardError::RuntimeDir {
                what: "opening the watchdog",
                path: path.into(),
                source,
            })
        });
        let observer = Observer::start(freezer.clone(), news.clone()).map_err(no_thread)?;
        let scanner = Scanner::start(news.clone()).map_err(no_thread)?;
        let now = clock::now();
        let mut service = Service {
            guard: Guard::new(config, now),
            vms: Vms::new(freezer, observer, scanner),
            beats: Beats::start(&settings, boot, &news)?,
            outbox: socket::start(listener, settings.clone(), news.clone()).map_err(no_thread)?,
            keeper: Keeper::start(&settings.runtime_dir).map_err(no_thread)?,
            kept: Kept::nothing(boot),
            watchdog: watchdog.transpose()?,
            heartbeat: settings.timing.heartbeat,
            news,
            queue,
            effects: Vec::new(),
            next_refresh: now + REFRESH_INTERVAL,
            next_pet: now,
            socket: settings.socket(),
            _lock: lock,
        };
        service.resume(kept);
        Ok(service)
    }

    /// What a former run was bound to.
    fn resume(&mut self, kept: Kept) {
        self.kept.leases = kept.leases;
        self.kept.holds = kept.holds;
        for (datastore, vms) in kept.watched {
            tracing::info!(%datastore, vms = vms.len(), lease = ?self.guard.lease(&datastore), "going on where the former guard ended");
            self.step(GuardInput::Order(GuardOrder::Watch { datastore, vms }));
        }
    }

    /// A handle to end it.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.news.clone())
    }

    /// Runs until it is told to end. VMs stay as they are.
    pub fn run(mut self) {
        self.step(GuardInput::Tick);
        let reason = loop {
            let ahead = Duration::from_micros(self.guard.next_deadline().since(clock::now()).0);
            let inputs = match self.queue.recv_timeout(ahead.min(WAIT_MAX)) {
                Ok(Message::Input(input)) => vec![input],
                Ok(Message::Seen(seen)) => {
                    // A deadline may have come meanwhile.
                    self.step(GuardInput::Tick);
                    let mut inputs = Vec::new();
                    self.vms.on_seen(seen, &mut inputs);
                    inputs
                }
                Ok(Message::Scanned(scan)) => {
                    self.step(GuardInput::Tick);
                    let mut inputs = Vec::new();
                    self.vms.on_scan(scan, &mut inputs);
                    inputs
                }
                Err(RecvTimeoutError::Timeout) => vec![GuardInput::Tick],
                Ok(Message::End(reason)) => break reason,
                Err(RecvTimeoutError::Disconnected) => break "all its threads have ended".into(),
            };
            for input in inputs {
                self.step(input);
            }
            self.do_regularly();
        };
        self.end(&reason);
    }

    fn step(&mut self, input: GuardInput) {
        let mut effects = std::mem::take(&mut self.effects);
        self.note(&input);
        self.guard.step(clock::now(), input, &mut effects);
        // The one thing that can't wait.
        for effect in &effects {
            if let GuardEffect::Freeze { vm } = effect {
                self.vms.freeze(*vm);
            }
        }
        let mut has_kept = false;
        for effect in effects.drain(..) {
            has_kept |= matches!(effect, GuardEffect::Keep { .. } | GuardEffect::KeepHold { .. });
            self.carry_out(effect);
        }
        if has_kept {
            self.keeper.keep(&self.kept);
        }
        self.effects = effects;
    }

    /// What is of interest to the shell.
    fn note(&mut self, input: &GuardInput) {
        match input {
            GuardInput::AgentBack => self.outbox.open(),
            GuardInput::AgentGone => {
                tracing::info!("no agent is connected; VMs go on as long as their leases do")
            }
            GuardInput::Order(GuardOrder::Watch { datastore, vms }) => {
                if self.kept.watched.get(datastore) != Some(vms) {
                    self.kept.watched.insert(datastore.clone(), vms.clone());
                    self.keeper.keep(&self.kept);
                }
            }
            GuardInput::Order(GuardOrder::WatchAlso { datastore, vms }) => {
                let watched = self.kept.watched.entry(datastore.clone()).or_default();
                let before = watched.len();
                watched.extend(vms);
                watched.sort_unstable();
                watched.dedup();
                if watched.len() != before {
                    self.keeper.keep(&self.kept);
                }
            }
            GuardInput::Order(GuardOrder::Hold { datastore, until }) => {
                tracing::info!(%datastore, until = until.0, "protection is suspended: nothing is frozen for want of a lease");
            }
            GuardInput::Order(GuardOrder::EndHold { datastore }) => {
                tracing::debug!(%datastore, "leases count");
            }
            GuardInput::Tick
            | GuardInput::Written { .. }
            | GuardInput::Process { .. }
            | GuardInput::Order(
                GuardOrder::Alive { .. }
                | GuardOrder::Lease { .. }
                | GuardOrder::Pace { .. }
                | GuardOrder::Adopt { .. }
                | GuardOrder::Thaw { .. }
                | GuardOrder::Kill { .. },
            ) => {}
        }
    }

    fn carry_out(&mut self, effect: GuardEffect) {
        match effect {
            GuardEffect::Write { op, datastore, register } => self.beats.write(op, &datastore, register),
            GuardEffect::Inspect { vm } => self.vms.inspect(vm),
            GuardEffect::Freeze { vm } => self.vms.follow_freeze(vm),
            GuardEffect::Thaw { vm } => self.vms.thaw(vm),
            GuardEffect::Kill { vm } => self.vms.kill(vm),
            GuardEffect::Forget { vm } => self.vms.forget(vm),
            GuardEffect::Keep { datastore, until } => {
                self.kept.leases.insert(datastore, until);
            }
            GuardEffect::KeepHold { datastore, until } => {
                self.kept.holds.insert(datastore, until);
            }
            GuardEffect::Report(report) => self.outbox.push(&FromGuard::Report(report)),
        }
    }

    fn do_regularly(&mut self) {
        let now = clock::now();
        self.vms.look_after_scanner();
        if now >= self.next_refresh {
            self.next_refresh = now + REFRESH_INTERVAL;
            self.vms.refresh();
        }
        if now >= self.next_pet {
            self.next_pet = now + self.heartbeat;
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.pet();
            }
        }
    }

    fn end(mut self, reason: &str) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.close();
        }
        let frozen: Vec<String> = self.vms.frozen().iter().map(ToString::to_string).collect();
        tracing::info!(reason, "the guard ends; VMs are left as they are");
        if !frozen.is_empty() {
            tracing::warn!(vms = frozen.join(", "), "these VMs stay frozen until a guard runs again");
        }
        self.outbox.end();
        // The next guard would replace it anyway; without it the agent sees sooner that nobody is here.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn boot_id() -> Result<BootId, GuardError> {
    let what = "the kernel's boot id (/proc/sys/kernel/random/boot_id) can't be read";
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|source| GuardError::System { what, source })?;
    BootId::parse(text.trim())
        .ok_or_else(|| GuardError::System { what, source: std::io::ErrorKind::InvalidData.into() })
}

fn draw_incarnation() -> Result<Incarnation, GuardError> {
    let mut bytes = [0u8; 8];
    let drawn = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    let what = "no random number for this run of the guard";
    drawn.map_err(|error| GuardError::System { what, source: error.into() })?;
    Ok(Incarnation(u64::from_ne_bytes(bytes)))
}
