//! The benchmark's tables, with the targets beside, and what misses them.

use std::fmt::Write as _;

use super::figures::{Phase, Spread};
use super::footprint::Rest;
use super::{Role, Series, Storage};
use crate::cli::table::Table;

/// An agent's resident memory at rest, in MB.
const RSS_TARGET: f64 = 20.0;
/// Its share of one core at rest, in per cent.
const CPU_TARGET: f64 = 0.5;

/// Text for terminals or Markdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Aligned columns, for terminals.
    Text,
    /// Markdown, for documents.
    Markdown,
}

/// The median from power loss to QEMU running elsewhere that is aimed at, in seconds.
pub fn target(timing: &str, role: Role) -> Option<f64> {
    match (timing, role) {
        ("standard", Role::Secondary) => Some(6.0),
        ("standard", Role::Primary) => Some(8.0),
        ("swift", Role::Secondary) => Some(2.5),
        ("swift", Role::Primary) => Some(4.0),
        (_, Role::Secondary | Role::Primary) => None,
    }
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or("-".into(), |s| format!("{:.2} / {:.2} / {:.2}", s.min, s.median, s.max))
}

fn print(form: Form, table: &Table) -> String {
    match form {
        Form::Text => table.text(),
        Form::Markdown => table.markdown(),
    }
}

fn heading(form: Form, text: &str) -> String {
    match form {
        Form::Text => format!("\n{text}\n\n"),
        Form::Markdown => format!("\n## {text}\n\n"),
    }
}

/// All failover tables.
pub fn failovers(form: Form, all: &[Series]) -> String {
    let mut out = heading(form, "Failover: seconds since the power loss, least / median / most");
    let mut table = Table::new(&[
        "timing",
        "lost host",
        "datastore",
        "runs",
        "VMs",
        "QEMU runs elsewhere",
        "guest beats",
        "target (median)",
        "met",
    ]);
    for series in all {
        let process = series.sum.spread(Phase::Process);
        let target = target(&series.timing, series.role);
        let met = match (process, target) {
            (Some(process), Some(target)) => if process.median <= target { "yes" } else { "NO" }.into(),
            (_, _) => "-".to_string(),
        };
        table.row([
            series.timing.clone(),
            series.role.to_string(),
            series.storage.to_string(),
            series.done.to_string(),
            process.map_or(0, |p| p.count).to_string(),
            spread(process),
            spread(series.sum.spread(Phase::Beating)),
            target.map_or("-".into(), |t| format!("{t:.1}")),
            met,
        ]);
    }
    out.push_str(&print(form, &table));
    out.push_str(&heading(form, "Where the time goes: medians since the power loss"));
    for series in all {
        let steps: Vec<String> =
            series.sum.breakdown().iter().map(|(phase, at)| format!("{} {at:+.2}", phase.words())).collect();
        let lead = if form == Form::Markdown { "- " } else { "" };
        let _ = writeln!(out, "{lead}{series}: {}", steps.join(", "));
    }
    out.push_str(&notes(form, all));
    out
}

/// What misses its target and why, and what went wrong.
fn notes(form: Form, all: &[Series]) -> String {
    let mut out = String::new();
    let lead = if form == Form::Markdown { "- " } else { "" };
    for series in all {
        let median = series.sum.spread(Phase::Process).map(|s| s.median);
        if let (Some(median), Some(target)) = (median, target(&series.timing, series.role))
            && median > target
            && let Some((from, to, seconds)) = series.sum.longest_step()
        {
            let from = from.map_or("the power loss", Phase::words);
            let _ = writeln!(
                out,
                "{lead}{series} misses its target by {:.2} s; the longest step, {seconds:.2} s, is from {from} to {}.",
                median - target,
                to.words()
            );
        }
        if series.sum.waited_for_storage > 0 {
            let waited = series.sum.waited_for_storage;
            let _ = writeln!(
                out,
                "{lead}{series}: in {waited} cases the new host waited for the storage to let go of the image's lock."
            );
        }
        if series.sum.starts_failed > 0 {
            let failed = series.sum.starts_failed;
            let _ = writeln!(out, "{lead}{series}: {failed} attempts at a start failed and were repeated.");
        }
        for failure in &series.failures {
            let _ = writeln!(out, "{lead}{series}: A RUN FAILED: {failure}");
        }
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

/// The table of agents at rest.
pub fn footprint(form: Form, all: &[(String, Vec<Rest>)], seconds: u64) -> String {
    let title = format!("Agents at rest, over {seconds} s");
    let mut out = heading(form, &title);
    let mut table = Table::new(&[
        "timing",
        "role",
        "RSS MB",
        "PSS MB",
        "anonymous MB",
        "CPU % of a core",
        "disk written B/s (writes/s)",
        "disk read B/s (reads/s)",
        "peers sent B/s",
        "peers received B/s",
    ]);
    let mut missed = Vec::new();
    for (timing, agents) in all {
        for rest in agents {
            let role = if rest.primary { "primary" } else { "secondary" };
            let rate = |name: &str| rest.per_second.get(name).copied().unwrap_or(0.0);
            table.row([
                timing.clone(),
                role.into(),
                format!("{:.1}", rest.rss_mb),
                format!("{:.1}", rest.pss_mb),
                format!("{:.1}", rest.anonymous_mb),
                format!("{:.2}", rest.cpu_percent),
                format!("{:.0} ({:.1})", rate("disk_written"), rate("disk_writes")),
                format!("{:.0} ({:.1})", rate("disk_read"), rate("disk_reads")),
                format!("{:.0}", rate("net_sent")),
                format!("{:.0}", rate("net_received")),
            ]);
            if rest.rss_mb > RSS_TARGET {
                missed.push(format!("{timing}, {role}: RSS {:.1} MB", rest.rss_mb));
            }
            if rest.cpu_percent > CPU_TARGET {
                missed.push(format!("{timing}, {role}: CPU {:.2} %", rest.cpu_percent));
            }
        }
    }
    out.push_str(&print(form, &table));
    let verdict = if missed.is_empty() { "met".into() } else { format!("missed by {}", missed.join("; ")) };
    let _ = writeln!(
        out,
        "\nTargets: RSS at most {RSS_TARGET:.0} MB, CPU at most {CPU_TARGET} % of a core: {verdict}."
    );
    out
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Secondary => "secondary",
            Role::Primary => "primary",
        })
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Storage::Local => "bind mount",
            Storage::Gluster => "GlusterFS",
        })
    }
}

impl std::fmt::Display for Series {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, {}, {}", self.timing, self.role, self.storage)
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::Failover;
    use super::*;

    fn series(timing: &str, role: Role, process: &[f64]) -> Series {
        let mut sum = Failover::default();
        for at in process {
            sum.note(Phase::Process, *at);
            sum.note(Phase::Failed, at - 0.5);
        }
        let timing = timing.into();
        Series { timing, role, storage: Storage::Local, runs: 1, done: 1, sum, failures: Vec::new() }
    }

    #[test]
    fn medians_are_held_against_their_targets() {
        let all = [
            series("standard", Role::Secondary, &[5.0, 5.5, 9.0]),
            series("swift", Role::Primary, &[4.0, 5.0, 6.0]),
        ];
        let text = failovers(Form::Markdown, &all);
        assert!(text.contains("| 5.00 / 5.50 / 9.00 "), "{text}");
        assert!(
            text.contains("| 6.0             | yes |") && text.contains("| 4.0             | NO  |"),
            "{text}"
        );
        let note = "swift, primary, bind mount misses its target by 1.00 s; the longest step, 4.50 s, is from \
                    the power loss to declared failed.";
        assert!(text.contains(note), "{text}");
        assert!(!text.contains("standard, secondary, bind mount misses"), "{text}");
    }

    #[test]
    fn an_agent_that_uses_too_much_is_named() {
        let rest = Rest {
            host: "host-1".into(),
            primary: true,
            rss_mb: 28.7,
            pss_mb: 9.0,
            anonymous_mb: 3.9,
            cpu_percent: 0.2,
            per_second: [("disk_writes".to_string(), 1.0)].into(),
        };
        let text = footprint(Form::Text, &[("swift".into(), vec![rest])], 60);
        assert!(text.contains("missed by swift, primary: RSS 28.7 MB."), "{text}");
    }
}
