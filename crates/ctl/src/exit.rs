//! Exit codes and failures: what a script may rely on, and how each failure is told to a person.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// The exit codes, as documented in `mainstay help` and docs/cli.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for was done.
    Ok,
    /// The request was refused or failed.
    Failed,
    /// The command line was wrong.
    Usage,
    /// No agent could be reached.
    NoAgent,
    /// The cluster answered, and something in it is not as it should be (`status --check`), or not every host and datastore
    /// honours the suspension that was ordered (`suspend`).
    Degraded,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoAgent => 3,
            Exit::Degraded => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// The text about exit codes in `mainstay help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  the request was refused, or it failed
  2  the command line is wrong
  3  no agent can be reached
  4  `mainstay status --check`: the cluster answered, but an alarm stands, a host is not connected, or there is no primary or no guard;
     `mainstay suspend`: protection is suspended, but not every host honours it on every datastore: pull no cable there

Data goes to stdout, messages go to stderr.";

/// Why a command did not do what it was asked to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The agent's socket does not answer.
    #[error("no agent answers on {}: {reason}", socket.display())]
    NoAgent {
        /// The socket that was tried.
        socket: PathBuf,
        /// Why nothing answers, in words for people.
        reason: &'static str,
        /// What to do.
        hint: String,
    },
    /// The agent refused; its text says what to do.
    #[error("{0}")]
    Refused(String),
    /// Arguments that do not fit together; the text says which would.
    #[error("{0}")]
    Usage(String),
    /// An argument names something that isn't there.
    #[error("there is no {what} named '{name}'")]
    Unknown {
        /// The kind of thing.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The agent's answer could not be understood.
    #[error("the agent's answer to {request} could not be understood: {reason}")]
    Answer {
        /// What was asked.
        request: String,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A file on this machine can't be used.
    #[error("{object} can't be used: {reason}")]
    Local {
        /// The file or folder.
        object: String,
        /// Why it could not be read, in words for people.
        reason: String,
    },
    /// Stdout could not be written.
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The exit code that goes with it.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::NoAgent { .. } => Exit::NoAgent,
            Failure::Usage(_) => Exit::Usage,
            // A reader that has seen enough (`mainstay events | head -1`) is no failure.
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Failure::Refused(_)
            | Failure::Unknown { .. }
            | Failure::Answer { .. }
            | Failure::Local { .. }
            | Failure::Output(_) => Exit::Failed,
        }
    }

    /// What to do about it, when the message itself doesn't say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Failure::NoAgent { hint, .. } => Some(hint.clone()),
            Failure::Unknown { what, known, .. } if known.is_empty() => {
                Some(format!("there is no {what} at all yet"))
            }
            Failure::Unknown { known, .. } => Some(format!("known are: {}", known.join(", "))),
            Failure::Answer { .. } => Some(
                "agent and command line may be of different versions; compare `mainstay --version` on both"
                    .to_owned(),
            ),
            Failure::Refused(_) | Failure::Usage(_) | Failure::Local { .. } | Failure::Output(_) => None,
        }
    }

    /// Whether it is to be passed over in silence.
    pub fn is_quiet(&self) -> bool {
        match self {
            Failure::Output(error) => error.kind() == io::ErrorKind::BrokenPipe,
            Failure::NoAgent { .. }
            | Failure::Refused(_)
            | Failure::Usage(_)
            | Failure::Unknown { .. }
            | Failure::Answer { .. }
            | Failure::Local { .. } => false,
        }
    }
}
