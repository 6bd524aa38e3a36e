//! The golden case files: what may stand in them, and what it means. Unknown keys are refused. `docs/placement.md` describes the format.

use mainstay_placement::*;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A file of cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub case: Vec<Case>,
}

/// One case: a picture, a question, and the answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    #[serde(default)]
    hosts: BTreeMap<String, CaseHost>,
    #[serde(default)]
    vms: BTreeMap<String, CaseVm>,
    #[serde(default)]
    rules: BTreeMap<String, CaseRule>,
    #[serde(default)]
    groups: BTreeMap<String, CaseGroup>,
    /// The hosts that fail, or are to be emptied.
    #[serde(default)]
    pub fail: Vec<Name>,
    /// Hosts are emptied, not lost.
    #[serde(default)]
    pub planned: bool,
    /// What has become of the VMs of the plan, and when it is now, in seconds after the plan began.
    pub progress: Option<BTreeMap<Name, CaseProgress>>,
    pub now: Option<u64>,
    /// Admission control is asked.
    pub admit: Option<Admit>,
    /// About this change.
    pub propose: Option<Propose>,
    pub expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseHost {
    memory: u64,
    #[serde(default = "plenty")]
    cpu: u64,
    #[serde(default)]
    kept_back_memory: u64,
    #[serde(default)]
    kept_back_cpu: u64,
    measured_free_memory: Option<u64>,
    unusable: Option<Name>,
    #[serde(default)]
    maintenance: bool,
    #[serde(default)]
    failover_host: bool,
    #[serde(default)]
    datastores: Vec<Name>,
    #[serde(default)]
    networks: Vec<Name>,
    #[serde(default)]
    cpu_models: Vec<Name>,
    #[serde(default)]
    machine_types: Vec<Name>,
    #[serde(default)]
    devices: Vec<Name>,
    #[serde(default)]
    starting: u32,
    concurrent_starts: Option<u32>,
}

fn plenty() -> u64 {
    100_000
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseVm {
    memory: u64,
    #[serde(default)]
    cpu: u64,
    #[serde(default)]
    overhead: u64,
    on: Option<Name>,
    priority: Option<CasePriority>,
    #[serde(default)]
    wanted_off: bool,
    #[serde(default)]
    passed_over: bool,
    #[serde(default)]
    datastores: Vec<Name>,
    #[serde(default)]
    networks: Vec<Name>,
    cpu_model: Option<Name>,
    machine_type: Option<Name>,
    #[serde(default)]
    devices: Vec<Name>,
    #[serde(default)]
    failed_on: Vec<Name>,
    first_try: Option<Name>,
    ready: Option<CaseReady>,
    #[serde(default)]
    delay: u64,
    timeout: Option<u64>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CasePriority {
    Disabled,
    Lowest,
    Low,
    Medium,
    High,
    Highest,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CaseReady {
    Started,
    Running,
    AgentAnswers,
    CommandSucceeds,
}

/// One of the kinds; `should = true` makes it a wish.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseRule {
    apart: Option<Vec<Name>>,
    together: Option<Vec<Name>>,
    vms: Option<Vec<Name>>,
    on: Option<Vec<Name>>,
    not_on: Option<Vec<Name>>,
    #[serde(default)]
    should: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseGroup {
    vms: Vec<Name>,
    #[serde(default)]
    waits_for: Vec<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseProgress {
    started: Option<u64>,
    #[serde(default)]
    starting: bool,
    ready: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", tag = "policy")]
pub enum Admit {
    Proved { failures: u32, work: Option<u64> },
    HostFailures { tolerated: u32, slot_cpu_max: Option<u64>, slot_memory_max: Option<u64> },
    Percentage { cpu: u8, memory: u8 },
    FailoverHosts {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Propose {
    EnterMaintenance(Name),
    Start { vm: Name, host: Name },
    Raise { vm: Name, memory: u64 },
    Protect { vm: Name },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Who goes where. All of them.
    pub placed: Option<BTreeMap<String, String>>,
    /// Who does not come back, and each host's reason. All of them.
    #[serde(default)]
    pub left_out: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    pub not_restarted: Vec<String>,
    /// `spread`, `packed-exactly` or `packed`.
    pub how: Option<String>,
    pub waves: Option<Vec<Vec<String>>>,
    pub order_refused: Option<String>,
    pub start: Option<Vec<String>>,
    pub waiting: Option<BTreeMap<String, Vec<String>>>,
    pub given_up_on: Option<Vec<String>>,
    /// Seconds after the plan began.
    pub look_again: Option<u64>,
    /// What admission control says, in full.
    pub verdict: Option<String>,
}

impl Case {
    pub fn picture(&self) -> Picture {
        let name = |name: &String| Name::from(name.as_str());
        Picture {
            hosts: self.hosts.iter().map(|(n, host)| (name(n), host.host())).collect(),
            vms: self.vms.iter().map(|(n, vm)| (name(n), vm.vm())).collect(),
            rules: self.rules.iter().map(|(n, rule)| (name(n), rule.rule(n))).collect(),
            groups: self.groups.iter().map(|(n, group)| (name(n), group.group())).collect(),
        }
    }

    pub fn progress(&self) -> BTreeMap<Name, Progress> {
        let ms = |seconds: Option<u64>| seconds.map(|seconds| seconds * 1000);
        let one = |p: &CaseProgress| Progress {
            first_start: ms(p.started),
            starting: p.starting,
            ready_since: ms(p.ready),
        };
        self.progress.iter().flatten().map(|(vm, progress)| (vm.clone(), one(progress))).collect()
    }

    pub fn proposal(&self, picture: &Picture) -> Option<Proposal> {
        match self.propose.as_ref()? {
            Propose::EnterMaintenance(host) => Some(Proposal::EnterMaintenance(host.clone())),
            Propose::Start { vm, host } => Proposal::start(picture, vm, host),
            Propose::Raise { vm, memory } => Proposal::raise(picture, vm, Resources::new(0, *memory)),
            Propose::Protect { vm } => Proposal::protect(picture, vm, Priority::Medium),
        }
    }
}

impl Admit {
    pub fn control(&self) -> AdmissionControl {
        let policy = match *self {
            Self::Proved { failures, work } => Policy::Proved { failures, work: work.unwrap_or(PROOF_WORK) },
            Self::HostFailures { tolerated, slot_cpu_max, slot_memory_max } => {
                Policy::HostFailures { tolerated, slot_cpu_max, slot_memory_max }
            }
            Self::Percentage { cpu, memory } => Policy::Percentage { cpu, memory },
            Self::FailoverHosts {} => Policy::FailoverHosts,
        };
        AdmissionControl { policy, enforcement: Enforcement::Refuse }
    }
}

impl CaseHost {
    fn host(&self) -> Host {
        let state = match &self.unusable {
            Some(reason) => HostState::Unusable(reason.clone()),
            None if self.maintenance => HostState::Maintenance,
            None => HostState::Usable,
        };
        Host {
            state,
            capacity: Resources::new(self.cpu, self.memory),
            kept_back: Resources::new(self.kept_back_cpu, self.kept_back_memory),
            measured_free: self.measured_free_memory.map(|memory| Resources::new(self.cpu, memory)),
            offers: Offers {
                datastores: self.datastores.clone(),
                networks: self.networks.clone(),
                cpu_models: self.cpu_models.clone(),
                machine_types: self.machine_types.clone(),
                devices: self.devices.clone(),
            },
            starting: self.starting,
            concurrent_starts: self.concurrent_starts,
            failover_host: self.failover_host,
        }
    }
}

impl CaseVm {
    fn vm(&self) -> Vm {
        Vm {
            reservation: Resources::new(self.cpu, self.memory),
            overhead: Resources::new(0, self.overhead),
            priority: match self.priority {
                None | Some(CasePriority::Medium) => Priority::Medium,
                Some(CasePriority::Disabled) => Priority::Disabled,
                Some(CasePriority::Lowest) => Priority::Lowest,
                Some(CasePriority::Low) => Priority::Low,
                Some(CasePriority::High) => Priority::High,
                Some(CasePriority::Highest) => Priority::Highest,
            },
            needs: Needs {
                datastores: self.datastores.clone(),
                networks: self.networks.clone(),
                cpu_model: self.cpu_model.clone(),
                machine_type: self.machine_type.clone(),
                devices: self.devices.clone(),
            },
            host: self.on.clone(),
            wanted: !self.wanted_off,
            failed_on: self.failed_on.clone(),
            first_try: self.first_try.clone(),
            passed_over: self.passed_over,
            readiness: Readiness {
                when: match self.ready {
                    None | Some(CaseReady::Started) => ReadyWhen::Started,
                    Some(CaseReady::Running) => ReadyWhen::Running,
                    Some(CaseReady::AgentAnswers) => ReadyWhen::AgentAnswers,
                    Some(CaseReady::CommandSucceeds) => ReadyWhen::CommandSucceeds,
                },
                delay_ms: self.delay * 1000,
                timeout_ms: self.timeout.unwrap_or(600) * 1000,
            },
        }
    }
}

impl CaseRule {
    fn rule(&self, name: &str) -> Rule {
        let kind = match (&self.apart, &self.together, &self.vms, &self.on, &self.not_on) {
            (Some(vms), None, None, None, None) => RuleKind::Apart { vms: vms.clone() },
            (None, Some(vms), None, None, None) => RuleKind::Together { vms: vms.clone() },
            (None, None, Some(vms), Some(hosts), None) => {
                RuleKind::OnHosts { vms: vms.clone(), hosts: hosts.clone() }
            }
            (None, None, Some(vms), None, Some(hosts)) => {
                RuleKind::NotOnHosts { vms: vms.clone(), hosts: hosts.clone() }
            }
            _ => panic!("rule {name}: one of apart, together, vms with on, vms with not_on"),
        };
        Rule { strength: if self.should { Strength::Should } else { Strength::Must }, kind }
    }
}

impl CaseGroup {
    fn group(&self) -> Group {
        Group { vms: self.vms.clone(), waits_for: self.waits_for.clone() }
    }
}
