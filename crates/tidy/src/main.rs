//! `mainstay-tidy`: prints the figures. `mainstay-tidy KEY`: prints the places behind one of them.

use anyhow::{Context, Result, bail};
use mainstay_tidy::figures::{Figure, figures};
use mainstay_tidy::limits::Better;
use mainstay_tidy::tree::Tree;
use std::io::{self, Write};

fn main() -> Result<()> {
    let tree = Tree::read(&std::env::current_dir()?)?;
    let figures = figures(&tree)?;
    let words: Vec<String> = std::env::args().skip(1).collect();
    let printed = match words.as_slice() {
        [] => print_table(&figures),
        [key] => {
            let figure = figures.iter().find(|figure| figure.limit.key == key);
            print_places(figure.with_context(|| format!("there is no figure `{key}`"))?)
        }
        _ => bail!("usage: mainstay-tidy [KEY]"),
    };
    match printed {
        // A reader who has seen enough, as `head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}

fn print_table(figures: &[Figure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = figures.iter().map(|figure| figure.limit.what.chars().count()).max().unwrap_or_default();
    writeln!(out, "{:<16}{:<width$} {:>7} {:>7} {:>7}", "key", "figure", "now", "limit", "goal")?;
    for figure in figures {
        let limit = figure.limit.limit.map_or_else(|| "-".to_string(), |limit| limit.to_string());
        let (key, what, now, goal) = (figure.limit.key, figure.limit.what, figure.value, figure.limit.goal);
        let remark = match figure.limit.better {
            _ if figure.is_worse() => "  worse than its limit",
            _ if figure.is_better() => "  the limit can be tightened",
            Better::Fewer if now <= goal => "  reached",
            Better::More if now >= goal => "  reached",
            Better::Fewer | Better::More => "",
        };
        writeln!(out, "{key:<16}{what:<width$} {now:>7} {limit:>7} {goal:>7}{remark}")?;
    }
    Ok(())
}

fn print_places(figure: &Figure) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}: {}, goal {}", figure.limit.what, figure.value, figure.limit.goal)?;
    figure.places.iter().try_for_each(|place| writeln!(out, "{place}"))
}
