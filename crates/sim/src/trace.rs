//! What happened, as a running 64-bit hash and, when asked for, as text.
//!
//! The hash (FNV-1a) takes compact facts of each step rather than its text: formatting everything would cost more than
//! running it, and a run that differs anywhere differs in these facts a moment later.

/// The trace of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// An empty trace; `text` keeps lines as well.
    pub fn new(text: bool) -> Trace {
        Trace { hash: 0xcbf2_9ce4_8422_2325, lines: text.then(Vec::new) }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The lines, if they are kept.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Takes facts in.
    pub fn facts(&mut self, facts: &[u64]) {
        for fact in facts {
            for byte in fact.to_le_bytes() {
                self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }

    /// Takes a word in.
    pub fn word(&mut self, word: &str) {
        for byte in word.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a line when lines are kept; `line` is not called otherwise.
    pub fn line(&mut self, at: u64, who: &str, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>4}.{:06} {who:<10} {}", at / 1_000_000, at % 1_000_000, line()));
        }
    }
}
