//! One disk: what can be read about it, what is going on with it, and what readers saw of it earlier.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Device;
use crate::volume::{DiskType, Gib};

/// The states of a disk, in the API's own spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    Initializating,
    Available,
    Attaching,
    InUse,
    Detaching,
    Failed,
    Cloning,
    Restoring,
    RestoreFailed,
}

impl Status {
    pub const ALL: [Self; 9] = [
        Self::Initializating,
        Self::Available,
        Self::Attaching,
        Self::InUse,
        Self::Detaching,
        Self::Failed,
        Self::Cloning,
        Self::Restoring,
        Self::RestoreFailed,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Initializating => "Initializating",
            Self::Available => "Available",
            Self::Attaching => "Attaching",
            Self::InUse => "InUse",
            Self::Detaching => "Detaching",
            Self::Failed => "Failed",
            Self::Cloning => "Cloning",
            Self::Restoring => "Restoring",
            Self::RestoreFailed => "RestoreFailed",
        }
    }
}

/// Where a disk is attached, or on its way to or from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub host: String,
    pub device: Device,
}

/// All that is true of a disk at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Disk {
    pub id: String,
    pub project: String,
    pub zone: String,
    pub name: String,
    pub size: Gib,
    pub kind: DiskType,
    /// A host's system disk: it is born attached and stays so.
    pub boot: bool,
    pub status: Status,
    pub attachment: Option<Attachment>,
    /// The RDMA cluster; empty for types that have none.
    pub rdma: String,
    pub charge_type: String,
    pub tag: String,
    pub ark: bool,
    /// The key of an encrypted disk.
    pub key: Option<String>,
    pub created: Duration,
    /// `None` for billing by the hour, which has no end of its own.
    pub paid_for: Option<Duration>,
}

impl Disk {
    pub fn host(&self) -> Option<&str> {
        self.attachment.as_ref().map(|attachment| attachment.host.as_str())
    }
}

/// What a disk is busy with. It ends at `due`, but never before the host's own work is done.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) change: Change,
    /// `None`: stuck until somebody frees it.
    pub(super) due: Option<Duration>,
    /// The host work that must end first.
    pub(super) waits_for: Option<u64>,
    /// Ends in the failed state of its kind.
    pub(super) fails: bool,
    /// Host work that is not handed out before the disk is freed.
    pub(super) held: Option<super::WorkKind>,
    /// What follows at once when it went well.
    pub(super) then: Option<Then>,
    /// The disk that is being copied, which must stay as it is meanwhile.
    pub(super) source: Option<String>,
    /// Who asked for it.
    pub(super) cause: super::Cause,
}

/// The second half of an action that does two things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Attach,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Create,
    Clone,
    Restore,
    Attach,
    Detach,
    Resize(Gib),
}

/// A disk with its past, so that a stale reader can be told what was true a while ago.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) disk: Disk,
    pub(super) pending: Option<Pending>,
    /// When it was deleted. Kept for a while: stale readers still see the disk.
    pub(super) gone: Option<Duration>,
    past: Vec<(Duration, Disk)>,
}

/// Longest lag that can be asked for; older states are forgotten.
pub(super) const MEMORY: Duration = Duration::from_secs(600);

impl Entry {
    pub(super) fn new(disk: Disk, pending: Option<Pending>) -> Self {
        let past = vec![(disk.created, disk.clone())];
        Self { disk, pending, gone: None, past }
    }

    /// Changes the disk as of `at`.
    pub(super) fn change(&mut self, at: Duration, change: impl FnOnce(&mut Disk)) {
        change(&mut self.disk);
        self.past.push((at, self.disk.clone()));
        if let Some(horizon) = at.checked_sub(MEMORY) {
            let needed = self.past.partition_point(|(time, _)| *time <= horizon);
            self.past.drain(..needed.saturating_sub(1));
        }
    }

    /// The disk as of `at`: `None` before it was made and after it was deleted.
    pub(super) fn as_of(&self, at: Duration) -> Option<&Disk> {
        if self.gone.is_some_and(|gone| gone <= at) {
            return None;
        }
        self.past.iter().rev().find(|(time, _)| *time <= at).map(|(_, disk)| disk)
    }

    pub(super) fn forgotten(&self, now: Duration) -> bool {
        self.gone.is_some_and(|gone| gone + MEMORY < now)
    }
}
