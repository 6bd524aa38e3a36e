//! The command line's side of the API: blocking calls to the agent of this host. No threads, no state, no event loop.
//!
//! What it does not do: understand what it carries. An order is written by the crate `api`; answers are its types.

mod http;

use http::{Answer, Request};
use mainstay_api::order::Order;
use mainstay_api::{Done, EventRecord, Problem};
use serde::de::DeserializeOwned;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long an answer may take: more than the agent itself waits for the primary and the disks.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// The same for what has to be worked out first: more than the agent itself waits.
const LONG_PATIENCE: Duration = Duration::from_secs(75);

/// Why the agent's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent listens at the socket.
    #[error("no agent runs here (nothing answers at {socket}): start it with \"systemctl start mainstay\" or \"mainstay agent --config FILE\"", socket = socket.display())]
    NoAgent {
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// This user may not use the socket.
    #[error("{socket} may not be used by this user: run this as root", socket = socket.display())]
    NotAllowed {
        /// The socket that was tried.
        socket: PathBuf,
    },
    /// The agent said no.
    #[error("{error}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The agent's words.
        error: String,
    },
    /// The agent does not answer.
    #[error("the agent at {socket} does not answer within {seconds} s: look at its log", socket = socket.display())]
    NoAnswer {
        /// The socket that was tried.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection to the agent broke: {0}; it may have been stopped, try again")]
    Broken(String),
    /// The answer makes no sense to this version.
    #[error("the agent's answer can't be read ({0}): agent and command line should be of the same version")]
    Unreadable(String),
}

/// Asks the agent of this host.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    host: Option<String>,
}

impl Client {
    /// A client for that socket.
    pub fn new(socket: impl Into<PathBuf>) -> Client {
        Client { socket: socket.into(), host: None }
    }

    /// Sends requests on to the agent of that host, by name or id.
    pub fn on_host(mut self, host: &str) -> Client {
        self.host = Some(host.into());
        self
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for `target` (path and query), and reads the answer.
    pub fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(self.request("GET", target, &[]), ANSWER_PATIENCE)
    }

    /// Asks for what takes the agent long to find out.
    pub fn get_patiently<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(self.request("GET", target, &[]), LONG_PATIENCE)
    }

    /// Gives an order.
    pub fn order(&self, order: &Order) -> Result<Done, ClientError> {
        self.post(&order.target())
    }

    /// Gives an order that is written already. The body is empty: everything is in the path.
    pub fn post<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        self.call(self.request("POST", target, &[]), ANSWER_PATIENCE)
    }

    /// Asks with a body: for `/v1/hook`, the domain XML.
    pub fn post_body<T: DeserializeOwned>(&self, target: &str, body: Vec<u8>) -> Result<T, ClientError> {
        self.call(self.request("POST", target, &body), ANSWER_PATIENCE)
    }

    /// Takes events as they come, until `take` says false or the agent ends the connection.
    pub fn follow(&self, target: &str, mut take: impl FnMut(EventRecord) -> bool) -> Result<(), ClientError> {
        let mut answer = self.send(self.request("GET", target, &[]), None)?;
        if !is_success(answer.status) {
            let status = answer.status;
            return Err(refusal(status, &answer.collect().map_err(broken)?));
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            answer.body.read_until(b'\n', &mut line).map_err(broken)?;
            // What the agent could not finish is no event.
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            let record = serde_json::from_slice(&line)
                .map_err(|error| ClientError::Unreadable(format!("an event: {error}")))?;
            if !take(record) {
                return Ok(());
            }
        }
    }

    fn request<'a>(&'a self, method: &'a str, target: &'a str, body: &'a [u8]) -> Request<'a> {
        Request { method, target, host: self.host.as_deref(), body }
    }

    fn call<T: DeserializeOwned>(&self, request: Request<'_>, patience: Duration) -> Result<T, ClientError> {
        let answer = self.send(request, Some(patience))?;
        let status = answer.status;
        let body = answer.collect().map_err(|error| self.failed(error, Some(patience)))?;
        if !is_success(status) {
            return Err(refusal(status, &body));
        }
        serde_json::from_slice(&body).map_err(|error| ClientError::Unreadable(error.to_string()))
    }

    fn send(&self, request: Request<'_>, patience: Option<Duration>) -> Result<Answer, ClientError> {
        check(request)?;
        let stream = http::open(&self.socket, patience).map_err(|error| self.unreachable(error, patience))?;
        stream.ask(request).map_err(|error| self.failed(error, patience))
    }

    fn unreachable(&self, error: io::Error, patience: Option<Duration>) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent { socket },
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => self.failed(error, patience),
        }
    }

    fn failed(&self, error: io::Error, patience: Option<Duration>) -> ClientError {
        match (error.kind(), patience) {
            (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, Some(patience)) => {
                ClientError::NoAnswer { socket: self.socket.clone(), seconds: patience.as_secs() }
            }
            _ => broken(error),
        }
    }
}

/// Refuses what would make another request of it.
fn check(request: Request<'_>) -> Result<(), ClientError> {
    let Request { target, host, .. } = request;
    let error = match host.filter(|host| host.chars().any(char::is_control)) {
        Some(host) => format!("there is no host {}: a name has no control characters", host.escape_debug()),
        None if target.bytes().all(|byte| byte.is_ascii_graphic()) => return Ok(()),
        None => format!("{} can't be asked: percent-encode it", target.escape_debug()),
    };
    Err(ClientError::Refused { status: 400, error })
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

fn broken(error: io::Error) -> ClientError {
    ClientError::Broken(error.to_string())
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice::<Problem>(body)
        .map_or_else(|_| format!("the agent refused with HTTP status {status}"), |problem| problem.error);
    ClientError::Refused { status, error }
}
