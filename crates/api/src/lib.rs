//! What the HTTP API says: the answers, the orders, and the words of both, shared by agent and command line. No I/O.
//!
//! | module | what |
//! | --- | --- |
//! | [`order`] | what can be ordered, and how an order is written and read |
//! | [`query`] | parts of a path and query: percent-encoding, numbers, words, lists |
//! | [`words`] | values that have one word each, in queries and on the command line |
//! | [`vms`] | which VM is meant by a name, and what is said when none is |
//!
//! The API is served on a Unix socket (root only). Paths:
//!
//! | method and path | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`Status`]: the primary's view of the cluster, the same from any host of the partition |
//! | `GET /v1/local` | [`Local`]: what this host's own agent knows and counts |
//! | `GET /v1/events?after=N&limit=M` | [`EventPage`]: events of all reachable hosts, oldest first |
//! | `GET /v1/events?follow=true` | the same as JSON lines, one [`EventRecord`] each, without end |
//! | `POST /v1/vms/NAME/protect`, `POST /v1/vms/NAME/unprotect` | [`Done`] |
//! | `POST /v1/vms/NAME/isolation?response=R&shutdown_timeout=S` | [`Done`]: the VM's own isolation response (`leave`, `shutdown`, `power-off`) and time-out in seconds; `default`: as the cluster's; one that is left out stays |
//! | `POST /v1/vms/NAME/priority?priority=P` | [`Done`]: restart priority `lowest`, `low`, `medium`, `high`, `highest` or `disabled`; `default`: as its domain XML says |
//! | `POST /v1/vms/NAME/ready?when=W&command=TEXT&delay=S&timeout=S` | [`Done`]: when those that wait for it may start: `started`, `running`, `agent`, `command` (words separated by blanks, run in its guest) or `default`; `delay` later; no longer than `timeout` |
//! | `POST /v1/rules/NAME?strength=S&kind=K&vms=A,B&hosts=X,Y`, `POST /v1/rules/NAME/remove` | [`Done`]: strength `must`, `should`; kind `on-hosts`, `not-on-hosts`, `apart`, `together` |
//! | `POST /v1/groups/NAME?vms=A,B&after=G,H`, `POST /v1/groups/NAME/remove` | [`Done`]: VMs that start when those of the other groups are ready |
//! | `POST /v1/admission?policy=P&refuse=true` | [`Done`]: `proved`, `host-failures` (both with `failures=N`; the latter with `slot_cpu=MHZ`, `slot_memory=MIB` at most), `percentage` (`cpu=P&memory=P`), `failover-hosts`; a policy or `refuse` that is left out stays |
//! | `POST /v1/hosts/NAME/failover?keep=true` | [`Done`]: whether the host is kept empty for failovers |
//! | `POST /v1/hosts/NAME/confirm-down` | [`Done`]: a person has seen to it that the host is down |
//! | `POST /v1/hosts/NAME/maintenance/enter?how=H&force=true` | [`Done`]: `migrate` (default) or `shutdown` |
//! | `POST /v1/hosts/NAME/maintenance/leave?bring_back=true` | [`Done`] |
//! | `POST /v1/suspend?seconds=N`, `POST /v1/resume` | [`Done`]: protection |
//! | `GET /v1/rehearsal` | [`Rehearsal`]: the primary's plan for each host's failure |
//! | `POST /v1/hook?operation=prepare`, the domain XML as the body | [`Done`]: libvirt may start it here (the message warns, or is empty); [`Problem`] with 409: it may not |
//!
//! Names in paths and queries are percent-encoded; between the names of a list stands a plain comma. VMs are given by name or UUID, hosts by
//! name or id. What can't be done is a [`Problem`] with 409; a value that makes no sense, one with 400 that says which do.
//!
//! Any request may carry the header `mainstay-host: NAME`, which sends it to that host's agent. Errors are [`Problem`] with
//! a fitting HTTP status.

pub mod order;
pub mod query;
pub mod vms;
pub mod words;

use mainstay_words::ids::{HostId, Incarnation};
use mainstay_words::{Event, Rehearsed, Severity, Time, View};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// The cluster, as its primary sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Names of the hosts, as configured.
    pub host_names: BTreeMap<HostId, String>,
    /// Whether this is a primary's view. When not, `note` says why and the view is only the answering host's own.
    pub complete: bool,
    /// What a person should know about this answer.
    pub note: Option<String>,
    /// What the host's core believes.
    pub view: View,
    /// Alarms that stand (newest last).
    pub alarms: Vec<EventRecord>,
}

/// What each host's failure would come to, as the primary would decide now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehearsal {
    /// Names of the hosts, as configured.
    pub host_names: BTreeMap<HostId, String>,
    /// The plans, and what admission control says.
    pub rehearsed: Rehearsed,
    /// Of the settings under which it was rehearsed.
    pub revision: u64,
}

/// What one agent knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// The host that answers.
    pub host: HostId,
    /// The version of Mainstay that it runs.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// Milliseconds since the agent's start.
    pub uptime_ms: u64,
    /// Its own view.
    pub view: View,
    /// Counters by name: packets refused, registers unreadable, bytes sent and written, and so on.
    pub counters: BTreeMap<String, u64>,
}

/// An event with where and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// The reporting host.
    pub host: HostId,
    /// Microseconds since 1970 by that host's clock.
    pub at_unix_us: u64,
    /// The host's monotonic clock.
    pub at: Time,
    /// The reporting run of the agent.
    pub incarnation: Incarnation,
    /// Counts the host's events over all runs of its agent.
    pub sequence: u64,
    /// How much it matters.
    pub severity: Severity,
    /// The event in words.
    pub text: String,
    /// The event. `None` when it was written by a newer version that knows more kinds: that is never an error.
    #[serde(default, deserialize_with = "event_if_known")]
    pub event: Option<Event>,
}

/// An event that this version can't read leaves nothing but its record, which says it in words.
fn event_if_known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Event>, D::Error> {
    let json = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(json).ok())
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// Oldest first, ordered by time, then host, then sequence.
    pub events: Vec<EventRecord>,
    /// Hosts that could not be asked, with the reason.
    pub missing: BTreeMap<HostId, String>,
}

/// Something was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What, in words.
    pub message: String,
}

/// Something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong and what to do, in words.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn record(event: &Value) -> Value {
        json!({"host": "host-1", "at_unix_us": 1, "at": 2, "incarnation": 3, "sequence": 4, "severity": "info",
            "text": "said in words", "event": event})
    }

    #[test]
    fn events_of_a_newer_version_keep_their_text_and_those_around_them() {
        let known = Event::AgentStarted { rebooted: true };
        let unknown = [
            json!({"kind": "from_the_future", "why": ["new"]}),
            json!({"kind": "agent_started", "rebooted": "in another way"}),
            json!("from the future"),
            Value::Null,
        ];
        for unknown in unknown {
            let events = [record(&unknown), record(&serde_json::to_value(&known).expect("JSON"))];
            let page = json!({"events": events, "missing": {}});
            // Both ways: as text, and as the tree that one agent takes from another's answer.
            let read: EventPage = serde_json::from_str(&page.to_string()).expect("a page");
            assert_eq!(serde_json::from_value::<EventPage>(page).expect("a page"), read);
            let told: Vec<_> = read.events.iter().map(|record| (&*record.text, &record.event)).collect();
            assert_eq!(told, [("said in words", &None), ("said in words", &Some(known.clone()))]);
            let again = serde_json::to_string(&read).expect("JSON");
            assert_eq!(serde_json::from_str::<EventPage>(&again).expect("a page"), read);
        }
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let mut without_text = record(&Value::Null);
        without_text.as_object_mut().expect("an object").remove("text");
        for json in [without_text, json!({}), json!("text")] {
            assert!(serde_json::from_value::<EventRecord>(json).is_err());
        }
        let mut without_event = record(&Value::Null);
        without_event.as_object_mut().expect("an object").remove("event");
        let read: EventRecord = serde_json::from_value(without_event).expect("a record");
        assert_eq!(read.event, None);
    }
}
