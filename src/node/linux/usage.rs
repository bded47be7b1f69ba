//! How full a mounted file system is.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::error::{Doing as _, HostError};

/// Amounts of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    pub total: u64,
    pub used: u64,
    pub available: u64,
}

/// Of a mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsUsage {
    pub bytes: Amount,
    /// `None`: the file system has no fixed number of inodes (btrfs).
    pub inodes: Option<Amount>,
}

/// Asks the file system at `path`. May hang on a dead disk.
pub fn fs_usage(path: &Path) -> Result<FsUsage, HostError> {
    let found = statvfs(path).doing("read the statistics of", path)?;
    let block = found.fragment_size();
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    let inodes = (found.files() > 0).then(|| Amount {
        total: found.files(),
        used: found.files().saturating_sub(found.files_free()),
        available: found.files_available(),
    });
    Ok(FsUsage {
        bytes: Amount {
            total: bytes(found.blocks()),
            used: bytes(found.blocks().saturating_sub(found.blocks_free())),
            // What a container that is not root gets.
            available: bytes(found.blocks_available()),
        },
        inodes,
    })
}
