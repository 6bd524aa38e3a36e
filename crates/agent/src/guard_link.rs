//! The guard, to the agent: written settings, a started process, a connection that is made again whenever it is lost.
//!
//! The guard outlives agents. One that is found running is taken as it is if its settings are the wanted ones; else it is told to end,
//! and another takes its place, which goes on with the leases and the VMs that the first one has kept.
//!
//! Invariant: nothing here makes the core wait. Orders are lost while no guard is connected: the guard's first report on each
//! connection says so, and the core orders anew.

use crate::config::{AgentConfig, GuardOptions, LogFormat, LogLevel};
use crate::driver::{Queue, Request};
use crate::outside::tell;
use crate::vms::VmNews;
use mainstay_core::ids::HostId;
use mainstay_core::{GuardOrder, Input};
use mainstay_guard::link::{FrameError, Frames, frame};
use mainstay_guard::{DatastoreSettings, FromGuard, GuardError, LogSettings, Settings, ToGuard};
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// How long an agent waits at its start for a guard that answers.
const START_MAX: Duration = Duration::from_secs(15);

/// How long a guard may take to greet, and to end when it is told to.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Between two attempts to reach a guard that is being started.
const SOON: Duration = Duration::from_millis(10);

/// Between two attempts when the last one has failed.
const LATER: Duration = Duration::from_millis(500);

/// A guard that ends at once may have met another one that was just being started, or was about to end.
const ENDED_MAX: u32 = 3;

/// Orders that may wait for a guard that does not read: beyond that its connection is given up.
const WAITING_MAX: usize = 1 << 20;

/// Why there is no guard to talk to.
#[derive(Debug, thiserror::Error)]
pub enum GuardLinkError {
    /// Its settings can't be written.
    #[error(transparent)]
    Settings(#[from] GuardError),
    /// It can't be started.
    #[error("the guard {} can't be started: {source}; install mainstay-guard beside the agent, or name it as program in [guard]", program.display())]
    NotStarted {
        /// The program that could not be started.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It ended at once.
    #[error("the guard {} has ended at once ({status}): its log says why", program.display())]
    Ended {
        /// The program that has ended.
        program: PathBuf,
        /// How it ended: its exit code or signal.
        status: ExitStatus,
    },
    /// It is another cluster's, or another host's.
    #[error("the guard at {} is that of {host} in cluster {cluster}: give this agent a directory of its own, by [api] socket", socket.display())]
    Foreign {
        /// The socket of the foreign guard.
        socket: PathBuf,
        /// Whose it is.
        host: HostId,
        /// Of which cluster.
        cluster: String,
    },
    /// It runs, and can't be talked to.
    #[error("the guard at {} does not answer ({reason}): end the process mainstay-guard of this host, then start the agent again", socket.display())]
    NoAnswer {
        /// The socket at which nobody answers.
        socket: PathBuf,
        /// What happened last.
        reason: String,
    },
}

/// What the core wants of the guard.
enum Wish {
    Order(GuardOrder),
    /// It does not answer: another one is to take its place.
    Replace,
}

/// The connection. Ends with this value; the guard goes on.
#[derive(Debug)]
pub struct GuardLink {
    orders: mpsc::UnboundedSender<Wish>,
    task: JoinHandle<()>,
}

impl Drop for GuardLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GuardLink {
    /// Comes back when a guard with the wanted settings has greeted. Starts one if need be.
    pub async fn start(config: &AgentConfig, queue: Queue<VmNews>) -> Result<GuardLink, GuardLinkError> {
        let mut guard = Guard {
            settings: settings(config),
            options: config.guard.clone(),
            file: config.state_dir.join("guard.json"),
            started: None,
            pid: None,
        };
        guard.settings.store(&guard.file)?;
        let deadline = Instant::now() + START_MAX;
        let mut ended = 0;
        let connection = loop {
            match guard.connect().await {
                Ok(connection) => break connection,
                Err(error @ GuardLinkError::Ended { .. })
                    if ended < ENDED_MAX && Instant::now() < deadline =>
                {
                    tracing::warn!(%error, "trying again");
                    ended += 1;
                    sleep(LATER).await;
                }
                Err(error) if Instant::now() >= deadline || error.is_final() => return Err(error),
                Err(_) => sleep(SOON).await,
            }
        };
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(guard, connection, receiver, queue));
        Ok(GuardLink { orders, task })
    }

    /// Passes an order on; it is lost when no guard is connected.
    pub fn send(&self, order: GuardOrder) {
        // The task ends with this handle only.
        let _ = self.orders.send(Wish::Order(order));
    }

    /// Ends a guard that does not answer, and starts another.
    pub fn replace(&self) {
        let _ = self.orders.send(Wish::Replace);
    }
}

/// What this agent's guard is to work with.
pub fn settings(config: &AgentConfig) -> Settings {
    let of = |datastore: &crate::config::DatastoreConfig| DatastoreSettings {
        name: datastore.name.clone(),
        path: datastore.path.clone(),
        allow_unmounted: datastore.allow_unmounted,
    };
    let level = match config.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    Settings {
        host: config.me.id.clone(),
        cluster_id: config.cluster_id.clone(),
        cluster_name: config.cluster_name.clone(),
        datastores: config.datastores.iter().map(of).collect(),
        timing: config.timing,
        runtime_dir: config.api_socket.parent().unwrap_or(Path::new("/run/mainstay")).to_path_buf(),
        watchdog: config.guard.watchdog.clone(),
        log: LogSettings { json: config.log_format == LogFormat::Json, level: level.into() },
    }
}

impl GuardLinkError {
    /// Trying again won't help.
    fn is_final(&self) -> bool {
        match self {
            GuardLinkError::Settings(_)
            | GuardLinkError::NotStarted { .. }
            | GuardLinkError::Foreign { .. }
            | GuardLinkError::Ended { .. } => true,
            GuardLinkError::NoAnswer { .. } => false,
        }
    }
}

/// A greeted guard.
struct Connection {
    incoming: Incoming,
    write: OwnedWriteHalf,
}

/// The guard's process, as far as this agent is concerned with it.
struct Guard {
    settings: Settings,
    options: GuardOptions,
    file: PathBuf,
    /// One that this agent has started and that has not shown itself yet: how it has ended.
    started: Option<oneshot::Receiver<io::Result<ExitStatus>>>,
    /// The process that greeted last.
    pid: Option<i32>,
}

impl Guard {
    /// Tries once to connect to a guard; starts one if none runs.
    async fn connect(&mut self) -> Result<Connection, GuardLinkError> {
        let socket = self.settings.socket();
        let no_answer = |reason: &dyn ToString| GuardLinkError::NoAnswer {
            socket: socket.clone(),
            reason: reason.to_string(),
        };
        let stream = match UnixStream::connect(&socket).await {
            Ok(stream) => stream,
            Err(error) => {
                self.see_to_a_process()?;
                return Err(no_answer(&error));
            }
        };
        // Who listens there, as the kernel knows it: a process number that was told may be another's by now.
        let listener = stream.peer_cred().ok().and_then(|cred| cred.pid());
        let (read, write) = stream.into_split();
        let mut connection = Connection { incoming: Incoming { read, frames: Frames::default() }, write };
        let hello = timeout(ANSWER_MAX, connection.incoming.receive()).await.map_err(|_| {
            // The one that hung is still there: the kernel takes connections for it.
            if listener.is_some() && listener == self.pid {
                self.kill();
            }
            no_answer(&"no greeting")
        })?;
        let (settings, pid) = match hello.map_err(|error| no_answer(&error))? {
            FromGuard::Hello { settings, pid, version } => {
                tracing::info!(pid, version, "guard found");
                (settings, pid)
            }
            FromGuard::Report(_) => return Err(no_answer(&"no greeting")),
        };
        self.started = None;
        self.pid = listener;
        if settings == self.settings {
            let version = env!("CARGO_PKG_VERSION").into();
            connection.send(&ToGuard::Hello { version }).await.map_err(|error| no_answer(&error))?;
            return Ok(connection);
        }
        // Two agents that told each other's guard to end would leave the host without one for most of the time.
        if (&settings.host, &settings.cluster_id) != (&self.settings.host, &self.settings.cluster_id) {
            let cluster = format!("{}-{}", settings.cluster_id, settings.cluster_name);
            return Err(GuardLinkError::Foreign { socket, host: settings.host, cluster });
        }
        tracing::info!(pid, "the guard has other settings: another one takes its place");
        let reason = "the configuration has changed: another guard takes over".into();
        connection.send(&ToGuard::End { reason }).await.map_err(|error| no_answer(&error))?;
        let ended = timeout(ANSWER_MAX, async { while connection.incoming.receive().await.is_ok() {} });
        ended.await.map_err(|_| no_answer(&"it was told to end and goes on"))?;
        Err(no_answer(&"it has ended and another takes its place"))
    }

    /// Starts a guard unless one is being started.
    fn see_to_a_process(&mut self) -> Result<(), GuardLinkError> {
        match self.started.as_mut().map(oneshot::Receiver::try_recv) {
            // Still on its way.
            Some(Err(oneshot::error::TryRecvError::Empty)) => Ok(()),
            Some(Ok(Ok(status))) => {
                self.started = None;
                Err(GuardLinkError::Ended { program: self.program()?, status })
            }
            Some(Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed)) | None => {
                self.settings.store(&self.file)?;
                self.started = Some(self.spawn()?);
                Ok(())
            }
        }
    }

    /// SIGKILL to the guard that greeted last. What it kept, the next one goes on with.
    fn kill(&self) {
        let pid = self.pid.and_then(rustix::process::Pid::from_raw);
        // Tests run a guard on a thread of theirs.
        let Some(pid) = pid.filter(|pid| *pid != rustix::process::getpid()) else { return };
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) => {
                tracing::warn!(pid = pid.as_raw_nonzero(), "the guard does not answer: its process is ended")
            }
            Err(error) => tracing::error!(%error, "the guard does not answer, and can't be ended"),
        }
    }

    fn program(&self) -> Result<PathBuf, GuardLinkError> {
        let beside = || {
            let own = std::env::current_exe()?;
            Ok(own.with_file_name("mainstay-guard"))
        };
        let failed = |source| GuardLinkError::NotStarted { program: "mainstay-guard".into(), source };
        self.options.program.clone().map_or_else(beside, Ok).map_err(failed)
    }

    /// Starts it so that it outlives this agent.
    fn spawn(&self) -> Result<oneshot::Receiver<io::Result<ExitStatus>>, GuardLinkError> {
        let program = self.program()?;
        let failed = |source| GuardLinkError::NotStarted { program: program.clone(), source };
        let log = match &self.options.log {
            Some(path) => File::options().create(true).append(true).open(path).map_err(failed)?.into(),
            None => Stdio::inherit(),
        };
        let mut command = Command::new(&program);
        command.arg("--config").arg(&self.file).current_dir("/").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Safety: one system call, in the child, that touches no memory.
        unsafe {
            command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
        }
        let mut child = command.spawn().map_err(failed)?;
        tracing::info!(program = %program.display(), pid = child.id(), "guard started");
        let (tell_end, end) = oneshot::channel();
        // So that it leaves no zombie as long as this agent lives.
        let wait = move || {
            let status = child.wait();
            // Nobody is interested in the end of one that has shown itself.
            let _ = tell_end.send(status);
        };
        std::thread::Builder::new().name("guard-end".into()).spawn(wait).map_err(failed)?;
        Ok(end)
    }
}

impl Connection {
    async fn send(&mut self, message: &ToGuard) -> io::Result<()> {
        let bytes = frame(message).map_err(io::Error::other)?;
        timeout(ANSWER_MAX, self.write.write_all(&bytes)).await?
    }
}

/// What comes from the guard.
struct Incoming {
    read: OwnedReadHalf,
    frames: Frames,
}

impl Incoming {
    /// The next frame. Can be given up without losing anything.
    async fn receive(&mut self) -> io::Result<FromGuard> {
        let mut buffer = [0u8; 8192];
        loop {
            match self.frames.take() {
                Some(Ok(message)) => return Ok(message),
                Some(Err(error @ FrameError::Strange(_))) => {
                    tracing::warn!(%error, "from the guard; skipped")
                }
                Some(Err(error @ FrameError::TooLong { .. })) => return Err(io::Error::other(error)),
                None => match self.read.read(&mut buffer).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => self.frames.push(&buffer[..count]),
                },
            }
        }
    }
}

async fn run(
    mut guard: Guard,
    mut connection: Connection,
    mut orders: mpsc::UnboundedReceiver<Wish>,
    queue: Queue<VmNews>,
) {
    loop {
        let why = converse(&guard, connection, &mut orders, &queue).await;
        tracing::warn!(%why, "the guard is lost; VMs go on, and are frozen by nobody until there is one again");
        tell(&queue, Request::Input(Input::GuardLost));
        let mut is_said = false;
        connection = loop {
            match guard.connect().await {
                Ok(connection) => break connection,
                Err(error @ GuardLinkError::NoAnswer { .. }) => {
                    tracing::debug!(%error, "not yet");
                    sleep(SOON).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        tracing::error!(%error, "no guard can be started; trying on");
                        let reason = error.to_string().into();
                        tell(&queue, Request::Input(Input::GuardFailed { reason }));
                    }
                    sleep(LATER).await;
                }
            }
        };
        // They were meant for the guard that was lost.
        while orders.try_recv().is_ok() {}
    }
}

/// Until the connection is lost; says why it was.
async fn converse(
    guard: &Guard,
    mut connection: Connection,
    orders: &mut mpsc::UnboundedReceiver<Wish>,
    queue: &Queue<VmNews>,
) -> io::Error {
    let mut to_send: Vec<u8> = Vec::new();
    loop {
        tokio::select! {
            ready = connection.write.writable(), if !to_send.is_empty() => {
                match ready.and_then(|()| connection.write.try_write(&to_send)) {
                    Ok(count) => drop(to_send.drain(..count)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return error,
                }
            }
            received = connection.incoming.receive() => match received {
                Ok(FromGuard::Report(report)) => tell(queue, Request::Input(Input::Guard(report))),
                Ok(FromGuard::Hello { .. }) => {}
                Err(error) => return error,
            },
            order = orders.recv() => {
                // The sender is dropped together with this task.
                let order = match order {
                    Some(Wish::Order(order)) => order,
                    Some(Wish::Replace) => {
                        guard.kill();
                        return io::Error::other("it did not answer");
                    }
                    None => return io::ErrorKind::BrokenPipe.into(),
                };
                match frame(&ToGuard::Order(order)) {
                    Ok(bytes) => to_send.extend_from_slice(&bytes),
                    Err(error) => tracing::error!(%error, "an order can't be sent to the guard: an error in this program"),
                }
                if to_send.len() > WAITING_MAX {
                    return io::Error::other("it does not read");
                }
            }
        }
    }
}
