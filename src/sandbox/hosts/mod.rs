//! What makes disks real on hosts.
//!
//! The simulated cloud decides what is attached where and when; a [`HostBackend`] makes it so. Without one, disks
//! are imaginary, which is all that a test of the API or of a controller needs.

mod loop_device;
mod loopdev;
mod sparse;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt;
use std::pin::Pin;

pub use loopdev::{LoopHosts, LoopOptions};

use crate::volume::Gib;

/// A boxed future, since the trait below is used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A host could not do as it was told.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct BackendError {
    pub doing: String,
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl BackendError {
    pub fn new(
        doing: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }
}

/// Where a disk sits on a host: the cloud's own letter and the serial that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub host: String,
    /// `vdb`…; the guest's kernel may use another letter.
    pub device: String,
    /// `UCLOUD_DISK_VDB`…
    pub serial: String,
}

/// Hosts and the storage behind their disks.
///
/// A disk or snapshot is named by its id. Calls for one disk never overlap; calls for different disks may. Every
/// call can be repeated without harm.
pub trait HostBackend: fmt::Debug + Send + Sync {
    fn add_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Forgets a host with all that it shows.
    fn remove_host<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Makes blank storage.
    fn create<'a>(&'a self, disk: &'a str, size: Gib) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Gives `to` the content of `from`, making it if there is none yet, in the given size.
    fn copy<'a>(&'a self, from: &'a str, to: &'a str, size: Gib) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Destroys the storage.
    fn delete<'a>(&'a self, disk: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Shows a disk to a host's guest.
    fn plug<'a>(
        &'a self,
        slot: &'a Slot,
        disk: &'a str,
        size: Gib,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Takes it away, in use or not.
    fn unplug<'a>(&'a self, slot: &'a Slot, disk: &'a str) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Grows the storage, and what the guest sees of it if `seen_by` is given.
    fn resize<'a>(
        &'a self,
        disk: &'a str,
        size: Gib,
        seen_by: Option<&'a Slot>,
    ) -> BoxFuture<'a, Result<(), BackendError>>;

    /// Undoes all that was set up on this machine.
    fn shutdown(&self) -> BoxFuture<'_, ()>;
}
