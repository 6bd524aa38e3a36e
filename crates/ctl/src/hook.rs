//! `mainstay hook`: what libvirt's hook script asks before a VM starts here or comes here by live migration.
//!
//! Only a refusal by the cluster keeps a VM from starting. Whatever else happens (no agent, no answer in time, a version that
//! does not know the question, arguments that nobody understands) the VM may start: it must not need Mainstay to be well.
//! One exception: in the first minutes of a boot a VM that is known to be protected waits for the agent ([`FirstMinutes`], R39), or
//! libvirt's autostart would start what runs elsewhere by then.
//! Stdout stays empty: at a migration libvirt would take it for a changed domain XML.
//!
//! Everything happens on a thread that is left behind when [`PATIENCE`] is over: whoever started us may never end their XML.

use crate::exit::Exit;
use mainstay_agent::first_minutes::FirstMinutes;
use mainstay_api::Done;
use mainstay_client::{Client, ClientError};
use mainstay_core::ids::VmId;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A start waits no longer than this for an answer.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A domain XML is never larger than this.
const TEXT_MAX: u64 = 16 << 20;

/// The HTTP status of a refusal.
const REFUSED: u16 = 409;

/// What is there to ask.
pub struct Here<'a> {
    /// The agent's socket.
    pub socket: &'a Path,
    /// What is known without an agent.
    pub first_minutes: &'a FirstMinutes,
}

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
    here: &Here<'_>,
    xml: impl Read + Send + 'static,
    patience: Duration,
    err: &mut dyn Write,
) -> Exit {
    let Some(operation) = operation(arguments) else { return Exit::Ok };
    let (sender, receiver) = mpsc::channel();
    let socket = here.socket.to_owned();
    let asking = move || {
        // Nobody listens any more when the time is over.
        let tell = |said: Said| drop(sender.send(said));
        let mut body = Vec::new();
        if xml.take(TEXT_MAX).read_to_end(&mut body).is_ok() {
            tell(Said::Vm(uuid_in(&body)));
            tell(Said::Answer(ask(&socket, operation, body)));
        }
    };
    if std::thread::Builder::new().name("hook".to_owned()).spawn(asking).is_err() {
        return Exit::Ok;
    }
    let deadline = Instant::now() + patience;
    let (mut vm, mut answer) = (None, None);
    while answer.is_none()
        && let Ok(said) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        match said {
            Said::Vm(found) => vm = found,
            Said::Answer(result) => answer = Some(result),
        }
    }
    let mut say = |text: &str| {
        // That stderr is closed keeps nobody from starting anything.
        let _ = writeln!(err, "{text}");
    };
    match answer {
        Some(Err(ClientError::Refused { status: REFUSED, error })) => {
            say(&format!("Mainstay refuses: {}", crate::words::clean(&error)));
            Exit::Failed
        }
        Some(Ok(Done { message })) if !message.is_empty() => {
            say(&format!("Mainstay warns: {}", crate::words::clean(&message)));
            Exit::Ok
        }
        Some(Ok(_)) => Exit::Ok,
        Some(Err(_)) | None => {
            // What announces a live migration starts nothing yet.
            let kept = vm.filter(|_| operation == "prepare").and_then(|vm| here.first_minutes.refuses(vm));
            let Some(kept) = kept else { return Exit::Ok };
            let remedy =
                "Start the agent (systemctl start mainstay): Mainstay then starts the VM where it belongs";
            let words = here.first_minutes.words(&kept, "this host's agent does not answer", remedy);
            say(&format!("Mainstay refuses: {}", crate::words::clean(&words)));
            Exit::Failed
        }
    }
}

/// What the thread that asks has to say.
enum Said {
    /// The VM that it is about, if its XML tells.
    Vm(Option<VmId>),
    Answer(Result<Done, ClientError>),
}

fn ask(socket: &Path, operation: &str, body: Vec<u8>) -> Result<Done, ClientError> {
    Client::new(socket).post_body(&format!("/v1/hook?operation={operation}"), body)
}

/// The UUID in a domain's XML as libvirt writes it: before everything that a user may fill with text.
fn uuid_in(xml: &[u8]) -> Option<VmId> {
    let text = std::str::from_utf8(xml).ok()?;
    let (_, rest) = text.split_once("<uuid>")?;
    VmId::parse(rest.split_once("</uuid>")?.0.trim())
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

    /// A host that has been up for so many seconds and remembers a protected VM.
    fn up_for(folder: &Path, seconds: u32) -> FirstMinutes {
        let kept = format!("{{\"vm\":\"{WEB}\",\"name\":\"web\",\"datastore\":\"ds1\",\"protected\":true}}");
        std::fs::write(folder.join("protected-vms.json"), format!("{{\"vms\":[{kept}]}}")).expect("written");
        std::fs::write(folder.join("uptime"), format!("{seconds}.25 7.00\n")).expect("written");
        let (state_dir, runtime_dir) = (folder.to_owned(), folder.to_owned());
        FirstMinutes { state_dir, runtime_dir, uptime: folder.join("uptime") }
    }

    const WEB: &str = "11111111-2222-3333-4444-555555555555";

    /// The XML of a VM with that UUID.
    fn xml_of(uuid: &str) -> &'static str {
        format!("<domain type='kvm'>\n  <name>web</name>\n  <uuid>{uuid}</uuid>\n</domain>").leak()
    }

    fn hook(socket: &Path, line: &str, xml: &'static str) -> (Exit, String) {
        let folder = socket.parent().expect("a folder");
        hook_at(socket, &up_for(folder, 3_600), line, xml)
    }

    fn hook_at(socket: &Path, first: &FirstMinutes, line: &str, xml: &'static str) -> (Exit, String) {
        hook_within(LONG, &Here { socket, first_minutes: first }, line, xml)
    }

    fn hook_within(patience: Duration, here: &Here<'_>, line: &str, xml: &'static str) -> (Exit, String) {
        let mut err = Vec::new();
        let exit = run(&arguments(line), here, xml.as_bytes(), patience, &mut err);
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
        let ask = |patience, first: &FirstMinutes| {
            let here = Here { socket: &socket, first_minutes: first };
            hook_within(patience, &here, "web prepare begin -", xml_of(WEB))
        };
        let said = ask(Duration::from_millis(50), &up_for(folder.path(), 3_600));
        assert_eq!(said, (Exit::Ok, String::new()));
        // Long enough to read what is at hand.
        let (exit, said) = ask(Duration::from_secs(2), &up_for(folder.path(), 30));
        assert_eq!(exit, Exit::Failed, "{said}");
    }

    #[test]
    fn in_the_first_minutes_of_a_boot_a_protected_vm_waits_for_the_agent() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        let run = folder.path().display().to_string();
        let (exit, said) = hook_at(&socket, &up_for(folder.path(), 30), "web prepare begin -", xml_of(WEB));
        let expected = format!(
            "Mainstay refuses: web is protected and may run on another host, and this host's agent does not answer. In the \
             first 5 minutes after a boot it is not started then. Start the agent (systemctl start mainstay): Mainstay then \
             starts the VM where it belongs. If you are sure that it runs nowhere else: mkdir -p {run} && touch \
             {run}/start-anyway, and start it again\n"
        );
        assert_eq!((exit, said), (Exit::Failed, expected));
        let allowed = (Exit::Ok, String::new());
        let young = up_for(folder.path(), 299);
        let other = xml_of("99999999-2222-3333-4444-555555555555");
        assert_eq!(hook_at(&socket, &young, "other prepare begin -", other), allowed, "nobody protects it");
        assert_eq!(
            hook_at(&socket, &young, "web migrate begin -", xml_of(WEB)),
            allowed,
            "it starts nothing"
        );
        assert_eq!(
            hook_at(&socket, &young, "web prepare begin -", "<domain/>"),
            allowed,
            "nobody knows which VM"
        );
        let old = up_for(folder.path(), 301);
        assert_eq!(
            hook_at(&socket, &old, "web prepare begin -", xml_of(WEB)),
            allowed,
            "Mainstay is down for longer"
        );
        // An agent that answers knows better.
        let young = up_for(folder.path(), 299);
        let agent = agent(&socket, "HTTP/1.1 200 OK\r\n\r\n{\"message\":\"\"}");
        assert_eq!(hook_at(&socket, &young, "web prepare begin -", xml_of(WEB)), allowed);
        agent.join().expect("the agent");
        std::fs::remove_file(&socket).expect("removed");
        std::fs::write(folder.path().join("start-anyway"), "").expect("touched");
        assert_eq!(
            hook_at(&socket, &young, "web prepare begin -", xml_of(WEB)),
            allowed,
            "somebody wants it"
        );
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
