//! The guard as a process: settings, log, priority, signals.

use clap::Parser;
use mainstay_guard::freezer::Freezer;
use mainstay_guard::{GuardError, Service, Settings, log, realtime};
use nix::sys::signal::{SigSet, Signal};
use std::path::PathBuf;
use std::process::ExitCode;

/// The guard of a host: renews run leases and freezes VMs when one ends, whatever becomes of the agent.
///
/// The agent starts it and writes its settings. It goes on when the agent ends, and leaves VMs as they are when it ends itself.
#[derive(Debug, Parser)]
#[command(name = "mainstay-guard", version)]
struct Arguments {
    /// The settings that the agent has written
    #[arg(long, value_name = "FILE", default_value = "/var/lib/mainstay/guard.json")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => {
            log::flush();
            // Threads that hang in a datastore are left behind.
            std::process::exit(0)
        }
        Err(error) => {
            log::flush();
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), GuardError> {
    let settings = Settings::load(&arguments.config)?;
    let failed = |what| move |source| GuardError::System { what, source };
    // Before any thread, so that all of them leave these to the one that waits for them.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| failed("signals can't be received")(error.into()))?;
    log::start(&settings.log).map_err(failed("no thread for the log"))?;
    realtime::take();
    let freezer = Freezer::find();
    if !freezer.has_groups() {
        tracing::warn!("no control groups to freeze VMs with: they are stopped by signals instead");
    }
    freezer.remove_leftovers();
    let host = settings.host.clone();
    let service = Service::start(settings, freezer)?;
    let stopper = service.stopper();
    std::thread::Builder::new()
        .name("signals".into())
        .stack_size(mainstay_guard::service::STACK)
        .spawn(move || {
            if let Ok(signal) = signals.wait() {
                stopper.stop(&format!("{signal} received"));
            }
        })
        .map_err(failed("no thread for signals"))?;
    tracing::info!(%host, version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "guard runs");
    service.run();
    Ok(())
}
