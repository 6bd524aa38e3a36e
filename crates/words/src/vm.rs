//! What a VM needs, and how it is to be treated.

use crate::ids::{DatastoreName, VmId, XmlId};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Names a VM in an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmName {
    /// The VM's libvirt UUID.
    pub id: VmId,
    /// Its libvirt name.
    pub name: Arc<str>,
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How a VM's autostart was changed in the libvirt of a host (R39).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AutostartChange {
    /// It is off while the VM is protected.
    Off,
    /// It was off already, somebody has switched it on again, and it is off again.
    OffAgain,
    /// The VM is not protected any more: it is on again, as it was before.
    Back,
}

/// What a VM needs, and its user's wishes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmSpec {
    /// Names the file with its domain XML on the datastore.
    pub xml: XmlId,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// How many virtual CPUs it has.
    pub vcpus: u32,
    /// When it is restarted, compared with others.
    pub priority: Priority,
    /// CPU reserved for it, in MHz.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cpu_mhz: u64,
    /// Memory reserved for it, where its user wants less than all of it to be reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reserved_mib: Option<u64>,
    /// What QEMU takes on top of the memory, in MiB.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overhead_mib: u64,
    /// It has a channel for a guest agent.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub guest_agent: bool,
    /// What it needs besides room.
    #[serde(default, skip_serializing_if = "nothing_needed")]
    pub needs: Arc<VmNeeds>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn nothing_needed(needs: &Arc<VmNeeds>) -> bool {
    **needs == VmNeeds::default()
}

/// What a VM needs of its host besides room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmNeeds {
    /// Datastores that its disks are on, besides the one that it is homed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datastores: Vec<DatastoreName>,
    /// libvirt networks (by name) and bridges (as `bridge NAME`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Arc<str>>,
    /// The CPU model that it shows its guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<Arc<str>>,
    /// Its machine type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Arc<str>>,
    /// Devices that are passed through to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Arc<str>>,
}

/// Restart priority of a VM: higher ones are started first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Priority {
    /// It is never restarted.
    Disabled,
    /// Restarted after all others.
    Lowest,
    /// Restarted after those of medium priority.
    Low,
    /// The priority of a VM for which none was set.
    #[default]
    Medium,
    /// Restarted before those of medium priority.
    High,
    /// Restarted before all others.
    Highest,
}

impl Priority {
    /// Reads the user's word for it.
    pub fn parse(text: &str) -> Option<Priority> {
        match text {
            "disabled" => Some(Priority::Disabled),
            "lowest" => Some(Priority::Lowest),
            "low" => Some(Priority::Low),
            "medium" => Some(Priority::Medium),
            "high" => Some(Priority::High),
            "highest" => Some(Priority::Highest),
            _ => None,
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Priority::Disabled => "disabled",
            Priority::Lowest => "lowest",
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
            Priority::Highest => "highest",
        })
    }
}

/// What an isolated host does with a VM once an owner is responsible for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsolationResponse {
    /// Nothing: it goes on.
    #[default]
    LeavePoweredOn,
    /// Asks the guest to shut down; powers it off after a time-out.
    ShutDown,
    /// Powers it off.
    PowerOff,
}

impl IsolationResponse {
    /// Reads the user's word for it.
    pub fn parse(text: &str) -> Option<IsolationResponse> {
        match text {
            "leave" | "leave-powered-on" | "none" => Some(IsolationResponse::LeavePoweredOn),
            "shutdown" | "shut-down" => Some(IsolationResponse::ShutDown),
            "power-off" | "poweroff" | "power_off" => Some(IsolationResponse::PowerOff),
            _ => None,
        }
    }
}

impl fmt::Display for IsolationResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            IsolationResponse::LeavePoweredOn => "leave powered on",
            IsolationResponse::ShutDown => "shut down",
            IsolationResponse::PowerOff => "power off",
        })
    }
}
