//! Gives the file system of a copied disk the mark of its own disk.
//!
//! The tools for this (`tune2fs -U`, `xfs_admin -U`, `btrfstune -U`) are not used, because none of them survives being
//! cut off. `tune2fs` writes the superblock in four pieces, or first the checksums of all metadata; `xfs_admin` zeroes the
//! log, with which the sequence number is lost that all metadata must stay below, before it turns to the superblocks;
//! `btrfstune -U` writes all metadata in place, both copies at about the same time, for hours on a large disk, and
//! `btrfstune -M` needs two transactions with a state between them that newer kernels refuse.
//!
//! All three file systems have a feature for a UUID that changes while the one in the metadata stays: ext4 keeps the
//! seed of its checksums (`metadata_csum_seed`, Linux 4.4), xfs and btrfs the former UUID (`meta_uuid`, Linux 4.3;
//! `metadata_uuid`, Linux 5.0). So only superblocks are written, one sector or block each, the copies first and the one
//! that the kernel reads last. At every moment the disk is a whole file system, with its former mark, which is refused or
//! stamped again, or with its own, which is done. It takes a moment, whatever the size of the disk.

mod btrfs;
mod ext;
mod xfs;

use std::io;
use std::sync::Arc;

use super::Host;
use super::device::{OpenDevice, UseError};
use super::error::HostError;
use super::exclusive::ExclusiveDevice;
use super::probe::{FoundFs, FsKind, ReadAt, probe_fs};
use super::replay::ReplayError;
use crate::volume::FsUuid;

/// Some bytes that change, which lie in one sector or block: they are written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub offset: u64,
    pub bytes: Vec<u8>,
}

/// What is to be written: groups, each of which must be on the disk before the next one is begun.
pub type Steps = Vec<Vec<Write>>;

/// Why a file system cannot be given another UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// The journal or log may hold the former superblock, or carry the former UUID.
    #[error("it was not unmounted cleanly, and its journal could not be replayed")]
    Dirty,
    #[error("{0} is damaged")]
    Damaged(&'static str),
    #[error("its {what} depends on the UUID; {remedy} by hand", remedy = .remedy)]
    ByHand { what: &'static str, remedy: String },
    #[error("its UUID is {0} meanwhile")]
    OtherUuid(FsUuid),
}

/// Why a file system has not got the mark of its disk.
#[derive(Debug, thiserror::Error)]
pub enum RestampError {
    #[error(
        "the mark of another UDisk on {device} was not replaced, although the volume attributes permit it: {reason}. Nothing was \
         changed"
    )]
    Unable { device: String, reason: Unable },
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error(
        "the btrfs on {device} carries the mark of another UDisk, which is replaced with a feature of Linux 5.0; this host runs \
         Linux {release}. Use the volume on a node with a newer kernel first"
    )]
    OldKernel { device: String, release: String },
    #[error("{device} was given the mark {wanted}, but shows {found}")]
    NotThere { device: String, wanted: FsUuid, found: String },
    #[error(transparent)]
    Use(#[from] UseError),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What is to be written so that the file system of this kind, which has the UUID `from`, has the UUID `to`. Nothing, if
/// it has that already. Of a superblock that was torn by a power cut in the middle of it, what was meant is found.
pub fn steps(disk: &dyn ReadAt, kind: FsKind, from: FsUuid, to: FsUuid) -> io::Result<Result<Steps, Unable>> {
    match kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => ext::steps(disk, from, to),
        FsKind::Xfs => xfs::steps(disk, from, to),
        FsKind::Btrfs => btrfs::steps(disk, from, to),
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restamped {
    /// It has the wanted UUID now, or had it before.
    Done(FoundFs),
    /// Its journal or log must be replayed first.
    NeedsReplay,
}

impl Host {
    /// Gives the file system on a device, which the caller holds the lock of, the UUID `to` instead of `from`. While it
    /// writes it has the device for itself: nobody can mount it.
    pub async fn restamp(
        &self,
        device: &Arc<OpenDevice>,
        kind: FsKind,
        from: FsUuid,
        to: FsUuid,
    ) -> Result<Restamped, RestampError> {
        let device = Arc::clone(device);
        self.calls.run(move || restamp(&device, kind, from, to)).await
    }
}

fn restamp(device: &OpenDevice, kind: FsKind, from: FsUuid, to: FsUuid) -> Result<Restamped, RestampError> {
    let path = || device.path().display().to_string();
    if kind == FsKind::Btrfs {
        btrfs::prove_kernel().map_err(|release| RestampError::OldKernel { device: path(), release })?;
    }
    let unreadable = |error| HostError::new(format!("cannot read {}", path()), error);
    let disk = ExclusiveDevice::open(device)?;
    let steps = match steps(&disk, kind, from, to).map_err(unreadable)? {
        Ok(steps) => steps,
        Err(Unable::Dirty) => return Ok(Restamped::NeedsReplay),
        Err(reason) => return Err(RestampError::Unable { device: path(), reason }),
    };
    for group in steps {
        for write in group {
            disk.write(write.offset, &write.bytes)?;
        }
        disk.sync()?;
    }
    match probe_fs(&disk).map_err(unreadable)? {
        Some(found) if found.uuid == to => Ok(Restamped::Done(found)),
        found => {
            let found = found.map_or_else(|| "no file system".to_owned(), |found| found.uuid.to_string());
            Err(RestampError::NotThere { device: path(), wanted: to, found })
        }
    }
}
