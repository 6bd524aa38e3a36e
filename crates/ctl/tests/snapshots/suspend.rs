//! `suspend`: what is waited for and for how long, what is named when it does not honour it, and the exit code.

use super::canned::{Later, id};
use super::*;
use mainstay_core::host_liveness::HostState;
use mainstay_core::ids::DatastoreName;
use mainstay_core::view::View;
use mainstay_ctl::parts::{LOOK, RESUMED_LOOKS, STALL_MAX, UNSUSPENDED_MAX};
use std::time::Duration;

const SUSPEND: &str = "mainstay suspend --for 2h";

/// Protection suspended on both datastores, of which `waits_for` would freeze VMs yet; then changed.
fn world(stands: bool, waits_for: Option<&[u32]>, change: impl FnOnce(&mut View)) -> Later {
    let mut canned = Canned::suspended();
    let view = &mut canned.status_mut().view;
    for it in &mut view.suspensions {
        it.suspension.stands = stands;
        it.waits_for = waits_for.map(|hosts| hosts.iter().map(|host| id(*host)).collect());
    }
    change(view);
    (canned.status, Vec::new())
}

fn suspended(stands: bool, waits_for: Option<&[u32]>) -> Later {
    world(stands, waits_for, |_| {})
}

fn everywhere() -> Later {
    suspended(true, Some(&[]))
}

/// nfs2 is not suspended.
fn without_nfs2(owner: Option<u32>) -> Later {
    world(true, Some(&[]), |view| {
        view.suspensions.truncate(1);
        view.datastores[1].owner = owner.map(id);
    })
}

fn none_at_all() -> Later {
    world(true, None, |view| view.suspensions.clear())
}

/// Seen at each look.
fn looks(worlds: impl IntoIterator<Item = Later>) -> Canned {
    let mut worlds = worlds.into_iter();
    let first = worlds.next().expect("a first look");
    Canned { status: first.0, later: worlds.collect(), ..Canned::healthy() }
}

/// The same at the first look and after each pause, until that time has passed.
fn for_so_long(time: Duration, world: &Later) -> impl Iterator<Item = Later> {
    let pauses = time.as_millis().div_ceil(LOOK.as_millis());
    std::iter::repeat_n(world.clone(), usize::try_from(pauses).expect("a small number") + 1)
}

/// The command, which is to have looked at all of the worlds.
fn check_all(mut canned: Canned, line: &str, expected: Expect) {
    expected.assert_eq(&run(&mut canned, None, line));
    assert!(canned.later.is_empty(), "{} worlds were not looked at", canned.later.len());
}

#[test]
fn suspend_returns_when_every_host_goes_by_it() {
    let silent: Later = (Err("no primary answers"), Vec::new());
    let worlds = [
        suspended(false, Some(&[])),
        suspended(false, Some(&[])),
        silent,
        suspended(true, None),
        suspended(true, Some(&[1, 2])),
        suspended(true, Some(&[2])),
        everywhere(),
    ];
    check_all(
        looks(worlds),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it stands: no restart, no isolation response, no freeze
        stderr| Waiting until failovers in progress are completed (VMs of nfs1, nfs2). Ctrl-C ends the waiting only; it stays ordered.
        stderr| warning: no primary answers; still waiting
        stderr| Waiting until the owner of nfs1, nfs2 says so. Ctrl-C ends the waiting only; it stays ordered.
        stderr| Waiting until h1, h2 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
        stderr| Waiting until h2 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
}

#[test]
fn suspend_as_json_is_one_object_at_the_end() {
    let json = "mainstay suspend --for 2h --json";
    check_all(
        looks([suspended(true, Some(&[1])), everywhere()]),
        json,
        expect![[r#"
        {
          "message": "it stands: no restart, no isolation response, no freeze",
          "everywhere": true,
          "hosts": [],
          "datastores": []
        }
        stderr| Waiting until h1 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
    let partly = world(true, Some(&[2]), |view| {
        view.suspensions.truncate(1);
        view.hosts[1].state = HostState::Partitioned;
    });
    check_all(
        looks(for_so_long(UNSUSPENDED_MAX, &partly)),
        json,
        expect![[r#"
            {
              "message": "it does not stand everywhere (see the warnings)",
              "everywhere": false,
              "hosts": [
                "host-2"
              ],
              "datastores": [
                "nfs2"
              ]
            }
            stderr| Waiting until it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
            stderr| warning: VMs on nfs2 stay protected: h3, the primary, owns it only now; order it again
            stderr| warning: h2 can't be told (partitioned): VMs of nfs1 there are frozen if the storage is cut off from them
            exit 4
        "#]],
    );
    check_all(
        looks([everywhere()]),
        "mainstay suspend --for 2h --json --no-wait",
        expect![[r#"
        {
          "message": "h3 has done /v1/suspend?seconds=7200"
        }
    "#]],
    );
}

#[test]
fn suspend_waits_for_datastores_that_are_not_suspended() {
    check_all(
        looks(for_so_long(UNSUSPENDED_MAX, &without_nfs2(Some(1))).skip(1).chain([everywhere()])),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it stands: no restart, no isolation response, no freeze
            stderr| Waiting until it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
        "#]],
    );
}

#[test]
fn suspend_names_datastores_that_stay_protected() {
    let mut text = String::new();
    for owner in [Some(1), Some(3), None] {
        let mut canned = looks(for_so_long(UNSUSPENDED_MAX, &without_nfs2(owner)));
        text.push_str(&run(&mut canned, None, SUSPEND));
        assert!(canned.later.is_empty());
    }
    expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it does not stand everywhere (see the warnings)
        stderr| Waiting until it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
        stderr| warning: VMs on nfs2 stay protected: h3, the primary, does not own it, h1 does
        exit 4
        h3 has done /v1/suspend?seconds=7200
        it does not stand everywhere (see the warnings)
        stderr| Waiting until it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
        stderr| warning: VMs on nfs2 stay protected: h3, the primary, owns it only now; order it again
        exit 4
        h3 has done /v1/suspend?seconds=7200
        it does not stand everywhere (see the warnings)
        stderr| Waiting until it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
        stderr| warning: VMs on nfs2 stay protected: h3, the primary, does not own it, and nobody is known to
        exit 4
    "#]]
    .assert_eq(&text);
}

#[test]
fn suspend_waits_for_an_unsuspended_datastore_beside_long_failovers_no_longer() {
    let failovers = world(false, Some(&[]), |view| view.suspensions.truncate(1));
    check_all(
        looks(for_so_long(UNSUSPENDED_MAX, &failovers).chain([without_nfs2(Some(1))])),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it does not stand everywhere (see the warnings)
            stderr| Waiting until failovers in progress are completed (VMs of nfs1), and it is suspended on nfs2 too. Ctrl-C ends the waiting only; it stays ordered.
            stderr| Waiting until failovers in progress are completed (VMs of nfs1). Ctrl-C ends the waiting only; it stays ordered.
            stderr| warning: VMs on nfs2 stay protected: h3, the primary, does not own it, h1 does
            exit 4
        "#]],
    );
}

#[test]
fn suspend_names_hosts_that_cant_take_it_up_and_does_not_wait_for_them() {
    for state in [HostState::Partitioned, HostState::Isolated, HostState::AgentUnreachable] {
        let mut canned = looks([world(true, Some(&[2]), |view| view.hosts[1].state = state)]);
        let text = run(&mut canned, None, SUSPEND);
        assert!(text.contains(&format!("warning: h2 can't be told ({state})")), "{text}");
        assert!(text.ends_with("exit 4\n"), "{text}");
    }
    let silent = |view: &mut View| {
        view.hosts[0].state = HostState::AgentUnreachable;
        view.hosts[1].state = HostState::AgentUnreachable;
    };
    check_all(
        looks([world(true, Some(&[1, 2]), silent)]),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it does not stand everywhere (see the warnings)
            stderr| warning: h1, h2 can't be told (agent unreachable): VMs of nfs1, nfs2 there are frozen if the storage is cut off from them
            exit 4
        "#]],
    );
    let out_of_reach = |view: &mut View| {
        view.hosts[0].datastores = vec![DatastoreName::new("nfs1")];
        view.suspensions[0].waits_for = Some(Vec::new());
    };
    check_all(
        looks([world(true, Some(&[1]), out_of_reach)]),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it does not stand everywhere (see the warnings)
            stderr| warning: h1 can't take it up for VMs of nfs2, out of reach from there: they are frozen if the network is cut off there too
            exit 4
        "#]],
    );
}

#[test]
fn suspend_waits_for_hosts_that_are_connected_or_not_judged_yet() {
    let unknown = world(true, Some(&[1, 2]), |view| {
        view.hosts[0].state = HostState::Unknown;
        view.hosts[0].datastores.clear();
    });
    check_all(
        looks([unknown, suspended(true, Some(&[1])), everywhere()]),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it stands: no restart, no isolation response, no freeze
        stderr| Waiting until h1, h2 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
        stderr| Waiting until h1 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
    // A primary that is cut off hears itself.
    let alone = world(true, Some(&[3]), |view| view.hosts[2].state = HostState::Isolated);
    check_all(
        looks([alone, everywhere()]),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it stands: no restart, no isolation response, no freeze
        stderr| Waiting until h3 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
}

#[test]
fn suspend_ends_when_a_host_never_says_that_it_goes_by_it() {
    let older = suspended(true, Some(&[1, 2]));
    check_all(
        looks(for_so_long(STALL_MAX, &older)),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it does not stand everywhere (see the warnings)
            stderr| Waiting until h1, h2 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
            stderr| warning: h1, h2 did not take it up for VMs of nfs1, nfs2 (an agent or guard of an older release never does): they are frozen if network and storage are cut off there
            exit 4
        "#]],
    );
}

#[test]
fn suspend_counts_from_the_last_progress_and_not_from_what_comes_and_goes() {
    let (both, one) = (suspended(true, Some(&[1, 2])), suspended(true, Some(&[2])));
    let before = for_so_long(STALL_MAX, &both).skip(1);
    // The second look at only one of them is no progress.
    let mut after: Vec<_> = for_so_long(STALL_MAX, &one).collect();
    after[5] = both.clone();
    let mut canned = looks(before.chain(after));
    let text = run(&mut canned, None, SUSPEND);
    assert!(text.contains("warning: h2 did not take it up"), "{text}");
    assert!(canned.later.is_empty(), "{} worlds were not looked at", canned.later.len());
}

#[test]
fn suspend_ends_when_an_owner_elsewhere_does_not_say_who_goes_by_it() {
    let elsewhere = world(true, Some(&[]), |view| {
        view.suspensions[1].waits_for = None;
        // What is on disk there may be old.
        view.suspensions[1].suspension.stands = false;
        view.datastores[1].owner = Some(id(1));
    });
    check_all(
        looks(for_so_long(STALL_MAX, &elsewhere)),
        SUSPEND,
        expect![[r#"
            h3 has done /v1/suspend?seconds=7200
            it does not stand everywhere (see the warnings)
            stderr| Waiting until the owner of nfs2 says so. Ctrl-C ends the waiting only; it stays ordered.
            stderr| warning: it is not known which hosts honour it for VMs of nfs2: h3, the primary, does not own it, h1 does
            exit 4
        "#]],
    );
}

#[test]
fn suspend_waits_for_failovers_in_progress_as_long_as_they_take() {
    let failovers = suspended(false, Some(&[]));
    check_all(
        looks(for_so_long(3 * STALL_MAX, &failovers).chain([everywhere()])),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it stands: no restart, no isolation response, no freeze
        stderr| Waiting until failovers in progress are completed (VMs of nfs1, nfs2). Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
}

#[test]
fn suspend_that_is_resumed_meanwhile_says_so_after_some_looks() {
    let few = usize::try_from(RESUMED_LOOKS).expect("a small number") - 1;
    let gone = |looks| std::iter::repeat_n(none_at_all(), looks);
    let begun = || std::iter::once(suspended(false, Some(&[])));
    check_all(
        looks(begun().chain(gone(few + 1))),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        stderr| Waiting until failovers in progress are completed (VMs of nfs1, nfs2). Ctrl-C ends the waiting only; it stays ordered.
        stderr| error: protection is not suspended any more: somebody has resumed it, or the time is over (see `mainstay events`)
        exit 1
    "#]],
    );
    // A new primary has read the lists after a while.
    let read = || std::iter::once(suspended(true, Some(&[1])));
    check_all(
        looks(gone(few).chain(read()).chain(gone(few)).chain([everywhere()])),
        SUSPEND,
        expect![[r#"
        h3 has done /v1/suspend?seconds=7200
        it stands: no restart, no isolation response, no freeze
        stderr| Waiting until h1 will have taken it up. Ctrl-C ends the waiting only; it stays ordered.
    "#]],
    );
}
