//! `vm`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use mainstay_lab::{GuestCommand, Lab, VmOptions};

use super::{parse_host, print_data};

/// What a guest is told.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Word {
    /// Nothing special any more
    None,
    /// Hang
    Hang,
    /// Reset itself
    Reset,
    /// Power itself off
    PowerOff,
    /// Ignore the power button
    IgnorePowerButton,
    /// Panic
    Panic,
}

/// What to do about VMs.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM and start it
    Add {
        /// Its name
        name: String,
        /// The host to define and start it on
        #[arg(long, value_parser = parse_host)]
        host: usize,
        /// The datastore of its disk; the first if not given
        #[arg(long)]
        datastore: Option<String>,
        /// Memory in MiB
        #[arg(long, default_value_t = 16)]
        memory: u32,
    },
    /// Where VMs run and how their guests fare
    List,
    /// Tell a guest something, through its disk
    Tell {
        /// The VM
        name: String,
        /// What
        word: Word,
    },
    /// Kill its QEMU process, as a crash does
    Kill {
        /// The VM
        name: String,
        /// Where
        #[arg(long, value_parser = parse_host)]
        host: usize,
    },
}

/// Runs `vm`.
pub fn vm(command: &VmCommand) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach()?;
    match command {
        VmCommand::Add { name, host, datastore, memory } => {
            let options =
                VmOptions { memory_mib: *memory, datastore: datastore.clone(), ..VmOptions::default() };
            lab.define_vm(*host, name, &options)?;
            eprintln!("{name} runs on h{host}.");
        }
        VmCommand::List => print_data(&lab.overview()),
        VmCommand::Tell { name, word } => {
            let command = match word {
                Word::None => GuestCommand::None,
                Word::Hang => GuestCommand::Hang,
                Word::Reset => GuestCommand::Reset,
                Word::PowerOff => GuestCommand::PowerOff,
                Word::IgnorePowerButton => GuestCommand::IgnorePowerButton,
                Word::Panic => GuestCommand::Panic,
            };
            lab.send_command(name, command)?;
            eprintln!("{name} is told.");
        }
        VmCommand::Kill { name, host } => {
            let killed = lab.kill_vm(*host, name)?;
            eprintln!("{killed} QEMU process(es) of {name} on h{host} killed.");
        }
    }
    Ok(ExitCode::SUCCESS)
}
