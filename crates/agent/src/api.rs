//! The API: what people and the command line ask of an agent, over a Unix socket, and what agents ask of each other for it.
//!
//! One [`Service`] answers both: a request from the socket and one that another agent forwarded go the same way. Any host can
//! be asked: what only the primary knows or may do is forwarded to it.
//!
//! What it does not do: authenticate (the socket's mode does, and the transport between agents), or decide anything.

mod follow;
mod forward;
mod hook;
mod names;
mod orders;
mod rehearsal;
mod request;
mod socket;

pub use hook::{Arrivals, HookOperation};
pub use request::ApiRequest;
pub use socket::{ApiError, Listener, bind};

use crate::config::Member;
use crate::driver::{Looked, Question};
use crate::first_minutes::FirstMinutes;
use crate::journal::Journal;
use crate::vms::Mounts;
use forward::Envelope;
use mainstay_api::query::Wrong;
use mainstay_api::{Done, EventPage, EventRecord, Local, Problem, Status};
use mainstay_core::Command;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::HostId;
use mainstay_core::view::{Role, View};
use mainstay_transport::Net;
use rehearsal::REHEARSAL_PATIENCE;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long the primary may take to answer for the cluster. Then the host answers for itself.
const PRIMARY_PATIENCE: Duration = Duration::from_secs(2);
/// How long other hosts may take to tell their events.
const PEER_PATIENCE: Duration = Duration::from_secs(1);
/// How long other hosts may take to tell their alarms: less than `PRIMARY_PATIENCE`, since this happens within it.
const ALARM_PATIENCE: Duration = Duration::from_millis(700);
/// How long an order may take until it is on disk.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);
/// How long the driver may take to say what the core believes. It never blocks, so this is for an agent that is ending.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// An answer: HTTP status and JSON.
pub type Answer = (u16, Value);

/// Answers requests. One per agent.
pub struct Service {
    /// The host that this agent runs on.
    pub me: Member,
    /// The others.
    pub peers: Vec<Member>,
    /// The cluster's id.
    pub cluster_id: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Where the cluster's datastores are on this host.
    pub mounts: Mounts,
    /// The way to the core.
    pub questions: mpsc::Sender<Question>,
    /// The events of this host.
    pub journal: Journal,
    /// The way to the other hosts.
    pub net: Net,
    /// Migrations that libvirt's hook has announced.
    pub arrivals: Arrivals,
    /// What is refused in the first minutes of a boot.
    pub first_minutes: FirstMinutes,
    /// When the agent started.
    pub started: Instant,
}

/// A request that can't be answered.
struct Refusal {
    status: u16,
    error: String,
}

impl Refusal {
    fn new(status: u16, error: impl Into<String>) -> Refusal {
        Refusal { status, error: error.into() }
    }
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Refusal {
        Refusal { status: wrong.status, error: wrong.reason }
    }
}

impl Service {
    /// Answers a request of this host's socket. `host` is the header `mainstay-host`.
    pub async fn serve(&self, method: &str, target: &str, host: Option<&str>, body: &[u8]) -> Answer {
        let answer = match host.map(|name| self.find(name)) {
            None => self.answer(method, target, body, true).await,
            Some(Ok(member)) if member.id == self.me.id => self.answer(method, target, body, true).await,
            // A stream can't be passed on, and needs not be: any agent's has the events of all hosts.
            Some(Ok(_))
                if matches!(
                    ApiRequest::parse(method, target),
                    Ok(ApiRequest::Events { follow: true, .. })
                ) =>
            {
                Err(Refusal::new(
                    400,
                    "events can't be followed through another host: leave the host out, events of all hosts come anyway",
                ))
            }
            Some(Ok(member)) => self.pass_on(method, target, body, member).await,
            Some(Err(refusal)) => Err(refusal),
        };
        finish(answer)
    }

    /// Answers a request that another agent forwarded.
    pub async fn serve_peer(&self, envelope: &[u8]) -> Vec<u8> {
        let answer = match Envelope::parse(envelope) {
            Ok(Envelope { method, path, may_forward, body }) => {
                self.answer(&method, &path, body.unwrap_or_default().as_bytes(), may_forward).await
            }
            Err(error) => Err(Refusal::new(400, format!("a forwarded request can't be read: {error}"))),
        };
        forward::encode_fitting(&finish(answer), &self.me.name)
    }

    async fn answer(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        may_forward: bool,
    ) -> Result<Answer, Refusal> {
        match ApiRequest::parse(method, target)? {
            ApiRequest::Status => self.status(may_forward).await,
            ApiRequest::Local => self.local().await,
            ApiRequest::Events { after, limit, .. } => self.events(after, limit).await,
            ApiRequest::Order(order) => self.order(order, may_forward).await,
            ApiRequest::Rehearsal => self.rehearsal(may_forward).await,
            ApiRequest::Hook(operation) => self.hook(operation, body).await,
            ApiRequest::PeerAdmit => self.peer_admit(body).await,
            ApiRequest::PeerEvents { since, limit } => ok(self.journal.since(since, limit)),
            ApiRequest::PeerTail { after, limit } => {
                ok((self.journal.newest(), self.journal.after(after, limit)))
            }
            ApiRequest::PeerAlarms => ok(self.journal.alarms(&self.look().await?.view)),
        }
    }

    async fn look(&self) -> Result<Looked, Refusal> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(503, format!("the agent of {} is stopping", self.me.name));
        self.questions.send(Question::Look(answer)).await.map_err(|_| stopping())?;
        match tokio::time::timeout(LOOK_PATIENCE, answered).await {
            Ok(Ok(looked)) => Ok(looked),
            Ok(Err(_)) | Err(_) => Err(stopping()),
        }
    }

    async fn status(&self, may_forward: bool) -> Result<Answer, Refusal> {
        let view = self.look().await?.view;
        if view.role == Role::Primary {
            let (alarms, missing) = self.alarms_of_all(&view).await;
            let unasked = |(host, why): (&HostId, &String)| {
                format!("{} could not be asked for its alarms: {why}", self.name(host))
            };
            let note = missing.iter().map(unasked).collect::<Vec<_>>().join("; ");
            return ok(self.status_of(view, alarms, true, Some(note).filter(|note| !note.is_empty())));
        }
        let note = match view.primary.clone().filter(|primary| *primary != self.me.id) {
            Some(primary) if may_forward => {
                match self.forward(&primary, "GET", "/v1/status", PRIMARY_PATIENCE).await {
                    Ok((200, status)) => return Ok((200, status)),
                    Ok((_, problem)) => {
                        format!("the primary {} says: {}", self.name(&primary), problem_text(&problem))
                    }
                    Err(error) => format!("the primary {} could not be asked: {error}", self.name(&primary)),
                }
            }
            Some(primary) => {
                format!("{} is not the primary, it follows {}", self.me.name, self.name(&primary))
            }
            None => "no primary is elected at the moment".into(),
        };
        let note = format!("{note}; this is only what {} itself knows", self.me.name);
        let alarms = self.journal.alarms(&view);
        ok(self.status_of(view, alarms, false, Some(note)))
    }

    fn status_of(
        &self,
        view: View,
        alarms: Vec<EventRecord>,
        complete: bool,
        note: Option<String>,
    ) -> Status {
        Status {
            cluster_id: self.cluster_id.clone(),
            cluster_name: self.cluster_name.clone(),
            host_names: self.host_names(),
            complete,
            note,
            view,
            alarms,
        }
    }

    /// The alarms of this host and of those that are connected to it: a datastore that one host has lost is known there only.
    /// And why hosts did not answer.
    async fn alarms_of_all(&self, view: &View) -> (Vec<EventRecord>, BTreeMap<HostId, String>) {
        let connected = |peer: &&Member| {
            view.hosts.iter().any(|host| host.host == peer.id && host.state == HostState::Connected)
        };
        let asked = self.peers.iter().filter(connected).map(|peer| peer.id.clone()).collect();
        let (answers, missing) = self.ask_all(asked, "/peer/alarms".into(), ALARM_PATIENCE).await;
        let mut alarms = self.journal.alarms(view);
        alarms.extend(answers.into_values().flat_map(forward::records));
        alarms.sort_by_key(|alarm| alarm.at_unix_us);
        (alarms, missing)
    }

    async fn local(&self) -> Result<Answer, Refusal> {
        let looked = self.look().await?;
        ok(Local {
            host: self.me.id.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            view: looked.view,
            counters: looked.counters,
        })
    }

    async fn events(&self, after: u64, limit: usize) -> Result<Answer, Refusal> {
        let peers = self.peers.iter().map(|peer| peer.id.clone()).collect();
        let path = format!("/peer/events?since={after}&limit={limit}");
        let (answers, missing) = self.ask_all(peers, path, PEER_PATIENCE).await;
        let mut events: Vec<EventRecord> =
            self.journal.since(after, limit).iter().map(|record| EventRecord::clone(record)).collect();
        events.extend(answers.into_values().flat_map(forward::records));
        events.sort_by(|a, b| (a.at_unix_us, &a.host, a.sequence).cmp(&(b.at_unix_us, &b.host, b.sequence)));
        events.drain(..events.len().saturating_sub(limit));
        ok(EventPage { events, missing })
    }

    /// Has this host's core carry out a command, which it does as the primary only.
    async fn operate(&self, command: Command, patience: Duration) -> Result<Answer, Refusal> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(503, format!("the agent of {} is stopping: try again", self.me.name));
        self.questions.send(Question::Operate(command, answer)).await.map_err(|_| stopping())?;
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(Ok(message))) => ok(Done { message: self.with_names(&message) }),
            Ok(Ok(Err(reason))) => Err(Refusal::new(409, self.with_names(&reason))),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(Refusal::new(
                504,
                format!(
                    "it is not on disk after {} s and may still come about: look at the status before you try again",
                    patience.as_secs()
                ),
            )),
        }
    }

    /// A text of the core, with hosts as people know them.
    fn with_names(&self, text: &str) -> String {
        let hosts: Vec<_> = self.members().map(|member| (member.id.as_str(), &*member.name)).collect();
        names::with_names(text, &hosts)
    }

    async fn pass_on(
        &self,
        method: &str,
        target: &str,
        body: &[u8],
        member: &Member,
    ) -> Result<Answer, Refusal> {
        let is_rehearsal = matches!(ApiRequest::parse(method, target), Ok(ApiRequest::Rehearsal));
        let patience = if is_rehearsal { REHEARSAL_PATIENCE } else { ORDER_PATIENCE };
        let body = std::str::from_utf8(body)
            .map_err(|error| Refusal::new(400, format!("the request's body can't be passed on: {error}")))?;
        let envelope = Envelope {
            method: method.into(),
            path: target.into(),
            may_forward: true,
            body: (!body.is_empty()).then(|| body.to_owned()),
        };
        let answer = forward::ask(&self.net, &member.id, &envelope, patience + PRIMARY_PATIENCE).await;
        answer.map_err(|error| {
            Refusal::new(504, format!("the agent of {} could not be asked: {error}", member.name))
        })
    }

    /// Has another host answer the request itself.
    async fn forward(
        &self,
        to: &HostId,
        method: &str,
        path: &str,
        patience: Duration,
    ) -> Result<Answer, String> {
        let envelope = Envelope { method: method.into(), path: path.into(), may_forward: false, body: None };
        forward::ask(&self.net, to, &envelope, patience).await
    }

    /// Asks hosts at the same time. Answers, and why there is none.
    async fn ask_all(
        &self,
        hosts: Vec<HostId>,
        path: String,
        patience: Duration,
    ) -> (BTreeMap<HostId, Value>, BTreeMap<HostId, String>) {
        let mut asking = tokio::task::JoinSet::new();
        for host in hosts {
            let net = self.net.clone();
            let envelope = Envelope::get(path.clone());
            asking.spawn(async move {
                let answer = forward::ask(&net, &host, &envelope, patience).await;
                (host, answer)
            });
        }
        let (mut answers, mut missing) = (BTreeMap::new(), BTreeMap::new());
        while let Some(asked) = asking.join_next().await {
            // A task that panicked is logged by the runtime; its host is then missing from both.
            let Ok((host, answer)) = asked else { continue };
            match answer {
                Ok((200, answer)) => drop(answers.insert(host, answer)),
                Ok((_, problem)) => drop(missing.insert(host, problem_text(&problem))),
                Err(error) => drop(missing.insert(host, error)),
            }
        }
        (answers, missing)
    }

    fn host_names(&self) -> BTreeMap<HostId, String> {
        self.members().map(|member| (member.id.clone(), member.name.clone())).collect()
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        std::iter::once(&self.me).chain(&self.peers)
    }

    fn find(&self, name_or_id: &str) -> Result<&Member, Refusal> {
        let named = |member: &&Member| member.name == name_or_id || member.id.as_str() == name_or_id;
        self.members().find(named).ok_or_else(|| {
            let names: Vec<&str> = self.members().map(|member| member.name.as_str()).collect();
            Refusal::new(
                404,
                format!("there is no host {name_or_id} in this cluster: its hosts are {}", names.join(", ")),
            )
        })
    }

    fn name<'a>(&'a self, id: &'a HostId) -> &'a str {
        self.members().find(|member| member.id == *id).map_or(id.as_str(), |member| &member.name)
    }
}

fn ok(value: impl Serialize) -> Result<Answer, Refusal> {
    serde_json::to_value(value)
        .map(|value| (200, value))
        .map_err(|error| Refusal::new(500, format!("the answer can't be written as JSON: {error}")))
}

fn finish(answer: Result<Answer, Refusal>) -> Answer {
    answer.unwrap_or_else(|refusal| {
        let problem = Problem { error: refusal.error };
        (refusal.status, serde_json::to_value(problem).unwrap_or_default())
    })
}

fn problem_text(problem: &Value) -> String {
    problem.get("error").and_then(Value::as_str).unwrap_or("no reason given").to_owned()
}

/// Serves the socket until the task is dropped.
pub async fn serve(service: Arc<Service>, listener: Listener) -> std::io::Result<()> {
    socket::serve(service, listener).await
}
