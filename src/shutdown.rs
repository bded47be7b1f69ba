//! From signals to an orderly stop.

use std::future::Future;
use std::io;
use std::pin::pin;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// SIGTERM and SIGINT. As the first process of a container the driver has no default actions for them, so they
/// are listened for before anything else is started.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Must be called inside a runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal; gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
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
