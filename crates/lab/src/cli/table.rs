//! Plain tables, for terminals or as Markdown.

use std::fmt::Write as _;

/// A table. The first column holds names, the others figures or words.
#[derive(Debug, Clone, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(ToString::to_string).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = std::iter::once(&self.head).chain(&self.rows).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..self.head.len()).map(width).collect()
    }

    /// With aligned columns, for terminals.
    pub fn text(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        for row in std::iter::once(&self.head).chain(&self.rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:<width$}  ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }

    /// As Markdown, aligned in the source too.
    pub fn markdown(&self) -> String {
        let widths = self.widths();
        let mut out = String::new();
        let mut line = |row: &[String]| {
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(out, "| {cell:<width$} ");
            }
            out.push_str("|\n");
        };
        line(&self.head);
        line(&widths.iter().map(|width| "-".repeat((*width).max(3))).collect::<Vec<_>>());
        for row in &self.rows {
            line(row);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters_in_both_forms() {
        let mut table = Table::new(&["VM", "µs"]);
        table.row(["vm10", "1"].map(str::to_string));
        assert_eq!(table.text(), "VM    µs\nvm10  1\n");
        assert_eq!(table.markdown(), "| VM   | µs |\n| ---- | --- |\n| vm10 | 1  |\n");
    }
}
