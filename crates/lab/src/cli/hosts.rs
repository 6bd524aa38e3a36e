//! `host` and `agent`.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use mainstay_lab::{Cut, Lab, Net, PowerOn};

use super::parse_host;

/// One network or both.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Nets {
    /// The management network
    Mgmt,
    /// The storage network
    Storage,
    /// Both networks
    Both,
}

impl Nets {
    /// The networks meant.
    pub fn list(self) -> &'static [Net] {
        match self {
            Nets::Mgmt => &[Net::Mgmt],
            Nets::Storage => &[Net::Storage],
            Nets::Both => &Net::ALL,
        }
    }
}

/// What to do to a host.
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Take its power away: everything on it ends at once
    Off {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Give it power again
    On {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
        /// Start its agent as well
        #[arg(long)]
        agent: bool,
    },
    /// Stop all processes of a host where they are, as a hanging kernel does
    Hang {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Let a host go on after `hang`
    Unhang {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Cut a host off from a network
    Cut {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
        /// The network to cut it off from
        #[arg(default_value = "mgmt")]
        net: Nets,
        /// Take the link of the host's card away too, as if the cable were pulled; without this the host sees a link
        #[arg(long)]
        carrier: bool,
    },
    /// Connect it again after `cut`
    Join {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
        /// The network to connect it with
        #[arg(default_value = "both")]
        net: Nets,
    },
    /// Lose a share of the packets of a host
    Lose {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
        /// How many packets of a hundred are lost; 0 ends the loss
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        percent: u8,
        /// The network on which packets get lost
        #[arg(default_value = "mgmt")]
        net: Nets,
    },
    /// Run a command on a host, or a shell
    Sh {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
        /// The command and its arguments; a shell if there is none
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Runs `host`, in the lab that is standing.
pub fn host(command: &HostCommand) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach()?;
    match command {
        HostCommand::Off { host } => {
            lab.host(*host)?.power_off()?;
            eprintln!("h{host} is off.");
        }
        HostCommand::On { host, agent } => {
            lab.host(*host)?.power_on_with(&PowerOn { agent: *agent, ..PowerOn::default() })?;
            eprintln!("h{host} is on.");
        }
        HostCommand::Hang { host } => {
            lab.host(*host)?.hang()?;
            eprintln!("h{host} hangs.");
        }
        HostCommand::Unhang { host } => {
            lab.host(*host)?.unhang()?;
            eprintln!("h{host} goes on.");
        }
        HostCommand::Cut { host, net, carrier } => {
            let how = if *carrier { Cut::Carrier } else { Cut::Silent };
            for net in net.list() {
                lab.host(*host)?.cut(*net, how)?;
            }
            eprintln!("h{host} is cut off.");
        }
        HostCommand::Join { host, net } => {
            for net in net.list() {
                lab.host(*host)?.join(*net)?;
            }
            eprintln!("h{host} is joined again.");
        }
        HostCommand::Lose { host, percent, net } => {
            for net in net.list() {
                lab.host(*host)?.lose_packets(*net, *percent)?;
            }
            eprintln!("h{host} loses {percent} % of its packets.");
        }
        HostCommand::Sh { host, command } => {
            let shell = vec!["bash".to_string()];
            let code = lab.host(*host)?.interact(if command.is_empty() { &shell } else { command })?;
            return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do to an agent.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Start the agent of a host
    Start {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Ask the agent of a host to end, and wait until it has
    Stop {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Kill the agent of a host, as a crash does
    Kill {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Stop the agent of a host where it is, as a deadlock does
    Hang {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Let it go on after `hang`
    Resume {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
}

/// Runs `agent`, in the lab that is standing.
pub fn agent(command: &AgentCommand) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach()?;
    match command {
        AgentCommand::Start { host } => {
            let host = lab.host(*host)?;
            host.start_agent()?;
            eprintln!("{}'s agent is started; its log is {}.", host.name(), host.agent_log().display());
        }
        AgentCommand::Stop { host } => {
            if lab.host(*host)?.stop_agent()? {
                eprintln!("h{host}'s agent has ended.");
            } else {
                eprintln!("h{host}'s agent did not end within 15 s and was killed.");
                return Ok(ExitCode::FAILURE);
            }
        }
        AgentCommand::Kill { host } => {
            lab.host(*host)?.kill_agent()?;
            eprintln!("h{host}'s agent is killed.");
        }
        AgentCommand::Hang { host } => {
            lab.host(*host)?.hang_agent()?;
            eprintln!("h{host}'s agent hangs.");
        }
        AgentCommand::Resume { host } => {
            lab.host(*host)?.resume_agent()?;
            eprintln!("h{host}'s agent goes on.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do to a guard, or to ask of it.
#[derive(Debug, Subcommand)]
pub enum GuardCommand {
    /// Print the process id of a host's guard, as this machine counts
    Pid {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Kill the guard of a host, as a crash does; the agent starts another one
    Kill {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Stop the guard of a host where it is, as a deadlock does
    Hang {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
    /// Let it go on after `hang`
    Resume {
        /// The host, such as h2
        #[arg(value_parser = parse_host)]
        host: usize,
    },
}

/// Runs `guard`, in the lab that is standing.
pub fn guard(command: &GuardCommand) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach()?;
    match command {
        GuardCommand::Pid { host } => match lab.host(*host)?.guard_pid()? {
            Some(pid) => println!("{pid}"),
            None => {
                eprintln!("h{host}'s guard does not run.");
                return Ok(ExitCode::FAILURE);
            }
        },
        GuardCommand::Kill { host } => {
            lab.host(*host)?.kill_guard()?;
            eprintln!("h{host}'s guard is killed.");
        }
        GuardCommand::Hang { host } => {
            lab.host(*host)?.hang_guard()?;
            eprintln!("h{host}'s guard hangs.");
        }
        GuardCommand::Resume { host } => {
            lab.host(*host)?.resume_guard()?;
            eprintln!("h{host}'s guard goes on.");
        }
    }
    Ok(ExitCode::SUCCESS)
}
