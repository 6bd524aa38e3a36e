//! `mainstay-lab`: several libvirt hosts on one machine, by hand.
//!
//! Only reads arguments and dispatches; each group of commands is a module of `cli`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Args::parse())
}
