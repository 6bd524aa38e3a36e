//! What libvirt's hook asks: may this VM be started here? libvirtd waits for the answer.
//!
//! Invariants: nothing here calls libvirt, which would wait for us and we for it; what Mainstay starts itself is allowed at
//! once, so admission control never delays a failover; and but for the first minutes of a boot ([`crate::first_minutes`]) only
//! the primary's own "no" refuses: an agent, a primary or a network that is down keeps nobody from starting VMs.
//!
//! What it does not do: make sure that a VM never runs twice. It refuses what the primary knows to run elsewhere (R38);
//! where there is nobody to ask, claims (R36) and QEMU's image locks have to do.

use super::forward::Envelope;
use super::{Answer, PRIMARY_PATIENCE, Refusal, Service, ok, problem_text};
use crate::driver::Question;
use crate::first_minutes::FirstMinutes;
use crate::remembered::Kept;
use crate::vms::xml_id;
use mainstay_api::Done;
use mainstay_core::Command;
use mainstay_core::ids::{HostId, VmId};
use mainstay_core::register::OrderKind;
use mainstay_core::view::{Role, View};
use mainstay_hypervisor as hv;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a start may be held up. The whole question, with the way to the primary and back.
const ADMISSION_PATIENCE: Duration = PRIMARY_PATIENCE;

/// The path by which a host asks the primary.
const PATH: &str = "/peer/admit";

/// How long after its announcement a migration's `prepare` may come. It is nearly the next thing that libvirt does, unless the
/// migration fails before it, or is an offline one: then a start by hand would pass for it.
const ANNOUNCED_FOR: Duration = Duration::from_secs(10);

/// Live migrations to this host that libvirt has announced, and for which it has yet to ask.
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<BTreeMap<VmId, Instant>>);

impl Arrivals {
    fn announce(&self, vm: VmId) {
        let mut announced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        announced.retain(|_, at| at.elapsed() < ANNOUNCED_FOR);
        announced.insert(vm, Instant::now());
    }

    /// Whether it was announced, without counting it.
    fn expects(&self, vm: VmId) -> bool {
        let announced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        announced.get(&vm).is_some_and(|at| at.elapsed() < ANNOUNCED_FOR)
    }

    /// Whether it was announced. It counts once: the next start is one by hand.
    fn take(&self, vm: VmId) -> bool {
        let mut announced = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        announced.remove(&vm).is_some_and(|at| at.elapsed() < ANNOUNCED_FOR)
    }
}

/// What libvirt is about to do with the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookOperation {
    /// Start its QEMU: for a start, a restore, or a migration that arrives.
    Prepare,
    /// Take in a migration. `prepare` follows for it, and is what is judged.
    Migrate,
}

impl HookOperation {
    pub(super) fn parse(text: &str) -> Option<HookOperation> {
        match text {
            "prepare" => Some(HookOperation::Prepare),
            "migrate" => Some(HookOperation::Migrate),
            _ => None,
        }
    }
}

impl Service {
    pub(super) async fn hook(&self, operation: HookOperation, xml: &[u8]) -> Result<Answer, Refusal> {
        let message = match operation {
            HookOperation::Migrate => {
                // One that can't be read is judged when `prepare` comes with it.
                if let Ok((spec, _)) = read(xml) {
                    self.arrivals.announce(VmId(spec.uuid.0));
                }
                String::new()
            }
            HookOperation::Prepare => {
                let kept = self.kept_for_mainstay(xml);
                match tokio::time::timeout(ADMISSION_PATIENCE, self.admission(xml)).await {
                    Ok(Ok(message)) => message,
                    Ok(Err(refusal)) if refusal.status == 409 => {
                        tracing::info!(reason = refusal.error, "a start was refused");
                        return Err(refusal);
                    }
                    Ok(Err(refusal)) => unasked(kept, &refusal.error)?,
                    Err(_) => {
                        let why = format!("no answer came within {} s", ADMISSION_PATIENCE.as_secs());
                        unasked(kept, &why)?
                    }
                }
            }
        };
        ok(Done { message })
    }

    /// Why the VM is not started without an answer: it is known to be protected, and these are the first minutes of a boot (R39).
    /// One that arrives by live migration does not begin here.
    fn kept_for_mainstay(&self, xml: &[u8]) -> Option<(&FirstMinutes, Kept)> {
        let (spec, _) = read(xml).ok()?;
        let vm = VmId(spec.uuid.0);
        let kept = self.first_minutes.refuses(vm).filter(|_| !self.arrivals.expects(vm))?;
        Some((&self.first_minutes, kept))
    }

    /// Status 409: the primary refuses; any other: it could not be asked.
    async fn admission(&self, xml: &[u8]) -> Result<String, Refusal> {
        let Some(command) = self.admit_start(xml)? else { return Ok(String::new()) };
        let Command::AdmitStart { vm, .. } = &command else { return Ok(String::new()) };
        if self.is_starting(*vm).await? {
            return Ok(String::new());
        }
        let view = self.look().await?.view;
        if view.role == Role::Primary {
            return message_of(self.admit(&view, command).await?);
        }
        let primary = view.primary.filter(|primary| *primary != self.me.id);
        let primary = primary.ok_or_else(|| Refusal::new(503, "no primary is elected at the moment"))?;
        let body = serde_json::to_string(&command)
            .map_err(|error| Refusal::new(500, format!("the question can't be written as JSON: {error}")))?;
        let envelope =
            Envelope { method: "POST".into(), path: PATH.into(), may_forward: false, body: Some(body) };
        let answer = super::forward::ask(&self.net, &primary, &envelope, ADMISSION_PATIENCE).await;
        message_of(answer.map_err(|error| {
            Refusal::new(504, format!("the primary {} could not be asked: {error}", self.name(&primary)))
        })?)
    }

    /// What the primary is asked; `None`: it need not be, since the VM is on none of the cluster's datastores.
    fn admit_start(&self, xml: &[u8]) -> Result<Option<Command>, Refusal> {
        let (spec, text) = read(xml)?;
        let vm = VmId(spec.uuid.0);
        let arrives = self.arrivals.take(vm);
        Ok(self.mounts.home(&spec).map(|datastore| Command::AdmitStart {
            host: self.me.id.clone(),
            vm,
            name: Arc::from(spec.name.as_str()),
            spec: self.mounts.vm_spec(xml_id(text), &spec),
            datastore,
            arrives,
        }))
    }

    async fn is_starting(&self, vm: VmId) -> Result<bool, Refusal> {
        let (answer, answered) = oneshot::channel();
        let stopping = || Refusal::new(503, format!("the agent of {} is stopping", self.me.name));
        self.questions.send(Question::IsStarting(vm, answer)).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())
    }

    /// From another agent: may that VM be started there?
    pub(super) async fn peer_admit(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let command: Command = serde_json::from_slice(body)
            .map_err(|error| Refusal::new(400, format!("the question can't be read: {error}")))?;
        if !matches!(command, Command::AdmitStart { .. }) {
            return Err(Refusal::new(400, "only a start can be asked about here"));
        }
        let view = self.look().await?.view;
        if view.role != Role::Primary {
            return Err(Refusal::new(503, format!("{} is not the primary", self.me.name)));
        }
        self.admit(&view, command).await
    }

    /// Asks this host's core, which is the primary's.
    async fn admit(&self, view: &View, command: Command) -> Result<Answer, Refusal> {
        if let Command::AdmitStart { host, vm, .. } = &command
            && is_ordered_there(view, *vm, host)
        {
            return ok(Done { message: String::new() });
        }
        match self.operate(command, ADMISSION_PATIENCE).await {
            // It may have stepped down since it was looked at: then that was all that it had to say.
            Err(refusal) if refusal.status == 409 && self.look().await?.view.role != Role::Primary => {
                Err(Refusal::new(503, refusal.error))
            }
            answer => answer,
        }
    }
}

fn read(xml: &[u8]) -> Result<(hv::Spec, &str), Refusal> {
    let unusable = |why: String| Refusal::new(400, format!("the domain XML can't be used: {why}"));
    let text = std::str::from_utf8(xml).map_err(|error| unusable(error.to_string()))?;
    let spec = text.parse().map_err(|error: hv::XmlError| unusable(error.to_string()))?;
    Ok((spec, text))
}

/// Mainstay itself has ordered the VM to be migrated there.
fn is_ordered_there(view: &View, vm: VmId, host: &HostId) -> bool {
    let ordered = |order: &OrderKind| matches!(order, OrderKind::Migrate(to) if to == host);
    view.vms.iter().any(|known| known.vm == vm && known.order.as_ref().is_some_and(ordered))
}

fn message_of((status, body): Answer) -> Result<String, Refusal> {
    if status != 200 {
        return Err(Refusal::new(status, problem_text(&body)));
    }
    Ok(body.get("message").and_then(Value::as_str).unwrap_or_default().to_owned())
}

/// Nobody could be asked.
fn unasked(kept: Option<(&FirstMinutes, Kept)>, why: &str) -> Result<String, Refusal> {
    let Some((first_minutes, kept)) = kept else { return Ok(allowed_unasked(why)) };
    let remedy = "Mainstay starts it as soon as the hosts have found each other, if it is to run";
    let words = first_minutes.words(&kept, why, remedy);
    tracing::info!(reason = words, "a start was refused");
    Err(Refusal::new(409, words))
}

fn allowed_unasked(why: &str) -> String {
    tracing::warn!(why, "a start was allowed without asking admission control");
    format!("allowed without asking admission control: {why}")
}
