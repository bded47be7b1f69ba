//! Makes file systems.
//!
//! No mkfs is given its force flag. That protects less than it seems: without a terminal `mke2fs` writes over
//! anything that is not mounted. So what protects data is the type [`BlankDevice`], which only the proof makes.

use std::sync::Arc;

use super::Host;
use super::blank::BlankDevice;
use super::device::UseError;
use super::error::HostError;
use super::exec::{self, Tool, ToolError};
use super::probe::{FoundFs, probe_fs};
use crate::volume::{FsType, FsUuid};

/// Why a blank device has no file system now.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Use(#[from] UseError),
    #[error("{tool} said that it made {fs} {uuid} on {device}, but it is not there")]
    NotThere { tool: &'static str, fs: &'static str, uuid: FsUuid, device: String },
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
    /// Makes a file system on a device that was proven blank, and proves that it is there.
    pub async fn format(&self, blank: BlankDevice, fs: FsType, uuid: FsUuid) -> Result<FoundFs, FormatError> {
        // Never closed, so this is `Some`.
        let permit = self.formats.acquire().await.ok();
        let device = Arc::clone(blank.device());
        // The wait may have been long.
        self.calls
            .run(move || {
                device.prove_unchanged()?;
                device.prove_unused()
            })
            .await?;
        let device = Arc::clone(blank.device());
        let tool = mkfs(fs);
        let version = match fs {
            FsType::Xfs => version(&exec::run(tool, ["-V"]).await?.words),
            FsType::Ext3 | FsType::Ext4 | FsType::Btrfs => (0, 0),
        };
        let arguments = arguments(fs, uuid, version);
        exec::succeed_on(tool, arguments.iter().map(String::as_str), &device).await?;
        drop(permit);
        self.calls
            .run(move || match probe_fs(device.as_ref()) {
                Ok(Some(found)) if found.kind.is(fs) && found.uuid == uuid => Ok(found),
                Ok(_) => {
                    let device = device.path().display().to_string();
                    Err(FormatError::NotThere { tool: tool.name, fs: fs.word(), uuid, device })
                }
                Err(source) => {
                    Err(HostError::new(format!("cannot read back {}", device.path().display()), source)
                        .into())
                }
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
