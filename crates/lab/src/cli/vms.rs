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
    /// Stand still: the guest does nothing any more
    Hang,
    /// Reset itself, as a guest that reboots
    Reset,
    /// Power itself off
    PowerOff,
    /// Ignore the power button
    IgnorePowerButton,
    /// Let its kernel panic
    Panic,
}

/// What to do about VMs.
#[derive(Debug, Subcommand)]
pub enum VmCommand {
    /// Make a VM and start it
    Add {
        /// What the VM is to be called
        name: String,
        /// The host to define and start it on
        #[arg(long, value_parser = parse_host)]
        host: usize,
        /// The datastore of its disk; the first one if not given
        #[arg(long)]
        datastore: Option<String>,
        /// Its memory in MiB
        #[arg(long, default_value_t = 16)]
        memory: u32,
    },
    /// List the VMs: where they run, and how their guests are
    List,
    /// Tell a guest what to do, through its disk
    Tell {
        /// The VM, by its name
        name: String,
        /// What the guest is told to do
        word: Word,
    },
    /// Kill the QEMU process of a VM, as a crash does
    Kill {
        /// The VM, by its name
        name: String,
        /// The host on which it runs, such as h2
        #[arg(long, value_parser = parse_host)]
        host: usize,
    },
}

/// Runs `vm`, in the lab that is standing.
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
