//! `mainstay hook`: what libvirt's hook script asks before a VM starts here or comes here by live migration.
//!
//! Only a refusal by the cluster keeps a VM from starting. Whatever else happens (no agent, no answer in time, a version that
//! does not know the question, arguments that nobody understands) the VM may start: it must not need Mainstay to be well.
//! Stdout stays empty: at a migration libvirt would take it for a changed domain XML.
//!
//! Everything happens on a thread that is left behind when [`PATIENCE`] is over: whoever started us may never end their XML.

use crate::exit::Exit;
use mainstay_api::Done;
use mainstay_client::{Client, ClientError};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// A start waits no longer than this for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A domain XML is never larger than this.
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
    let answer = receiver.recv_timeout(patience);
    let mut say = |text: &str| {
        // That stderr is closed keeps nobody from starting anything.
        let _ = writeln!(err, "{text}");
    };
    match answer {
        Ok(Err(ClientError::Refused { status: REFUSED, error })) => {
            say(&format!("Mainstay refuses: {}", crate::words::clean(&error)));
            Exit::Failed
        }
        Ok(Ok(Done { message })) if !message.is_empty() => {
            say(&format!("Mainstay warns: {}", crate::words::clean(&message)));
            Exit::Ok
        }
        Ok(Ok(_) | Err(_)) | Err(_) => Exit::Ok,
    }
}

fn ask(socket: &Path, operation: &str, xml: impl Read) -> Result<Done, ClientError> {
    let mut body = Vec::new();
    let read = xml.take(TEXT_MAX).read_to_end(&mut body);
    read.map_err(|error| ClientError::Broken(error.to_string()))?;
    Client::new(socket).post_body(&format!("/v1/hook?operation={operation}"), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    const LONG: Duration = Duration::from_secs(60);

    /// Answers one request with these bytes; gives head and body of the request.
    fn agent(socket: &Path, answer: &'static str) -> JoinHandle<(String, String)> {
        let listener = UnixListener::bind(socket).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).expect("a request");
            }
            let length =
                head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length");
            let mut body = vec![0; length.parse().expect("a number")];
            reader.read_exact(&mut body).expect("a body");
            stream.write_all(answer.as_bytes()).expect("sent");
            (head, String::from_utf8(body).expect("UTF-8"))
        })
    }

    fn arguments(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn hook(socket: &Path, line: &str, xml: &'static str) -> (Exit, String) {
        let mut err = Vec::new();
        let exit = run(&arguments(line), socket, xml.as_bytes(), LONG, &mut err);
        (exit, String::from_utf8(err).expect("UTF-8"))
    }

    #[test]
    fn a_refusal_keeps_the_vm_from_starting_and_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        let agent = agent(
            &socket,
            "HTTP/1.0 409 Conflict\r\ncontent-type: application/json\r\n\r\n{\"error\":\"h1 is in maintenance mode\"}",
        );
        let answer = hook(&socket, "web prepare begin -", "<domain>ä</domain>");
        assert_eq!(answer, (Exit::Failed, "Mainstay refuses: h1 is in maintenance mode\n".to_owned()));
        let (head, body) = agent.join().expect("the agent");
        assert!(head.starts_with("POST /v1/hook?operation=prepare HTTP/1.0\r\n"), "{head}");
        assert_eq!(body, "<domain>ä</domain>");
    }

    #[test]
    fn a_warning_is_told_and_the_vm_may_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        let agent = agent(
            &socket,
            "HTTP/1.1 200 OK\r\n\r\n{\"message\":\"if h2 fails, web\\u001b does not come back\"}",
        );
        let answer = hook(&socket, "web migrate begin -", "");
        let warning = "Mainstay warns: if h2 fails, web\\u{1b} does not come back\n".to_owned();
        assert_eq!(answer, (Exit::Ok, warning));
        assert!(agent.join().expect("the agent").0.starts_with("POST /v1/hook?operation=migrate "));
    }

    #[test]
    fn whatever_else_is_answered_the_vm_may_start_in_silence() {
        for answer in [
            "HTTP/1.0 200 OK\r\n\r\n{\"message\":\"\"}",
            "HTTP/1.0 404 Not Found\r\n\r\n{\"error\":\"there is nothing at /v1/hook\"}",
            "HTTP/1.0 500 X\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nno JSON",
            "rubbish",
            "",
        ] {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = folder.path().join("agent.sock");
            let agent = agent(&socket, answer);
            assert_eq!(
                hook(&socket, "web prepare begin -", "<domain/>"),
                (Exit::Ok, String::new()),
                "{answer}"
            );
            agent.join().expect("the agent");
        }
    }

    #[test]
    fn without_an_agent_the_vm_may_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        assert_eq!(hook(&socket, "web prepare begin -", "<domain/>"), (Exit::Ok, String::new()));
    }

    #[test]
    fn an_agent_that_is_silent_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        // Connections are made, and never accepted.
        let _listener = UnixListener::bind(&socket).expect("a socket");
        let mut err = Vec::new();
        let patience = Duration::from_millis(50);
        let exit = run(&arguments("web prepare begin -"), &socket, "".as_bytes(), patience, &mut err);
        assert_eq!((exit, err), (Exit::Ok, Vec::new()));
    }

    #[test]
    fn other_operations_ask_nobody() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        listener.set_nonblocking(true).expect("set");
        for line in
            ["web start begin -", "web stopped end -", "web prepare end -", "web release end -", "web", ""]
        {
            assert_eq!(hook(&socket, line, ""), (Exit::Ok, String::new()), "{line}");
        }
        assert_eq!(listener.accept().expect_err("nobody").kind(), io::ErrorKind::WouldBlock);
    }
}
