//! Prose in Markdown: how long its sentences, its lines and the rules of the protocol are.
//!
//! Tables, code blocks and headings are not prose. A paragraph ends at an empty line, at a list item and at whatever is not prose.

use crate::Finding;
use crate::tree::Page;

/// A piece of running text.
struct Paragraph {
    line: usize,
    text: String,
}

fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut paragraphs: Vec<Paragraph> = Vec::new();
    let (mut open, mut in_code) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("```") {
            in_code = !in_code;
            open = false;
            continue;
        }
        if in_code || line.is_empty() || line.starts_with('|') || line.starts_with('#') {
            open = false;
            continue;
        }
        let item = item_text(line);
        match paragraphs.last_mut() {
            Some(last) if open && item.is_none() => {
                last.text.push(' ');
                last.text.push_str(line);
            }
            _ => paragraphs.push(Paragraph { line: index + 1, text: item.unwrap_or(line).to_string() }),
        }
        open = true;
    }
    paragraphs
}

/// The text of a list item that begins on this line.
fn item_text(line: &str) -> Option<&str> {
    if let Some(text) = line.strip_prefix("- ").or_else(|| line.strip_prefix("* ")) {
        return Some(text);
    }
    let (number, text) = line.split_once(". ")?;
    (!number.is_empty() && number.len() <= 2 && number.bytes().all(|byte| byte.is_ascii_digit()))
        .then_some(text)
}

/// All sentences, each with the number of its words.
pub fn sentences(page: &Page) -> Vec<(Finding, usize)> {
    let mut found = Vec::new();
    for paragraph in paragraphs(&page.text) {
        let words: Vec<&str> = paragraph.text.split_whitespace().collect();
        let mut start = 0;
        for (index, word) in words.iter().enumerate() {
            let last = index + 1 == words.len();
            if last || (ends_a_sentence(word) && begins_a_sentence(words[index + 1])) {
                let sentence = &words[start..=index];
                let what =
                    format!("{} words: {} …", sentence.len(), sentence[..sentence.len().min(8)].join(" "));
                found.push((Finding { path: page.path.clone(), line: paragraph.line, what }, sentence.len()));
                start = index + 1;
            }
        }
    }
    found
}

fn ends_a_sentence(word: &str) -> bool {
    word.trim_end_matches(['*', '_', ')', '"', '”']).ends_with(['.', '!', '?'])
}

fn begins_a_sentence(word: &str) -> bool {
    word.trim_start_matches(['*', '_', '(', '"', '“', '`', '['])
        .starts_with(|c: char| c.is_uppercase() || c.is_numeric())
}

/// Lines of more characters than that.
pub fn long_lines(page: &Page, width: usize) -> Vec<Finding> {
    let lines = page.text.lines().enumerate().map(|(index, line)| (index + 1, line.chars().count()));
    lines
        .filter(|(_, length)| *length > width)
        .map(|(line, length)| Finding { path: page.path.clone(), line, what: format!("{length} characters") })
        .collect()
}

/// The rules of a page, each with the number of its words. A rule begins with a heading such as `### R41 …` and ends at the next
/// heading. Its heading and its lists do not count (conditions are to be lists), nor where it lives and what shows it.
pub fn rules(page: &Page) -> Vec<(Finding, usize)> {
    let mut found: Vec<(Finding, usize)> = Vec::new();
    let (mut inside, mut counts) = (false, true);
    for (index, line) in page.text.lines().enumerate() {
        if line.starts_with('#') {
            let number = number_of_rule(line);
            inside = number.is_some();
            if let Some(number) = number {
                found.push((
                    Finding { path: page.path.clone(), line: index + 1, what: format!("R{number}") },
                    0,
                ));
            }
        } else if line.is_empty() || !line.starts_with(' ') {
            let is_place = line.starts_with("*Lives in:*") || line.starts_with("*Shown by:*");
            let goes_on = !counts && line.starts_with('`');
            counts = item_text(line).is_none() && !line.starts_with('|') && !is_place && !goes_on;
        }
        if let (true, true, Some((_, words))) = (inside && !line.starts_with('#'), counts, found.last_mut()) {
            *words += line.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
        }
    }
    found
}

fn number_of_rule(line: &str) -> Option<String> {
    let rest = line.trim_start_matches('#').strip_prefix(" R")?;
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page { path: "docs/sample.md".to_string(), text: text.to_string() }
    }

    #[test]
    fn sentences_are_told_apart() {
        let text = "# A heading. It\n\nOne two three. Four five,\nsix v. seven! *Eight* (`R1.2`)?\n| a | table. With |\n- Nine ten\n- eleven\n1. Twelve\n\n```\nCode. More\n```\n";
        let lengths: Vec<usize> = sentences(&page(text)).iter().map(|(_, words)| *words).collect();
        assert_eq!(lengths, [3, 5, 2, 2, 1, 1]);
    }

    #[test]
    fn long_lines_are_found() {
        let found = long_lines(&page("short\nlöng line\n"), 8);
        assert_eq!(found.iter().map(|found| found.line).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn words_of_a_rule_are_counted_to_its_end() {
        let text = "### R1 A heading\n\nOne two\nthree.\n\n- (a) four\n  five\n\nSix.\n\n*Lives in:* `x`,\n`y`\n\n### R13 Another\n\n*Seven* – eight.\n\n| a | b |\n\n## No rule\n\nNine.\n";
        let found = rules(&page(text));
        let figures: Vec<(&str, usize)> =
            found.iter().map(|(place, words)| (place.what.as_str(), *words)).collect();
        assert_eq!(figures, [("R1", 4), ("R13", 2)]);
    }
}
