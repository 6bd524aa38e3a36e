//! What can be asked: method and path, read in one place for the socket and for other agents.

use super::hook::HookOperation;
use mainstay_api::order::Order;
use mainstay_api::query::{Query, Wrong, value};

/// Events in a page when the asker says nothing.
const LIMIT_DEFAULT: usize = 200;
/// Events in a page at most: all that an agent keeps in memory.
const LIMIT_MAX: usize = crate::journal::RING_MAX;

/// What a client asks of the API, as read from method, path and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// The cluster as the asked agent sees it.
    Status,
    /// This agent.
    Local,
    /// Events of all hosts.
    Events {
        /// Only those after this time, in microseconds since 1970.
        after: u64,
        /// At most so many.
        limit: usize,
        /// Whether new events follow, until the client goes.
        follow: bool,
    },
    /// Something that the primary does.
    Order(Order),
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
        /// The sequence number after which events are wanted.
        after: u64,
        /// At most so many.
        limit: usize,
    },
    /// From another agent: this host's alarms.
    PeerAlarms,
}

impl ApiRequest {
    /// Reads a request.
    pub fn parse(method: &str, target: &str) -> Result<ApiRequest, Wrong> {
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
            path => ApiRequest::Order(Order::parse(path, query)?),
        };
        let wanted = request.method();
        if method != wanted {
            return Err(Wrong { status: 405, reason: format!("{path} takes {wanted}, not {method}") });
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
            ApiRequest::Order(_) | ApiRequest::Hook(_) | ApiRequest::PeerAdmit => "POST",
        }
    }
}

fn number(query: &str, name: &str) -> Result<Option<u64>, Wrong> {
    let Some(text) = value(query, name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Wrong::value(format!("{name}={text}: write a whole number")))
}

fn limit(query: &str) -> Result<usize, Wrong> {
    let limit = number(query, "limit")?.and_then(|limit| usize::try_from(limit).ok());
    Ok(limit.unwrap_or(LIMIT_DEFAULT).min(LIMIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_api::order::VmOrder;

    #[test]
    fn each_path_is_read() {
        let get = |target| ApiRequest::parse("GET", target);
        assert_eq!(get("/v1/status"), Ok(ApiRequest::Status));
        assert_eq!(get("/v1/events"), Ok(ApiRequest::Events { after: 0, limit: 200, follow: false }));
        assert_eq!(
            get("/v1/events?after=17&limit=9999&follow=true"),
            Ok(ApiRequest::Events { after: 17, limit: 2_000, follow: true })
        );
        let order = Order::Vm { vm: "web 1/ä%".into(), order: VmOrder::Protect };
        let target = order.target();
        assert_eq!(target, "/v1/vms/web%201%2F%C3%A4%25/protect");
        assert_eq!(ApiRequest::parse("POST", &target), Ok(ApiRequest::Order(order)));
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_remedy() {
        let refused = |method, target| {
            let wrong = ApiRequest::parse(method, target).expect_err(target);
            (wrong.status, wrong.reason)
        };
        assert_eq!(refused("POST", "/v1/status"), (405, "/v1/status takes GET, not POST".into()));
        for target in ["/v1/vms/a/protect", "/v1/vms/web/isolation?response=leave", "/v1/resume"] {
            assert_eq!(refused("GET", target).0, 405, "{target}");
        }
        for target in ["/v1/rules/r/remove", "/v1/hook?operation=prepare", "/peer/admit"] {
            assert_eq!(refused("GET", target).0, 405, "{target}");
        }
        assert_eq!(refused("POST", "/v1/rehearsal").0, 405);
        assert_eq!(refused("GET", "/v2/status").0, 404);
        assert_eq!(refused("POST", "/v2/resume").0, 404);
        assert_eq!(refused("GET", "/v1/events?after=x"), (400, "after=x: write a whole number".into()));
        assert!(refused("POST", "/v1/hook").1.contains("operation is missing"));
        assert!(refused("POST", "/v1/hook?operation=start").1.contains("use prepare or migrate"));
    }
}
