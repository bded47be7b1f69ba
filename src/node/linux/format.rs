//! Makes file systems.
//!
//! No mkfs is given its force flag. That protects less than it seems: without a terminal `mke2fs` writes over
//! anything that is not mounted. So what protects data is the type [`NotedDevice`], which only the proof that a device is
//! blank leads to.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Host;
use super::device::UseError;
use super::error::{Doing as _, HostError};
use super::exec::{self, Tool, ToolError};
use super::note::{self, NotedDevice};
use super::probe::{FoundFs, probe_fs};
use crate::volume::{FoundNote, FsType, FsUuid};

/// Why a blank device has no file system now.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Use(#[from] UseError),
    #[error("{tool} said that it made {fs} {uuid} on {device}, but it is not there")]
    NotThere { tool: &'static str, fs: &'static str, uuid: FsUuid, device: String },
    #[error(
        "{tool} wrote over byte {place} of {device}, where this driver had its note that the disk was being formatted. What it \
         made is whole and is used by the next attempt; but had it been cut off, no driver could have gone on. Which version \
         of {tool} does that should be reported", place = note::PLACE
    )]
    NoteGone { tool: &'static str, device: String },
    #[error(transparent)]
    Host(#[from] HostError),
}

pub const fn mkfs(fs: FsType) -> Tool {
    match fs {
        FsType::Ext3 => Tool { name: "mkfs.ext3", package: "e2fsprogs" },
        FsType::Ext4 => Tool { name: "mkfs.ext4", package: "e2fsprogs" },
        FsType::Xfs => Tool { name: "mkfs.xfs", package: "xfsprogs" },
        FsType::Btrfs => Tool { name: "mkfs.btrfs", package: "btrfs-progs" },
    }
}

/// Far longer than a mkfs takes its memory for. A disk that hangs must not keep others from being formatted.
const TURN_LIMIT: Duration = Duration::from_secs(60);

/// A turn to make a file system, which ends when this is dropped, or at its limit.
#[derive(Debug)]
pub struct Turn {
    _over: oneshot::Sender<()>,
}

/// A version of xfsprogs.
type Version = (u32, u32);

/// Newer xfsprogs turn on features that the kernels of older nodes cannot mount, and a volume moves between nodes. So
/// those are turned off that Linux 4.19 does not know, as far as this version knows them itself. (The files that
/// xfsprogs brings for this purpose are not accepted by every version that brings them.) Times end in 2038 without
/// `bigtime`; `xfs_admin -O bigtime=1` turns it on.
fn xfs_features(version: Version) -> Vec<String> {
    let since = |first: Version, words: &[&str]| {
        if version >= first { words.iter().map(|word| (*word).to_owned()).collect() } else { Vec::new() }
    };
    [
        since((5, 10), &["-m", "bigtime=0,inobtcount=0"]),
        since((5, 19), &["-i", "nrext64=0"]),
        since((6, 10), &["-i", "exchange=0", "-n", "parent=0"]),
    ]
    .concat()
}

/// From `mkfs.xfs version 6.1.0`. What cannot be read is old.
fn version(words: &str) -> Version {
    let mut numbers = words.split_whitespace().last().unwrap_or_default().split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

/// The arguments, without force and without discarding: a new UDisk has nothing to discard, and on a large one
/// that takes minutes.
fn arguments(fs: FsType, uuid: FsUuid, version: Version) -> Vec<String> {
    let uuid = uuid.to_string();
    match fs {
        // `-m 0`: no blocks kept back for root, as for every volume of Kubernetes; the PVC gets what it asks for.
        // Inode tables are zeroed by the kernel after the mount (the default): 8 TiB of them would take an hour here.
        FsType::Ext3 | FsType::Ext4 => {
            ["-q", "-m", "0", "-E", "nodiscard", "-U", &uuid].map(str::to_owned).to_vec()
        }
        FsType::Xfs => {
            let mut words = ["-q", "-K"].map(str::to_owned).to_vec();
            words.extend(xfs_features(version));
            words.extend(["-m".to_owned(), format!("uuid={uuid}")]);
            words
        }
        FsType::Btrfs => ["-q", "-K", "-U", &uuid].map(str::to_owned).to_vec(),
    }
}

impl Host {
    /// Waits for a turn to make a file system. The disk is proven blank after it, because it may be long.
    pub async fn turn_to_format(&self) -> Turn {
        // Never closed, so this is `Some`.
        let permit = Arc::clone(&self.formats).acquire_owned().await.ok();
        let (turn, over) = oneshot::channel();
        tokio::spawn(async move {
            // Either way it is over.
            let _ = tokio::time::timeout(TURN_LIMIT, over).await;
            drop(permit);
        });
        Turn { _over: turn }
    }

    /// Makes the file system that was noted, proves that it is there, and writes all of it out. The note stays.
    pub async fn make(&self, noted: &NotedDevice) -> Result<FoundFs, FormatError> {
        let device = Arc::clone(noted.device());
        self.calls
            .run(move || {
                device.prove_unchanged()?;
                device.prove_unused()
            })
            .await?;
        let (fs, uuid) = (noted.note().fs, noted.note().uuid());
        let tool = mkfs(fs);
        let version = match fs {
            FsType::Xfs => version(&exec::run(tool, ["-V"]).await?.words),
            FsType::Ext3 | FsType::Ext4 | FsType::Btrfs => (0, 0),
        };
        let arguments = arguments(fs, uuid, version);
        exec::succeed_on(tool, arguments.iter().map(String::as_str), noted.device()).await?;
        let (device, note) = (Arc::clone(noted.device()), noted.note().clone());
        self.calls
            .run(move || {
                let path = || device.path().display().to_string();
                let found = match probe_fs(device.as_ref()).doing("read back", device.path())? {
                    Some(found) if found.kind.is(fs) && found.uuid == uuid => found,
                    _ => {
                        let device = path();
                        return Err(FormatError::NotThere { tool: tool.name, fs: fs.word(), uuid, device });
                    }
                };
                device.sync()?;
                if note::read(device.as_ref()).doing("read back", device.path())? != FoundNote::Note(note) {
                    return Err(FormatError::NoteGone { tool: tool.name, device: path() });
                }
                Ok(found)
            })
            .await
    }
}

/// Whether the programs for this file system are here.
pub fn is_installed(fs: FsType) -> bool {
    exec::find(mkfs(fs)).is_some()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::Instant;

    use super::super::FORMATS;
    use super::*;
    use crate::volume::DiskId;

    #[test]
    fn xfs_gets_no_option_that_its_maker_does_not_know() {
        assert_eq!(version("mkfs.xfs version 6.1.0"), (6, 1));
        assert_eq!(version("mkfs.xfs version 5.0.0-rc1"), (5, 0));
        assert_eq!(version("?"), (0, 0));
        assert!(xfs_features((4, 20)).is_empty());
        assert_eq!(xfs_features((5, 13)), ["-m", "bigtime=0,inobtcount=0"]);
        assert_eq!(xfs_features((6, 1)), ["-m", "bigtime=0,inobtcount=0", "-i", "nrext64=0"]);
        assert_eq!(xfs_features((6, 15)).len(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn disks_that_hang_in_their_turn_do_not_hold_up_others_for_ever() {
        let host = Host::new(Path::new("/sys"), Path::new("/dev"));
        let start = Instant::now();
        let mut hung = Vec::new();
        for _ in 0..FORMATS {
            hung.push(host.turn_to_format().await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        let third = tokio::time::timeout(2 * TURN_LIMIT, host.turn_to_format()).await.expect("held up");
        assert_eq!(start.elapsed(), TURN_LIMIT);
        // One that ends in time makes room at once.
        let fourth = host.turn_to_format().await;
        drop(third);
        let _fifth = host.turn_to_format().await;
        assert_eq!(start.elapsed(), TURN_LIMIT);
        drop((fourth, hung));
    }

    #[test]
    fn no_maker_is_forced_and_every_file_system_carries_the_mark() {
        let uuid = FsUuid::of_disk(&DiskId::parse("bs-1").unwrap());
        for fs in FsType::ALL {
            let words = arguments(fs, uuid, (6, 1));
            assert!(words.iter().any(|word| word.ends_with(&uuid.to_string())), "{words:?}");
            assert!(
                !words.iter().any(|word| matches!(word.as_str(), "-f" | "-F" | "-ff" | "--force")),
                "{words:?}"
            );
        }
    }
}
