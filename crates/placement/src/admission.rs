//! Admission control: would everything come back, asked before anything has failed.
//!
//! Four policies. Three are vSphere's: slots, a percentage kept free, hosts kept empty. They count; none of them knows whether a VM
//! fits anywhere. The fourth, `proved`, is the default: it makes the plan for each failure that is to be tolerated, with all rules, and
//! admits only what comes back whole.
//!
//! What this does not do: it never has a say in a failover. It answers for changes: protecting a VM, starting one, raising a
//! reservation, entering maintenance.

mod counting;
mod proposal;
mod proved;

pub use counting::Slot;
pub use proposal::{Proposal, admit_after};

use crate::picture::{Name, Picture};
use crate::plan::LeftOut;
use crate::refusal::{Refusal, grouped};
use crate::rehearsal::Rehearsal;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Placements of VMs that a proof of more than one failure may cost before the bound is used instead: about a second.
pub const PROOF_WORK: u64 = 2_000_000;

/// Failures named one by one in a verdict; the rest is counted.
pub const OBJECTIONS_SHOWN: usize = 16;

/// By what is decided whether enough is kept for failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// vSphere's slots: each VM takes a slot as large as the largest reservation; the slots that remain when the `tolerated` hosts
    /// with the most slots are gone must do for all.
    HostFailures {
        /// How many hosts may fail.
        tolerated: u32,
        /// The largest slot in CPU, whatever VMs have reserved (`das.slotCpuInMHz`).
        slot_cpu_max: Option<u64>,
        /// The largest slot in memory (`das.slotMemInMB`).
        slot_memory_max: Option<u64>,
    },
    /// So many percent of all CPU and memory are not reserved by VMs.
    Percentage {
        /// Percent of the CPU of all usable hosts, 0 to 100.
        cpu: u8,
        /// Percent of the memory of all usable hosts, 0 to 100.
        memory: u8,
    },
    /// Hosts are kept empty for failovers.
    FailoverHosts,
    /// A real plan exists for each choice of so many failed hosts.
    Proved {
        /// How many hosts may fail at once.
        failures: u32,
        /// Placements that this may cost; beyond it a bound is used that errs on the safe side. See [`PROOF_WORK`].
        work: u64,
    },
}

impl Default for Policy {
    fn default() -> Self {
        Self::Proved { failures: 1, work: PROOF_WORK }
    }
}

/// What happens when the policy is not met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforcement {
    /// The change is refused.
    Refuse,
    /// The change is made, and an alarm stands.
    #[default]
    Warn,
}

/// The setting: policy and enforcement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionControl {
    /// What has to be kept for failures, and how that is counted.
    pub policy: Policy,
    /// What happens when it is not met.
    pub enforcement: Enforcement,
}

/// One reason not to admit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objection {
    /// When these hosts fail, these VMs do not come back.
    NotAllBack {
        /// The hosts; none: it is so already.
        failed: Vec<Name>,
        /// The VMs, and what they lack host by host.
        left_out: Vec<LeftOut>,
    },
    /// There are too many choices of failed hosts to go through, and the bound does not prove it either.
    NotProved {
        /// How many hosts may fail.
        failures: u32,
        /// How many choices there are; at the end of the range it stays there.
        choices: u64,
        /// What the bound found to be lacking.
        lacking: String,
    },
    /// Too few slots.
    Slots {
        /// The size of a slot: what the VMs are counted in.
        slot: Slot,
        /// How many VMs need one.
        needed: u64,
        /// How many there are when the largest hosts are gone.
        left: u64,
        /// How many hosts may fail.
        tolerated: u32,
    },
    /// Too little CPU is free.
    CpuShare {
        /// MHz that VMs have not reserved.
        free: u64,
        /// MHz that there are.
        total: u64,
        /// Percent that must be free.
        percent: u8,
    },
    /// Too little memory is free.
    MemoryShare {
        /// MiB that VMs have not reserved.
        free: u64,
        /// MiB that there are.
        total: u64,
        /// Percent that must be free.
        percent: u8,
    },
    /// No usable host is kept for failovers.
    NoFailoverHost,
    /// A VM runs on a host that is kept for failovers.
    FailoverHostInUse {
        /// The dedicated failover host.
        host: Name,
        /// The VM that runs there.
        vm: Name,
    },
    /// The VM can't run there at all.
    CannotRunThere {
        /// The VM that is to run there.
        vm: Name,
        /// The host that can't take the VM.
        host: Name,
        /// What keeps the VM from it.
        why: Refusal,
    },
    /// The host can't be emptied.
    CannotBeEmptied {
        /// The host that is to be emptied.
        host: Name,
        /// The VMs that no other host can take.
        left_out: Vec<LeftOut>,
    },
}

fn vms(f: &mut fmt::Formatter<'_>, left_out: &[LeftOut]) -> fmt::Result {
    for (position, one) in left_out.iter().enumerate() {
        let separator = if position == 0 { "" } else { "; " };
        write!(f, "{separator}{} (", one.vm)?;
        for (position, (host, why)) in one.why.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{host}: {why}")?;
        }
        f.write_str(")")?;
    }
    Ok(())
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllBack { failed, left_out } => {
                if failed.is_empty() {
                    f.write_str("already now these wait: ")?;
                } else {
                    write!(f, "if {} failed, these would not come back: ", failed.join(" and "))?;
                }
                vms(f, left_out)
            }
            Self::NotProved { failures, choices, lacking } => write!(
                f,
                "{} choices of {failures} failed hosts are too many to go through, and the bound does not prove them: {lacking}",
                grouped(*choices)
            ),
            Self::Slots { slot, needed, left, tolerated } => write!(
                f,
                "{} slots of {slot} are left when the {tolerated} largest hosts fail, {} are needed",
                grouped(*left),
                grouped(*needed)
            ),
            Self::CpuShare { free, total, percent } => {
                write!(
                    f,
                    "{} of {} MHz are not reserved, {percent} % must be",
                    grouped(*free),
                    grouped(*total)
                )
            }
            Self::MemoryShare { free, total, percent } => {
                write!(
                    f,
                    "{} of {} MiB are not reserved, {percent} % must be",
                    grouped(*free),
                    grouped(*total)
                )
            }
            Self::NoFailoverHost => f.write_str("no usable host is kept for failovers"),
            Self::FailoverHostInUse { host, vm } => {
                write!(f, "{host} is kept for failovers, and {vm} runs on it; move it away")
            }
            Self::CannotRunThere { vm, host, why } => write!(f, "{vm} can't run on {host}: {why}"),
            Self::CannotBeEmptied { host, left_out } => {
                write!(f, "{host} can't be emptied, no other host takes: ")?;
                vms(f, left_out)
            }
        }
    }
}

/// What admission control says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Why not; empty: admitted.
    pub objections: Vec<Objection>,
    /// So many more failures would leave somebody out.
    pub more: u64,
    /// What the objections come to.
    pub enforcement: Enforcement,
}

impl Verdict {
    /// There is nothing against it.
    pub fn is_admitted(&self) -> bool {
        self.objections.is_empty()
    }

    /// There is, and the setting says that it counts.
    pub fn is_refused(&self) -> bool {
        !self.is_admitted() && self.enforcement == Enforcement::Refuse
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_admitted() {
            return f.write_str("admitted");
        }
        let lines: Vec<String> = self.objections.iter().map(ToString::to_string).collect();
        let kind = if self.is_refused() { "refused" } else { "warning" };
        write!(f, "{kind}: {}", lines.join("; "))?;
        if self.more > 0 {
            write!(f, "; and {} more failures like these", grouped(self.more))?;
        }
        Ok(())
    }
}

/// Whether this cluster is admitted as it is.
pub fn admit(picture: &Picture, control: &AdmissionControl) -> Verdict {
    let (objections, more) = match &control.policy {
        Policy::Proved { failures, work } => {
            let index = crate::index::Index::new(picture);
            let mut room = crate::room::Room::new(&index);
            proved::Proof::new(picture, &index, &mut room).prove(None, *failures, *work)
        }
        Policy::HostFailures { .. } | Policy::Percentage { .. } | Policy::FailoverHosts => {
            (counting::count(picture, &control.policy), 0)
        }
    };
    Verdict { objections, more, enforcement: control.enforcement }
}

impl Rehearsal {
    /// Whether the cluster is admitted as it is: like [`admit`], with the plans at hand.
    pub fn admit(&mut self, control: &AdmissionControl) -> Verdict {
        let (objections, more) = match &control.policy {
            Policy::Proved { failures, work } => {
                let (picture, index, room, outcomes) = self.parts();
                proved::Proof::new(picture, index, room).prove(Some(outcomes), *failures, *work)
            }
            Policy::HostFailures { .. } | Policy::Percentage { .. } | Policy::FailoverHosts => {
                (counting::count(self.picture(), &control.policy), 0)
            }
        };
        Verdict { objections, more, enforcement: control.enforcement }
    }
}
