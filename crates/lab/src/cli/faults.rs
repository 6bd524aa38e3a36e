//! `split` and `heal`.

use std::process::ExitCode;

use clap::Args;
use mainstay_lab::Lab;

use super::hosts::Nets;
use super::parse_host;

/// Arguments of `split`.
#[derive(Debug, Args)]
pub struct SplitArgs {
    /// The parts: hosts of one part with commas between them, such as h1,h2 h3
    #[arg(required = true, num_args = 2..)]
    groups: Vec<String>,
    /// The network to part
    #[arg(long, default_value = "mgmt")]
    net: Nets,
}

/// Parts a network.
pub fn split(args: &SplitArgs) -> anyhow::Result<ExitCode> {
    let groups = args
        .groups
        .iter()
        .map(|g| g.split(',').map(parse_host).collect::<Result<Vec<_>, _>>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(anyhow::Error::msg)?;
    let groups: Vec<&[usize]> = groups.iter().map(Vec::as_slice).collect();
    let lab = Lab::attach()?;
    for net in args.net.list() {
        lab.split(*net, &groups)?;
    }
    eprintln!("Split. `mainstay-lab heal` joins all again.");
    Ok(ExitCode::SUCCESS)
}

/// Undoes every fault of the networks.
pub fn heal() -> anyhow::Result<ExitCode> {
    Lab::attach()?.heal()?;
    eprintln!("The networks are whole.");
    Ok(ExitCode::SUCCESS)
}
