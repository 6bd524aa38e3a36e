//! Why a host can't take a VM: typed, and in words that name what was lacking.

use crate::picture::{Name, Resources};
use alloc::string::{String, ToString};
use core::fmt;

/// Why this host can't take this VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The plan is made for its failure.
    Failed,
    /// The plan is made to empty it.
    ToBeEmptied,
    /// It takes no VMs now, for this reason.
    Unusable(Name),
    /// It is in maintenance mode.
    Maintenance,
    /// It is kept free for failovers, and this is none.
    KeptForFailover,
    /// Too little memory is left.
    Memory {
        /// What is left, in MiB.
        free: u64,
        /// What the VM, or the group that moves as a whole, needs.
        needed: u64,
    },
    /// Too little CPU is left.
    Cpu {
        /// What is left, in MHz.
        free: u64,
        /// What the VM, or the group that moves as a whole, needs.
        needed: u64,
    },
    /// It does not have the datastore.
    Datastore(Name),
    /// It does not have the network.
    Network(Name),
    /// Its processors can't show this CPU model.
    CpuModel(Name),
    /// Its QEMU does not know the machine type.
    MachineType(Name),
    /// It does not have the device.
    Device(Name),
    /// Another VM has the device.
    DeviceTaken(Name),
    /// A rule forbids this host to this VM.
    HostRule(Name),
    /// A rule keeps the VM apart from one that runs there or was just placed there.
    Apart {
        /// The name of the anti-affinity rule.
        rule: Name,
        /// The VM that is there.
        vm: Name,
    },
    /// A rule keeps the VM together with one that runs elsewhere.
    Together {
        /// The name of the affinity rule.
        rule: Name,
        /// The VM that runs elsewhere.
        vm: Name,
        /// Where it runs.
        host: Name,
    },
    /// One rule keeps these two together and another one apart.
    Contradiction {
        /// The rule that keeps them together.
        together: Name,
        /// The rule that keeps them apart.
        apart: Name,
    },
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Refusal {
    /// What is lacking when `free` does not hold `needed`; memory is named first.
    pub(crate) fn of_room(free: Resources, needed: Resources) -> Option<Self> {
        if free.memory_mib < needed.memory_mib {
            return Some(Self::Memory { free: free.memory_mib, needed: needed.memory_mib });
        }
        (free.cpu_mhz < needed.cpu_mhz).then_some(Self::Cpu { free: free.cpu_mhz, needed: needed.cpu_mhz })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("it failed"),
            Self::ToBeEmptied => f.write_str("it is to be emptied"),
            Self::Unusable(reason) => f.write_str(reason),
            Self::Maintenance => f.write_str("in maintenance mode"),
            Self::KeptForFailover => f.write_str("kept free for failovers"),
            Self::Memory { free, needed } => {
                write!(f, "{} MiB free, {} MiB needed", grouped(*free), grouped(*needed))
            }
            Self::Cpu { free, needed } => {
                write!(f, "{} MHz free, {} MHz needed", grouped(*free), grouped(*needed))
            }
            Self::Datastore(name) => write!(f, "no contact with datastore `{name}`"),
            Self::Network(name) => write!(f, "no network `{name}`"),
            Self::CpuModel(name) => write!(f, "its CPU can't be a `{name}`"),
            Self::MachineType(name) => write!(f, "its QEMU does not know machine type `{name}`"),
            Self::Device(name) => write!(f, "it has no device `{name}`"),
            Self::DeviceTaken(name) => write!(f, "device `{name}` is in use"),
            Self::HostRule(rule) => write!(f, "rule `{rule}` forbids this host"),
            Self::Apart { rule, vm } => write!(f, "rule `{rule}`: {vm} runs there"),
            Self::Together { rule, vm, host } => write!(f, "rule `{rule}`: {vm} runs on {host}"),
            Self::Contradiction { together, apart } => {
                write!(f, "rules `{together}` and `{apart}` contradict each other")
            }
        }
    }
}
