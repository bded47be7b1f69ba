//! The one way to a blocking system call.
//!
//! A call on a dead disk may stay in the kernel for minutes and cannot be cancelled. It runs on a thread of the
//! runtime's blocking pool and its permit stays with that thread, so hung disks can use up these permits but
//! never the pool. There is no time limit here, on purpose: an operation holds its volume as long as its call is
//! in the kernel, its callers are answered by `csi::operation` meanwhile, and a retry joins it instead of sending
//! a second call after the first.

use std::panic;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// A number of threads that may be in blocking calls at a time.
#[derive(Debug, Clone)]
pub struct Blocking(Arc<Semaphore>);

impl Blocking {
    pub fn new(permits: usize) -> Self {
        Self(Arc::new(Semaphore::new(permits)))
    }

    /// Runs `work` on a thread of its own. A panic in it is a panic of the caller.
    pub async fn run<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        // Never closed, so this is `Some`.
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        // What is logged there belongs to the call that it is done for.
        let span = tracing::Span::current();
        let thread = tokio::task::spawn_blocking(move || {
            let result = span.in_scope(work);
            drop(permit);
            result
        });
        match thread.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(reason) => panic::resume_unwind(reason),
                // The runtime is shutting down and drops this future next.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// How many more calls could start now.
    pub fn available(&self) -> usize {
        self.0.available_permits()
    }
}
