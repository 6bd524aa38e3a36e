//! Parts of a path and query, read and written: percent-encoding, lists, numbers, words.
//!
//! The query of an order is read whole: a parameter that nobody knows is a misspelt one, and is refused.

use std::fmt::{Display, Write};

/// Why a request can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The HTTP status.
    pub status: u16,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl Wrong {
    /// A value that makes no sense.
    pub fn value(reason: impl Into<String>) -> Wrong {
        Wrong { status: 400, reason: reason.into() }
    }

    /// A path that leads nowhere.
    pub fn nowhere(path: &str) -> Wrong {
        let reason =
            format!("there is nothing at {path}: see the list of paths in the documentation of the API");
        Wrong { status: 404, reason }
    }
}

/// Path and query of a request, while they are written.
#[derive(Debug)]
pub(crate) struct Target {
    text: String,
    has_query: bool,
}

impl Target {
    /// A path of these segments.
    pub(crate) fn of(segments: &[&str]) -> Target {
        let start = Target { text: "/v1".to_owned(), has_query: false };
        segments.iter().fold(start, |target, segment| target.then(segment))
    }

    /// One more segment. All segments come before the first parameter.
    pub(crate) fn then(mut self, segment: &str) -> Target {
        self.text.push('/');
        self.text.push_str(&encode_segment(segment));
        self
    }

    /// One more parameter.
    pub(crate) fn with(self, name: &str, value: impl Display) -> Target {
        self.parameter(name, &encode_segment(&value.to_string()))
    }

    /// One more parameter, if there is a value.
    pub(crate) fn with_some(self, name: &str, value: Option<impl Display>) -> Target {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// One more parameter that is a list. A comma within a name is encoded, so that it does not part two names.
    pub(crate) fn with_list(self, name: &str, names: &[impl AsRef<str>]) -> Target {
        let names: Vec<String> = names.iter().map(|name| encode_segment(name.as_ref())).collect();
        self.parameter(name, &names.join(","))
    }

    fn parameter(mut self, name: &str, encoded: &str) -> Target {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(name);
        self.text.push('=');
        self.text.push_str(encoded);
        self
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.text
    }
}

/// The query of a request, read strictly.
#[derive(Debug)]
pub struct Query<'a> {
    text: &'a str,
}

impl<'a> Query<'a> {
    /// Reads a query in which only these parameters stand, each once.
    pub fn read(text: &'a str, allowed: &[&str]) -> Result<Query<'a>, Wrong> {
        let mut seen: Vec<&str> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            if !allowed.contains(&name) {
                let list = if allowed.is_empty() { "it takes none".into() } else { allowed.join(", ") };
                return Err(Wrong::value(format!("there is no parameter \"{name}\" here: {list}")));
            }
            if !pair.contains('=') {
                return Err(Wrong::value(format!("{name}: write {name}=VALUE")));
            }
            if seen.contains(&name) {
                return Err(Wrong::value(format!("{name} is given twice: give it once")));
            }
            seen.push(name);
        }
        Ok(Query { text })
    }

    /// The value as it stands there.
    fn raw(&self, name: &str) -> Option<&'a str> {
        value(self.text, name)
    }

    /// Whether the parameter stands there.
    pub fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The value, decoded.
    pub fn text(&self, name: &str) -> Result<Option<String>, Wrong> {
        self.raw(name).map(|raw| decoded(name, raw)).transpose()
    }

    /// One of these words.
    pub fn word<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<Option<T>, Wrong> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let wrong = || Wrong::value(format!("{name}={text} is not possible: use {allowed}"));
        parse(&text).map(Some).ok_or_else(wrong)
    }

    /// The same, and it must be there.
    pub fn word_needed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Option<T>,
        allowed: &str,
    ) -> Result<T, Wrong> {
        let missing = || Wrong::value(format!("{name} is missing: add {name}=VALUE, with {allowed}"));
        self.word(name, parse, allowed)?.ok_or_else(missing)
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Wrong> {
        let parse = |text: &str| match text {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        };
        self.word(name, parse, "true or false")
    }

    /// A whole number in that range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Wrong> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let parse = |text: &str| text.parse().ok().filter(|number| range.contains(number));
        self.word(name, parse, &allowed)
    }

    /// Names with commas between them. None, if it is missing or empty.
    pub fn list(&self, name: &str) -> Result<Vec<String>, Wrong> {
        let raw = self.raw(name).unwrap_or_default();
        if raw.is_empty() {
            return Ok(Vec::new());
        }
        let names = raw.split(',').map(|one| {
            let one = decoded(name, one)?;
            if one.is_empty() {
                return Err(Wrong::value(format!(
                    "{name}={raw}: a name is empty; write the names with one comma between them"
                )));
            }
            Ok(one)
        });
        names.collect()
    }
}

fn decoded(name: &str, raw: &str) -> Result<String, Wrong> {
    decode_segment(raw)
        .ok_or_else(|| Wrong::value(format!("{name}={raw} can't be read: percent-encode it as UTF-8")))
}

/// The value of a parameter as it stands there.
pub fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Writes a name as one segment of a path, or as a value in a query.
pub fn encode_segment(name: &str) -> String {
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

pub(crate) fn decode_segment(text: &str) -> Option<String> {
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
