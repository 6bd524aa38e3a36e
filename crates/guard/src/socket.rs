//! The socket on which the agent is heard and told. A thread of its own; whatever the agent does, nobody else waits.
//!
//! A connection becomes the agent's with its `Hello`; a newer one takes the place of an older one. An agent that does not read (it
//! was stopped, say) loses its connection when so much waits for it that it would be told old news.

use crate::error::GuardError;
use crate::link::{FrameError, Frames, FromGuard, ToGuard, frame};
use crate::service::Message;
use crate::settings::Settings;
use mainstay_guard_core::GuardInput;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that may wait for the agent: minutes of reports.
const WAITING_MAX: usize = 1 << 20;

/// Connections at a time. There is one agent.
const CONNECTIONS_MAX: usize = 8;

/// What waits for the agent. Filling it never waits.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Vec<u8>>,
    bytes: usize,
    /// There is an agent whom the guard's state machine knows.
    is_open: bool,
    /// It does not read.
    is_overfull: bool,
    is_ended: bool,
}

impl Outbox {
    fn new() -> std::io::Result<Outbox> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Outbox { waiting: Mutex::default(), wake })
    }

    /// From now on, for an agent that the guard's state machine is about to greet.
    pub fn open(&self) {
        *self.lock() = Waiting { is_open: true, ..Waiting::default() };
    }

    fn close(&self) {
        let is_ended = self.lock().is_ended;
        *self.lock() = Waiting { is_ended, ..Waiting::default() };
    }

    /// Has it sent to the agent, if there is one.
    pub fn push(&self, message: &FromGuard) {
        let bytes = match frame(message) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::error!(%error, "a report can't be sent to the agent: an error in this program");
                return;
            }
        };
        let mut waiting = self.lock();
        if !waiting.is_open {
            return;
        }
        waiting.bytes += bytes.len();
        if waiting.bytes > WAITING_MAX {
            *waiting = Waiting { is_overfull: true, ..Waiting::default() };
        } else {
            waiting.frames.push_back(bytes);
        }
        drop(waiting);
        self.wake();
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.lock().is_ended = true;
        self.wake();
    }

    fn wake(&self) {
        // Full means that it is awake already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Held for moments only.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Listens. The caller holds the lock on the directory, so a file that is there is a former guard's.
pub fn bind(path: &Path) -> Result<UnixListener, GuardError> {
    let failed = |what| move |source| GuardError::RuntimeDir { what, path: path.to_path_buf(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed("removing")(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("listening on"))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(path, mode).map_err(failed("protecting"))?;
    listener.set_nonblocking(true).map_err(failed("listening on"))?;
    Ok(listener)
}

/// Starts the thread.
pub fn start(
    listener: UnixListener,
    settings: Settings,
    news: Sender<Message>,
) -> std::io::Result<Arc<Outbox>> {
    let outbox = Arc::new(Outbox::new()?);
    let hello =
        FromGuard::Hello { version: env!("CARGO_PKG_VERSION").into(), pid: std::process::id(), settings };
    let hello = frame(&hello).map_err(std::io::Error::other)?;
    let socket = Socket { listener, hello, outbox: Arc::clone(&outbox), news, connections: Vec::new() };
    std::thread::Builder::new()
        .name("socket".into())
        .stack_size(crate::service::STACK)
        .spawn(move || socket.run())?;
    Ok(outbox)
}

struct Connection {
    stream: UnixStream,
    frames: Frames,
    to_send: Vec<u8>,
    is_agent: bool,
}

struct Socket {
    listener: UnixListener,
    hello: Vec<u8>,
    outbox: Arc<Outbox>,
    news: Sender<Message>,
    connections: Vec<Connection>,
}

/// The connection is of no more use.
struct Closed;

impl Socket {
    fn run(mut self) {
        while let Ok((is_called, ready)) = self.wait() {
            // From the last to the first, so that those still to come keep their places.
            for index in (0..ready.len()).rev() {
                if ready[index] && self.serve(index).is_err() {
                    self.remove(index);
                }
            }
            if is_called {
                self.accept();
            }
            if self.pass_on().is_err() {
                return;
            }
        }
        tracing::error!("the guard's socket can't be waited on: no agent will be heard; restart the guard");
    }

    /// Waits for something to do: whether somebody calls, and which connections are ready.
    fn wait(&self) -> Result<(bool, Vec<bool>), Errno> {
        let mut fds =
            vec![PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.outbox.wake, PollFlags::IN)];
        for connection in &self.connections {
            let wanted =
                if connection.to_send.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), wanted));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready[1] {
            let _ = rustix::io::read(&self.outbox.wake, &mut [0u8; 8]);
        }
        Ok((ready[0], ready[2..].to_vec()))
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        let is_own = rustix::net::sockopt::socket_peercred(&stream)
            .is_ok_and(|peer| peer.uid == rustix::process::geteuid());
        if !is_own {
            tracing::warn!("a connection of another user was refused");
            return;
        }
        if let Err(error) = stream.set_nonblocking(true) {
            tracing::warn!(%error, "a connection can't be used");
            return;
        }
        if self.connections.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.connections.iter().position(|connection| !connection.is_agent)
        {
            self.remove(oldest);
        }
        let to_send = self.hello.clone();
        self.connections.push(Connection { stream, frames: Frames::default(), to_send, is_agent: false });
    }

    fn remove(&mut self, index: usize) {
        if self.connections.remove(index).is_agent {
            self.outbox.close();
            self.tell(Message::Input(GuardInput::AgentGone));
        }
    }

    fn tell(&self, message: Message) {
        // Without the guard there is nobody left to tell; this thread is ended as well.
        let _ = self.news.send(message);
    }

    fn serve(&mut self, index: usize) -> Result<(), Closed> {
        let mut buffer = [0u8; 16 * 1024];
        let connection = &mut self.connections[index];
        connection.send()?;
        // What does not fit into the buffer can wait: others are to be heard too.
        match connection.stream.read(&mut buffer) {
            Ok(0) => return Err(Closed),
            Ok(count) => connection.frames.push(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Err(Closed),
        }
        while let Some(message) = self.connections[index].frames.take::<ToGuard>() {
            self.hear(index, message)?;
        }
        Ok(())
    }

    fn hear(&mut self, index: usize, message: Result<ToGuard, FrameError>) -> Result<(), Closed> {
        match message {
            Ok(ToGuard::Hello { version }) => self.greet(index, &version),
            Ok(ToGuard::Order(order)) if self.connections[index].is_agent => {
                self.tell(Message::Input(GuardInput::Order(order)));
            }
            Ok(ToGuard::Order(_)) => tracing::debug!("an order of somebody who is not the agent any more"),
            Ok(ToGuard::End { reason }) => self.tell(Message::End(reason)),
            Err(error @ FrameError::Strange(_)) => tracing::warn!(%error, "skipped"),
            Err(error @ FrameError::TooLong { .. }) => {
                tracing::warn!(%error, "connection closed");
                return Err(Closed);
            }
        }
        Ok(())
    }

    fn greet(&mut self, index: usize, version: &str) {
        if std::mem::replace(&mut self.connections[index].is_agent, true) {
            return;
        }
        tracing::info!(version, "an agent has connected");
        for (other, connection) in self.connections.iter_mut().enumerate() {
            if other != index && connection.is_agent {
                // Removed when it is next served: both directions are shut.
                connection.is_agent = false;
                let _ = connection.stream.shutdown(std::net::Shutdown::Both);
                let _ = self.news.send(Message::Input(GuardInput::AgentGone));
            }
        }
        self.outbox.close();
        self.tell(Message::Input(GuardInput::AgentBack));
    }

    /// From the outbox to the agent's connection. An error: this thread is to end.
    fn pass_on(&mut self) -> Result<(), Closed> {
        let (frames, is_overfull) = {
            let mut waiting = self.outbox.lock();
            if waiting.is_ended {
                return Err(Closed);
            }
            waiting.bytes = 0;
            (std::mem::take(&mut waiting.frames), std::mem::take(&mut waiting.is_overfull))
        };
        let Some(index) = self.connections.iter().position(|connection| connection.is_agent) else {
            return Ok(());
        };
        let connection = &mut self.connections[index];
        frames.iter().for_each(|bytes| connection.to_send.extend_from_slice(bytes));
        let is_slow = is_overfull || connection.to_send.len() > WAITING_MAX;
        if is_slow {
            tracing::warn!("the agent does not read: its connection is closed");
        }
        if is_slow || connection.send().is_err() {
            self.remove(index);
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self) -> Result<(), Closed> {
        while !self.to_send.is_empty() {
            match self.stream.write(&self.to_send) {
                Ok(0) => return Err(Closed),
                Ok(count) => drop(self.to_send.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
        Ok(())
    }
}
