//! Running a recording through the core again, and saying where it went another way.

use crate::{Header, Segment};
use mainstay_core::Core;

/// A longer value is cut off: its place is what counts.
const VALUE_LINES_MAX: usize = 6;

/// Whether the core that `former` ends in must be the checkpoint of the segment with that header: same host, same run of the
/// agent, and no step missing in between.
pub fn must_agree(former: &Segment, next: &Header) -> bool {
    let (before, after) = (&former.header, next);
    former.end == crate::End::Whole
        && after.continues == Some(before.segment)
        && before.cluster == after.cluster
        && before.config == after.config
}

/// The first place where two cores differ, in words; `None` when they are equal.
pub fn divergence(replayed: &Core, recorded: &Core) -> Option<String> {
    if replayed == recorded {
        return None;
    }
    let (replayed, recorded) = (format!("{replayed:#?}"), format!("{recorded:#?}"));
    let mut path: Vec<(usize, &str)> = Vec::new();
    let (mut left, mut right) = (replayed.lines(), recorded.lines());
    loop {
        let (ours, theirs) = (left.next(), right.next());
        if ours == theirs {
            // Both at their end: they differ in something that their text does not show.
            let line = ours?;
            let indent = indent_of(line);
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, line));
            continue;
        }
        let place = ours.or(theirs).map_or(0, indent_of);
        let names: Vec<&str> =
            path.iter().filter(|(outer, _)| *outer < place).map(|(_, line)| label(line)).collect();
        let names = names.join(" > ");
        return Some(format!("{names}: replayed {}, recorded {}", value(ours, left), value(theirs, right)));
    }
}

/// A value that may go on over some lines, on one.
fn value<'a>(first: Option<&'a str>, rest: impl Iterator<Item = &'a str>) -> String {
    let Some(first) = first else { return "nothing".to_owned() };
    let mut text = first.trim().to_owned();
    if text.ends_with(['{', '(', '[']) {
        let inner = rest.take_while(|line| indent_of(line) > indent_of(first));
        inner.take(VALUE_LINES_MAX).for_each(|line| text.extend([" ", line.trim()]));
        text.push_str(" …");
    }
    text.trim_end_matches(',').to_owned()
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// `ownership: Ownership {` is the place called `ownership`.
fn label(line: &str) -> &str {
    let line = line.trim().trim_end_matches(['{', '(', '[', ',']).trim();
    line.split_once(": ").map_or(line, |(name, _)| name).trim_end_matches(':')
}
