//! Rules (R72): in how many files each is cited.

use crate::tree::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Each rule that these files cite, and the files, tests left out.
pub fn cited<'a>(sources: impl IntoIterator<Item = &'a Source>) -> BTreeMap<u32, BTreeSet<String>> {
    let mut cited: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
    for source in sources.into_iter().filter(|source| !source.is_test) {
        for rule in named(&source.text) {
            cited.entry(rule).or_default().insert(source.path.clone());
        }
    }
    cited
}

/// The rules that a text names: an R and one or two digits, as a word.
fn named(text: &str) -> impl Iterator<Item = u32> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter_map(|word| {
        let number = word.strip_prefix('R')?;
        (number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_in_comments_and_told_from_other_words() {
        let text = "// R1, (R72): not R, not xR3, not R4x, not R_5, not R100.\nfn f() { log(\"R41\"); }";
        let two = [Source::sample("core", "one", text), Source::sample("core", "two", "// R72")];
        let cited = cited(&two);
        let counts: Vec<(u32, usize)> = cited.iter().map(|(rule, files)| (*rule, files.len())).collect();
        assert_eq!(counts, [(1, 1), (41, 1), (72, 2)]);
    }
}
