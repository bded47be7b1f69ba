//! What the hosts have to do. The model only writes it down; whoever owns the model has it done.

use std::time::Duration;

use super::Device;
use crate::volume::Gib;

/// A job for the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// To be named when the job is done.
    pub ticket: u64,
    /// Not before this time.
    pub at: Duration,
    /// The disk, or the snapshot, that it is about; empty for a host's own.
    pub subject: String,
    pub kind: WorkKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkKind {
    /// Make the storage behind a disk.
    Create {
        size: Gib,
    },
    /// Destroy it.
    Delete,
    /// Fill the subject with a copy of another disk's or snapshot's content.
    Copy {
        from: String,
        size: Gib,
    },
    /// Show the disk to a guest.
    Plug {
        host: String,
        device: Device,
        size: Gib,
    },
    /// Take it away from there.
    Unplug {
        host: String,
        device: Device,
    },
    /// Grow it, and tell the guest that has it.
    Resize {
        size: Gib,
        seen_by: Option<(String, Device)>,
    },
    AddHost {
        host: String,
    },
    RemoveHost {
        host: String,
    },
}
