//! `mainstay hook`: what libvirt's hook script asks before a VM starts here or comes here by live migration.
//!
//! Only a refusal by the cluster keeps a VM from starting. Whatever else happens (no agent, no answer in time, a version that
//! does not know the question, arguments that nobody understands) the VM may start: it must not need Mainstay to be well.
//! Stdout stays empty: at a migration libvirt would take it for a changed domain XML.
//!
//! Why not the client of the agent's library: it sends no bodies, and a start must wait no longer than [`PATIENCE`] in all, also
//! for a socket that nobody accepts from. So everything happens on a thread that is left behind when the time is over.

use crate::exit::Exit;
use mainstay_api::{Done, Problem};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// A start waits no longer than this for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A domain XML is never larger than this; nor is an answer.
const TEXT_MAX: u64 = 16 << 20;

/// The HTTP status of a refusal.
const REFUSED: u16 = 409;

/// What libvirt is about to do, as far as it has to be asked about.
fn operation(arguments: &[OsString]) -> Option<&'static str> {
    match (arguments.get(1)?.to_str()?, arguments.get(2)?.to_str()?) {
        ("prepare", "begin") => Some("prepare"),
        ("migrate", "begin") => Some("migrate"),
        _ => None,
    }
}

/// Answers the hook script: [`Exit::Failed`] keeps the VM from starting.
pub fn run(
    arguments: &[OsString],
    socket: &Path,
    xml: impl Read + Send + 'static,
    patience: Duration,
    err: &mut dyn Write,
) -> Exit {
    let Some(operation) = operation(arguments) else { return Exit::Ok };
    let (sender, receiver) = mpsc::channel();
    let socket = socket.to_owned();
    let asking = move || {
        // Nobody listens any more when the time is over.
        let _ = sender.send(ask(&socket, operation, xml));
    };
    if std::thread::Builder::new().name("hook".to_owned()).spawn(asking).is_err() {
        return Exit::Ok;
    }
    let answer = receiver.recv_timeout(patience).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let mut say = |text: &str| {
        // That stderr is closed keeps nobody from starting anything.
        let _ = writeln!(err, "{text}");
    };
    match answer {
        Ok((REFUSED, body)) => {
            let said = serde_json::from_slice::<Problem>(&body).map(|problem| problem.error);
            let said = said.unwrap_or_else(|_| "the cluster refuses this start".to_owned());
            say(&format!("Mainstay refuses: {}", crate::words::clean(&said)));
            Exit::Failed
        }
        Ok((_, body)) => {
            let warning = serde_json::from_slice::<Done>(&body).map(|done| done.message).unwrap_or_default();
            if !warning.is_empty() {
                say(&format!("Mainstay warns: {}", crate::words::clean(&warning)));
            }
            Exit::Ok
        }
        Err(_) => Exit::Ok,
    }
}

/// Asks the agent: HTTP status and body.
fn ask(socket: &Path, operation: &str, xml: impl Read) -> io::Result<(u16, Vec<u8>)> {
    let mut body = Vec::new();
    xml.take(TEXT_MAX).read_to_end(&mut body)?;
    let mut stream = UnixStream::connect(socket)?;
    // HTTP/1.0: the answer ends with the connection, and is never sent in chunks.
    let head = format!(
        "POST /v1/hook?operation={operation} HTTP/1.0\r\nHost: mainstay\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.take(TEXT_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Status and body of an answer.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    const BLANK_LINE: &[u8] = b"\r\n\r\n";
    let end = answer.windows(BLANK_LINE.len()).position(|bytes| bytes == BLANK_LINE)?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.lines().next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer[end + BLANK_LINE.len()..].to_vec()))
}
