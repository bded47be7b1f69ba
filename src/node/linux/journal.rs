//! Whether a file system has something to replay, as far as its superblock tells.

use std::io;

use super::probe::{FsKind, ReadAt, le32, le64, read};

/// What a crash left to be replayed at the next writable mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    Clean,
    Pending,
    /// Only a look through the log itself would tell.
    Unknown,
}

const EXT_SUPERBLOCK: u64 = 1024;
const EXT_INCOMPATIBLE: usize = 0x60;
const EXT_NEEDS_RECOVERY: u32 = 0x4;
const BTRFS_SUPERBLOCK: u64 = 64 * 1024;
const BTRFS_LOG_ROOT: usize = 0x60;

/// Reads it from a disk that holds a file system of this kind.
pub fn journal(disk: &dyn ReadAt, kind: FsKind) -> io::Result<Journal> {
    let pending = match kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => {
            let superblock = read(disk, EXT_SUPERBLOCK, 1024)?;
            le32(&superblock, EXT_INCOMPATIBLE) & EXT_NEEDS_RECOVERY != 0
        }
        FsKind::Btrfs => le64(&read(disk, BTRFS_SUPERBLOCK, 4096)?, BTRFS_LOG_ROOT) != 0,
        FsKind::Xfs => return Ok(Journal::Unknown),
    };
    Ok(if pending { Journal::Pending } else { Journal::Clean })
}
