//! The Linux edge: all system calls and all tools that the node needs.
//!
//! Everything in here is synchronous and may block, unless it is a method of [`Host`], which runs it on threads
//! that are meant for that. Nothing in here decides what is to be done with a volume.

mod backup;
pub mod blank;
pub mod blocking;
pub mod calls;
pub mod candidates;
mod crc32c;
mod detached;
pub mod device;
pub mod device_number;
pub mod error;
pub mod exclusive;
pub mod exec;
pub mod format;
pub mod fsck;
pub mod grow;
mod ioctl;
pub mod journal;
pub mod look;
pub mod mount;
mod mounted;
pub mod mountinfo;
mod noise;
pub mod note;
pub mod options;
mod patience;
pub mod privilege;
pub mod probe;
pub mod release;
pub mod remains;
pub mod replay;
mod reports;
pub mod restamp;
mod signature;
pub mod staged;
pub mod sysfs;
pub mod usage;
pub mod vitals;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use blocking::Blocking;
pub use calls::{Calls, Purpose, StuckCalls};
pub use device_number::DeviceNumber;
pub use error::HostError;
pub use sysfs::Sysfs;

use candidates::Turns;
use sysfs::Serials;

use crate::volume::DiskId;

/// Threads for the blocking calls of mutating operations. A host has at most 26 volumes with one operation each.
const CALLS: usize = 96;
/// Threads for reading statistics, so that hung file systems cannot keep volumes from being mounted.
const QUERIES: usize = 48;
/// Threads for looking after volumes, so that a host whose statistics all hang can still say so.
const PROBES: usize = 32;
/// Mounting replays journals and unmounting writes out, which takes its time; a query takes none.
const CALL_LIMIT: Duration = Duration::from_secs(60);
const QUERY_LIMIT: Duration = Duration::from_secs(10);
pub const PROBE_LIMIT: Duration = Duration::from_secs(5);
/// mkfs of a large disk takes much memory; a few at a time are fast enough.
const FORMATS: usize = 2;

/// The host that the node runs on. Clones share its limits.
#[derive(Debug, Clone)]
pub struct Host {
    pub(super) sysfs: Sysfs,
    pub(super) dev_root: PathBuf,
    pub(super) calls: Blocking,
    pub(super) queries: Blocking,
    pub(super) probes: Blocking,
    running: Calls,
    serials: Serials,
    turns: Turns,
    formats: Arc<Semaphore>,
}

impl Host {
    pub fn new(sysfs_root: &Path, dev_root: &Path) -> Self {
        let sysfs = Sysfs::new(sysfs_root);
        let running = Calls::default();
        let calls = Blocking::new(CALLS, CALL_LIMIT, running.clone());
        Self {
            serials: Serials::new(sysfs.clone(), calls.clone()),
            sysfs,
            dev_root: dev_root.to_owned(),
            calls,
            queries: Blocking::new(QUERIES, QUERY_LIMIT, running.clone()),
            probes: Blocking::new(PROBES, PROBE_LIMIT, running.clone()),
            running,
            turns: Turns::default(),
            formats: Arc::new(Semaphore::new(FORMATS)),
        }
    }

    /// The same host, for calls of one operation of a volume.
    pub fn for_purpose(&self, purpose: Purpose) -> Self {
        Self {
            calls: self.calls.for_purpose(Some(purpose.clone())),
            queries: self.queries.for_purpose(Some(purpose.clone())),
            probes: self.probes.for_purpose(Some(purpose)),
            ..self.clone()
        }
    }

    /// The calls to the kernel that have not come back in their time.
    pub fn stuck(&self) -> Vec<StuckCalls> {
        self.running.stuck()
    }

    /// Those of one volume.
    pub fn stuck_of(&self, volume: &DiskId) -> Option<StuckCalls> {
        self.running.stuck_of(volume)
    }
}
