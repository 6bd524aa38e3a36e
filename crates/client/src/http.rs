//! HTTP/1.0 over a Unix socket: one request, one answer, then the connection ends. Such an answer is never sent in chunks.
//!
//! Invariant: with a deadline nothing here waits longer, neither for a connection nor for the last byte.

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A head has no more bytes than this; ours have some hundred.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    /// The host to whose agent it is to be passed on.
    pub(crate) host: Option<&'a str>,
    pub(crate) body: &'a [u8],
}

/// An answer whose head was read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Bytes of the body; `None`: it ends with the connection.
    length: Option<u64>,
    pub(crate) body: BufReader<Timed>,
}

/// A stream that is read until a point in time at most.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: UnixStream,
    deadline: Option<Instant>,
}

/// Connects, for as long as `patience` at most.
pub(crate) fn open(socket: &Path, patience: Option<Duration>) -> io::Result<Timed> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let address = SocketAddrUnix::new(socket)?;
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connecting waits too, when more callers are queued than the agent accepts.
    set_socket_timeout(&stream, Timeout::Send, patience)?;
    connect(&stream, &address)?;
    Ok(Timed { stream: stream.into(), deadline })
}

impl Timed {
    /// Sends a request and reads the head of its answer.
    pub(crate) fn ask(mut self, request: Request<'_>) -> io::Result<Answer> {
        let Request { method, target, host, body } = request;
        let mut head = format!("{method} {target} HTTP/1.0\r\nHost: mainstay\r\n");
        if let Some(host) = host {
            head.push_str(&format!("mainstay-host: {host}\r\n"));
        }
        if !body.is_empty() || method == "POST" {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(body)?;
        read_head(BufReader::new(self))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(buffer)
    }
}

impl Answer {
    /// The whole body.
    pub(crate) fn collect(mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        match self.length {
            None => self.body.read_to_end(&mut body)?,
            Some(length) => {
                let read = self.body.take(length).read_to_end(&mut body)?;
                if read as u64 != length {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends too early"));
                }
                read
            }
        };
        Ok(body)
    }
}

fn read_head(body: BufReader<Timed>) -> io::Result<Answer> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "this is no answer of an agent");
    let mut reader = body.take(HEAD_BYTES_MAX);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.trim().parse().ok());
    let status = status.ok_or_else(wrong)?;
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end_matches(['\r', '\n']) {
            "" if line.is_empty() => return Err(wrong()),
            "" => return Ok(Answer { status, length, body: reader.into_inner() }),
            header => {
                let length_of = |(name, value): (&str, &str)| {
                    name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
                };
                length = header.split_once(':').and_then(length_of).or(length);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_agent_that_is_silent_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        // Connections are made, and never accepted.
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let stream = open(&socket, Some(Duration::from_millis(50))).expect("a connection");
        let request = Request { method: "GET", target: "/v1/status", host: None, body: &[] };
        let kind = stream.ask(request).expect_err("no answer").kind();
        assert!(matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{kind}");
    }
}
