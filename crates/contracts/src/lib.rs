//! What the world does for a core, as rules. The real adapters are run through them, and so is each model of them. That is what makes
//! results of a simulation mean something.
//!
//! | module | what | run by the tests of |
//! | --- | --- | --- |
//! | [`datastore`] | registers | `storage`, `sim`, `check` |
//! | [`vms`] | libvirt and the VMs of one host, in the core's words | `agent`, `hypervisor`, `sim`, `check` |
//!
//! Each test tries all rules ([`broken`]). A rule that a model has nothing for is named there, with the reason.
//! Where a model breaks a rule that the real adapter keeps, the model is wrong.
//!
//! Architecture invariant: no I/O, no thread, no clock; it imports nothing but the core's words. Only tests depend on it.

pub mod datastore;
pub mod vms;

/// The name of a rule that can't be tried on something, and the reason.
pub type Excuse = (&'static str, &'static str);

/// Tries all rules, and gives the names of those that are broken. What `try_out` says of them is printed.
///
/// `try_out` gets a rule with its name. It says whether there was something to try the rule on, or how the rule was broken.
///
/// # Panics
///
/// If a rule was not tried and has no excuse, or was tried and has one, or if an excuse names no rule.
pub fn broken<R: Copy>(
    rules: &[(&'static str, R)],
    excuses: &[Excuse],
    mut try_out: impl FnMut(&'static str, R) -> Result<bool, String>,
) -> Vec<&'static str> {
    for (name, why) in excuses {
        assert!(rules.iter().any(|(rule, _)| rule == name), "no rule is called {name:?} ({why})");
    }
    let mut broken = Vec::new();
    for (name, rule) in rules {
        let excuse = excuses.iter().find(|(excused, _)| excused == name).map(|(_, why)| why);
        match (try_out(name, *rule), excuse) {
            (Ok(true), None) | (Ok(false), Some(_)) => {}
            (Ok(false), None) => panic!("nothing to try it on, and no reason is given: {name}"),
            (Ok(true), Some(why)) => panic!("tried, although \"{why}\": {name}"),
            (Err(error), _) => {
                println!("broken: {name}: {error}");
                broken.push(*name);
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::broken;

    const RULES: [(&str, bool); 2] = [("one", true), ("two", false)];

    #[test]
    fn what_breaks_a_rule_is_named() {
        let found = broken(&RULES, &[], |_, good| good.then_some(true).ok_or_else(|| "no".into()));
        assert_eq!(found, ["two"]);
    }

    #[test]
    fn what_can_not_be_tried_has_an_excuse() {
        assert!(broken(&RULES, &[("two", "why")], |_, tried| Ok(tried)).is_empty());
    }

    #[test]
    #[should_panic(expected = "no reason is given: two")]
    fn no_rule_is_left_out_silently() {
        broken(&RULES, &[], |_, tried| Ok(tried));
    }

    #[test]
    #[should_panic(expected = "tried, although \"why\": one")]
    fn no_excuse_outlives_its_reason() {
        broken(&RULES, &[("one", "why"), ("two", "why")], |_, tried| Ok(tried));
    }

    #[test]
    #[should_panic(expected = "no rule is called \"three\"")]
    fn no_excuse_outlives_its_rule() {
        broken(&RULES, &[("three", "why")], |_, _| Ok(true));
    }
}
