//! Keeps a call that takes a volume away from taking away another one.
//!
//! A caller may name the wrong volume for a path. Only what is certain counts: a disk that has left the host, one that
//! does not answer, or a file system that carries no mark must never be in the way of cleaning up.

use std::path::{Path, PathBuf};

use super::Node;
use super::linux::Host;
use super::linux::error::HostError;
use super::linux::mountinfo::Mounts;
use super::linux::staged::{Backing, PathState};
use super::linux::sysfs::BlockDevice;
use super::paths;
use crate::volume::{DiskId, Mark};

/// What is mounted at a path, and is certainly not the volume that was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} has {what} mounted on it, which is not this volume; nothing was unmounted", path = .path.display())]
pub struct OtherVolume {
    path: PathBuf,
    what: String,
}

/// What the list of mounts tells of one path.
#[derive(Debug, Default)]
struct Found {
    other: Option<OtherVolume>,
    /// Disks whose file systems are mounted there for writing.
    disks: Vec<BlockDevice>,
}

impl Node {
    /// Another volume at `path`, which must be as mountinfo lists it.
    pub(super) async fn other_volume_at(
        &self,
        path: &Path,
        volume: &DiskId,
    ) -> Result<Option<OtherVolume>, HostError> {
        let (host, at, named) = (self.host.clone(), path.to_owned(), volume.clone());
        let found = self.host.calls.run(move || look(&host, &at, &named)).await?;
        if found.other.is_some() {
            return Ok(found.other);
        }
        for disk in found.disks {
            let Some(uuid) = self.host.uuid_of(&disk).await else { continue };
            if uuid.mark(volume) == Mark::OtherDisk {
                let what = format!("{} with the file system {uuid}, the mark of another UDisk,", disk.name);
                return Ok(Some(OtherVolume { path: path.to_owned(), what }));
            }
        }
        Ok(None)
    }
}

fn look(host: &Host, path: &Path, volume: &DiskId) -> Result<Found, HostError> {
    let mounts = Mounts::read()?;
    let mut found = Found::default();
    // All that would be unmounted, not only what is on top.
    for mount in mounts.at(path) {
        match host.state_of(mount.clone())? {
            PathState::Live { backing: backing @ Backing::Block(_), .. } => {
                let mut owners = Vec::new();
                for staged in mounts.iter().filter(|mount| host.backing(mount) == backing) {
                    let is_live = matches!(host.state_of(staged.clone())?, PathState::Live { .. });
                    owners.extend(paths::staged_volume(&staged.mount_point).filter(|_| is_live));
                }
                if let Some(owner) = owners.first().filter(|_| !owners.contains(volume)) {
                    let what = format!("the raw block volume {owner}");
                    found.other = Some(OtherVolume { path: path.to_owned(), what });
                }
            }
            // A copy of another disk that is only read keeps its mark, and one that is written never does.
            PathState::Live { mount, backing: Backing::Fs(_), device } if !mount.fs_read_only() => {
                found.disks.push(device);
            }
            PathState::Live { .. } | PathState::Dead(_) | PathState::Foreign(_) | PathState::Unmounted => {}
        }
    }
    Ok(found)
}
