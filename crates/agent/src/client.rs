//! The command line's side of the API: blocking calls to the agent of this host. No threads, no state.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use mainstay_api::{EventRecord, Problem};
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixStream;

/// How long an answer may take: more than the agent itself waits for the primary and the disks.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);
/// The same for what has to be worked out first: more than the agent itself waits.
const LONG_PATIENCE: Duration = Duration::from_secs(75);

/// Why the agent's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No agent.
    #[error("no agent runs here (nothing answers at {socket}): start it with \"systemctl start mainstay\" or \"mainstay agent --config FILE\"", socket = socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
    },
    /// Not allowed.
    #[error("{socket} may not be used by this user: run this as root", socket = socket.display())]
    NotAllowed {
        /// The socket.
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
        /// The socket.
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

    /// Asks.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), ANSWER_PATIENCE)
    }

    /// Asks for what takes the agent long to find out.
    pub fn get_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), LONG_PATIENCE)
    }

    /// Orders. The body is empty: everything is in the path.
    pub fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::POST, path, Bytes::new(), ANSWER_PATIENCE)
    }

    /// Orders, with a body: for `/v1/hook`, the domain XML.
    pub fn post_body<T: DeserializeOwned>(&self, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        self.call(Method::POST, path, body.into(), ANSWER_PATIENCE)
    }

    /// Takes events as they come, until `take` says false or the agent ends the connection.
    pub fn follow(&self, path: &str, mut take: impl FnMut(EventRecord) -> bool) -> Result<(), ClientError> {
        runtime()?.block_on(async {
            let mut response = self.send(Method::GET, path, Bytes::new()).await?;
            if !response.status().is_success() {
                let status = response.status().as_u16();
                return Err(refusal(status, &collect(response).await?));
            }
            let mut rest: Vec<u8> = Vec::new();
            while let Some(frame) = response.frame().await {
                let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
                rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    let record = serde_json::from_slice(&line)
                        .map_err(|error| ClientError::Unreadable(format!("an event: {error}")))?;
                    if !take(record) {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, ClientError> {
        let answer = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let body = collect(response).await?;
            if !status.is_success() {
                return Err(refusal(status.as_u16(), &body));
            }
            serde_json::from_slice(&body).map_err(|error| ClientError::Unreadable(error.to_string()))
        };
        runtime()?.block_on(async {
            let socket = self.socket.clone();
            tokio::time::timeout(patience, answer)
                .await
                .unwrap_or_else(|_| Err(ClientError::NoAnswer { socket, seconds: patience.as_secs() }))
        })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| ClientError::Broken(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the runtime, or when the answer is complete; its error also shows in the answer.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "mainstay");
        if let Some(host) = &self.host {
            request = request.header("mainstay-host", host);
        }
        let request = request.body(Full::new(body)).map_err(|error| ClientError::Refused {
            status: 400,
            error: format!("{path} can't be asked: {error}"),
        })?;
        sender.send_request(request).await.map_err(broken)
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoAgent { socket },
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => ClientError::Broken(error.to_string()),
        }
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body =
        response.into_body().collect().await.map_err(|error| ClientError::Broken(error.to_string()))?;
    Ok(body.to_bytes())
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    let error = serde_json::from_slice::<Problem>(body)
        .map_or_else(|_| format!("the agent refused with HTTP status {status}"), |problem| problem.error);
    ClientError::Refused { status, error }
}

fn runtime() -> Result<tokio::runtime::Runtime, ClientError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ClientError::Broken(format!("no event loop: {error}")))
}
