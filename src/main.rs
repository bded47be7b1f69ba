//! The process: configuration, log, runtime, run, stop. Everything else is in the library.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use csi_udisk::config::{self, Command, Config, EXIT_FAILURE, EXIT_USAGE};
use csi_udisk::run::run;
use csi_udisk::shutdown::Signals;
use csi_udisk::telemetry;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// More threads than the node's permits for blocking calls together, so that a permit always finds a thread.
/// They are started when needed and end when idle.
const BLOCKING_THREADS: usize = 192;
/// Threads in a call on a dead disk cannot be ended; the process does not wait for them.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    match config::from_process() {
        Ok(Command::Run(config)) => drive(*config),
        #[cfg(feature = "sandbox")]
        Ok(Command::Sandbox(args)) => simulate(args),
        Ok(Command::Print(text)) => print(&text),
        Err(faults) => {
            eprintln!("csi-udisk: {faults}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILURE),
    }
}

fn drive(config: Config) -> ExitCode {
    match start(config) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

#[cfg(feature = "sandbox")]
fn simulate(args: config::SandboxArgs) -> ExitCode {
    use csi_udisk::sandbox;
    sandbox::prepare(&args);
    let outcome = runtime().context("cannot start the runtime").and_then(|runtime| {
        let outcome = runtime.block_on(sandbox::run(args));
        runtime.shutdown_timeout(LEAVE_WITHIN);
        outcome.map_err(Into::into)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("csi-udisk sandbox: {error:#}");
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn start(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::log::install(&config.log).context("cannot start the log")?;
    let runtime = runtime().context("cannot start the runtime")?;
    let outcome = runtime.block_on(until_signalled(config));
    runtime.shutdown_timeout(LEAVE_WITHIN);
    outcome
}

/// Two workers: one that is held up by accident does not starve `Probe`.
fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("csi-udisk")
        .enable_all()
        .build()
}

/// The first signal stops in order, the second at once.
async fn until_signalled(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(run(config, stop.clone()));
    loop {
        tokio::select! {
            ended = &mut running => {
                ended?;
                return Ok(ExitCode::SUCCESS);
            }
            signal = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("{signal} again: leaving at once");
                    return Ok(ExitCode::from(EXIT_FAILURE));
                }
                tracing::info!("{signal}: stopping");
                stop.cancel();
            }
        }
    }
}
