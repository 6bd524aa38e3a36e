//! Judging a silent host (R10): one pure, total function of six observations.

pub use mainstay_words::judgement::HostState;

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// The six observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observations {
    /// A network heartbeat arrived within the failure time-out.
    pub network_heartbeat: bool,
    /// Its datastore heartbeat changed within the failure time-out, on any datastore.
    pub datastore_heartbeat: bool,
    /// It answered a ping.
    pub ping: bool,
    /// The isolation flag in its power-on list.
    pub isolation_flag: bool,
    /// Its datastore heartbeat says that its agent is well: the guard, which writes it, outlives the agent.
    pub agent_well: bool,
    /// As far as its last word goes, its guard freezes what it runs when its leases end.
    pub can_freeze: bool,
}

/// The judgement. Total: every combination has exactly one state.
pub fn classify(seen: Observations) -> HostState {
    let Observations { network_heartbeat, datastore_heartbeat, ping, isolation_flag, agent_well, can_freeze } =
        seen;
    match (network_heartbeat, datastore_heartbeat, ping, isolation_flag, agent_well, can_freeze) {
        (true, _, _, _, _, _) => HostState::Connected,
        (false, true, _, _, false, _) => HostState::AgentUnreachable,
        (false, true, _, false, true, _) => HostState::Partitioned,
        (false, true, _, true, true, _) => HostState::Isolated,
        (false, false, true, _, _, _) => HostState::AgentUnreachable,
        (false, false, false, _, _, false) => HostState::Unguarded,
        (false, false, false, _, _, true) => HostState::Failed,
    }
}

/// One row of the table of judgements: what is seen (`None`: either), and the state that follows.
pub type Row = ([Option<bool>; 6], HostState);

/// The table of judgements, from the function itself: rows that differ in one observation and not in the state are one row.
/// The columns are those of [`Observations`], in their order.
pub fn table() -> Vec<Row> {
    let all = (0..64u8).map(|bits| {
        let seen = core::array::from_fn(|i| Some(bits & (32 >> i) != 0));
        (seen, classify(Observations::from(seen.map(|value| value == Some(true)))))
    });
    let mut rows: Vec<Row> = all.collect();
    while let Some((one, other, column)) = mergeable(&rows) {
        rows.remove(other);
        rows[one].0[column] = None;
    }
    rows.sort_by_key(|(seen, _)| {
        seen.map(|value| match value {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        })
    });
    rows
}

/// Two rows that differ in exactly one column, and which.
fn mergeable(rows: &[Row]) -> Option<(usize, usize, usize)> {
    // From the last column on, so that the first ones stay the telling ones.
    (0..6).rev().find_map(|column| {
        (0..rows.len()).find_map(|one| {
            let twin = |other: &usize| {
                rows[one].1 == rows[*other].1
                    && rows[one].0[column] != rows[*other].0[column]
                    && (0..6).all(|i| i == column || rows[one].0[i] == rows[*other].0[i])
            };
            (one + 1..rows.len()).find(twin).map(|other| (one, other, column))
        })
    })
}

impl From<[bool; 6]> for Observations {
    fn from(seen: [bool; 6]) -> Observations {
        let [network_heartbeat, datastore_heartbeat, ping, isolation_flag, agent_well, can_freeze] = seen;
        Observations { network_heartbeat, datastore_heartbeat, ping, isolation_flag, agent_well, can_freeze }
    }
}

/// The table for people, in Markdown: `docs/internals/protocol.md` has it, and a test compares.
pub fn table_in_markdown() -> String {
    let word = |value: &Option<bool>| match value {
        Some(true) => "yes",
        Some(false) => "no",
        None => "any",
    };
    let mut text = String::from(
        "| network heartbeat | datastore heartbeat | ping | isolation flag | agent well | can freeze | state |\n| --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (seen, state) in table() {
        for value in &seen {
            text.push_str("| ");
            text.push_str(word(value));
            text.push(' ');
        }
        text.push_str(&alloc::format!("| {state} |\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of R10, in words of its own, over all inputs.
    #[test]
    fn every_combination_has_the_state_of_the_table() {
        for bits in 0..64u8 {
            let seen = Observations::from(core::array::from_fn(|i| bits & (1 << i) != 0));
            let expected = if seen.network_heartbeat {
                HostState::Connected
            } else if seen.datastore_heartbeat && seen.agent_well {
                if seen.isolation_flag { HostState::Isolated } else { HostState::Partitioned }
            } else if seen.datastore_heartbeat || seen.ping {
                HostState::AgentUnreachable
            } else if !seen.can_freeze {
                HostState::Unguarded
            } else {
                HostState::Failed
            };
            assert_eq!(classify(seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn the_table_says_what_the_function_does() {
        let rows = table();
        for bits in 0..64u8 {
            let seen: [bool; 6] = core::array::from_fn(|i| bits & (1 << i) != 0);
            let fits = |row: &&Row| {
                row.0.iter().zip(seen).all(|(cell, value)| cell.is_none_or(|cell| cell == value))
            };
            let states: Vec<HostState> = rows.iter().filter(fits).map(|row| row.1).collect();
            assert_eq!(states, [classify(Observations::from(seen))], "{seen:?}");
        }
    }

    #[test]
    fn the_documentation_has_this_table() {
        let text = include_str!("../../../docs/internals/protocol.md");
        let table = table_in_markdown();
        assert!(text.contains(&table), "put this into docs/internals/protocol.md:\n{table}");
    }
}
