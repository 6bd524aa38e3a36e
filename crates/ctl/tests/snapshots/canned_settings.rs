//! A made-up cluster in which an administrator has set things, and what its primary has rehearsed.

use super::canned::{Canned, id, vm, vm_name};
use mainstay_api::Rehearsal;
use mainstay_core::ids::VmId;
use mainstay_core::register::{OrderKind, Priority, Suspension};
use mainstay_core::settings::{
    Admission, Evacuation, Group, Policy, Readiness, ReadyWhen, Rule, RuleKind, Settings, Strength,
    VmSettings,
};
use mainstay_core::time::Span;
use mainstay_core::view::SuspensionView;
use mainstay_core::view::VmState;
use mainstay_core::{HostPlan, LeftOutVm, PlacedVm, Rehearsed};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

fn vms<const N: usize>(numbers: [u8; N]) -> BTreeSet<VmId> {
    numbers.map(|number| vm_name(number, "").id).into()
}

fn settings() -> Settings {
    let rule = |strength, kind, vms, hosts: &[u32]| Rule {
        strength,
        kind,
        vms,
        hosts: hosts.iter().map(|number| id(*number)).collect(),
    };
    let group = |vms, waits_for: &[&str]| Group {
        vms,
        waits_for: waits_for.iter().map(|name| Arc::from(*name)).collect(),
    };
    let ready = Readiness {
        when: ReadyWhen::CommandSucceeds,
        command: Some("/usr/bin/systemctl is-active postgresql".into()),
        delay: Span::from_secs(30),
        timeout: Span::from_secs(900),
    };
    Settings {
        bring_back: BTreeSet::new(),
        revision: 12,
        by: Some(id(3)),
        maintenance: [(id(1), Evacuation::Migrate)].into(),
        failover_hosts: [id(3)].into(),
        rules: [
            ("licences".into(), rule(Strength::Must, RuleKind::OnHosts, vms([2]), &[1, 2])),
            ("web-apart".into(), rule(Strength::Should, RuleKind::Apart, vms([1, 3, 99]), &[])),
        ]
        .into(),
        groups: [
            ("backends".into(), group(vms([2]), &[])),
            ("front".into(), group(vms([1, 3]), &["backends"])),
        ]
        .into(),
        vms: [
            (vm_name(1, "").id, VmSettings { priority: Some(Priority::High), readiness: None }),
            (vm_name(2, "").id, VmSettings { priority: None, readiness: Some(ready) }),
        ]
        .into(),
        admission: Admission { policy: Policy::Proved { failures: 1 }, refuse: true },
    }
}

impl Canned {
    /// Rules, groups, a host on its way into maintenance, a failover host, a suspension, and an objection.
    pub fn with_settings() -> Canned {
        let mut canned = Canned::healthy();
        let view = &mut canned.status_mut().view;
        view.settings = Arc::new(settings());
        view.hosts[0].maintenance = Some((Evacuation::Migrate, 1).into());
        view.hosts[2].failover_host = true;
        view.vms[0].order = Some(OrderKind::Migrate(id(2)));
        view.vms[0].note = Some("migrates to host-2".to_owned());
        let suspension = |stands| Suspension { left: Span::from_secs(7_200), stands };
        let one = |name: &str, stands, waits_for| SuspensionView {
            datastore: name.into(),
            suspension: suspension(stands),
            waits_for,
        };
        view.suspensions = vec![one("nfs1", true, Some(vec![id(1), id(2)])), one("nfs2", false, None)];
        view.objection =
            Some("if host-2 fails, db does not come back: host-3: 1,024 MiB free, 2,048 MiB needed".into());
        canned
    }

    /// Protection is suspended everywhere.
    pub fn suspended() -> Canned {
        let mut canned = Canned::healthy();
        let suspension = Suspension { left: Span::from_millis(5_399_100), stands: true };
        let later = Suspension { left: Span::from_millis(5_399_700), stands: true };
        let one = |name: &str, suspension| SuspensionView {
            datastore: name.into(),
            suspension,
            waits_for: Some(Vec::new()),
        };
        canned.status_mut().view.suspensions = vec![one("nfs1", suspension), one("nfs2", later)];
        canned
    }

    /// What a primary has rehearsed: all of one host's VMs come back, of another's not all, of the third there is none.
    pub fn rehearsed() -> Canned {
        let mut canned = Canned::healthy();
        let placed = |number, name: &str, to, wave| PlacedVm {
            vm: vm_name(number, name).id,
            name: name.into(),
            to: id(to),
            wave,
        };
        let plan = |host, placed, left_out, not_restarted| HostPlan {
            host: id(host),
            placed,
            left_out,
            not_restarted,
        };
        let big = LeftOutVm {
            vm: vm_name(4, "big").id,
            name: "big".into(),
            why: vec![
                (id(1), "39,936 MiB free, 98,304 MiB needed".into()).into(),
                (id(3), "kept free for failovers".into()).into(),
            ],
        };
        let rehearsed = Rehearsed {
            hosts: vec![
                plan(
                    1,
                    vec![placed(5, "dns", 3, 1), placed(1, "web", 2, 2), placed(6, "mail", 3, 1)],
                    vec![],
                    vec![],
                ),
                plan(
                    2,
                    vec![placed(2, "db", 1, 1)],
                    vec![big],
                    vec![("batch".into(), "its restart priority is disabled".into()).into()],
                ),
                plan(3, vec![], vec![], vec![]),
            ],
            policy: settings().admission.to_string(),
            objection: Some("if host-2 fails, big does not come back".into()),
        };
        let status = canned.status_mut();
        let names: BTreeMap<_, _> = status.host_names.clone();
        status.view.vms.push(vm(5, "dns", Some(id(1)), VmState::Running));
        status.view.vms.push(vm(6, "mail", Some(id(1)), VmState::Running));
        let own = |number, priority| {
            (vm_name(number, "").id, VmSettings { priority: Some(priority), readiness: None })
        };
        status.view.settings = Arc::new(Settings {
            vms: [own(6, Priority::Highest), own(5, Priority::Low)].into(),
            ..Settings::default()
        });
        canned.rehearsal = Some(Rehearsal { host_names: names, rehearsed, revision: 12 });
        canned
    }
}
