//! From signals to an orderly stop.

use std::future::Future;
use std::io;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM, SIGINT and, unless it is ignored as under nohup, SIGHUP. As the first process of a container the driver
/// has no default actions for them, so they are listened for before anything else is started.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A terminal that is closed must not leave mounts and loop devices of a sandbox behind.
    hangup: Option<Signal>,
}

impl Signals {
    /// Must be called inside a runtime.
    pub fn listen() -> io::Result<Self> {
        let hangup = if ignores_hangup() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for the next signal; gives its name.
    pub async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Listening would undo what the caller asked for. The kernel tells it in a mask with the first signal lowest.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Runs `work` to its end. The first signal cancels `stop`, upon which it should come to its end in order; at the
/// second it is dropped, and there is no output.
pub async fn until_signalled<F: Future>(
    mut signals: Signals,
    stop: CancellationToken,
    work: F,
) -> Option<F::Output> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            output = &mut work => return Some(output),
            signal = signals.next() => {
                if stop.is_cancelled() {
                    tracing::warn!("{signal} again: leaving at once");
                    return None;
                }
                tracing::info!("{signal}: stopping");
                stop.cancel();
            }
        }
    }
}
