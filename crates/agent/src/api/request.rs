//! What can be asked: method and path, read in one place for the socket and for other agents.

use super::IsolationOrder;
use super::admission::AdmissionOrder;
use super::hook::HookOperation;
use super::orders::{self, HostOrder};
use super::query::{Query, value};
use mainstay_core::Command;

/// Events in a page when the asker says nothing.
const LIMIT_DEFAULT: usize = 200;
/// Events in a page at most: all that an agent keeps in memory.
const LIMIT_MAX: usize = crate::journal::RING_MAX;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// The cluster.
    Status,
    /// This agent.
    Local,
    /// Events of all hosts.
    Events {
        /// Only those after this time, in microseconds since 1970.
        after: u64,
        /// At most so many.
        limit: usize,
        /// Without end.
        follow: bool,
    },
    /// Something that the primary does.
    Order(Command),
    /// What the primary makes an order of: it depends on what is set already.
    SetIsolation(IsolationOrder),
    /// Something that the primary does, with hosts in it.
    HostOrder(HostOrder),
    /// What the primary makes an order of: it depends on what is set already.
    SetAdmission(AdmissionOrder),
    /// What each host's failure would come to.
    Rehearsal,
    /// libvirt's hook asks; the domain XML is the body.
    Hook(HookOperation),
    /// From another agent: may that VM be started there? The body says which and where.
    PeerAdmit,
    /// From another agent: this host's events after a time.
    PeerEvents {
        /// Microseconds since 1970.
        since: u64,
        /// At most so many.
        limit: usize,
    },
    /// From another agent: this host's newest sequence number, and its events after that one.
    PeerTail {
        /// Sequence number.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// From another agent: this host's alarms.
    PeerAlarms,
}

impl ApiRequest {
    /// Reads a request; on failure the HTTP status and what to do.
    pub fn parse(method: &str, target: &str) -> Result<ApiRequest, (u16, String)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = match path {
            "/v1/status" => ApiRequest::Status,
            "/v1/local" => ApiRequest::Local,
            "/v1/events" => ApiRequest::Events {
                after: number(query, "after")?.unwrap_or(0),
                limit: limit(query)?,
                follow: value(query, "follow") == Some("true"),
            },
            "/peer/events" => {
                ApiRequest::PeerEvents { since: number(query, "since")?.unwrap_or(0), limit: limit(query)? }
            }
            "/peer/tail" => {
                ApiRequest::PeerTail { after: number(query, "after")?.unwrap_or(0), limit: limit(query)? }
            }
            "/peer/alarms" => ApiRequest::PeerAlarms,
            "/peer/admit" => ApiRequest::PeerAdmit,
            "/v1/rehearsal" => ApiRequest::Rehearsal,
            "/v1/hook" => ApiRequest::Hook(Query::read(query, &["operation"])?.word_needed(
                "operation",
                HookOperation::parse,
                "prepare or migrate",
            )?),
            path => orders::parse(path, query)?,
        };
        let wanted = request.method();
        if method != wanted {
            return Err((405, format!("{path} takes {wanted}, not {method}")));
        }
        Ok(request)
    }

    fn method(&self) -> &'static str {
        match self {
            ApiRequest::Status
            | ApiRequest::Local
            | ApiRequest::Events { .. }
            | ApiRequest::Rehearsal
            | ApiRequest::PeerEvents { .. }
            | ApiRequest::PeerTail { .. }
            | ApiRequest::PeerAlarms => "GET",
            ApiRequest::Order(_)
            | ApiRequest::SetIsolation(_)
            | ApiRequest::HostOrder(_)
            | ApiRequest::SetAdmission(_)
            | ApiRequest::Hook(_)
            | ApiRequest::PeerAdmit => "POST",
        }
    }
}

fn number(query: &str, name: &str) -> Result<Option<u64>, (u16, String)> {
    let Some(text) = value(query, name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| (400, format!("{name}={text}: write a whole number")))
}

fn limit(query: &str) -> Result<usize, (u16, String)> {
    let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    Ok(limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::encode_segment;
    use mainstay_core::Command;

    #[test]
    fn each_path_is_read() {
        let get = |target| ApiRequest::parse("GET", target);
        assert_eq!(get("/v1/status"), Ok(ApiRequest::Status));
        assert_eq!(get("/v1/events"), Ok(ApiRequest::Events { after: 0, limit: 200, follow: false }));
        assert_eq!(
            get("/v1/events?after=17&limit=9999&follow=true"),
            Ok(ApiRequest::Events { after: 17, limit: 2_000, follow: true })
        );
        let name = "web 1/ä%";
        let path = format!("/v1/vms/{}/protect", encode_segment(name));
        assert_eq!(path, "/v1/vms/web%201%2F%C3%A4%25/protect");
        assert_eq!(
            ApiRequest::parse("POST", &path),
            Ok(ApiRequest::Order(Command::Protect { vm: name.into() }))
        );
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_remedy() {
        let refused = |method, target| ApiRequest::parse(method, target).expect_err(target);
        assert_eq!(refused("POST", "/v1/status"), (405, "/v1/status takes GET, not POST".into()));
        assert_eq!(refused("GET", "/v1/vms/a/protect").0, 405);
        assert_eq!(refused("GET", "/v2/status").0, 404);
        assert_eq!(refused("POST", "/v1/vms/a/explode").0, 404);
        assert_eq!(refused("POST", "/v1/vms//protect").0, 400);
        assert_eq!(refused("POST", "/v1/vms/%f/protect").0, 400);
        assert_eq!(refused("GET", "/v1/events?after=x"), (400, "after=x: write a whole number".into()));
    }
}
