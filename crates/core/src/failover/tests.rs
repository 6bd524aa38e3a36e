//! The decision about one VM, case by case: what stands in its entry, what is seen of its holder, what follows.

use super::*;
use mainstay_testkit::made;

/// The VM, and the grant in its entry.
const NUMBER: u8 = 5;

fn entry() -> Entry {
    made::entry(NUMBER)
}

/// A claim on the VM under that grant.
fn claim(grant: u64, state: ClaimState) -> Claim {
    Claim { token: Some(made::token(grant)), ..made::claim(NUMBER, state) }
}

fn stopped(cause: StopCause) -> Claim {
    claim(5, ClaimState::Stopped { cause })
}

fn seen(state: HostState, claim: Option<&Claim>) -> HolderSeen<'_> {
    HolderSeen {
        state,
        claim,
        unreadable: false,
        saw_grant: false,
        read_after_intent: false,
        overdue: false,
        may_be_elsewhere: false,
        may_take_responsibility: false,
    }
}

fn grant(same_host: bool, reason: &str) -> Verdict {
    Verdict::Grant { same_host, reason: reason.into() }
}

#[test]
fn a_vm_that_runs_as_granted_is_left_alone_whatever_its_host_looks_like_but_failed() {
    let running = claim(5, ClaimState::Running);
    for state in
        [HostState::Connected, HostState::Partitioned, HostState::Isolated, HostState::AgentUnreachable]
    {
        assert_eq!(decide(&entry(), Some(&seen(state, Some(&running))), None), Verdict::Runs, "{state}");
    }
    assert_eq!(decide(&entry(), Some(&seen(HostState::Failed, Some(&running))), None), Verdict::Intend);
}

#[test]
fn what_was_stopped_on_purpose_stays_down_and_the_rest_is_restarted() {
    use StopCause::*;
    for cause in [GuestShutdown, UserShutdown, UserDestroyed, Saved] {
        let claim = stopped(cause);
        let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&claim))), None);
        assert_eq!(verdict, Verdict::SetOff(cause), "{cause}");
    }
    for (cause, same_host) in [(Crashed, true), (HostFailed, false), (Withdrawn, false)] {
        let claim = stopped(cause);
        let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&claim))), None);
        assert_eq!(verdict, grant(same_host, &alloc::format!("{cause}")), "{cause}");
    }
    // It may have moved: it is waited for first (R45).
    for cause in [Migrated, Unknown] {
        let left = stopped(cause);
        let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&left))), None);
        assert_eq!(verdict, Verdict::AwaitMigration(cause));
    }
}

#[test]
fn a_second_crash_goes_elsewhere() {
    let crashed = stopped(StopCause::Crashed);
    let entry = Entry { attempts: 1, ..entry() };
    let verdict = decide(&entry, Some(&seen(HostState::Connected, Some(&crashed))), None);
    assert_eq!(verdict, grant(false, "QEMU crashed or was killed"));
}

#[test]
fn an_unprotected_vm_is_never_restarted() {
    let entry = Entry { unprotected: true, ..entry() };
    let running = claim(5, ClaimState::Running);
    assert_eq!(decide(&entry, Some(&seen(HostState::Failed, Some(&running))), None), Verdict::Keep);
    let crashed = stopped(StopCause::Crashed);
    let verdict = decide(&entry, Some(&seen(HostState::Connected, Some(&crashed))), None);
    assert_eq!(verdict, Verdict::SetOff(StopCause::Crashed));
    assert_eq!(decide(&Entry { holder: None, ..entry }, None, None), Verdict::Keep);
}

/// R41 (b): the second reading decides, and only a reading that came after the intent.
#[test]
fn an_intent_is_confirmed_only_by_a_later_reading_of_a_host_that_is_still_failed() {
    let entry = Entry { intent: Some("host-2".into()), ..entry() };
    let running = claim(5, ClaimState::Running);
    let before = seen(HostState::Failed, Some(&running));
    assert_eq!(decide(&entry, Some(&before), None), Verdict::Keep);
    let after = HolderSeen { read_after_intent: true, ..before };
    assert_eq!(decide(&entry, Some(&after), None), Verdict::Confirm);
    let back = HolderSeen { state: HostState::Connected, ..after };
    assert!(matches!(decide(&entry, Some(&back), None), Verdict::Cancel(_)));
    // It released the VM in between: no more to wait for.
    let gone = stopped(StopCause::HostFailed);
    assert_eq!(decide(&entry, Some(&seen(HostState::Connected, Some(&gone))), None), Verdict::Confirm);
}

/// I4: a stop that reached the disk before the host died counts, also when the owner had not read it yet.
#[test]
fn a_stop_on_purpose_that_is_found_under_an_intent_is_no_restart() {
    let entry = Entry { intent: Some("host-2".into()), ..entry() };
    let destroyed = stopped(StopCause::UserDestroyed);
    let after = HolderSeen { read_after_intent: true, ..seen(HostState::Failed, Some(&destroyed)) };
    assert_eq!(decide(&entry, Some(&after), None), Verdict::SetOff(StopCause::UserDestroyed));
    let left = stopped(StopCause::Migrated);
    let after = HolderSeen { read_after_intent: true, ..seen(HostState::Failed, Some(&left)) };
    assert!(matches!(decide(&entry, Some(&after), None), Verdict::Cancel(_)));
    let running = claim(5, ClaimState::Running);
    let unprotected = Entry { unprotected: true, ..entry };
    assert!(matches!(
        decide(&unprotected, Some(&seen(HostState::Failed, Some(&running))), None),
        Verdict::Cancel(_)
    ));
}

/// R41 (c): a grant that was never claimed is moved by way of an intent.
#[test]
fn a_grant_that_nobody_claims_is_moved_but_not_by_a_host_that_may_still_claim_it() {
    let silent = seen(HostState::Connected, None);
    assert_eq!(decide(&entry(), Some(&silent), None), Verdict::Keep);
    let overdue = HolderSeen { overdue: true, ..silent.clone() };
    assert_eq!(decide(&entry(), Some(&overdue), None), Verdict::Intend);
    let dead_agent = HolderSeen { overdue: true, ..seen(HostState::AgentUnreachable, None) };
    assert_eq!(decide(&entry(), Some(&dead_agent), None), Verdict::Intend);
    let declined = HolderSeen { saw_grant: true, ..silent.clone() };
    assert_eq!(decide(&entry(), Some(&declined), None), Verdict::Intend);
    let other = HostId::new("host-9");
    assert_eq!(decide(&entry(), Some(&silent), Some(&other)), Verdict::IntendTo(other.clone()));
    let asked = Entry { intent: Some(other.clone()), ..entry() };
    assert_eq!(decide(&asked, Some(&silent), Some(&other)), Verdict::Keep);
    let read_again = HolderSeen { read_after_intent: true, ..silent.clone() };
    assert_eq!(decide(&asked, Some(&read_again), Some(&other)), Verdict::Adopt(other));
    let intended = Entry { intent: Some("host-2".into()), ..entry() };
    assert_eq!(decide(&intended, Some(&overdue), None), Verdict::Keep);
    let read_again = HolderSeen { read_after_intent: true, ..overdue };
    assert_eq!(decide(&intended, Some(&read_again), None), Verdict::Confirm);
}

/// A host that died between being granted a VM that it ran and writing the token into its claim (seeds 7 and 16).
#[test]
fn a_failed_holder_with_an_older_claim_is_failed_over_too() {
    let older = claim(4, ClaimState::Running);
    assert_eq!(decide(&entry(), Some(&seen(HostState::Connected, Some(&older))), None), Verdict::Keep);
    assert_eq!(decide(&entry(), Some(&seen(HostState::Failed, Some(&older))), None), Verdict::Intend);
    // With the intent on disk and the holder alive after all, it keeps what it runs.
    let intended = Entry { intent: Some("host-2".into()), ..entry() };
    let alive = HolderSeen { read_after_intent: true, ..seen(HostState::Connected, Some(&older)) };
    assert!(matches!(decide(&intended, Some(&alive), None), Verdict::Cancel(_)));
}

/// R42, R43: what a user started counts, and two copies are an alarm.
#[test]
fn a_copy_that_its_user_started_is_adopted_unless_the_holder_runs_it() {
    let other = HostId::new("host-9");
    let off = Entry { holder: None, desired: Desired::Off, ..entry() };
    assert_eq!(decide(&off, None, Some(&other)), Verdict::Adopt(other.clone()));
    let crashed = stopped(StopCause::Crashed);
    let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&crashed))), Some(&other));
    assert_eq!(verdict, Verdict::Adopt(other.clone()));
    let starting = claim(5, ClaimState::Starting);
    let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&starting))), Some(&other));
    assert_eq!(verdict, Verdict::IntendTo(other.clone()));
    let asked = Entry { intent: Some(other.clone()), ..entry() };
    let verdict = decide(&asked, Some(&seen(HostState::Connected, Some(&starting))), Some(&other));
    assert_eq!(verdict, Verdict::Keep);
    let withdrawn = stopped(StopCause::Withdrawn);
    let verdict = decide(&asked, Some(&seen(HostState::Connected, Some(&withdrawn))), Some(&other));
    assert_eq!(verdict, Verdict::Adopt(other.clone()));
    let running = claim(5, ClaimState::Running);
    let verdict = decide(&entry(), Some(&seen(HostState::Connected, Some(&running))), Some(&other));
    assert_eq!(verdict, Verdict::Twice(other));
}

/// R45: it left by live migration while nobody watched its host, and the host is dead. Who shows it running is believed.
#[test]
fn a_vm_of_a_dead_host_that_another_one_shows_running_is_given_to_that_one() {
    let running = claim(5, ClaimState::Running);
    let (here, there): (HostId, HostId) = ("host-2".into(), "host-3".into());
    let dead = seen(HostState::Failed, Some(&running));
    assert_eq!(decide(&entry(), Some(&dead), Some(&here)), Verdict::IntendTo(here.clone()));
    let intended = Entry { intent: Some(here.clone()), ..entry() };
    let after = HolderSeen { read_after_intent: true, ..dead.clone() };
    assert_eq!(decide(&intended, Some(&after), Some(&here)), Verdict::Adopt(here.clone()));
    // It showed up elsewhere after the owner had chosen a host.
    let elsewhere = Entry { intent: Some(there), ..entry() };
    assert_eq!(decide(&elsewhere, Some(&after), Some(&here)), Verdict::Cancel("it runs on host-2".into()));
}

/// What an alive host last said is not known: nothing is concluded from what it said before. A dead one holds nothing up.
#[test]
fn a_power_on_list_that_cannot_be_read_holds_a_vm_only_while_its_host_lives() {
    let gone = stopped(StopCause::Crashed);
    let damaged = HolderSeen { unreadable: true, ..seen(HostState::Connected, Some(&gone)) };
    assert_eq!(decide(&entry(), Some(&damaged), None), Verdict::Keep);
    let intended = Entry { intent: Some("host-2".into()), ..entry() };
    let overdue = HolderSeen { claim: None, overdue: true, read_after_intent: true, ..damaged.clone() };
    assert_eq!(decide(&intended, Some(&overdue), None), Verdict::Keep);
    let dead = HolderSeen { state: HostState::Failed, claim: None, ..damaged };
    assert_eq!(decide(&entry(), Some(&dead), None), Verdict::Intend);
}

/// R45: nobody can say that it does not run elsewhere: it is not granted, neither at once nor by an intent that stands.
#[test]
fn a_vm_of_a_dead_host_waits_while_it_may_be_elsewhere() {
    let running = claim(5, ClaimState::Running);
    let dead = HolderSeen { may_be_elsewhere: true, ..seen(HostState::Failed, Some(&running)) };
    assert_eq!(decide(&entry(), Some(&dead), None), Verdict::AwaitSight);
    let intended = Entry { intent: Some("host-2".into()), ..entry() };
    let after = HolderSeen { read_after_intent: true, ..dead };
    assert_eq!(decide(&intended, Some(&after), None), Verdict::AwaitSight);
    // That the host is back, and says that it lost the VM, says nothing about where it was then.
    let lost = stopped(StopCause::HostFailed);
    let booted = HolderSeen { may_be_elsewhere: true, ..self::seen(HostState::Connected, Some(&lost)) };
    assert_eq!(decide(&entry(), Some(&booted), None), Verdict::AwaitSight);
    assert_eq!(decide(&intended, Some(&booted), None), Verdict::AwaitSight);
    let seen = HolderSeen { may_be_elsewhere: false, ..after };
    assert_eq!(decide(&intended, Some(&seen), None), Verdict::Confirm);
    let vanished = stopped(StopCause::Unknown);
    let back = self::seen(HostState::Connected, Some(&vanished));
    assert!(matches!(decide(&intended, Some(&back), None), Verdict::Cancel(_)));
}
