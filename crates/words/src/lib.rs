//! The words of Mainstay: the names and the plain data that the protocol, its processes and its tools share.
//!
//! Architecture invariant: plain data that imports nothing of ours. A crate that only reads, writes or shows what hosts say
//! depends on this one, and so does not link the machine that decides. Modules import each other in one direction only: `ids`
//! and `time` import no other, and nothing imports `about`, `input`, `effect` or `view`.
//!
//! It does not: decide anything. A method here reads its own value, checks it, or says it in English.
#![no_std]
extern crate alloc;

pub mod about;
pub mod command;
pub mod config;
pub mod effect;
pub mod event;
pub mod files;
pub mod guard;
pub mod ids;
pub mod input;
pub mod judgement;
pub mod message;
mod pair;
pub mod register;
pub mod rehearsal;
pub mod settings;
mod standing;
pub mod time;
pub mod timing;
pub mod view;
pub mod vm;

pub use about::{About, Alarm};
pub use command::Command;
pub use config::{Config, HeartbeatChoice};
pub use effect::{DiskAction, Effect, VmAction};
pub use event::{Event, VmName};
pub use files::{Files, FilesDigest};
pub use guard::{GuardOrder, GuardReport, GuardWord, ProcessState};
pub use ids::{BootId, DatastoreName, Epoch, HostId, Incarnation, OpId, Token, VmId, XmlId};
pub use input::{DiskOutcome, Domain, DomainState, FoundRegister, Input, ReadRegister, VmOutcome};
pub use judgement::{HostState, PrimaryReason, Refusal, Severity};
pub use message::{Body, Capacity, Message};
pub use register::{RegisterId, RegisterValue};
pub use rehearsal::{HostPlan, LeftOutVm, PlacedVm, Rehearsed, UnwantedVm};
pub use time::{Span, Time};
pub use timing::Timing;
pub use view::View;
