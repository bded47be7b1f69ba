//! The level of the log, changed while the driver runs: what happens once a month is not caught by a restart.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::{self, Handle};

use super::log::Filter;

/// What one signal adds, in order; the last also shows libraries.
const STEPS: [&str; 3] = ["warn,csi_udisk=debug", "warn,csi_udisk=trace", "debug,csi_udisk=trace"];

/// Why the level stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum LevelError {
    #[error(
        "{filter:?} is not a log filter ({cause}); allowed: levels error, warn, info, debug, trace, as in \
         info,csi_udisk::ucloud=debug"
    )]
    Filter { filter: String, cause: ParseError },
    #[error("the log is gone: {0}")]
    Gone(#[from] reload::Error),
}

type Apply = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// The filter of the running log. Clones share it.
#[derive(Clone)]
pub struct LogLevel {
    apply: Arc<Apply>,
    configured: Filter,
    current: Arc<Mutex<Filter>>,
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("current", &self.current()).finish_non_exhaustive()
    }
}

impl LogLevel {
    pub(super) fn new<S: 'static>(configured: Filter, handle: Handle<EnvFilter, S>) -> Self {
        let current = Arc::new(Mutex::new(configured.clone()));
        Self { apply: Arc::new(move |filter| handle.reload(filter)), configured, current }
    }

    /// A level that nothing follows, for drivers whose log is somebody else's.
    pub fn fixed(configured: Filter) -> Self {
        Self { apply: Arc::new(|_| Ok(())), current: Arc::new(Mutex::new(configured.clone())), configured }
    }

    pub fn current(&self) -> Filter {
        self.lock().clone()
    }

    /// # Errors
    /// When the text is not a filter; the log goes on as before.
    pub fn set(&self, text: &str) -> Result<(), LevelError> {
        let filter =
            Filter::parse(text).map_err(|cause| LevelError::Filter { filter: text.to_owned(), cause })?;
        self.change(filter)
    }

    /// Back to what the driver was started with.
    pub fn restore(&self) {
        self.say(self.change(self.configured.clone()));
    }

    /// One step more.
    pub fn raise(&self) {
        let current = self.current().to_string();
        let next = STEPS.iter().position(|step| *step == current).map_or(0, |at| at + 1);
        let text = STEPS[next.min(STEPS.len() - 1)];
        self.say(self.set(text));
    }

    /// SIGUSR1 raises, SIGUSR2 restores: a node has no port that the level could be changed at.
    ///
    /// # Errors
    /// When the runtime cannot listen for signals. Else it does not end.
    pub async fn follow_signals(self) -> io::Result<()> {
        let mut raise = signal(SignalKind::user_defined1())?;
        let mut restore = signal(SignalKind::user_defined2())?;
        loop {
            tokio::select! {
                _ = raise.recv() => self.raise(),
                _ = restore.recv() => self.restore(),
            }
        }
    }

    fn say(&self, changed: Result<(), LevelError>) {
        if let Err(error) = changed {
            tracing::error!(%error, "the level of the log stays");
        }
    }

    fn change(&self, filter: Filter) -> Result<(), LevelError> {
        let mut current = self.lock();
        (self.apply)(filter.to_env_filter())?;
        *current = filter;
        // At a level that every useful filter shows, so that a log tells why it became longer or shorter.
        tracing::warn!(filter = %*current, "the level of the log was changed");
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Filter> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
