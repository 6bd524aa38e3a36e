//! Everything outside the core, put together: each effect goes to the adapter whose matter it is, and what the adapters have
//! to say becomes inputs.
//!
//! Invariant: nothing here waits. Datastores and libvirt answer by callbacks from their own threads; pings and timers are
//! tasks; all of them put what they have into the driver's queue.

use crate::clock;
use crate::disk::Disks;
use crate::driver::{Outside, Queue, Request};
use crate::guard_link::GuardLink;
use crate::journal::Journal;
use crate::ping::PingTargets;
use crate::remembered;
use crate::vms::{Errand, VmNews, Vms};
use crate::wire::Outgoing;
use mainstay_core::ids::{DatastoreName, HostId, VmId, XmlId};
use mainstay_core::{Effect, Input};
use mainstay_hypervisor::Handle;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// This host's adapters.
pub struct Adapters {
    /// Reads and writes registers, per datastore.
    pub disks: Disks,
    /// Passes orders to this host's guard, and its reports back.
    pub guard: GuardLink,
    /// Observes and orders domains, by way of libvirt.
    pub hypervisor: Box<dyn Handle>,
    /// What is known of VMs.
    pub vms: Vms,
    /// Messages to other agents.
    pub outgoing: Outgoing,
    /// Messages of other agents that could not be read.
    pub undecodable: Arc<AtomicU64>,
    /// Pings other hosts and isolation addresses.
    pub pings: PingTargets,
    /// The events of this host.
    pub journal: Journal,
    /// Where protected VMs are remembered.
    pub state_dir: PathBuf,
    /// Where news go.
    pub queue: Queue<VmNews>,
    /// Kept for its allocation; empty between calls.
    pub errands: Vec<Errand>,
}

impl Adapters {
    fn ping(&self, host: HostId) {
        let (answers, queue) = (self.pings.host(&host), self.queue.clone());
        tokio::spawn(async move {
            let answered = answers.await;
            tell(&queue, Request::Input(Input::PingDone { host, answered }));
        });
    }

    fn ping_isolation(&mut self, index: u32) {
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let (answers, queue) = (self.pings.isolation(place), self.queue.clone());
        tokio::spawn(async move {
            let answered = answers.await;
            tell(&queue, Request::Input(Input::IsolationPingDone { index, answered }));
        });
    }

    fn store_xml(&mut self, datastore: DatastoreName, vm: VmId, xml: XmlId, inputs: &mut Vec<Input>) {
        let Some(text) = self.vms.xml(vm, xml) else {
            // Its user changed it meanwhile: the core will hear of the new version and ask for that.
            let error = Some("the VM has another definition by now".into());
            inputs.push(Input::XmlStored { datastore, vm, xml, error });
            return;
        };
        self.disks.store_xml(datastore, vm, xml, &text, inputs);
    }

    fn run_errands(&mut self) {
        let mut errands = std::mem::take(&mut self.errands);
        for errand in errands.drain(..) {
            let queue = self.queue.clone();
            match errand {
                Errand::Libvirt(id, operation) => self.hypervisor.submit(id, operation),
                Errand::LoadXml { op, datastore, vm, xml } => {
                    let done =
                        Box::new(move |result| tell(&queue, Request::News(VmNews::XmlLoaded(op, result))));
                    self.disks.load_xml(&datastore, vm, xml, done);
                }
                Errand::Probe { op, images } => {
                    let done =
                        Box::new(move |result| tell(&queue, Request::News(VmNews::Probed(op, result))));
                    self.disks.probe(images, done);
                }
                Errand::Remember(text) => {
                    let state_dir = self.state_dir.clone();
                    tokio::task::spawn_blocking(move || {
                        let written = remembered::write(&state_dir, &text).map_err(|error| error.to_string());
                        tell(&queue, Request::News(VmNews::Remembered(written)));
                    });
                }
                Errand::Tell(event) => self.journal.record(clock::now(), *event),
                Errand::Later(after, news) => {
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        tell(&queue, Request::News(news));
                    });
                }
            }
        }
        self.errands = errands;
    }
}

impl Outside for Adapters {
    type News = VmNews;

    fn carry_out(&mut self, effect: Effect, inputs: &mut Vec<Input>) {
        match effect {
            Effect::Send { to, message } => self.outgoing.send(&to, &message),
            Effect::Disk { op, datastore, action } => {
                self.disks.submit(op, &datastore, action, inputs);
            }
            Effect::Ping { host } => self.ping(host),
            Effect::Vm { op, action } => {
                self.vms.act(op, action, inputs, &mut self.errands);
                self.run_errands();
            }
            Effect::StoreXml { datastore, vm, xml } => self.store_xml(datastore, vm, xml, inputs),
            // The driver keeps these.
            Effect::Event(_) | Effect::Reply { .. } => {}
            Effect::PingIsolation { index } => self.ping_isolation(index),
            Effect::Guard(order) => self.guard.send(order),
            Effect::ReplaceGuard => self.guard.replace(),
        }
    }

    fn on_news(&mut self, news: VmNews, inputs: &mut Vec<Input>) {
        self.vms.on_news(clock::now(), news, inputs, &mut self.errands);
        self.run_errands();
    }

    fn is_starting(&self, vm: VmId) -> bool {
        self.vms.is_starting(vm)
    }

    fn count(&self, counters: &mut BTreeMap<String, u64>) {
        self.disks.count(counters);
        self.outgoing.count(counters);
        counters.insert("wire.decode_errors".into(), self.undecodable.load(Ordering::Relaxed));
        counters.insert("vms.incomplete_snapshots".into(), self.vms.counters.incomplete_snapshots);
        counters.insert("vms.images_held".into(), self.vms.counters.images_held);
    }
}

/// Fails only when the driver has ended: then nobody wants to know.
pub fn tell(queue: &Queue<VmNews>, request: Request<VmNews>) {
    let _ = queue.send(request);
}
