//! The order to change admission control. What it does not name stays as it is; the primary fills that in.

use crate::query::{Query, Target, Wrong};
use mainstay_words::settings::Policy;

/// More hosts than any cluster has; how many of this one can fail, the core says.
const FAILURES_MAX: u64 = 1_000;
/// Slots beyond this are mistaken units.
const SLOT_MAX: u64 = 1 << 32;

/// How admission control is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionOrder {
    /// By what it decides; `None`: as before.
    pub policy: Option<Policy>,
    /// Whether it refuses; `None`: as before.
    pub refuse: Option<bool>,
}

impl AdmissionOrder {
    pub(super) fn parse(query: &str) -> Result<AdmissionOrder, Wrong> {
        let parameters = ["policy", "refuse", "failures", "cpu", "memory", "slot_cpu", "slot_memory"];
        let query = Query::read(query, &parameters)?;
        let policy = query.text("policy")?;
        let takes: &[&str] = match policy.as_deref() {
            None => &[],
            Some("proved") => &["failures"],
            Some("host-failures") => &["failures", "slot_cpu", "slot_memory"],
            Some("percentage") => &["cpu", "memory"],
            Some("failover-hosts") => &[],
            Some(other) => {
                return Err(Wrong::value(format!(
                    "policy={other} is not possible: use proved, host-failures, percentage or failover-hosts"
                )));
            }
        };
        if let Some(extra) = parameters[2..].iter().find(|name| query.has(name) && !takes.contains(name)) {
            return Err(Wrong::value(match &policy {
                None => format!("{extra} goes with a policy: add policy=NAME"),
                Some(policy) => format!("policy={policy} takes no {extra}: leave it out"),
            }));
        }
        let policy = policy.map(|policy| read_policy(&policy, &query)).transpose()?;
        let refuse = query.flag("refuse")?;
        if policy.is_none() && refuse.is_none() {
            return Err(Wrong::value("nothing is to be set: add policy=proved or refuse=true, say"));
        }
        Ok(AdmissionOrder { policy, refuse })
    }

    pub(super) fn write(&self, admission: Target) -> Target {
        let admission = match &self.policy {
            None => admission,
            Some(Policy::Proved { failures }) => {
                admission.with("policy", "proved").with("failures", failures)
            }
            Some(Policy::HostFailures { tolerated, slot_cpu_mhz, slot_memory_mib }) => admission
                .with("policy", "host-failures")
                .with("failures", tolerated)
                .with_some("slot_cpu", *slot_cpu_mhz)
                .with_some("slot_memory", *slot_memory_mib),
            Some(Policy::Percentage { cpu, memory }) => {
                admission.with("policy", "percentage").with("cpu", cpu).with("memory", memory)
            }
            Some(Policy::FailoverHosts) => admission.with("policy", "failover-hosts"),
        };
        admission.with_some("refuse", self.refuse)
    }
}

/// `policy` is one of those that exist.
fn read_policy(policy: &str, query: &Query<'_>) -> Result<Policy, Wrong> {
    let failures = || -> Result<u32, Wrong> {
        let failures = query.number("failures", 1..=FAILURES_MAX)?.unwrap_or(1);
        Ok(u32::try_from(failures).unwrap_or(u32::MAX))
    };
    let percent = |name: &str| -> Result<u8, Wrong> {
        let missing = || Wrong::value(format!("{name} is missing: add {name}=PERCENT, from 0 to 100"));
        let percent = query.number(name, 0..=100)?.ok_or_else(missing)?;
        Ok(u8::try_from(percent).unwrap_or(u8::MAX))
    };
    Ok(match policy {
        "host-failures" => Policy::HostFailures {
            tolerated: failures()?,
            slot_cpu_mhz: query.number("slot_cpu", 1..=SLOT_MAX)?,
            slot_memory_mib: query.number("slot_memory", 1..=SLOT_MAX)?,
        },
        "percentage" => Policy::Percentage { cpu: percent("cpu")?, memory: percent("memory")? },
        "failover-hosts" => Policy::FailoverHosts,
        _ => Policy::Proved { failures: failures()? },
    })
}
