//! The agent as a process: configuration, log, signals, the service manager.

use crate::agent::{Agent, StartError};
use crate::config::{AgentConfig, LogFormat, LogLevel};
use mainstay_hypervisor::{self as hv, Hypervisor};
use sd_notify::NotifyState;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// Runs the agent until SIGTERM or SIGINT, then ends the process with exit code 0. With `check_only` the configuration is
/// checked and nothing is started.
///
/// Comes back with `Ok` only from a check. Threads that hang in a datastore or in libvirt are left behind by ending the process.
pub fn run(config_file: &Path, check_only: bool) -> Result<(), StartError> {
    let config = AgentConfig::load(config_file)?;
    if check_only {
        // A running agent waits for a datastore that is not mounted yet; who asks beforehand wants to know.
        for datastore in &config.datastores {
            mainstay_storage::Datastore::check_path(&datastore.path, datastore.allow_unmounted)?;
        }
        return Ok(());
    }
    start_log(&config);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "no event loop", source })?;
    let code = runtime.block_on(serve(config))?;
    std::process::exit(code);
}

async fn serve(config: AgentConfig) -> Result<i32, StartError> {
    let no_signals = |source| StartError::System { what: "signals can't be received", source };
    // Before anything is started, so that a stop during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let hypervisor = hv::Config {
        uri: config.libvirt_uri.clone(),
        migrate_unsafe: config.migration.allow_unsafe,
        ..hv::Config::default()
    };
    let start = Box::new(move |sink| {
        Hypervisor::start(hypervisor, sink).map(|started| Box::new(started) as Box<dyn hv::Handle>)
    });
    let (host, name) = (config.me.id.clone(), config.me.name.clone());
    let mut agent = Agent::start(config, start).await?;
    tracing::info!(%host, name, version = env!("CARGO_PKG_VERSION"), "agent runs");
    notify(NotifyState::Ready);
    let code = tokio::select! {
        _ = terminate.recv() => 0,
        _ = interrupt.recv() => 0,
        () = agent.failed() => 1,
    };
    if code == 0 {
        tracing::info!("asked to stop: handing over; VMs go on");
    } else {
        tracing::error!("the agent's core has ended by a fault of the program: ending, to be started anew");
    }
    notify(NotifyState::Stopping);
    agent.stop().await;
    Ok(code)
}

/// Without a service manager there is nobody to tell.
fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

fn start_log(config: &AgentConfig) {
    let level = match config.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // Fails only where a program that embeds the agent has a log already: that one is used.
    let _ = match config.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
