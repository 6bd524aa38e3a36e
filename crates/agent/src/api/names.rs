//! Hosts in texts of the core, which knows them by their ids, as people know them.

/// The text with each host's id, where it stands alone, replaced by its name.
pub(super) fn with_names(text: &str, hosts: &[(&str, &str)]) -> String {
    let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        // A full stop may end the sentence.
        let bare = word.trim_end_matches('.');
        match hosts.iter().find(|(id, _)| *id == bare) {
            Some((_, name)) => {
                named.push_str(name);
                named.push_str(&word[bare.len()..]);
            }
            None => named.push_str(word),
        }
        let next = after.find(in_word).unwrap_or(after.len());
        named.push_str(&after[..next]);
        rest = &after[next..];
    }
    named
}

#[cfg(test)]
mod tests {
    use super::with_names;

    #[test]
    fn ids_that_stand_alone_become_names_and_nothing_else_changes() {
        let hosts = [("host-1", "h1"), ("host-10", "blade.example.com"), ("h3", "h3")];
        let said = |text| with_names(text, &hosts);
        assert_eq!(
            said("host-1 is in maintenance mode: it takes no VMs"),
            "h1 is in maintenance mode: it takes no VMs"
        );
        assert_eq!(
            said("db (host-10: 5 MiB free, host-1: it failed); ask host-10."),
            "db (blade.example.com: 5 MiB free, h1: it failed); ask blade.example.com."
        );
        let others = "my-host-1, host-11, ghost-1, `host-1x`, größe, h3, …";
        assert_eq!(said(others), others);
        assert_eq!(said(""), "");
    }
}
