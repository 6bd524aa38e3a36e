//! Small words of the output: ages, sizes, host names, and texts made safe for a terminal.

use crate::exit::Failure;
use mainstay_core::ids::HostId;
use mainstay_core::time::Span;
use std::collections::BTreeMap;

/// An age or a rest of time, in the unit that a person would use: `2.1 s`, `5 min`, `3 h`, `12 d`.
pub fn age(span: Span) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = span.as_millis() / 1_000;
    if seconds < MINUTE {
        format!("{}.{} s", seconds, span.as_millis() % 1_000 / 100)
    } else if seconds < HOUR {
        format!("{} min", seconds / MINUTE)
    } else if seconds < 2 * DAY {
        format!("{} h", seconds / HOUR)
    } else {
        format!("{} d", seconds / DAY)
    }
}

/// An amount of memory: `512 MiB`, `4 GiB`, `1.5 GiB`.
pub fn memory(mib: u64) -> String {
    if mib < 1_024 {
        format!("{mib} MiB")
    } else if mib.is_multiple_of(1_024) {
        format!("{} GiB", mib / 1_024)
    } else {
        format!("{}.{} GiB", mib / 1_024, mib % 1_024 * 10 / 1_024)
    }
}

/// The text with control characters made visible: a VM's name must not be able to steer the terminal of an administrator.
pub fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// The configured names of the hosts. Empty when they could not be learnt: then ids are shown.
#[derive(Clone, Debug, Default)]
pub struct HostNames(pub BTreeMap<HostId, String>);

impl HostNames {
    /// The configured name; the id when there is none.
    pub fn short(&self, host: &HostId) -> String {
        self.0.get(host).map_or_else(|| clean(host.as_str()), |name| clean(name))
    }

    /// Name and id: `h1 (host-1)`.
    pub fn full(&self, host: &HostId) -> String {
        match self.0.get(host) {
            Some(name) if name != host.as_str() => format!("{} ({})", clean(name), clean(host.as_str())),
            Some(_) | None => clean(host.as_str()),
        }
    }

    /// The host that an argument names, by its name or by its id.
    pub fn resolve(&self, argument: &str) -> Result<HostId, Failure> {
        let by_id = self.0.keys().find(|id| id.as_str() == argument);
        let by_name = || self.0.iter().find(|(_, name)| *name == argument).map(|(id, _)| id);
        by_id.or_else(by_name).cloned().ok_or_else(|| Failure::Unknown {
            what: "host",
            name: clean(argument),
            known: self.0.keys().map(|id| self.full(id)).collect(),
        })
    }

    /// The text with host ids replaced by configured names. Only whole words: `host-1` is not found in `host-12`.
    pub fn in_text(&self, text: &str) -> String {
        let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == '.';
        let mut result = String::with_capacity(text.len());
        let mut word = String::new();
        for c in text.chars().map(Some).chain([None]) {
            match c {
                Some(c) if is_part(c) => word.push(c),
                Some(_) | None => {
                    // A full stop at the end belongs to the sentence, not to the id.
                    let bare = word.trim_end_matches('.');
                    match self.0.get(&HostId::new(bare)) {
                        Some(name) => {
                            result.push_str(name);
                            result.push_str(&word[bare.len()..]);
                        }
                        None => result.push_str(&word),
                    }
                    word.clear();
                    result.extend(c);
                }
            }
        }
        clean(&result)
    }

    /// The width of the widest configured name.
    pub fn width(&self) -> usize {
        self.0.keys().map(|id| self.short(id).chars().count()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> HostNames {
        HostNames(BTreeMap::from([
            ("host-1".into(), "h1".to_owned()),
            ("host-12".into(), "kvm-zwölf".to_owned()),
        ]))
    }

    #[test]
    fn ages_have_the_unit_that_fits() {
        let shown: Vec<_> =
            [0, 49, 2_149, 59_999, 60_000, 3_599_000, 3_600_000, 172_799_000, 172_800_000, 8_640_000_000]
                .map(|ms| age(Span::from_millis(ms)))
                .into();
        assert_eq!(
            shown,
            ["0.0 s", "0.0 s", "2.1 s", "59.9 s", "1 min", "59 min", "1 h", "47 h", "2 d", "100 d"]
        );
    }

    #[test]
    fn ids_in_texts_become_names_as_whole_words_only() {
        assert_eq!(
            names().in_text("host-1 was connected, host-12: x host-13 host-1."),
            "h1 was connected, kvm-zwölf: x host-13 h1."
        );
        assert_eq!(names().in_text("my-host-1 host-1-a"), "my-host-1 host-1-a");
        assert_eq!(names().in_text("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
    }

    #[test]
    fn hosts_are_found_by_name_and_by_id() {
        assert_eq!(names().resolve("h1").unwrap(), HostId::new("host-1"));
        assert_eq!(names().resolve("host-12").unwrap(), HostId::new("host-12"));
        let error = names().resolve("h9").unwrap_err();
        assert_eq!(error.to_string(), "there is no host named 'h9'");
        assert_eq!(error.hint().unwrap(), "known are: h1 (host-1), kvm-zwölf (host-12)");
    }

    #[test]
    fn memory_is_shown_in_the_larger_unit_when_it_fits() {
        assert_eq!([512, 1_024, 1_536, 65_536].map(memory), ["512 MiB", "1 GiB", "1.5 GiB", "64 GiB"]);
    }
}
