//! A start: read the XML, wait until nobody holds the images, create the domain paused.
//!
//! Why wait instead of trying: each failed attempt costs a QEMU, and the log would be full of errors that are none.

use super::{Errand, ImageState, PROBE_INTERVAL, Pending, VmNews, Vms, done};
use mainstay_core::ids::{OpId, VmId};
use mainstay_core::{Input, Time, VmOutcome};
use mainstay_hypervisor as hv;
use std::path::PathBuf;
use std::sync::Arc;

/// After so many looks that brought nothing (a missing image, a broken mount) the start has failed: another host may reach
/// what this one does not. A second's worth, for what passes by itself.
const FAILURES_MAX: u32 = 5;

/// A start that is under way.
#[derive(Debug)]
pub(super) struct Preparing {
    vm: VmId,
    /// Once it has been read.
    xml: Option<String>,
    images: Vec<PathBuf>,
    /// What the core has been told that is waited for.
    told: Option<Arc<str>>,
    /// Looks at the images in a row that brought nothing.
    failures: u32,
    /// libvirt is at it: from here on it can't be called off, only destroyed.
    submitted: bool,
}

impl Preparing {
    pub(super) fn new(vm: VmId) -> Preparing {
        Preparing { vm, xml: None, images: Vec::new(), told: None, failures: 0, submitted: false }
    }
}

impl Vms {
    pub(super) fn is_preparing(&self, vm: VmId) -> bool {
        self.preparing.values().any(|preparing| preparing.vm == vm)
    }

    /// Ends starts of that VM which libvirt does not know of yet.
    pub(super) fn cancel(&mut self, vm: VmId, inputs: &mut Vec<Input>) {
        let waiting = |(op, preparing): (&OpId, &Preparing)| {
            (preparing.vm == vm && !preparing.submitted).then_some(*op)
        };
        let ops: Vec<OpId> = self.preparing.iter().filter_map(waiting).collect();
        for op in ops {
            self.fail(op, "the start was called off", inputs);
        }
    }

    pub(super) fn on_xml(
        &mut self,
        op: OpId,
        result: Result<String, String>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let Some(preparing) = self.preparing.get_mut(&op) else { return };
        let read = result.and_then(|xml| match xml.parse::<hv::Spec>() {
            Ok(spec) if spec.uuid.0 == preparing.vm.0 => Ok((xml, images(&spec))),
            Ok(spec) => Err(format!("the stored domain XML is of another VM ({})", spec.uuid)),
            Err(error) => Err(format!("the stored domain XML can't be used: {error}")),
        });
        match read {
            Ok((xml, images)) => {
                preparing.xml = Some(xml);
                preparing.images = images;
                self.probe(op, errands);
            }
            Err(reason) => self.fail(op, &reason, inputs),
        }
    }

    /// Looks whether the images are free.
    pub(super) fn probe(&mut self, op: OpId, errands: &mut Vec<Errand>) {
        if let Some(preparing) = self.preparing.get(&op) {
            errands.push(Errand::Probe { op, images: preparing.images.clone() });
        }
    }

    pub(super) fn on_probed(
        &mut self,
        op: OpId,
        result: Result<ImageState, String>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) {
        let Some(preparing) = self.preparing.get_mut(&op) else { return };
        match result {
            Ok(ImageState::Free) => self.start(op, errands),
            Ok(ImageState::Held(why)) => {
                preparing.failures = 0;
                self.counters.images_held += 1;
                self.wait(op, why, inputs, errands);
            }
            Err(why) => {
                preparing.failures += 1;
                if preparing.failures < FAILURES_MAX {
                    self.wait(op, why, inputs, errands);
                } else {
                    self.fail(op, &why, inputs);
                }
            }
        }
    }

    fn wait(&mut self, op: OpId, why: String, inputs: &mut Vec<Input>, errands: &mut Vec<Errand>) {
        let Some(preparing) = self.preparing.get_mut(&op) else { return };
        if preparing.told.as_deref() != Some(&*why) {
            let why: Arc<str> = why.into();
            preparing.told = Some(Arc::clone(&why));
            inputs.push(Input::VmWaits { op, why });
        }
        errands.push(Errand::Later(PROBE_INTERVAL, VmNews::ProbeAgain(op)));
    }

    fn start(&mut self, op: OpId, errands: &mut Vec<Errand>) {
        let Some(preparing) = self.preparing.get_mut(&op) else { return };
        let Some(xml) = preparing.xml.clone() else { return };
        preparing.submitted = true;
        self.prepared.insert(preparing.vm, None);
        self.destroyed.remove(&preparing.vm);
        self.causes.remove(&preparing.vm);
        self.submit(Pending::Start(op), hv::Op::StartPaused { xml }, errands);
    }

    /// The start has come to an end, or waits again. Gives the VM when it ended.
    pub(super) fn on_started(
        &mut self,
        now: Time,
        op: OpId,
        result: Result<hv::OpOutput, hv::OpError>,
        inputs: &mut Vec<Input>,
        errands: &mut Vec<Errand>,
    ) -> Option<VmId> {
        let preparing = self.preparing.get_mut(&op)?;
        let vm = preparing.vm;
        match result {
            // Somebody was faster than us, or another client keeps a lock that the probe can't see.
            Err(hv::OpError::ImageLocked { message }) if !self.destroyed.contains_key(&vm) => {
                preparing.submitted = false;
                self.prepared.remove(&vm);
                self.wait(op, format!("QEMU finds an image locked: {message}"), inputs, errands);
                None
            }
            result => {
                self.preparing.remove(&op);
                // When nobody knows whether it happened, a paused domain that shows up later is still ours.
                if result.as_ref().is_err_and(|error| !error.outcome_unknown()) {
                    self.prepared.remove(&vm);
                } else if let Some(ended) = self.prepared.get_mut(&vm) {
                    *ended = Some(now);
                }
                inputs.push(done(op, result));
                Some(vm)
            }
        }
    }

    fn fail(&mut self, op: OpId, reason: &str, inputs: &mut Vec<Input>) {
        self.preparing.remove(&op);
        inputs.push(Input::VmDone { op, outcome: VmOutcome::Failed(reason.into()) });
    }
}

/// The files that QEMU would lock for writing.
fn images(spec: &hv::Spec) -> Vec<PathBuf> {
    let locked = spec.disks.iter().filter(|disk| !disk.readonly && !disk.shareable);
    locked
        .filter_map(|disk| match &disk.source {
            hv::DiskSource::File(path) => Some(PathBuf::from(path)),
            hv::DiskSource::Block(_)
            | hv::DiskSource::Network { .. }
            | hv::DiskSource::Volume { .. }
            | hv::DiskSource::Empty
            | hv::DiskSource::Other(_) => None,
        })
        .collect()
}
