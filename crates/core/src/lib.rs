//! The protocol of Mainstay as one deterministic state machine: `step(now, input, &mut effects)`, `next_deadline()`, `view()`.
//!
//! Architecture invariant: no clock, no I/O, no randomness, no async, no hash maps. The same code runs in the agent, in the
//! simulator and in the model checker; what differs is who carries out the effects.
#![no_std]
extern crate alloc;

#[cfg(feature = "broken-rules")]
mod broken;
mod claims;
pub mod config;
mod datastore;
pub mod effect;
pub mod election;
pub mod event;
pub mod failover;
pub mod guard;
mod heartbeat_datastores;
pub mod host_liveness;
mod hosts;
pub mod ids;
pub mod input;
mod isolation;
mod leases;
mod local_vms;
pub mod machine;
pub mod message;
mod out;
mod ownership;
mod placing;
mod protected_list;
pub mod register;
pub mod settings;
mod store;
mod suspension;
pub mod time;
pub mod timing;
pub mod view;
mod view_of;

#[cfg(feature = "broken-rules")]
pub use broken::BrokenRule;
pub use config::{Config, HeartbeatChoice};
pub use effect::{DiskAction, Effect, VmAction};
pub use event::{Event, Severity, VmName};
pub use guard::{Guard, GuardConfig, GuardEffect, GuardInput, GuardOrder, GuardReport, ProcessState};
pub use ids::{BootId, DatastoreName, Epoch, HostId, Incarnation, OpId, Token, VmId, XmlId};
pub use input::{Command, DiskOutcome, Domain, DomainState, Input, ReadRegister, VmOutcome};
pub use machine::Core;
pub use message::{Body, Capacity, Message};
pub use placing::{HostPlan, LeftOutVm, PlacedVm, RehearsalScene, Rehearsed};
pub use register::{RegisterId, RegisterValue};
pub use time::{Span, Time};
pub use timing::Timing;
pub use view::View;
