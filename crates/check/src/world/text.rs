//! What happens, in the words of the protocol.

use super::disk::Write;
use super::{Choice, Hold, Item, World};
use mainstay_core::RegisterValue;
use mainstay_core::message::Body;
use mainstay_core::register::ClaimState;

/// A write that lands.
pub(super) fn of_landing(write: &Write, newer: bool) -> String {
    let late = if newer { "" } else { " (too late: a newer one is there)" };
    format!("  on disk: {}{late}", of_value(&write.value))
}

fn of_value(value: &RegisterValue) -> String {
    match value {
        RegisterValue::Heartbeat(beat) => format!("heartbeat {}", beat.counter),
        RegisterValue::PowerOn(list) => {
            let claims = list.claims.iter().map(|claim| {
                let state = match &claim.state {
                    ClaimState::Stopped { cause } => format!("stopped ({cause})"),
                    ClaimState::StartFailed { reason } => format!("start failed ({reason})"),
                    ClaimState::Starting
                    | ClaimState::Running
                    | ClaimState::Frozen
                    | ClaimState::Stopping
                    | ClaimState::Migrating => format!("{:?}", claim.state).to_lowercase(),
                };
                format!("{state} under {:?}", claim.token)
            });
            let claims: Vec<String> = claims.collect();
            format!("power-on list {}: {}", list.version, claims.join(", "))
        }
        RegisterValue::Ownership(block) => {
            format!(
                "block: instance {}, accepted {:?}, beat {:?}",
                block.instance, block.accepted, block.beat
            )
        }
        RegisterValue::ProtectedList(list) => {
            let entries = list.entries.iter().map(|entry| {
                format!(
                    "{:?}, held by {:?} under {}, intent {:?}",
                    entry.desired, entry.holder, entry.token, entry.intent
                )
            });
            let entries: Vec<String> = entries.collect();
            format!("protected list {}/{}: {}", list.epoch, list.version, entries.join("; "))
        }
    }
}

fn of_item(world: &World, item: &Item) -> String {
    let id = |host: usize| world.setup.id(host);
    match item {
        Item::Write(write) => format!("{}'s write of {}", id(write.host), of_value(&write.value)),
        Item::Read(read) => {
            let done: Vec<_> = read.got.iter().map(|one| &one.id).collect();
            format!("{}'s read of {:?} (already read: {done:?})", id(read.host), read.wanted)
        }
        Item::Message { from, to, message } => {
            let what = match &message.body {
                Body::Heartbeat(_) => "heartbeat",
                Body::HeartbeatAck(_) => "answer to a heartbeat",
                Body::ListChanged { .. } => "hint of a new list",
                Body::Released { .. } => "word that it has given up the ownership",
                Body::Elect { .. } => "bid",
                Body::Announce { .. } => "announcement",
                Body::SteppingDown => "word that it steps down",
                Body::Files(_) => "what its file names",
            };
            format!("{}'s {what} to {}", id(*from), id(*to))
        }
        Item::Libvirt { host, action, .. } => format!("{}'s libvirt: {action:?}", id(*host)),
        Item::Tick { .. }
        | Item::GuardTick { .. }
        | Item::Ping { .. }
        | Item::PingDone { .. }
        | Item::Order { .. }
        | Item::Report { .. }
        | Item::Deed { .. }
        | Item::Domains { .. }
        | Item::Xml { .. } => format!("{item:?}"),
    }
}

impl World {
    /// A choice, in words; nothing for the default.
    pub(super) fn say_choice(&mut self, choice: Choice) {
        if self.kept.log.is_none() {
            return;
        }
        let held =
            |index: usize| self.held.get(index).map_or(String::new(), |held| of_item(self, &held.item));
        let fault = |index: usize| format!("{:?}", self.setup.menu[index].fault);
        let line = match choice {
            Choice::Go => return,
            Choice::Hold(how) => {
                let head = self.ready.front().map_or(String::new(), |item| of_item(self, item));
                match how {
                    Hold::Whole => format!("HELD: {head}"),
                    Hold::Answer => format!("HELD, carried out but not answered: {head}"),
                    Hold::Rest => format!("HELD after its first register: {head}"),
                    Hold::Lost => format!("LOST: {head}"),
                }
            }
            Choice::Land(index) => format!("LANDS, not answered: {}", held(index)),
            Choice::Release(index) => format!("GOES ON: {}", held(index)),
            Choice::Fault(index) => format!("FAULT: {}", fault(index)),
            Choice::Repair(index) => format!("REPAIRED: {}", fault(index)),
        };
        self.say("", || line);
    }
}
