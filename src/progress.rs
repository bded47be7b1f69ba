//! Where a running operation says what it is doing, for the callers that wait for it.

use std::sync::Arc;

use tokio::sync::watch;

/// The current phase of one operation. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress(Arc<watch::Sender<String>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(String::new())))
    }
}

impl Progress {
    /// Replaces the phase, such as `waiting for the cloud: bs-1 is Attaching`.
    pub fn set(&self, phase: impl Into<String>) {
        self.0.send_replace(phase.into());
    }

    /// The current phase.
    pub fn get(&self) -> String {
        self.0.borrow().clone()
    }
}
