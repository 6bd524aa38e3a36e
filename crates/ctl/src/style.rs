//! How output looks: colour, width, tables. Nothing here knows what is shown.

use crate::clock::Zone;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement, Table, Width};
use std::io::IsTerminal;

/// How a command's output is to look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether to colour.
    pub colour: bool,
    /// Columns of the terminal; `None` for a file or pipe, where nothing is wrapped.
    pub width: Option<u16>,
    /// Which clock times are shown in.
    pub zone: Zone,
}

/// The user's wish about colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ColourChoice {
    /// On terminals, unless NO_COLOR is set.
    Auto,
    /// Also into files and pipes; NO_COLOR still wins.
    Always,
    /// Plain text, everywhere.
    Never,
}

/// How much a word is to catch the eye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be: not coloured, so that what is coloured stands out.
    Plain,
    /// Beside the point.
    Faint,
    /// Something is degraded.
    Warning,
    /// A person must act.
    Alarm,
}

/// Stands for a space at which a cell must not be wrapped, until the table is done.
const UNBROKEN_SPACE: char = '\u{a0}';

/// A text that stays on one line of its cell: nobody wants to read `0.9` and `s` on different lines.
pub fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

impl Style {
    /// The style for this process's stdout.
    pub fn for_stdout(choice: ColourChoice, zone: Zone) -> Style {
        let terminal = std::io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let colour = match choice {
            // The tables' library obeys NO_COLOR by itself: half of the output in colour would be worse than none.
            ColourChoice::Always => !no_color,
            ColourChoice::Never => false,
            ColourChoice::Auto => terminal && !no_color,
        };
        let width = terminal.then(terminal_width).flatten();
        Style { colour, width, zone }
    }

    /// A word of running text in its tone.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Faint => "2",
            Tone::Warning => "33",
            Tone::Alarm => "1;31",
        };
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A cell of a table in its tone.
    pub fn cell(&self, tone: Tone, text: impl Into<String>) -> Cell {
        let cell = Cell::new(text.into());
        if !self.colour {
            return cell;
        }
        match tone {
            Tone::Plain => cell,
            Tone::Faint => cell.fg(Color::DarkGrey),
            Tone::Warning => cell.fg(Color::DarkYellow),
            Tone::Alarm => cell.fg(Color::Red),
        }
    }

    /// A table without borders: aligned columns under headings, like those of kubectl and virsh. Ends with a line feed.
    pub fn table(&self, headings: &[&str], rows: Vec<Vec<Cell>>) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(headings.iter().map(|heading| self.cell(Tone::Faint, *heading)).collect::<Vec<_>>());
        table.add_rows(rows);
        match self.width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        table.force_no_tty();
        if self.colour {
            table.enforce_styling();
            table.style_text_only();
        }
        // Two spaces between columns, none at the left; words are not broken, rather may a line be too long for the terminal.
        let widest_words = widest_words(headings, &table);
        for (column, word) in table.column_iter_mut().zip(widest_words) {
            column.set_padding((0, 2));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(word + 2)));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(&line.trim_end().replace(UNBROKEN_SPACE, " "));
            text.push('\n');
        }
        text
    }
}

/// A word longer than this may be broken after all.
const WHOLE_WORD_MAX: usize = 40;

/// The width of each column's longest word.
fn widest_words(headings: &[&str], table: &Table) -> Vec<u16> {
    let longest = |text: &str| text.split(' ').map(|word| word.chars().count()).max().unwrap_or(0);
    let width = |index: usize, heading: &str| {
        let cells = table.column_cells_iter(index).flatten().map(|cell| longest(&cell.content()));
        let widest = cells.max().unwrap_or(0).max(longest(heading)).min(WHOLE_WORD_MAX);
        u16::try_from(widest).unwrap_or(u16::MAX)
    };
    headings.iter().enumerate().map(|(index, heading)| width(index, heading)).collect()
}

fn terminal_width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    // A terminal that doesn't know its size says 0: don't wrap there.
    (size.ws_col > 0).then_some(size.ws_col)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, width: None, zone: Zone::Utc };

    #[test]
    fn columns_are_aligned_also_for_wide_characters() {
        let rows = [["ü", "x"], ["日本語", "y"], ["a", "z"]];
        let rows = rows.iter().map(|row| row.iter().map(|text| PLAIN.cell(Tone::Plain, *text)).collect());
        let text = PLAIN.table(&["NAME", "B"], rows.collect());
        assert_eq!(text, "NAME    B\nü       x\n日本語  y\na       z\n");
    }

    #[test]
    fn a_narrow_terminal_wraps_cells_and_no_line_is_wider() {
        let style = Style { width: Some(30), ..PLAIN };
        let row = vec![
            style.cell(Tone::Plain, "name"),
            style.cell(Tone::Plain, "a long note that does not fit into the line"),
        ];
        let text = style.table(&["NAME", "NOTE"], vec![row]);
        assert!(text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 30), "{text}");
    }

    #[test]
    fn colour_is_there_only_when_asked_for() {
        let style = Style { colour: true, ..PLAIN };
        let table = |style: Style| style.table(&["A"], vec![vec![style.cell(Tone::Alarm, "failed")]]);
        assert!(table(style).contains('\u{1b}'));
        assert!(!table(PLAIN).contains('\u{1b}'));
        assert_eq!(style.paint(Tone::Alarm, "x"), "\u{1b}[1;31mx\u{1b}[0m");
        assert_eq!(PLAIN.paint(Tone::Alarm, "x"), "x");
    }
}
