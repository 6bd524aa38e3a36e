//! What sub-machines write their effects to: numbers operations and messages on the way.

use crate::effect::{DiskAction, Effect, VmAction};
use crate::event::Event;
use crate::files::FilesDigest;
use crate::ids::{DatastoreName, HostId, Incarnation, OpId};
use crate::message::{Body, Message};
use crate::time::Time;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The counters that outlive a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) incarnation: Incarnation,
    /// What this host's file says, for each message.
    pub(crate) files: FilesDigest,
    pub(crate) operations: u64,
    pub(crate) messages: u64,
}

/// One step's effects.
pub(crate) struct Out<'a> {
    pub(crate) now: Time,
    pub(crate) counters: &'a mut Counters,
    pub(crate) effects: &'a mut Vec<Effect>,
}

impl Out<'_> {
    pub(crate) fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }

    pub(crate) fn send(&mut self, to: &HostId, body: Body) {
        self.counters.messages += 1;
        let Counters { incarnation, files, messages: sequence, .. } = *self.counters;
        let message = Message { incarnation, sequence, files: Some(files), body };
        self.effects.push(Effect::Send { to: to.clone(), message });
    }

    fn operation(&mut self) -> OpId {
        self.counters.operations += 1;
        OpId(self.counters.operations)
    }

    pub(crate) fn disk(&mut self, datastore: &DatastoreName, action: DiskAction) -> OpId {
        let op = self.operation();
        self.effects.push(Effect::Disk { op, datastore: datastore.clone(), action });
        op
    }

    pub(crate) fn vm(&mut self, action: VmAction) -> OpId {
        let op = self.operation();
        self.effects.push(Effect::Vm { op, action });
        op
    }
}
