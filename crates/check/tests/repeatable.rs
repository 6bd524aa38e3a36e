//! The same choices make the same run: a story that is told is the run that was found.

use mainstay_check::{Bounds, Choice, Setup, World, setup::SECOND, tell};

fn setup() -> Setup {
    Setup { bounds: Bounds { delays: 3, faults: 3 }, ..Setup::two_hosts(0) }
}

#[test]
fn the_same_choices_lead_to_the_same_state() {
    let run = || {
        let mut world = World::steady(setup()).expect("a steady start");
        let mut states = Vec::new();
        for turn in 0..400_usize {
            let mut choices: Vec<Choice> = Vec::new();
            world.choices(&mut choices);
            // The default comes last.
            let choice = if turn % 5 == 4 { choices.first() } else { choices.last() };
            let Some(choice) = choice else { break };
            world.take(*choice);
            states.push(world.fingerprint());
        }
        states
    };
    let states = run();
    assert!(states.len() > 20, "{}", states.len());
    assert_eq!(states, run());
}

#[test]
fn a_run_is_told_in_the_words_of_the_protocol() {
    let story = tell(setup(), &[(Choice::Fault(0), SECOND / 2), (Choice::Repair(0), 6 * SECOND)]);
    let story = story.expect("a steady start");
    let has = |words: &str| story.iter().any(|line| line.contains(words));
    assert!(has("FAULT: Outage(0)") && has("REPAIRED: Outage(0)"), "{story:#?}");
    assert!(has("the VM's process is frozen") && has("the VM EXECUTES"), "{story:#?}");
    assert!(has("the copy on this host was removed"), "{story:#?}");
}
