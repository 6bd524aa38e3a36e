//! Requests from agent to agent: a small JSON envelope each way.

use super::Answer;
use mainstay_api::{EventRecord, Problem};
use mainstay_core::ids::HostId;
use mainstay_transport::{BODY_BYTES_MAX, Net};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// A forwarded request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Envelope {
    pub(super) method: String,
    /// Path and query.
    pub(super) path: String,
    /// Whether the receiver may forward it to the primary. Set only for the first hop, so that two agents that take each
    /// other for the primary can't play ball.
    #[serde(default)]
    pub(super) may_forward: bool,
    /// For the few requests that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<String>,
}

/// The other agent's answer to an [`Envelope`].
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    status: u16,
    body: Value,
}

impl Envelope {
    /// A question without a body that is not passed on.
    pub(super) fn get(path: String) -> Envelope {
        Envelope { method: "GET".into(), path, may_forward: false, body: None }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Envelope, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}

/// One that is too large for the transport becomes a refusal that says what to do.
pub(super) fn encode_fitting(answer: &Answer, me: &str) -> Vec<u8> {
    let encoded = encode_answer(answer);
    if encoded.len() <= BODY_BYTES_MAX {
        return encoded;
    }
    let (size, most) = (encoded.len() >> 10, BODY_BYTES_MAX >> 10);
    let error = format!(
        "the answer has {size} KiB, and agents send each other {most} KiB at most: ask on {me} itself, without --host"
    );
    encode_answer(&(507, serde_json::to_value(Problem { error }).unwrap_or_default()))
}

fn encode_answer(answer: &Answer) -> Vec<u8> {
    // A `Value` always serializes; an empty answer is refused by the asker.
    serde_json::to_vec(&Reply { status: answer.0, body: answer.1.clone() }).unwrap_or_default()
}

/// Asks another agent.
pub(super) async fn ask(
    net: &Net,
    to: &HostId,
    envelope: &Envelope,
    patience: Duration,
) -> Result<Answer, String> {
    let body = serde_json::to_vec(envelope).map_err(|error| error.to_string())?;
    let bytes = net.request(to.as_str(), body, patience).await.map_err(|error| error.to_string())?;
    let reply: Reply = serde_json::from_slice(&bytes)
        .map_err(|error| format!("its answer can't be read ({error}): use the same version everywhere"))?;
    Ok((reply.status, reply.body))
}

/// The events in an answer; those that can't be read at all are left out.
pub(super) fn records(list: Value) -> Vec<EventRecord> {
    let Value::Array(list) = list else { return Vec::new() };
    list.into_iter().filter_map(|record| serde_json::from_value(record).ok()).collect()
}
