//! Where metrics can listen to the API calls. The client itself only logs attempts, at debug level; a final error
//! is logged by whoever asked.

use std::time::Duration;

/// One request that was sent, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub action: &'static str,
    /// Counted from 1.
    pub number: u32,
    /// `None`: there was no answer of the API.
    pub ret_code: Option<i64>,
    /// What failed, in short; `None` when it went well.
    pub error: Option<&'a str>,
    pub request_id: Option<&'a str>,
    /// Waiting for the limiter not included.
    pub duration: Duration,
    /// Whether the client sends the request again.
    pub again: bool,
}

/// Is told of every request. Called on the request's own task: it must not block.
pub trait Observer: Send + Sync + std::fmt::Debug + 'static {
    fn attempt(&self, attempt: &Attempt<'_>);
}

/// Listens to nothing.
impl Observer for () {
    fn attempt(&self, _: &Attempt<'_>) {}
}
