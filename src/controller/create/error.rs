//! Why CreateVolume has nothing to hand out.

use std::fmt;
use std::time::Duration;

use crate::cloud::CloudError;
use crate::controller::error::{Because, Seconds};
use crate::controller::{CallError, PlacementError, Unresolved};
use crate::volume::{DiskId, DiskName, Quoted};

/// Why there is no volume to hand out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CreateError {
    /// Nothing was made.
    #[error("cannot create UDisk {name}: {source}")]
    Placement { name: DiskName, source: PlacementError },
    /// A disk of the name exists and is not what is asked for.
    #[error("UDisk {disk} has the name {name} already, but {differences}")]
    Incompatible { name: DiskName, disk: DiskId, differences: String },
    /// A create was sent, and nobody knows yet whether it made a disk.
    #[error(
        "whether the last create of UDisk {name} made a disk is not known yet: it was sent {} ago without an answer \
         and no listing shows the disk; it is looked for at every call and, if it does not appear, made again in {}{}",
        Seconds(*.since),
        Seconds(*.wait),
        Because(.source)
    )]
    Unsettled { name: DiskName, since: Duration, wait: Duration, source: Option<CloudError> },
    /// The cloud could not make the disk. One that this process had asked for was removed again.
    #[error("{}", FailedText(.name, .disk, .status, *.removed, .source))]
    Failed { name: DiskName, disk: DiskId, status: String, removed: bool, source: Option<CloudError> },
    /// The disk was deleted while it was waited for.
    #[error(
        "UDisk {disk} ({name}) was deleted by somebody while it was being made; the next call makes another"
    )]
    Vanished { name: DiskName, disk: DiskId },
    /// Handed out, it would give two claims one disk.
    #[error(
        "UDisk {disk}, which the cloud gave out for {name}, bears the name {}: it may be another volume's and is \
         not used; the name is looked up again at the next call",
        Quoted(.found)
    )]
    Foreign { name: DiskName, disk: DiskId, found: String },
    /// Nothing was made; the verdict is never `Uncertain`.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A disk may exist.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

struct FailedText<'a>(&'a DiskName, &'a DiskId, &'a str, bool, &'a Option<CloudError>);

impl fmt::Display for FailedText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, disk, status, removed, source) = self;
        write!(f, "UDisk {disk} ({name}) ended in state {status} and cannot be used; ")?;
        match (removed, source) {
            (true, _) => write!(f, "it was removed and will be made again"),
            (false, Some(error)) => write!(f, "removing it failed, which will be tried again: {error}"),
            (false, None) => write!(f, "it may hold data, so look at it and delete it in the console"),
        }
    }
}
