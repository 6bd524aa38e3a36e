//! Orders about one VM: protection, isolation response, restart priority, readiness.

use super::seconds;
use crate::query::{Query, Target, Wrong, value};
use crate::words::Word;
use mainstay_words::Span;
use mainstay_words::register::{IsolationResponse, Priority};
use mainstay_words::settings::{READY_TIMEOUT, Readiness, ReadyWhen};
use std::sync::Arc;

/// The longest shutdown time-out, in seconds: a day. Longer ones are mistaken units.
pub const SHUTDOWN_TIMEOUT_MAX: u64 = 86_400;
/// A day, in seconds: longer waits are mistaken units.
const WAIT_SECONDS_MAX: u64 = 86_400;
/// Commands are kept on every datastore.
const COMMAND_BYTES_MAX: usize = 256;
/// The word for "as the cluster's configuration, or the VM's domain XML, says".
const DEFAULT: &str = "default";

/// What is ordered about a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmOrder {
    /// Take it into protection.
    Protect,
    /// Take it out of protection.
    Unprotect,
    /// Set what is done with it when its host is isolated.
    SetIsolation {
        /// What an isolated host does with it.
        response: Setting<IsolationResponse>,
        /// How long its guest may then take to shut down.
        shutdown_timeout: Setting<Span>,
    },
    /// Set its restart priority; `None`: as its domain XML says.
    SetPriority(Option<Priority>),
    /// Set when the VMs that wait for it may start; `None`: the default.
    SetReadiness(Option<Readiness>),
}

/// What becomes of one setting of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// What was set before stays.
    #[default]
    Keep,
    /// The VM has none of its own any more.
    ClusterDefault,
    /// The VM has this one.
    To(T),
}

impl<T> Setting<T> {
    /// The VM's own value afterwards; `present`: the one before.
    pub fn over(self, present: Option<T>) -> Option<T> {
        match self {
            Setting::Keep => present,
            Setting::ClusterDefault => None,
            Setting::To(value) => Some(value),
        }
    }

    /// Its word in a query; `None`: the parameter is left out.
    fn word(self, of: impl FnOnce(T) -> String) -> Option<String> {
        match self {
            Setting::Keep => None,
            Setting::ClusterDefault => Some(DEFAULT.to_owned()),
            Setting::To(value) => Some(of(value)),
        }
    }
}

impl Setting<IsolationResponse> {
    /// Reads the user's word for a response; the error says which there are.
    pub fn parse_response(text: &str) -> Result<Self, String> {
        if text == DEFAULT {
            return Ok(Setting::ClusterDefault);
        }
        IsolationResponse::parse(text).map(Setting::To).ok_or_else(|| {
            format!("there is no isolation response \"{text}\": use leave, shutdown, power-off or default")
        })
    }
}

impl Setting<Span> {
    /// Reads a time-out in seconds; the error says what is possible.
    pub fn parse_shutdown_timeout(text: &str) -> Result<Self, String> {
        if text == DEFAULT {
            return Ok(Setting::ClusterDefault);
        }
        let seconds = text.parse().ok().filter(|seconds| (1..=SHUTDOWN_TIMEOUT_MAX).contains(seconds));
        seconds.map(|seconds| Setting::To(Span::from_secs(seconds))).ok_or_else(|| {
            format!(
                "a shutdown time-out of \"{text}\" is not possible: use 1 to {SHUTDOWN_TIMEOUT_MAX} seconds, or default; for powering off at once, set the response to power-off"
            )
        })
    }
}

impl VmOrder {
    /// Reads what stands behind the VM's name. `None`: there is no such path.
    pub(super) fn parse(verb: &str, query: &str) -> Option<Result<VmOrder, Wrong>> {
        Some(match verb {
            "protect" => Ok(VmOrder::Protect),
            "unprotect" => Ok(VmOrder::Unprotect),
            "isolation" => isolation(query),
            "priority" => priority(query).map(VmOrder::SetPriority),
            "ready" => readiness(query).map(VmOrder::SetReadiness),
            _ => return None,
        })
    }

    /// Writes it behind the VM's name.
    pub(super) fn write(&self, vm: Target) -> Target {
        match self {
            VmOrder::Protect => vm.then("protect"),
            VmOrder::Unprotect => vm.then("unprotect"),
            VmOrder::SetIsolation { response, shutdown_timeout } => {
                let response = response.word(|response| response.word().to_owned());
                let timeout = shutdown_timeout.word(|timeout| seconds(timeout).to_string());
                vm.then("isolation").with_some("response", response).with_some("shutdown_timeout", timeout)
            }
            VmOrder::SetPriority(priority) => {
                vm.then("priority").with("priority", priority.map_or(DEFAULT, Priority::word))
            }
            VmOrder::SetReadiness(None) => vm.then("ready").with("when", DEFAULT),
            VmOrder::SetReadiness(Some(Readiness { when, command, delay, timeout })) => vm
                .then("ready")
                .with("when", when.word())
                .with_some("command", command.as_deref())
                .with("delay", seconds(*delay))
                .with("timeout", seconds(*timeout)),
        }
    }
}

fn isolation(query: &str) -> Result<VmOrder, Wrong> {
    let response = value(query, "response").map(Setting::parse_response);
    let timeout = value(query, "shutdown_timeout").map(Setting::parse_shutdown_timeout);
    if response.is_none() && timeout.is_none() {
        return Err(Wrong::value("nothing is to be set: add response=shutdown or shutdown_timeout=120, say"));
    }
    Ok(VmOrder::SetIsolation {
        response: response.transpose().map_err(Wrong::value)?.unwrap_or_default(),
        shutdown_timeout: timeout.transpose().map_err(Wrong::value)?.unwrap_or_default(),
    })
}

fn priority(query: &str) -> Result<Option<Priority>, Wrong> {
    let query = Query::read(query, &["priority"])?;
    query.word_needed("priority", or_default, &Priority::list(&[DEFAULT]))
}

/// A word, or `None` for the default.
fn or_default<T: Word>(text: &str) -> Option<Option<T>> {
    if text == DEFAULT { Some(None) } else { T::from_word(text).map(Some) }
}

fn readiness(query: &str) -> Result<Option<Readiness>, Wrong> {
    let query = Query::read(query, &["when", "command", "delay", "timeout"])?;
    let when = query.word_needed("when", or_default, &ReadyWhen::list(&[DEFAULT]))?;
    let command = query.text("command")?;
    let delay = query.number("delay", 0..=WAIT_SECONDS_MAX)?;
    let timeout = query.number("timeout", 1..=WAIT_SECONDS_MAX)?;
    let Some(when) = when else {
        if command.is_some() || delay.is_some() || timeout.is_some() {
            return Err(Wrong::value(
                "when=default takes neither command nor delay nor timeout: leave them out",
            ));
        }
        return Ok(None);
    };
    check_command(when, command.as_deref())?;
    let delay = Span::from_secs(delay.unwrap_or(0));
    let timeout = timeout.map_or(READY_TIMEOUT, Span::from_secs);
    if delay >= timeout {
        // Both count from the VM's start at the earliest: the order would be given up each time.
        return Err(Wrong::value(format!(
            "delay={} is never over within timeout={}, which counts from the VM's start and includes the delay: use a shorter delay or a longer timeout",
            seconds(delay),
            seconds(timeout)
        )));
    }
    Ok(Some(Readiness { when, command: command.map(Arc::from), delay, timeout }))
}

/// A command is there when the condition is one, and can be kept.
fn check_command(when: ReadyWhen, command: Option<&str>) -> Result<(), Wrong> {
    match (command, when == ReadyWhen::CommandSucceeds) {
        (None, true) => Err(Wrong::value(
            "command is missing: add command=TEXT, the path of a program in the guest and its arguments",
        )),
        (Some(_), false) => Err(Wrong::value("a command is run with when=command only")),
        (Some(text), true)
            if text.trim().is_empty()
                || text.len() > COMMAND_BYTES_MAX
                || text.chars().any(char::is_control) =>
        {
            Err(Wrong::value(format!(
                "this command is not possible: write the path of a program in the guest and its arguments with blanks between them, at most {COMMAND_BYTES_MAX} bytes"
            )))
        }
        (Some(_), true) | (None, false) => Ok(()),
    }
}
