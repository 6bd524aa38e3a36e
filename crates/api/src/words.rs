//! Values that have one word each: the same in queries, on the command line and in tables.

use mainstay_words::register::{IsolationResponse, Priority};
use mainstay_words::settings::{Evacuation, ReadyWhen, RuleKind, Strength};

/// A value that has a word.
pub trait Word: Copy + Sized + 'static {
    /// All values, in the order in which they are listed.
    const ALL: &'static [Self];

    /// The word for this value, in paths, queries and on the command line.
    fn word(self) -> &'static str;

    /// The value of that word.
    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.word() == word)
    }

    /// All words and then these others, as a person lists them: "a, b or c".
    fn list(others: &[&str]) -> String {
        let mut words: Vec<&str> = Self::ALL.iter().map(|value| value.word()).collect();
        words.extend(others);
        match words.split_last() {
            None => String::new(),
            Some((last, [])) => (*last).to_owned(),
            Some((last, first)) => format!("{} or {last}", first.join(", ")),
        }
    }
}

impl Word for Priority {
    const ALL: &'static [Priority] = &[
        Priority::Lowest,
        Priority::Low,
        Priority::Medium,
        Priority::High,
        Priority::Highest,
        Priority::Disabled,
    ];

    fn word(self) -> &'static str {
        match self {
            Priority::Lowest => "lowest",
            Priority::Low => "low",
            Priority::Medium => "medium",
            Priority::High => "high",
            Priority::Highest => "highest",
            Priority::Disabled => "disabled",
        }
    }
}

impl Word for IsolationResponse {
    const ALL: &'static [IsolationResponse] =
        &[IsolationResponse::LeavePoweredOn, IsolationResponse::ShutDown, IsolationResponse::PowerOff];

    fn word(self) -> &'static str {
        match self {
            IsolationResponse::LeavePoweredOn => "leave",
            IsolationResponse::ShutDown => "shutdown",
            IsolationResponse::PowerOff => "power-off",
        }
    }
}

impl Word for ReadyWhen {
    const ALL: &'static [ReadyWhen] =
        &[ReadyWhen::Started, ReadyWhen::Running, ReadyWhen::AgentAnswers, ReadyWhen::CommandSucceeds];

    fn word(self) -> &'static str {
        match self {
            ReadyWhen::Started => "started",
            ReadyWhen::Running => "running",
            ReadyWhen::AgentAnswers => "agent",
            ReadyWhen::CommandSucceeds => "command",
        }
    }
}

impl Word for Strength {
    const ALL: &'static [Strength] = &[Strength::Must, Strength::Should];

    fn word(self) -> &'static str {
        match self {
            Strength::Must => "must",
            Strength::Should => "should",
        }
    }
}

impl Word for RuleKind {
    const ALL: &'static [RuleKind] =
        &[RuleKind::OnHosts, RuleKind::NotOnHosts, RuleKind::Apart, RuleKind::Together];

    fn word(self) -> &'static str {
        match self {
            RuleKind::OnHosts => "on-hosts",
            RuleKind::NotOnHosts => "not-on-hosts",
            RuleKind::Apart => "apart",
            RuleKind::Together => "together",
        }
    }
}

impl Word for Evacuation {
    const ALL: &'static [Evacuation] = &[Evacuation::Migrate, Evacuation::ShutDown];

    fn word(self) -> &'static str {
        match self {
            Evacuation::Migrate => "migrate",
            Evacuation::ShutDown => "shutdown",
        }
    }
}
