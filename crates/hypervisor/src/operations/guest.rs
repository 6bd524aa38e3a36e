//! What is asked of a guest's agent, by way of libvirt.
//!
//! Why not over the agent's socket: libvirt holds it.
//!
//! What the agent says comes out of the guest, so from anybody: replies are read as JSON of a fixed form, nothing of them is
//! kept but numbers, and everything has an end.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use virt_sys as sys;

use super::Act;
use crate::error::OpError;
use crate::event::{GuestAnswer, GuestExit, OpOutput};

/// How long a guest's agent may take to answer. libvirt counts in whole seconds, and first synchronises with the agent, for
/// which it has a time-out of its own; so the actor counts as well.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// For opening a connection on a busy host.
pub(crate) const SLACK: Duration = Duration::from_millis(500);

/// The answers to the last question about a command are waited for beyond its own time.
pub(crate) const COMMAND_SLACK: Duration = Duration::from_secs(15);

/// Seconds for one answer while a command is waited for.
const ANSWER_SECONDS: i32 = 5;

/// Between two questions about a command: first, and at most.
const ASK_AGAIN_FIRST: Duration = Duration::from_millis(50);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(1);

impl Act<'_> {
    pub(super) fn guest_ping(&self) -> Result<OpOutput, OpError> {
        let seconds = i32::try_from(PING_TIMEOUT.as_secs()).unwrap_or(i32::MAX);
        let answer = match self.ask(&json!({"execute": "guest-ping"}), seconds) {
            // An error is an answer, too.
            Ok(_) | Err(Unanswered::Refused(_)) => GuestAnswer::Answers,
            Err(Unanswered::NoChannel(_)) => GuestAnswer::NoChannel,
            Err(Unanswered::Silent(_)) => GuestAnswer::Silent,
            Err(Unanswered::Failed(error)) => return Err(error),
        };
        Ok(OpOutput::Guest(answer))
    }

    pub(super) fn guest_command(
        &self,
        path: &str,
        args: &[String],
        timeout: Duration,
    ) -> Result<OpOutput, OpError> {
        let begun = Instant::now();
        let command = json!({"execute": "guest-exec", "arguments": {"path": path, "arg": args, "capture-output": false}});
        let started = self.ask(&command, ANSWER_SECONDS)?;
        let pid = started.pointer("/return/pid").and_then(Value::as_i64).ok_or_else(|| strange(&started))?;
        let question = json!({"execute": "guest-exec-status", "arguments": {"pid": pid}});
        let mut pause = ASK_AGAIN_FIRST;
        loop {
            self.ticket.check()?;
            let status = self.ask(&question, ANSWER_SECONDS)?;
            if let Some(exit) = exit_of(&status)? {
                return Ok(OpOutput::GuestEnded(exit));
            }
            let Some(left) = timeout.checked_sub(begun.elapsed()) else {
                return Ok(OpOutput::GuestEnded(GuestExit::StillRuns));
            };
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(ASK_AGAIN_MAX);
        }
    }

    fn ask(&self, command: &Value, seconds: i32) -> Result<Value, Unanswered> {
        let (handle, _) = self.look()?;
        let reply = handle.qemu_agent_command(&command.to_string(), seconds, 0).map_err(|error| {
            let failure = self.connection.failure(&error);
            if failure.connection_lost {
                return Unanswered::Failed(self.refused(failure));
            }
            match failure.code {
                sys::VIR_ERR_ARGUMENT_UNSUPPORTED => Unanswered::NoChannel(failure.message),
                sys::VIR_ERR_AGENT_UNRESPONSIVE
                | sys::VIR_ERR_AGENT_UNSYNCED
                | sys::VIR_ERR_AGENT_COMMAND_TIMEOUT
                // libvirt could not get its turn: an earlier question is still unanswered.
                | sys::VIR_ERR_OPERATION_TIMEOUT => Unanswered::Silent(failure.message),
                sys::VIR_ERR_AGENT_COMMAND_FAILED => Unanswered::Refused(failure.message),
                // In libvirt 9.0 most of the agent's errors have no code of their own yet.
                sys::VIR_ERR_INTERNAL_ERROR if failure.message.contains("execute QEMU agent command") => {
                    Unanswered::Refused(failure.message)
                }
                _ => Unanswered::Failed(self.refused(failure)),
            }
        })?;
        serde_json::from_str(&reply).map_err(|_| Unanswered::Failed(strange(&Value::String(reply))))
    }
}

/// Why a question has no answer.
enum Unanswered {
    NoChannel(String),
    Silent(String),
    Refused(String),
    Failed(OpError),
}

impl From<OpError> for Unanswered {
    fn from(error: OpError) -> Unanswered {
        Unanswered::Failed(error)
    }
}

impl From<Unanswered> for OpError {
    fn from(unanswered: Unanswered) -> OpError {
        match unanswered {
            Unanswered::NoChannel(message) | Unanswered::Silent(message) => OpError::NoGuestAgent { message },
            Unanswered::Refused(message) => OpError::GuestRefused { message },
            Unanswered::Failed(error) => error,
        }
    }
}

/// `None`: it runs on.
fn exit_of(status: &Value) -> Result<Option<GuestExit>, OpError> {
    let of = |name: &str| status.pointer("/return").and_then(|answer| answer.get(name));
    let number = |name: &str| of(name).and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
    match of("exited").and_then(Value::as_bool) {
        Some(false) => Ok(None),
        Some(true) => match (number("signal"), number("exitcode")) {
            (Some(signal), _) => Ok(Some(GuestExit::Signal(signal))),
            (None, Some(code)) => Ok(Some(GuestExit::Code(code))),
            (None, None) => Err(strange(status)),
        },
        None => Err(strange(status)),
    }
}

fn strange(answer: &Value) -> OpError {
    let answer: String = answer.to_string().chars().take(100).collect();
    OpError::GuestRefused { message: format!("an answer that cannot be understood: {answer}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_of_a_command_is_read_and_nonsense_refused() {
        let exit = |answer: Value| exit_of(&json!({ "return": answer }));
        assert_eq!(exit(json!({"exited": false})), Ok(None));
        assert_eq!(exit(json!({"exited": true, "exitcode": 3})), Ok(Some(GuestExit::Code(3))));
        assert_eq!(exit(json!({"exited": true, "signal": 9})), Ok(Some(GuestExit::Signal(9))));
        for nonsense in [
            json!({}),
            json!(7),
            json!({"exited": 1}),
            json!({"exited": true}),
            json!({"exited": true, "exitcode": 1u64 << 40}),
        ] {
            assert!(matches!(exit(nonsense), Err(OpError::GuestRefused { .. })));
        }
        assert!(strange(&Value::String("x".repeat(10_000))).to_string().len() < 400);
    }
}
