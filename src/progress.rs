//! Where a running operation says what it is doing, for the callers that wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

/// The current phase of one operation, and who waits for it. Clones share both.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<String>,
    /// `None`: whoever has it waits.
    callers: Option<AtomicUsize>,
}

/// One that waits for an operation which goes on without it.
#[derive(Debug)]
pub struct Caller(Progress);

impl Default for Progress {
    /// Of work that its caller does itself.
    fn default() -> Self {
        Self::new(None)
    }
}

impl Progress {
    fn new(callers: Option<AtomicUsize>) -> Self {
        Self(Arc::new(Inner { phase: watch::Sender::new(String::new()), callers }))
    }

    /// Of an operation that goes on when its callers leave.
    pub fn of_operation() -> Self {
        Self::new(Some(AtomicUsize::new(0)))
    }

    /// Counts a caller until what is returned is dropped.
    pub fn caller(&self) -> Caller {
        if let Some(callers) = &self.0.callers {
            callers.fetch_add(1, Ordering::Relaxed);
        }
        Caller(self.clone())
    }

    /// Whether nobody waits for the operation at this moment. A sidecar may come again, or may have been told to stop.
    pub fn is_left(&self) -> bool {
        self.0.callers.as_ref().is_some_and(|callers| callers.load(Ordering::Relaxed) == 0)
    }

    /// Replaces the phase, such as `waiting for the cloud: bs-1 is Attaching`.
    pub fn set(&self, phase: impl Into<String>) {
        self.0.phase.send_replace(phase.into());
    }

    /// The current phase.
    pub fn get(&self) -> String {
        self.0.phase.borrow().clone()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(callers) = &self.0.0.callers {
            callers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
