//! Which VM is meant by a name or UUID, and what is said when none is, or more than one. Agent and command line say the same,
//! through these functions. The core says less: it knows only the VMs of datastores that it owns.
//!
//! What it does not do: decide whether something may be done with a VM.

use mainstay_words::ids::VmId;
use mainstay_words::view::{View, VmView};

/// So many names are suggested at most: a cluster may have thousands that look alike.
const SUGGESTED_MAX: usize = 3;

/// The VM of that name or UUID; otherwise a text that says what to do.
pub fn find_vm<'a>(view: &'a View, wanted: &str) -> Result<&'a VmView, String> {
    let meant: Vec<&VmView> = meant(view, wanted).collect();
    match meant.as_slice() {
        [] => Err(no_vm(view, wanted)),
        [vm] => Ok(vm),
        [..] => {
            let ids: Vec<String> = meant.iter().map(|vm| vm.vm.to_string()).collect();
            Err(format!(
                "{} VMs are called {}: say which by its UUID, {}",
                ids.len(),
                shown(wanted),
                ids.join(" or ")
            ))
        }
    }
}

/// A text that says so when no VM has that name or UUID.
pub fn unknown_vm(view: &View, wanted: &str) -> Option<String> {
    meant(view, wanted).next().is_none().then(|| no_vm(view, wanted))
}

fn meant<'a>(view: &'a View, wanted: &str) -> impl Iterator<Item = &'a VmView> {
    let id = VmId::parse(wanted);
    view.vms.iter().filter(move |vm| *vm.name == *wanted || Some(vm.vm) == id)
}

fn no_vm(view: &View, wanted: &str) -> String {
    let near = near(wanted, view.vms.iter().map(|vm| &*vm.name));
    let asked = match near.as_slice() {
        [] => String::new(),
        [_, ..] => format!("did you mean {}? ", near.join(" or ")),
    };
    format!(
        "no VM called {} is known: {asked}`mainstay vm list` shows all; a VM is known once it has been started",
        shown(wanted)
    )
}

/// A name fit for a terminal: it must not be able to steer an administrator's.
fn shown(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// Names that somebody may have meant, the nearest first.
fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted: Vec<char> = wanted.to_lowercase().chars().collect();
    // One slip for each three letters; of shorter names any other would do.
    let slips_max = wanted.len() / 3;
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let letters: Vec<char> = name.to_lowercase().chars().collect();
            // Cheap first: thousands of names are looked through.
            let may_be = letters.len().abs_diff(wanted.len()) <= slips_max;
            let slips = may_be.then(|| slips(&wanted, &letters))?;
            (slips <= slips_max).then_some((slips, name))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter().take(SUGGESTED_MAX).map(|(_, name)| shown(name)).collect()
}

/// How many letters have to be put in, left out, replaced or swapped with the next one (optimal string alignment).
fn slips(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_letters_too_many_missing_wrong_and_swapped() {
        let slips = |a: &str, b: &str| {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            slips(&letters(a), &letters(b))
        };
        assert_eq!(slips("web", "web"), 0);
        assert_eq!(slips("", "web"), 3);
        assert_eq!(slips("web", "wb"), 1);
        assert_eq!(slips("web", "wxeb"), 1);
        assert_eq!(slips("mail", "mial"), 1);
        assert_eq!(slips("größe", "grosse"), 3);
    }

    #[test]
    fn names_are_suggested_that_are_near_and_no_others() {
        let names = ["web1", "web2", "WEB-FRONT", "db", "mail\u{1b}[2J", "web1"];
        let near = |wanted| near(wanted, names.into_iter());
        assert_eq!(near("wbe1"), ["web1"]);
        assert_eq!(near("web"), ["web1", "web2"]);
        assert_eq!(near("web-front"), ["WEB-FRONT"]);
        assert_eq!(near("webfront"), ["WEB-FRONT"]);
        assert_eq!(near("mail\u{1b}[2K"), ["mail\\u{1b}[2J"]);
        assert_eq!(near("d"), [""; 0], "any short name is near it");
        assert_eq!(near(""), [""; 0]);
        assert_eq!(near("00000000-0000-0000-0000-000000000001"), [""; 0]);
    }
}
