//! `mainstay completions`: a script that teaches a shell our words.

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;

/// Prints the script for that shell.
pub fn print(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    // Into memory first: the generator panics when its writer fails, as a closed pipe does.
    clap_complete::generate(shell, &mut Cli::command(), "mainstay", &mut script);
    let mut out = std::io::stdout().lock();
    out.write_all(&script)?;
    out.flush()?;
    Ok(Exit::Ok)
}
