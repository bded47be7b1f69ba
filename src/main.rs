//! The process: configuration, log, runtime, run, stop. Everything else is in the library.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

#[cfg(feature = "sandbox")]
use anyhow::anyhow;
use anyhow::{Context as _, bail};
use csi_udisk::config::{self, Command, Config, EXIT_FAILURE, EXIT_USAGE};
use csi_udisk::csi::probe::Health;
#[cfg(feature = "kube")]
use csi_udisk::run::inventory;
use csi_udisk::run::run;
use csi_udisk::shutdown::{Signals, until_signalled};
use csi_udisk::telemetry;
use csi_udisk::telemetry::level::LogLevel;
use tokio_util::sync::CancellationToken;

/// More threads than the node's permits for blocking calls together, so that a permit always finds a thread.
/// They are started when needed and end when idle.
const BLOCKING_THREADS: usize = 224;
/// Threads in a call on a dead disk cannot be ended; the process does not wait for them.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let outcome = match config::from_process() {
        Ok(Command::Run(config)) => return drive(*config),
        #[cfg(feature = "sandbox")]
        Ok(Command::Sandbox(args)) => simulate(args),
        #[cfg(feature = "kube")]
        Ok(Command::Compare(what)) => return compare(*what),
        Ok(Command::Probe(args)) => probe(&args),
        Ok(Command::Print(text)) => std::io::stdout().write_all(text.as_bytes()).map_err(Into::into),
        Err(faults) => {
            eprintln!("csi-udisk: {faults}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    exit_code(outcome, |error| eprintln!("csi-udisk: {error:#}"))
}

fn exit_code(outcome: anyhow::Result<()>, report: impl FnOnce(anyhow::Error)) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

fn drive(config: Config) -> ExitCode {
    let outcome = begin(&config.log).and_then(|level| on_runtime(serve(config, level)));
    exit_code(outcome, |error| {
        tracing::error!("{error:#}");
        // A filter that leaves errors out must not hide why there is no driver.
        if !tracing::enabled!(tracing::Level::ERROR) {
            eprintln!("csi-udisk: {error:#}");
        }
    })
}

fn begin(log: &telemetry::log::Log) -> anyhow::Result<LogLevel> {
    let level = telemetry::log::install(log).context("cannot start the log")?;
    // TLS is used for public endpoints and clusters only. An error means that there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(level)
}

#[cfg(feature = "sandbox")]
fn simulate(args: config::SandboxArgs) -> anyhow::Result<()> {
    csi_udisk::sandbox::prepare(&args);
    // These errors tell their causes themselves.
    on_runtime(async { csi_udisk::sandbox::run(args).await.map_err(|error| anyhow!("sandbox: {error}")) })
}

#[cfg(feature = "kube")]
fn compare(what: config::Comparison) -> ExitCode {
    let outcome =
        begin(&what.common().log).and_then(|_| on_runtime(async { Ok(inventory::run(what).await?) }));
    match outcome {
        Ok(verdict) => ExitCode::from(verdict.status()),
        Err(error) => exit_code(Err(error), |error| eprintln!("csi-udisk: {error:#}")),
    }
}

/// For the exec probes of Kubernetes, which show what is printed.
fn probe(args: &config::ProbeArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(csi_udisk::csi::probe::probe(&args.endpoint, args.timeout))? {
        Health::NotReady(missing) if args.ready => bail!("not ready, waiting for: {missing}"),
        Health::NotReady(_) | Health::Ready => Ok(()),
    }
}

async fn serve(config: Config, level: LogLevel) -> anyhow::Result<()> {
    let signals = Signals::listen().context("cannot listen for signals")?;
    tokio::spawn(level.clone().follow_signals());
    let stop = CancellationToken::new();
    match until_signalled(signals, stop.clone(), run(config, level, stop)).await {
        Some(outcome) => Ok(outcome?),
        None => bail!("stopped before everything was in order"),
    }
}

/// Two workers: one that is held up by accident does not starve `Probe`.
fn on_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("csi-udisk")
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LEAVE_WITHIN);
    outcome
}
