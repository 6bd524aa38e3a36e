//! `up`, `down`, `status`, `check`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use mainstay_lab::{DatastoreConfig, Lab, LabConfig, LabError, VmOptions};

use super::{ending, print_data};

/// Arguments of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// How many hosts
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// How many VMs to define and start, spread over the hosts
    #[arg(long, default_value_t = 0)]
    vms: usize,
    /// How many datastores (ds1, ds2 …)
    #[arg(long, default_value_t = 1)]
    datastores: usize,
    /// Shared directories instead of GlusterFS: faster, but they can't be cut off
    #[arg(long)]
    local: bool,
    /// The agents' timing preset
    #[arg(long, default_value = "standard")]
    timing: String,
    /// Start the agents too
    #[arg(long)]
    agents: bool,
    /// Return at once and leave the lab standing until `mainstay-lab down`
    #[arg(long)]
    keep: bool,
    /// How many seconds to wait for another lab to go
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

/// Brings a lab up.
pub fn up(args: &Up) -> anyhow::Result<ExitCode> {
    let datastores = (1..=args.datastores)
        .map(|n| format!("ds{n}"))
        .map(|n| if args.local { DatastoreConfig::local(&n) } else { DatastoreConfig::gluster(&n) })
        .collect();
    let config = LabConfig {
        hosts: args.hosts,
        datastores,
        timing: args.timing.clone(),
        start_agents: args.agents,
        lock_wait: Duration::from_secs(args.wait),
        keep: args.keep,
        ..LabConfig::default()
    };
    ending::note_signals()?;
    let start = Instant::now();
    eprintln!("Bringing up {} hosts …", args.hosts);
    let lab = Lab::new_for_cli(config)?;
    if let Err(e) = add_vms(&lab, args.vms) {
        if args.keep {
            // `keep` would leave half a lab standing that nobody asked for.
            lab.down()?;
        }
        return Err(e.into());
    }
    eprintln!("The lab stands after {:.1} s. Files: {}", start.elapsed().as_secs_f64(), lab.dir().display());
    print_data(&lab.overview());
    if args.keep && !ending::is_ending() {
        eprintln!("Try `mainstay-lab host sh h1`; remove it all with `mainstay-lab down`.");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("In another shell, try `mainstay-lab host off h1`. Ctrl-C removes it all.");
    while !ending::is_ending() && lab.state().is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
    eprintln!("Removing the lab …");
    lab.down()?;
    Ok(ExitCode::SUCCESS)
}

/// Defines and starts vm1, vm2 …, spread over the hosts, those of different hosts at the same time.
fn add_vms(lab: &Lab, count: usize) -> Result<(), LabError> {
    let hosts = lab.config().hosts;
    std::thread::scope(|scope| {
        let adding: Vec<_> = (1..=hosts)
            .map(|host| {
                scope.spawn(move || {
                    for n in (host..=count).step_by(hosts) {
                        lab.define_vm(host, &format!("vm{n}"), &VmOptions::default())?;
                    }
                    Ok(())
                })
            })
            .collect();
        adding.into_iter().try_for_each(|t| {
            t.join().unwrap_or_else(|_| Err(LabError::Config("adding VMs panicked".into())))
        })
    })
}

/// Removes the lab.
pub fn down() -> anyhow::Result<ExitCode> {
    match Lab::down_standing()? {
        Some(name) => eprintln!("Lab '{name}' is gone."),
        None => eprintln!("No lab is standing: nothing to do."),
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the lab.
pub fn status() -> anyhow::Result<ExitCode> {
    print_data(&Lab::attach()?.overview());
    Ok(ExitCode::SUCCESS)
}

/// Says what is missing.
pub fn check() -> anyhow::Result<ExitCode> {
    let missing = Lab::check_prerequisites();
    if missing.is_empty() {
        eprintln!("This machine can run a lab.");
        return Ok(ExitCode::SUCCESS);
    }
    Err(LabError::Prerequisites(missing).into())
}
