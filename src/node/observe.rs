//! Where metrics can listen to what takes time on the host.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// A step whose time says something of the host, the disk or the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Until the attached disk was there.
    DeviceWait,
    Format,
    Check,
    Mount,
}

impl Step {
    pub fn word(self) -> &'static str {
        match self {
            Self::DeviceWait => "device_wait",
            Self::Format => "format",
            Self::Check => "check",
            Self::Mount => "mount",
        }
    }
}

/// Is told of every step that ended, well or not. It must not block.
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// `fs`: the file system, or empty.
    fn step(&self, step: Step, fs: &str, took: Duration);
}

/// Listens to nothing.
impl Observer for () {
    fn step(&self, _: Step, _: &str, _: Duration) {}
}

/// Measures until it is dropped.
#[derive(Debug)]
pub(super) struct Timer {
    observer: Arc<dyn Observer>,
    step: Step,
    fs: String,
    since: Instant,
}

impl Timer {
    pub(super) fn start(observer: &Arc<dyn Observer>, step: Step, fs: impl fmt::Display) -> Self {
        Self { observer: Arc::clone(observer), step, fs: fs.to_string(), since: Instant::now() }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.observer.step(self.step, &self.fs, self.since.elapsed());
    }
}
