//! Detached, single-flight operations: the one place where a mutating RPC outlives its caller.
//!
//! tonic drops a handler as soon as its client gives up. A change in the cloud or a running mkfs must not be
//! dropped with it, nor may its lock. So every mutating RPC runs as a task of its own that holds its key until
//! it ends; a caller only watches. A retry with the same request joins the running task and gets its answer; a
//! different request for the same key is refused with what runs and since when.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::progress::{Caller, Progress};

/// Why a caller got no answer of the operation itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoAnswer {
    /// The operation goes on; the caller's time is over.
    #[error("{what} is still running after {}: {phase}", Seconds(*.age))]
    StillRunning { what: String, age: Duration, phase: String },
    /// Another operation holds the key.
    #[error("waiting for another operation: {what}, running for {}: {phase}", Seconds(*.age))]
    Busy { what: String, age: Duration, phase: String },
    /// The operation panicked; whether its change happened is unknown.
    #[error("{what} stopped on a fault inside the driver; it will be checked and done again")]
    Panicked { what: String },
    /// The process ends before the operation does.
    #[error("the driver is stopping, and {what} does not end before it, running for {}: {phase}", Seconds(*.age))]
    Abandoned { what: String, age: Duration, phase: String },
    /// The driver is stopping and starts nothing new.
    #[error("the driver is stopping; {what} was not started")]
    Stopping { what: String },
}

struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// What a task leaves for its watchers. `None` while it runs; type-erased because answers differ per RPC.
type Shared = Option<Result<Arc<dyn Any + Send + Sync>, ()>>;

#[derive(Debug, Clone)]
struct Running {
    what: String,
    fingerprint: String,
    since: Instant,
    progress: Progress,
    result: watch::Receiver<Shared>,
}

impl Running {
    fn busy(&self) -> NoAnswer {
        NoAnswer::Busy { what: self.what.clone(), age: self.since.elapsed(), phase: self.progress.get() }
    }
}

/// The operations that run now, by key. Clones share the table.
#[derive(Debug, Clone, Default)]
pub struct Operations {
    running: Arc<Mutex<HashMap<String, Running>>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
    /// The time that a stop may take is over.
    abandoned: CancellationToken,
}

/// What is asked for: `key` is the thing that must not be changed twice at a time, `fingerprint` the whole
/// request (two requests may be joined only when they ask for the same), `what` its name for humans.
#[derive(Debug, Clone)]
pub struct Operation {
    pub key: String,
    pub fingerprint: String,
    pub what: String,
}

impl Operations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `work` as a task of its own, or joins the equal one that runs, and waits for the answer until
    /// `answer_by`. The task goes on when the caller leaves or its time is over.
    pub async fn run<T, F, W>(&self, operation: Operation, answer_by: Instant, work: W) -> Result<T, NoAnswer>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(Progress) -> F,
    {
        let (joined, _caller) = self.join_or_start(operation, work)?;
        self.watch(joined, answer_by).await
    }

    /// Waits until every running operation has ended, or until `patience` is over; starts nothing new meanwhile.
    /// Then whoever still waits is told so. Returns what was still running.
    pub async fn drain(&self, patience: Duration) -> Vec<String> {
        self.stopping.cancel();
        self.tasks.close();
        // An elapsed time-out is what the returned list reports.
        let _ = tokio::time::timeout(patience, self.tasks.wait()).await;
        self.abandoned.cancel();
        self.table().values().map(|r| format!("{} ({})", r.what, r.progress.get())).collect()
    }

    /// The operation that holds `key` now, as another one that wants it is told.
    pub fn holder(&self, key: &str) -> Option<NoAnswer> {
        self.table().get(key).map(Running::busy)
    }

    /// How many operations run now.
    pub fn len(&self) -> usize {
        self.table().len()
    }

    /// For how long the oldest of them has been running.
    pub fn oldest(&self) -> Option<Duration> {
        self.table().values().map(|running| running.since.elapsed()).max()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        // The table is consistent at every await-free step, so a poisoned lock holds no broken state.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join_or_start<T, F, W>(&self, operation: Operation, work: W) -> Result<(Running, Caller), NoAnswer>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = T> + Send + 'static,
        W: FnOnce(Progress) -> F,
    {
        let mut table = self.table();
        if let Some(running) = table.get(&operation.key) {
            if running.fingerprint == operation.fingerprint {
                // What it does is logged under the request that started it.
                tracing::debug!(age = ?running.since.elapsed(), "joins what runs: {}", running.what);
                return Ok((running.clone(), running.progress.caller()));
            }
            return Err(running.busy());
        }
        if self.stopping.is_cancelled() {
            return Err(NoAnswer::Stopping { what: operation.what });
        }
        let progress = Progress::of_operation();
        let caller = progress.caller();
        let (sender, result) = watch::channel(None);
        let running = Running {
            what: operation.what,
            fingerprint: operation.fingerprint,
            since: Instant::now(),
            progress: progress.clone(),
            result,
        };
        let key = operation.key;
        table.insert(key.clone(), running.clone());
        drop(table);

        let release = Release { operations: self.clone(), key };
        let future = work(progress);
        self.tasks.spawn(
            async move {
                // The inner task is what makes a panic an answer instead of a closed channel.
                let outcome = tokio::spawn(future.in_current_span()).await;
                // The key is free before anybody has the answer: a follow-up call must not find it taken.
                drop(release);
                let answer: Shared = Some(match outcome {
                    Ok(value) => Ok(Arc::new(value)),
                    Err(_) => Err(()),
                });
                sender.send_replace(answer);
            }
            .in_current_span(),
        );
        Ok((running, caller))
    }

    async fn watch<T: Clone + Send + Sync + 'static>(
        &self,
        mut running: Running,
        answer_by: Instant,
    ) -> Result<T, NoAnswer> {
        let done = tokio::select! {
            biased;
            done = running.result.wait_for(Option::is_some) => Some(done.map(|shared| shared.clone())),
            () = tokio::time::sleep_until(answer_by) => None,
            () = self.abandoned.cancelled() => None,
        };
        let answer = match done {
            None => {
                let (what, age, phase) = (running.what, running.since.elapsed(), running.progress.get());
                return Err(match self.abandoned.is_cancelled() {
                    true => NoAnswer::Abandoned { what, age, phase },
                    false => NoAnswer::StillRunning { what, age, phase },
                });
            }
            Some(Ok(shared)) => shared,
            // The sender went without an answer: the runtime is shutting down.
            Some(Err(_)) => None,
        };
        match answer {
            Some(Ok(value)) => match value.downcast_ref::<T>() {
                Some(value) => Ok(value.clone()),
                // Two RPCs with equal fingerprints but different answers: a fault of the caller of `run`.
                None => Err(NoAnswer::Panicked { what: running.what }),
            },
            Some(Err(())) | None => Err(NoAnswer::Panicked { what: running.what }),
        }
    }
}

struct Release {
    operations: Operations,
    key: String,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.operations.table().remove(&self.key);
    }
}

#[cfg(test)]
mod tests;
