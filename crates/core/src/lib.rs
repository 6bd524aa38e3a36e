//! The protocol of Mainstay as one deterministic state machine: `step(now, input, &mut effects)`, `next_deadline()`, `view()`.
//!
//! Architecture invariant: no clock, no I/O, no randomness, no async, no hash maps. The same code runs in the agent, in the
//! simulator and in the model checker; what differs is who carries out the effects.
#![no_std]
extern crate alloc;

mod agreement;
#[cfg(feature = "broken-rules")]
mod broken;
mod claims;
mod cluster;
mod commands;
mod datastore;
mod datastores;
mod desk;
pub mod election;
pub mod failover;
mod guard_side;
mod heartbeat_datastores;
mod heartbeats;
pub mod host_liveness;
mod hosts;
mod isolation;
mod life;
mod local_vms;
pub mod machine;
mod out;
mod ownership;
mod placing;
mod protected_list;
mod reviewing;
mod settings_here;
mod store;
mod surroundings;
mod suspension;
pub mod timers;
mod view_of;

#[cfg(feature = "broken-rules")]
pub use broken::BrokenRule;
pub use machine::Core;
pub use placing::{HostPlan, LeftOutVm, PlacedVm, RehearsalScene, Rehearsed};
pub use timers::{Deadline, Timer};

// The words, under the paths by which the rooms of the core and its users know them.
pub use mainstay_words::{
    Body, BootId, Capacity, Command, Config, DatastoreName, DiskAction, DiskOutcome, Domain, DomainState,
    Effect, Epoch, Event, FoundRegister, GuardOrder, GuardReport, HeartbeatChoice, HostId, Incarnation,
    Input, Message, OpId, ProcessState, ReadRegister, Refusal, RegisterId, RegisterValue, Severity, Span,
    Time, Timing, Token, View, VmAction, VmId, VmName, VmOutcome, XmlId,
};
pub use mainstay_words::{
    about, command, config, effect, event, files, guard, ids, input, message, register, settings, time,
    timing, view, vm,
};
