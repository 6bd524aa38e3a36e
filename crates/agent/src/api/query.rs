//! Parts of a path and query: percent-encoding, lists, numbers, words.
//!
//! A query that is an order is read whole: a parameter that nobody knows is a misspelt one, and refused.

/// Why a request can't be read: the HTTP status, and what to do.
pub(super) type Wrong = (u16, String);

/// The query of an order.
pub(super) struct Query<'a> {
    text: &'a str,
}

impl<'a> Query<'a> {
    /// Reads a query in which only these parameters stand, each once.
    pub(super) fn read(text: &'a str, allowed: &[&str]) -> Result<Query<'a>, Wrong> {
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !allowed.contains(&name) {
                let list = if allowed.is_empty() { "it takes none".into() } else { allowed.join(", ") };
                return Err((400, format!("there is no parameter \"{name}\" here: {list}")));
            }
            if !pair.contains('=') {
                return Err((400, format!("{name}: write {name}=VALUE")));
            }
            if seen.contains(&name) {
                return Err((400, format!("{name} is given twice: give it once")));
            }
            seen.push(name);
        }
        Ok(Query { text })
    }

    /// The value as it stands there.
    fn raw(&self, name: &str) -> Option<&'a str> {
        value(self.text, name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The value, decoded.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Wrong> {
        self.raw(name).map(|raw| decoded(name, raw)).transpose()
    }

    /// One of these words.
    pub(super) fn word<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || (400, format!("{name}={text} is not possible: use {allowed}"));
        parse(&text).map(Some).ok_or_else(wrong)
    }

    /// The same, and it must be there.
    pub(super) fn word_needed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<T, Wrong> {
        let missing = || (400, format!("{name} is missing: add {name}=VALUE, with {allowed}"));
        self.word(name, parse, allowed)?.ok_or_else(missing)
    }

    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, Wrong> {
        let parse = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        self.word(name, parse, "true or false")
    }

    /// A whole number in that range.
    pub(super) fn number(
        &self,
        name: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Wrong> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.word(name, parse, &allowed)
    }

    /// Names with commas between them. None, if it is missing or empty.
    pub(super) fn list(&self, name: &str) -> Result<Vec<String>, Wrong> {
        let raw = self.raw(name).unwrap_or_default();
        if raw.is_empty() {
            return Ok(Vec::new());
        }
        let names = raw.split(',').map(|one| {
            let one = decoded(name, one)?;
            if one.is_empty() {
                return Err((
                    400,
                    format!("{name}={raw}: a name is empty; write the names with one comma between them"),
                ));
            }
            Ok(one)
        });
        names.collect()
    }
}

fn decoded(name: &str, raw: &str) -> Result<String, Wrong> {
    decode_segment(raw)
        .ok_or_else(|| (400, format!("{name}={raw} can't be read: percent-encode it as UTF-8")))
}

/// The value of a parameter as it stands there.
pub(super) fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Writes a name as one segment of a path, or as a value in a query.
pub fn encode_segment(name: &str) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            text.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

pub(super) fn decode_segment(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' {
            let digit = |c: u8| char::from(c).to_digit(16);
            (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
        } else {
            byte
        });
    }
    String::from_utf8(bytes).ok()
}
