//! Documents: tables that are not shown as tables, and links that lead nowhere.

use crate::Finding;
use crate::tree::Page;
use std::path::Path;

/// Lines that look like a table and are not shown as one: no second row of dashes, or a row of another number of cells than the first.
pub fn broken_tables(page: &Page) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut head: Option<usize> = None;
    let mut row = 0;
    for (index, line) in prose_lines(page) {
        if !line.trim_start().starts_with('|') {
            (head, row) = (None, 0);
            continue;
        }
        row += 1;
        let cells = cells(line);
        let what = match head {
            None => {
                head = Some(cells.len());
                continue;
            }
            Some(_) if row == 2 && !cells.iter().all(|cell| is_delimiter(cell)) => "a table without a head",
            Some(width) if width != cells.len() => "a row of another number of cells than the head",
            Some(_) => continue,
        };
        found.push(Finding { path: page.path.clone(), line: index, what: what.to_string() });
    }
    found
}

/// The lines that are not in code blocks, by number. A code block's are empty.
fn prose_lines(page: &Page) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    page.text.lines().chain([""]).enumerate().map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (index + 1, if in_code || fence { "" } else { line })
    })
}

/// The cells of a row. A `\|` is text, also in code.
fn cells(row: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut escaped = false;
    for character in row.trim().trim_start_matches('|').chars() {
        match character {
            '|' if !escaped => cells.push(String::new()),
            _ => cells.last_mut().into_iter().for_each(|cell| cell.push(character)),
        }
        escaped = character == '\\' && !escaped;
    }
    if cells.last().is_some_and(|cell| cell.trim().is_empty()) {
        cells.pop();
    }
    cells
}

fn is_delimiter(cell: &str) -> bool {
    let dashes = cell.trim().trim_start_matches(':').trim_end_matches(':');
    !dashes.is_empty() && dashes.bytes().all(|byte| byte == b'-')
}

/// Links to files of the repository that are not there.
pub fn dead_links(root: &Path, page: &Page) -> Vec<Finding> {
    let folder = root.join(&page.path).parent().map(Path::to_path_buf).unwrap_or_default();
    let mut found = Vec::new();
    for (index, line) in prose_lines(page) {
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            let is_ours = !file.is_empty() && !file.contains(':');
            if is_ours && !folder.join(file).exists() {
                found.push(Finding { path: page.path.clone(), line: index, what: target.to_string() });
            }
        }
    }
    found
}

/// What the links of a line point to.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let page = Page { path: "docs/sample.md".to_string(), text: text.to_string() };
        broken_tables(&page).iter().map(|found| found.line).collect()
    }

    #[test]
    fn broken_tables_are_found() {
        let none: [usize; 0] = [];
        assert_eq!(lines("| a | b |\n| --- | :-: |\n| `c \\| d` | e |\n"), none);
        assert_eq!(
            lines("| a | b |\n| --- | --- |\n| c | d |\n\n| e | f |\n| g | h |\n"),
            [6],
            "cut by an empty line"
        );
        assert_eq!(lines("| a | b |\n| --- | --- |\n| `c | d` | e |\n"), [3]);
        assert_eq!(lines("| a | b |\n| --- |\n"), [2]);
        assert_eq!(lines("```\n| a | b |\n| c |\n```\n"), none);
    }

    #[test]
    fn dead_links_are_found() {
        let text = "[a](tree.rs#b) [c](../src/missing.rs) [d](https://example.org/x.md) [e](#here)";
        let page = Page { path: "src/sample.md".to_string(), text: text.to_string() };
        let found = dead_links(Path::new(env!("CARGO_MANIFEST_DIR")), &page);
        assert_eq!(found.iter().map(|found| found.what.as_str()).collect::<Vec<_>>(), ["../src/missing.rs"]);
    }
}
