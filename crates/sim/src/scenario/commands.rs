//! What people ask of the cluster in a scenario: words of steps that become [`Command`]s.

use crate::setup::Setup;
use mainstay_core::register::{Priority, VmSpec};
use mainstay_core::settings::{
    Admission, Evacuation, Policy, READY_TIMEOUT, Readiness, ReadyWhen, RuleKind, Strength,
};
use mainstay_core::{Command, HostId, Span};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The words. VMs and hosts are given by their names.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The restart priority of a VM; as its XML says when left out.
    SetPriority {
        /// The VM, by its name in the topology.
        vm: String,
        /// `disabled`, `lowest`, `low`, `medium`, `high`, `highest`.
        priority: Option<String>,
    },
    /// When those that wait for a VM may start.
    SetReady {
        /// The VM, by its name in the topology.
        vm: String,
        /// `started`, `running`, `agent_answers`, `command_succeeds`.
        when: ReadyWhen,
        /// What is run in the guest.
        command: Option<Arc<str>>,
        /// So many seconds after that.
        #[serde(default)]
        delay: f64,
        /// No longer than so many seconds.
        timeout: Option<f64>,
    },
    /// A rule is so from now on; one of that name is replaced.
    SetRule {
        /// What the rule is called.
        name: Arc<str>,
        /// `on_hosts`, `not_on_hosts`, `apart`, `together`.
        kind: RuleKind,
        /// `must` or `should`.
        strength: Strength,
        /// The VMs that it binds, by their names in the topology.
        vms: Vec<String>,
        /// The hosts, for the kinds that have some.
        #[serde(default)]
        hosts: Vec<HostId>,
    },
    /// There is no such rule any more.
    RemoveRule {
        /// The rule that is removed.
        name: Arc<str>,
    },
    /// A start group.
    SetGroup {
        /// What the group is called.
        name: Arc<str>,
        /// Its members, by their names in the topology.
        vms: Vec<String>,
        /// Groups that it waits for.
        #[serde(default)]
        after: Vec<Arc<str>>,
    },
    /// There is no such group any more.
    RemoveGroup {
        /// The group that is removed.
        name: Arc<str>,
    },
    /// How admission control counts from now on.
    SetAdmission {
        /// `proved`, `host_failures`, `percentage`, `failover_hosts`.
        policy: String,
        /// So many failed hosts.
        #[serde(default = "one")]
        failures: u32,
        /// Percent of CPU.
        #[serde(default)]
        cpu: u8,
        /// Percent of memory.
        #[serde(default)]
        memory: u8,
        /// It refuses; otherwise it warns.
        #[serde(default)]
        refuse: bool,
    },
    /// A host that is kept empty for failovers, or not any more.
    SetFailoverHost {
        /// The host that the order is about.
        host: HostId,
        /// Whether it is kept empty; `true` when left out.
        #[serde(default = "yes")]
        keep: bool,
    },
    /// A host is emptied and takes no VMs.
    MaintenanceEnter {
        /// The host that is emptied.
        host: HostId,
        /// `migrate` or `shut_down`.
        #[serde(default)]
        how: Evacuation,
        /// Whatever speaks against it.
        #[serde(default)]
        force: bool,
    },
    /// It takes VMs again.
    MaintenanceLeave {
        /// The host that takes VMs again.
        host: HostId,
        /// What was moved away is moved back.
        #[serde(default)]
        bring_back: bool,
    },
    /// No restart, no isolation response, no freeze.
    Suspend {
        /// For so long.
        seconds: f64,
    },
    /// The end of a suspension: protection goes on.
    Resume,
    /// A person has seen to it that a host is down.
    ConfirmDown {
        /// The host that the person says is down.
        host: HostId,
    },
    /// libvirt's hook asks, before a user's start: nothing is started here.
    AdmitStart {
        /// Where it is to run.
        host: HostId,
        /// The VM that is to start, by its name in the topology.
        vm: String,
        /// A live migration brings it.
        #[serde(default)]
        arrives: bool,
    },
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

/// The words of [`Ask`] in which `vms` and `hosts` are lists of one thing, and not the same thing done to each.
pub(super) const OF_SEVERAL: [&str; 2] = ["set_rule", "set_group"];

fn span(seconds: f64) -> Span {
    Span(super::topology::micros(seconds))
}

impl Ask {
    /// The request, or what is wrong with it.
    pub fn command(self, setup: &Setup) -> Result<Command, String> {
        self.check(setup)?;
        Ok(match self {
            Ask::SetPriority { vm, priority } => {
                let parse = |word: String| {
                    Priority::parse(&word).ok_or_else(|| format!("there is no priority '{word}'"))
                };
                Command::SetPriority { vm, priority: priority.map(parse).transpose()? }
            }
            Ask::SetReady { vm, when, command, delay, timeout } => {
                let timeout = timeout.map_or(READY_TIMEOUT, span);
                let readiness = Some(Readiness { when, command, delay: span(delay), timeout });
                Command::SetReadiness { vm, readiness }
            }
            Ask::SetRule { name, kind, strength, vms, hosts } => {
                Command::SetRule { name, strength, kind, vms, hosts }
            }
            Ask::RemoveRule { name } => Command::RemoveRule { name },
            Ask::SetGroup { name, vms, after } => Command::SetGroup { name, vms, waits_for: after },
            Ask::RemoveGroup { name } => Command::RemoveGroup { name },
            Ask::SetAdmission { policy, failures, cpu, memory, refuse } => {
                let policy = match policy.as_str() {
                    "proved" => Policy::Proved { failures },
                    "host_failures" => Policy::HostFailures {
                        tolerated: failures,
                        slot_cpu_mhz: None,
                        slot_memory_mib: None,
                    },
                    "percentage" => Policy::Percentage { cpu, memory },
                    "failover_hosts" => Policy::FailoverHosts,
                    other => return Err(format!("there is no policy '{other}'")),
                };
                Command::SetAdmission { admission: Admission { policy, refuse } }
            }
            Ask::SetFailoverHost { host, keep } => Command::SetFailoverHost { host, keep },
            Ask::MaintenanceEnter { host, how, force } => Command::EnterMaintenance { host, how, force },
            Ask::MaintenanceLeave { host, bring_back } => Command::LeaveMaintenance { host, bring_back },
            Ask::Suspend { seconds } => Command::Suspend { length: span(seconds) },
            Ask::Resume => Command::Resume,
            Ask::ConfirmDown { host } => Command::ConfirmDown { host },
            Ask::AdmitStart { host, vm, arrives } => admit_start(setup, host, &vm, arrives)?,
        })
    }

    /// A misspelt name would be answered by the cluster, and a scenario would go on as if nothing had been asked.
    fn check(&self, setup: &Setup) -> Result<(), String> {
        let (vms, hosts): (&[String], &[HostId]) = match self {
            Ask::SetPriority { vm, .. } | Ask::SetReady { vm, .. } => (std::slice::from_ref(vm), &[]),
            Ask::SetRule { vms, hosts, .. } => (vms, hosts),
            Ask::SetGroup { vms, .. } => (vms, &[]),
            Ask::SetFailoverHost { host, .. }
            | Ask::MaintenanceEnter { host, .. }
            | Ask::MaintenanceLeave { host, .. }
            | Ask::ConfirmDown { host } => (&[], std::slice::from_ref(host)),
            Ask::AdmitStart { host, vm, .. } => (std::slice::from_ref(vm), std::slice::from_ref(host)),
            Ask::RemoveRule { .. }
            | Ask::RemoveGroup { .. }
            | Ask::SetAdmission { .. }
            | Ask::Suspend { .. }
            | Ask::Resume => (&[], &[]),
        };
        if let Some(vm) = vms.iter().find(|vm| setup.vm(vm).is_none()) {
            return Err(format!("VM {vm} is not in the topology"));
        }
        if let Some(host) = hosts.iter().find(|host| setup.host(host).is_none()) {
            return Err(format!("host {host} is not in the topology"));
        }
        Ok(())
    }
}

fn admit_start(setup: &Setup, host: HostId, vm: &str, arrives: bool) -> Result<Command, String> {
    let index = setup.vm(vm).ok_or_else(|| format!("VM {vm} is not in the topology"))?;
    let made = &setup.vms[index];
    Ok(Command::AdmitStart {
        host,
        vm: setup.vm_id(index),
        name: made.name.clone(),
        spec: VmSpec { memory_mib: made.memory_mib, vcpus: 1, priority: made.priority, ..VmSpec::default() },
        datastore: setup.datastores[made.datastore].name.clone(),
        arrives,
    })
}

/// All words of [`Ask`].
pub(super) fn words() -> Vec<String> {
    super::words_of(|probe| Ask::deserialize(probe).map(drop), "do")
}
