//! Asking an agent through its socket, without an HTTP library: HTTP/1.0, where an answer ends with the connection.
//!
//! The lab keeps apart from the agent's own client on purpose: it links nothing of what it tests but the types.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_api::EventRecord;
use serde::de::DeserializeOwned;

/// Why an agent's answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it broke.
    #[error("the agent at {socket} does not answer: {source}")]
    NoAnswer {
        /// The socket at which the agent was asked.
        socket: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The agent refused.
    #[error("the agent at {socket} refused {path}: {answer}")]
    Refused {
        /// The socket at which the agent was asked.
        socket: PathBuf,
        /// What was asked.
        path: String,
        /// What the agent answered instead.
        answer: String,
    },
    /// Not of this version.
    #[error(
        "the answer of the agent at {socket} can't be read ({reason}): build mainstay and mainstay-lab together"
    )]
    Unreadable {
        /// The socket at which the agent was asked.
        socket: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Sends a request and reads the answer's head; what follows is its body.
fn ask(socket: &Path, path: &str, patience: Duration) -> Result<BufReader<UnixStream>, ApiError> {
    let open = || -> std::io::Result<(String, BufReader<UnixStream>)> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: mainstay\r\n\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        Ok((status, reader))
    };
    let (status, mut reader) =
        open().map_err(|source| ApiError::NoAnswer { socket: socket.into(), source })?;
    if status.split(' ').nth(1) == Some("200") {
        return Ok(reader);
    }
    let mut answer = String::new();
    // Only for the message.
    let _ = reader.read_to_string(&mut answer);
    Err(ApiError::Refused { socket: socket.into(), path: path.into(), answer: format!("{status}{answer}") })
}

/// Asks the agent at that socket for `path`, and reads its answer as JSON.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, ApiError> {
    let mut body = String::new();
    ask(socket, path, Duration::from_secs(5))?
        .read_to_string(&mut body)
        .map_err(|source| ApiError::NoAnswer { socket: socket.into(), source })?;
    serde_json::from_str(&body)
        .map_err(|error| ApiError::Unreadable { socket: socket.into(), reason: error.to_string() })
}

/// Takes new events as they come, until `take` says no or the agent ends. `take` is also called now and then without one.
pub fn follow(socket: &Path, mut take: impl FnMut(Option<EventRecord>) -> bool) -> Result<(), ApiError> {
    let mut reader = ask(socket, "/v1/events?follow=true", Duration::from_millis(100))?;
    let mut line = Vec::new();
    loop {
        match reader.read_until(b'\n', &mut line) {
            Ok(0) => return Ok(()),
            Ok(_) if line.ends_with(b"\n") => {
                let record = serde_json::from_slice(&line)
                    .map_err(|e| ApiError::Unreadable { socket: socket.into(), reason: e.to_string() })?;
                line.clear();
                if !take(Some(record)) {
                    return Ok(());
                }
            }
            Ok(_) => {}
            // What was read of a line so far stays in it.
            Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                if !take(None) {
                    return Ok(());
                }
            }
            Err(source) => return Err(ApiError::NoAnswer { socket: socket.into(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answering(answer: &'static [u8]) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (dir, socket, served)
    }

    #[test]
    fn an_answer_is_what_follows_the_head() {
        let (_dir, socket, served) = answering(b"HTTP/1.0 200 OK\r\ncontent-type: x\r\n\r\n[1,\n2]");
        assert_eq!(get::<Vec<u32>>(&socket, "/v1/x").unwrap(), [1, 2]);
        assert!(served.join().unwrap().starts_with("GET /v1/x HTTP/1.0\r\n"));
    }

    #[test]
    fn a_refusal_is_told_with_the_agents_words() {
        let (_dir, socket, served) = answering(b"HTTP/1.0 503 No\r\n\r\n{\"error\":\"later\"}");
        let error = get::<Vec<u32>>(&socket, "/v1/x").unwrap_err().to_string();
        assert!(error.contains("503") && error.contains("later"), "{error}");
        served.join().unwrap();
    }

    #[test]
    fn no_agent_is_told() {
        let error = get::<Vec<u32>>(Path::new("/nonexistent/agent.sock"), "/").unwrap_err();
        assert!(matches!(error, ApiError::NoAnswer { .. }));
    }
}
