//! The order to treat a VM in its own way when its host is isolated. The core's command sets response and time-out at once; a
//! person may want to change one of them. So the primary fills in what is to stay, from what it believes when it carries out
//! the order: an asker's knowledge would be older.

use super::Refusal;
use super::query::{encode_segment, value};
use super::vms::find_vm;
use crate::config::SHUTDOWN_TIMEOUT_MAX;
use mainstay_core::register::IsolationResponse;
use mainstay_core::view::View;
use mainstay_core::{Command, Span};

/// The word for "as the cluster's configuration says".
const DEFAULT: &str = "default";

/// What becomes of one setting of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Setting<T> {
    /// It stays.
    #[default]
    Keep,
    /// The VM has none of its own any more.
    ClusterDefault,
    /// The VM has this one.
    To(T),
}

impl<T> Setting<T> {
    fn over(self, present: Option<T>) -> Option<T> {
        match self {
            Setting::Keep => present,
            Setting::ClusterDefault => None,
            Setting::To(value) => Some(value),
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

/// How a VM is to be treated when its host is isolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationOrder {
    /// Name or UUID.
    pub vm: String,
    /// What is done with it.
    pub response: Setting<IsolationResponse>,
    /// How long it may take to shut down.
    pub shutdown_timeout: Setting<Span>,
}

impl IsolationOrder {
    pub(super) fn parse(vm: String, query: &str) -> Result<IsolationOrder, (u16, String)> {
        let wrong = |error| (400, error);
        let response = value(query, "response").map(Setting::parse_response);
        let timeout = value(query, "shutdown_timeout").map(Setting::parse_shutdown_timeout);
        if response.is_none() && timeout.is_none() {
            return Err(wrong(String::from(
                "nothing is to be set: add response=shutdown or shutdown_timeout=120, say",
            )));
        }
        Ok(IsolationOrder {
            vm,
            response: response.transpose().map_err(wrong)?.unwrap_or_default(),
            shutdown_timeout: timeout.transpose().map_err(wrong)?.unwrap_or_default(),
        })
    }

    /// Path and query of the request.
    pub fn target(&self) -> String {
        let response = match self.response {
            Setting::Keep => None,
            Setting::ClusterDefault => Some(DEFAULT),
            Setting::To(IsolationResponse::LeavePoweredOn) => Some("leave"),
            Setting::To(IsolationResponse::ShutDown) => Some("shutdown"),
            Setting::To(IsolationResponse::PowerOff) => Some("power-off"),
        };
        let timeout = match self.shutdown_timeout {
            Setting::Keep => None,
            Setting::ClusterDefault => Some(String::from(DEFAULT)),
            Setting::To(span) => Some((span.as_millis() / 1_000).to_string()),
        };
        let response = response.map(|word| format!("response={word}"));
        let timeout = timeout.map(|word| format!("shutdown_timeout={word}"));
        let query: Vec<String> = response.into_iter().chain(timeout).collect();
        format!("/v1/vms/{}/isolation?{}", encode_segment(&self.vm), query.join("&"))
    }

    /// The command for the core, with what stays as `view` shows it. It names the VM by its UUID, so that what stays is that
    /// of the very VM that is changed.
    pub(super) fn command(self, view: &View) -> Result<Command, Refusal> {
        let vm = find_vm(view, &self.vm).map_err(|reason| Refusal::new(409, reason))?;
        if let (None, Some(reason)) = (vm.token, &vm.note) {
            return Err(Refusal::new(409, format!("{} is not protected: {reason}", vm.name)));
        }
        let present = vm.isolation_response_own.then_some(vm.isolation_response);
        let present_timeout = vm.shutdown_timeout_own.then_some(vm.shutdown_timeout);
        Ok(Command::SetIsolation {
            vm: vm.vm.to_string(),
            response: self.response.over(present),
            shutdown_timeout: self.shutdown_timeout.over(present_timeout),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApiRequest;

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for response in [
            Setting::Keep,
            Setting::ClusterDefault,
            Setting::To(IsolationResponse::LeavePoweredOn),
            Setting::To(IsolationResponse::ShutDown),
            Setting::To(IsolationResponse::PowerOff),
        ] {
            for shutdown_timeout in [Setting::ClusterDefault, Setting::To(Span::from_secs(120))] {
                let order = IsolationOrder { vm: "web 1/ä".into(), response, shutdown_timeout };
                let read = ApiRequest::parse("POST", &order.target());
                assert_eq!(read, Ok(ApiRequest::SetIsolation(order)));
            }
        }
    }

    #[test]
    fn old_words_are_understood() {
        let read = |word| Setting::parse_response(word);
        assert_eq!(read("none"), Ok(Setting::To(IsolationResponse::LeavePoweredOn)));
        assert_eq!(read("shut-down"), Ok(Setting::To(IsolationResponse::ShutDown)));
        assert_eq!(read("power_off"), Ok(Setting::To(IsolationResponse::PowerOff)));
    }

    #[test]
    fn what_cannot_be_set_is_refused_with_what_can() {
        let refused = |query: &str| {
            let target = format!("/v1/vms/web/isolation?{query}");
            ApiRequest::parse("POST", &target).expect_err(query)
        };
        assert_eq!(
            refused("response=explode"),
            (
                400,
                "there is no isolation response \"explode\": use leave, shutdown, power-off or default"
                    .into()
            )
        );
        for seconds in ["0", "86401", "-1", "2m", ""] {
            let (status, error) = refused(&format!("shutdown_timeout={seconds}"));
            assert_eq!(status, 400);
            assert!(error.contains("use 1 to 86400 seconds"), "{error}");
        }
        assert_eq!(refused("responses=leave").0, 400);
        assert_eq!(
            ApiRequest::parse("GET", "/v1/vms/web/isolation?response=leave").expect_err("POST").0,
            405
        );
    }
}
