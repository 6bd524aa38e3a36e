//! What the administrator has set for the cluster: rules, groups, priorities, admission control, maintenance. It is kept in
//! every protected list, so that it survives whoever is primary; of two the one with the higher revision counts (R70).
//!
//! VMs are named by their UUID, hosts by their id: both outlive a rename.

use crate::ids::{HostId, VmId};
use crate::time::Span;
use crate::vm::Priority;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

/// The settings of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Settings {
    /// Grows by one with each change.
    pub revision: u64,
    /// Who made the last change: between two of the same revision, the larger id counts.
    #[serde(default)]
    pub by: Option<HostId>,
    /// Hosts in maintenance mode, or on their way into it.
    #[serde(default)]
    pub maintenance: BTreeMap<HostId, Evacuation>,
    /// Hosts to which is brought back what was moved away from them for maintenance.
    #[serde(default)]
    pub bring_back: BTreeSet<HostId>,
    /// Hosts that are kept empty for failovers.
    #[serde(default)]
    pub failover_hosts: BTreeSet<HostId>,
    /// Rules by name.
    #[serde(default)]
    pub rules: BTreeMap<Arc<str>, Rule>,
    /// Start groups by name.
    #[serde(default)]
    pub groups: BTreeMap<Arc<str>, Group>,
    /// What is set for single VMs.
    #[serde(default)]
    pub vms: BTreeMap<VmId, VmSettings>,
    /// How admission control decides.
    #[serde(default)]
    pub admission: Admission,
}

impl Settings {
    /// Whether these are newer than those.
    pub fn is_newer_than(&self, other: &Settings) -> bool {
        (self.revision, &self.by) > (other.revision, &other.by)
    }

    /// About how many bytes these take in each protected list: more than that in no case.
    pub fn size(&self) -> usize {
        let rule = |(name, rule): (&Arc<str>, &Rule)| {
            120 + name.len() + 40 * rule.vms.len() + 140 * rule.hosts.len()
        };
        let group = |(name, group): (&Arc<str>, &Group)| {
            60 + name.len()
                + 40 * group.vms.len()
                + group.waits_for.iter().map(|name| name.len() + 3).sum::<usize>()
        };
        let vm = |settings: &VmSettings| {
            let command =
                |readiness: &Readiness| readiness.command.as_ref().map_or(0, |command| command.len());
            70 + settings.readiness.as_ref().map_or(0, |readiness| 120 + command(readiness))
        };
        600 + self.rules.iter().map(rule).sum::<usize>()
            + self.groups.iter().map(group).sum::<usize>()
            + self.vms.values().map(vm).sum::<usize>()
    }

    /// The restart priority of a VM: what was set here, else what its domain XML says.
    pub fn priority(&self, vm: VmId, of_xml: Priority) -> Priority {
        self.vms.get(&vm).and_then(|settings| settings.priority).unwrap_or(of_xml)
    }

    /// What those wait for that start after a VM.
    pub fn readiness(&self, vm: VmId) -> Readiness {
        self.vms.get(&vm).and_then(|settings| settings.readiness.clone()).unwrap_or_default()
    }
}

/// How a host is emptied for maintenance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Evacuation {
    /// Its VMs are live-migrated.
    #[default]
    Migrate,
    /// Its VMs are shut down, and stay off.
    ShutDown,
}

/// Whether a rule binds or is a wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// It is never broken: rather a VM stays down.
    Must,
    /// Kept where that costs no VM its place.
    Should,
}

/// What a rule says of its VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleKind {
    /// They run on these hosts only.
    OnHosts,
    /// They run on none of these hosts.
    NotOnHosts,
    /// No two of them run on one host.
    Apart,
    /// They all run on one host.
    Together,
}

/// What an administrator says about where VMs run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Whether it binds.
    pub strength: Strength,
    /// What it says.
    pub kind: RuleKind,
    /// The VMs that the rule is about.
    pub vms: BTreeSet<VmId>,
    /// The hosts, for the kinds that have some.
    #[serde(default)]
    pub hosts: BTreeSet<HostId>,
}

/// VMs that start as one step of an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Group {
    /// The VMs of this step.
    pub vms: BTreeSet<VmId>,
    /// Groups whose VMs must be ready first.
    #[serde(default)]
    pub waits_for: BTreeSet<Arc<str>>,
}

/// What is set for one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VmSettings {
    /// Its restart priority; `None`: as its domain XML says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// When those that wait for it may start; `None`: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Readiness>,
}

/// When those that wait for a VM may start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWhen {
    /// A host has taken up its start.
    #[default]
    Started,
    /// Its hypervisor says that it runs.
    Running,
    /// Its guest agent answers.
    AgentAnswers,
    /// The command set for it succeeds in the guest.
    CommandSucceeds,
}

/// A VM's ready condition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Readiness {
    /// What must have been seen of the VM.
    pub when: ReadyWhen,
    /// For [`ReadyWhen::CommandSucceeds`]: what is run in the guest, words separated by blanks.
    #[serde(default)]
    pub command: Option<Arc<str>>,
    /// So long after the condition was met.
    #[serde(default)]
    pub delay: Span,
    /// They wait no longer than this, counted from its first start.
    pub timeout: Span,
}

/// Others wait for a VM no longer than this (vSphere's default).
pub const READY_TIMEOUT: Span = Span::from_secs(600);

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness { when: ReadyWhen::Started, command: None, delay: Span::ZERO, timeout: READY_TIMEOUT }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.when {
            ReadyWhen::Started => "started",
            ReadyWhen::Running => "running",
            ReadyWhen::AgentAnswers => "its guest agent answers",
            ReadyWhen::CommandSucceeds => "a command in its guest succeeds",
        })?;
        if self.delay > Span::ZERO {
            write!(f, ", {} later", self.delay)?;
        }
        Ok(())
    }
}

/// How it is decided whether enough is kept for failures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Admission {
    /// By what it is decided.
    #[serde(default)]
    pub policy: Policy,
    /// What does not pass is refused; otherwise it is done with a warning.
    #[serde(default)]
    pub refuse: bool,
}

/// By what is decided whether enough is kept for failures.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Policy {
    /// A real plan exists for each choice of so many failed hosts.
    Proved {
        /// How many hosts.
        failures: u32,
    },
    /// The slots of vSphere HA: every VM is counted as large as the largest.
    HostFailures {
        /// How many hosts may fail.
        tolerated: u32,
        /// The largest slot in CPU (`das.slotCpuInMHz`).
        #[serde(default)]
        slot_cpu_mhz: Option<u64>,
        /// The largest slot in memory (`das.slotMemInMB`).
        #[serde(default)]
        slot_memory_mib: Option<u64>,
    },
    /// So many percent of CPU and memory are not reserved.
    Percentage {
        /// Percent of CPU that are kept free.
        cpu: u8,
        /// Percent of memory that are kept free.
        memory: u8,
    },
    /// Hosts are kept empty for failovers.
    FailoverHosts,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::Proved { failures: 1 }
    }
}

/// What a host can give to VMs besides room. In its power-on lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HostOffers {
    /// libvirt networks (by name) and bridges (as `bridge NAME`).
    #[serde(default)]
    pub networks: Vec<Arc<str>>,
    /// CPU models that its processors can show to a guest.
    #[serde(default)]
    pub cpu_models: Vec<Arc<str>>,
    /// Machine types that its QEMU knows.
    #[serde(default)]
    pub machines: Vec<Arc<str>>,
    /// Devices that can be passed through.
    #[serde(default)]
    pub devices: Vec<Arc<str>>,
    /// CPU in MHz; zero when unknown.
    #[serde(default)]
    pub cpu_mhz: u64,
}

/// So many of them, in words.
pub fn counted(number: u32, what: &str) -> alloc::string::String {
    let plural = if number == 1 { "" } else { "s" };
    alloc::format!("{number} {what}{plural}")
}

/// A length of time that a person typed, as a person would say it.
pub fn in_words(span: Span) -> alloc::string::String {
    let seconds = span.0.div_ceil(1_000_000);
    match seconds {
        0..120 => alloc::format!("{seconds} s"),
        120..7_200 => alloc::format!("{} min", seconds.div_ceil(60)),
        _ => {
            let minutes = seconds.div_ceil(60);
            let rest = minutes % 60;
            if rest == 0 {
                alloc::format!("{} h", minutes / 60)
            } else {
                alloc::format!("{} h {rest} min", minutes / 60)
            }
        }
    }
}

impl fmt::Display for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.policy {
            Policy::Proved { failures } => write!(f, "proved for {}", counted(*failures, "failed host"))?,
            Policy::HostFailures { tolerated, .. } => {
                write!(f, "slots for {}", counted(*tolerated, "failed host"))?;
            }
            Policy::Percentage { cpu, memory } => {
                write!(f, "{cpu} % of CPU and {memory} % of memory kept free")?;
            }
            Policy::FailoverHosts => f.write_str("failover hosts")?,
        }
        f.write_str(if self.refuse { ", refuses" } else { ", warns" })
    }
}
