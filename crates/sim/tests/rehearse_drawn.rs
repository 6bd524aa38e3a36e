//! Whatever cluster the generator draws, at rest it can be rehearsed, and what must hold in every cluster holds in every rehearsal.

use mainstay_core::host_liveness::HostState;
use mainstay_core::view::{Role, VmState};
use mainstay_core::{HostId, View};
use mainstay_sim::generator::{Shape, plan};
use mainstay_sim::node::real_core;
use mainstay_sim::rehearse::{Outcome, Rehearsed, RehearsedFault, Surroundings, rehearse};
use mainstay_sim::{Setup, World};

const SEEDS: u64 = 8;

/// The primary's view of that cluster once it is at rest.
fn view_at_rest(setup: Setup, seed: u64) -> View {
    let (hosts, vms) = (setup.hosts.len(), setup.vms.len());
    let mut world = World::new(setup, seed, real_core, false);
    while world.now() < 300_000_000 {
        world.run_until(world.now() + 1_000_000);
        let at_rest = |view: &View| {
            let stores = view.datastores.len();
            let well = |seen: &mainstay_core::view::HostView| {
                seen.state == HostState::Connected && seen.datastores.len() == stores
            };
            view.role == Role::Primary
                && view.hosts.iter().all(well)
                && view.vms.len() == vms
                && view.vms.iter().all(|vm| vm.protected && vm.state == VmState::Running)
        };
        if let Some(view) = (0..hosts).filter_map(|host| world.view(host)).find(at_rest) {
            return view;
        }
    }
    panic!("seed {seed}: the cluster did not come to rest");
}

fn of(kind: fn(HostId) -> RehearsedFault, hosts: &[HostId]) -> Vec<RehearsedFault> {
    hosts.iter().cloned().map(kind).collect()
}

fn all_storage(host: HostId) -> RehearsedFault {
    RehearsedFault::CutStorage(host, None)
}

#[test]
fn drawn_clusters_can_be_rehearsed() {
    for seed in 0..SEEDS {
        let drawn = plan(seed, &Shape::default());
        // A story may leave no room elsewhere on purpose.
        if drawn.story.is_some() {
            continue;
        }
        let setup = drawn.setup;
        let surroundings = Surroundings { isolation_addresses: setup.gateway, ..Surroundings::default() };
        // The view of a cluster at rest does not show which starts would fail.
        let view = view_at_rest(Setup { start_failure_permille: 0, ..setup }, seed);
        let hosts: Vec<HostId> = view.hosts.iter().map(|seen| seen.host.clone()).collect();
        let play = |faults: Vec<RehearsedFault>| -> Rehearsed {
            let rehearsed = rehearse(&view, &faults, &surroundings);
            let rehearsed = rehearsed.unwrap_or_else(|error| panic!("seed {seed}, {faults:?}: {error}"));
            assert!(rehearsed.complete, "seed {seed}, {faults:?}: {:#?}", rehearsed.timeline);
            assert_eq!(rehearsed.vms.len(), view.vms.len(), "seed {seed}");
            rehearsed
        };
        for host in &hosts {
            for vm in play(vec![RehearsedFault::Fail(host.clone())]).vms {
                let restarted = matches!(vm.outcome, Outcome::Restarted { .. });
                assert_eq!(restarted, vm.from.as_ref() == Some(host), "seed {seed}, {host} fails: {vm:?}");
            }
            for vm in play(vec![RehearsedFault::Isolate(host.clone())]).vms {
                assert!(vm.to.is_some(), "seed {seed}, {host} is isolated: {vm:?}");
                assert!(vm.to == vm.from || vm.from.as_ref() == Some(host), "seed {seed}: {vm:?}");
            }
            for vm in play(vec![all_storage(host.clone())]).vms {
                assert_eq!(vm.down_for, None, "seed {seed}, {host} is heard by network: {vm:?}");
            }
        }
        for vm in play(of(RehearsedFault::Isolate, &hosts)).vms {
            assert_eq!(vm.outcome, Outcome::StayedUp, "seed {seed}, nobody is responsible: {vm:?}");
        }
        let dark = [of(RehearsedFault::Isolate, &hosts), of(all_storage, &hosts)].concat();
        for vm in play(dark).vms {
            assert_eq!(vm.outcome, Outcome::StillFrozen, "seed {seed}, no lease is renewed: {vm:?}");
        }
    }
}
