//! Runs tools of this machine (`ip`, `nft`, `virsh` …) with a limit on how long they may take.
//!
//! Their output goes to files in memory rather than pipes: a daemon that a tool leaves behind may hold on to the pipe,
//! and reading it to its end would then never end.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::error::{LabError, Result};

/// How long a tool may take when nothing else is said. Far above what any of them needs on a busy machine.
pub(crate) const TOOL_LIMIT: Duration = Duration::from_secs(30);

/// What a tool gave back.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether its exit status was 0.
    pub success: bool,
    /// How it ended, in words.
    pub status: String,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

fn memory_file() -> Result<File> {
    rustix::fs::memfd_create("lab-output", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .map_err(|e| LabError::Io { what: "create", path: "memfd".into(), source: e.into() })
}

fn contents(mut file: File) -> String {
    let mut bytes = Vec::new();
    // A memory file can't fail to be read; were it to, the output is merely missing from a message.
    let _ = file.rewind().and_then(|()| file.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).trim_end().to_string()
}

fn line(argv: &[impl AsRef<str>]) -> String {
    argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// Runs a tool and gives back whatever came out; an error only if it can't be started or does not end in time.
pub(crate) fn output(
    what: &str,
    argv: &[impl AsRef<str>],
    stdin: Option<&str>,
    limit: Duration,
) -> Result<Output> {
    let failed = |e: std::io::Error| LabError::Tool {
        what: what.into(),
        command: line(argv),
        status: "not started".into(),
        stderr: e.to_string(),
    };
    let (out, err) = (memory_file()?, memory_file()?);
    let input = match stdin {
        Some(text) => {
            let mut file = memory_file()?;
            file.write_all(text.as_bytes()).and_then(|()| file.rewind()).map_err(failed)?;
            Stdio::from(file)
        }
        None => Stdio::null(),
    };
    let mut child = Command::new(argv[0].as_ref())
        .args(argv[1..].iter().map(AsRef::as_ref))
        .stdin(input)
        .stdout(out.try_clone().map_err(failed)?)
        .stderr(err.try_clone().map_err(failed)?)
        // A group of its own: ctrl-C at the terminal is for us, and a tool that hangs is killed with its children.
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let Some(status) = wait(&mut child, limit).map_err(failed)? else {
        return Err(LabError::ToolTimeout { what: what.into(), command: line(argv), limit });
    };
    Ok(Output {
        success: status.success(),
        status: status.to_string(),
        stdout: contents(out),
        stderr: contents(err),
    })
}

/// Waits for the child up to the limit; then kills its whole group and says `None`.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(300);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            let group = Pid::from_raw(child.id().cast_signed());
            // It may have ended just now. Not waited for afterwards: in a hung file system it would never end.
            let _ = killpg(group, Signal::SIGKILL);
            std::thread::sleep(Duration::from_millis(20));
            let _ = child.try_wait();
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// Runs a tool that must succeed; gives back what it printed.
pub(crate) fn run(what: &str, argv: &[impl AsRef<str>]) -> Result<String> {
    run_with(what, argv, None, TOOL_LIMIT)
}

/// Runs a tool that must succeed, with text on its standard input.
pub(crate) fn run_with(
    what: &str,
    argv: &[impl AsRef<str>],
    stdin: Option<&str>,
    limit: Duration,
) -> Result<String> {
    let o = output(what, argv, stdin, limit)?;
    if o.success {
        return Ok(o.stdout);
    }
    let stderr = if o.stderr.is_empty() { o.stdout } else { o.stderr };
    Err(LabError::Tool { what: what.into(), command: line(argv), status: o.status, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_come_back() {
        let o =
            output("test", &["sh", "-c", "cat; echo bad >&2; exit 3"], Some("hello"), TOOL_LIMIT).unwrap();
        assert_eq!((o.success, o.stdout.as_str(), o.stderr.as_str()), (false, "hello", "bad"));
    }

    #[test]
    fn a_hanging_tool_is_killed_with_its_children() {
        let limit = Duration::from_millis(100);
        let r = run_with("test", &["sh", "-c", "sleep 60 & wait"], None, limit);
        assert!(matches!(r, Err(LabError::ToolTimeout { .. })), "{r:?}");
    }

    #[test]
    fn a_daemon_that_keeps_the_output_open_does_not_block() {
        let text = run("test", &["sh", "-c", "sleep 2 & echo started"]).unwrap();
        assert_eq!(text, "started");
    }

    #[test]
    fn failure_names_the_command_and_its_words() {
        let e = run("try", &["sh", "-c", "echo no such thing >&2; exit 1"]).unwrap_err().to_string();
        assert!(e.contains("no such thing") && e.contains("try"), "{e}");
    }
}
