//! Which device is behind a mount.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::Host;
use super::device::{OpenDevice, OpenError};
use super::device_number::DeviceNumber;
use super::error::HostError;
use super::mount::UnmountError;
use super::mountinfo::{Mount, Mounts};
use super::sysfs::BlockDevice;

/// What a mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// A file system on this device.
    Fs(DeviceNumber),
    /// The device itself, bound to a file.
    Block(DeviceNumber),
    /// A file system whose device has no node any more.
    Lost,
    /// No disk: a tmpfs, a network file system, a part of the host's own tree.
    NoDevice,
}

impl Backing {
    pub fn device(self) -> Option<DeviceNumber> {
        match self {
            Self::Fs(device) | Self::Block(device) => Some(device),
            Self::Lost | Self::NoDevice => None,
        }
    }
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathState {
    Unmounted,
    /// A disk that this host has.
    Live {
        mount: Mount,
        backing: Backing,
        device: BlockDevice,
    },
    /// A disk that has left the host under its mount.
    Dead(Mount),
    /// Something that no CSI volume of this driver is.
    Foreign(Mount),
}

/// The device that a node is for. Looking at a node asks nothing of the disk.
fn rdev(path: &Path) -> Option<DeviceNumber> {
    let found = fs::metadata(path).ok()?;
    found.file_type().is_block_device().then(|| DeviceNumber::from_raw(found.rdev()))
}

/// What mountinfo adds to the root of a mount when what was bound has been removed from its directory.
const DELETED: &[u8] = b"//deleted";

fn is_deleted(mount: &Mount) -> bool {
    mount.root.as_os_str().as_bytes().ends_with(DELETED)
}

/// Where in its file system that was which is mounted.
fn root(mount: &Mount) -> &Path {
    let root = mount.root.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(root.strip_suffix(DELETED).unwrap_or(root)))
}

impl Host {
    /// Whose device a mount shows. Blocking, but only on file systems that hold device nodes.
    pub fn backing(&self, mount: &Mount) -> Backing {
        // btrfs has an anonymous number; its source is the path under which somebody, perhaps in another mount
        // namespace, showed the device to the kernel.
        if mount.fs_type == "btrfs" {
            let here = || mount.source.file_name().and_then(|name| rdev(&self.dev_root.join(name)));
            return rdev(&mount.source).or_else(here).map_or(Backing::Lost, Backing::Fs);
        }
        if self.may_hold_nodes(mount)
            && let Some(device) = rdev(&mount.mount_point)
        {
            return Backing::Block(device);
        }
        // Numbers without a device have major 0.
        if mount.device.major == 0 { Backing::NoDevice } else { Backing::Fs(mount.device) }
    }

    /// Other mounts are not looked at: a dead network file system must not stop a volume.
    fn may_hold_nodes(&self, mount: &Mount) -> bool {
        let in_dev_root = || {
            let parent = root(mount).parent().and_then(Path::file_name);
            parent.is_some() && parent == self.dev_root.file_name()
        };
        mount.root != Path::new("/")
            && (matches!(mount.fs_type.as_str(), "devtmpfs" | "tmpfs") || in_dev_root())
    }

    /// What is on top at `path`, which must be as mountinfo lists it. Blocking.
    pub fn state_at(&self, mounts: &Mounts, path: &Path) -> Result<PathState, HostError> {
        mounts.top(path).cloned().map_or(Ok(PathState::Unmounted), |mount| self.state_of(mount))
    }

    /// What one mount shows. Blocking.
    pub fn state_of(&self, mount: Mount) -> Result<PathState, HostError> {
        let backing = self.backing(&mount);
        match backing {
            // The node that was bound is not in the device directory any more. Its number may be another disk's by now.
            Backing::Block(_) if is_deleted(&mount) => Ok(PathState::Dead(mount)),
            Backing::Fs(number) | Backing::Block(number) => Ok(match self.sysfs.by_number(number)? {
                Some(device) => PathState::Live { mount, backing, device },
                // Part of a disk of the host's own.
                None if self.sysfs.has_partition(number)? => PathState::Foreign(mount),
                None => PathState::Dead(mount),
            }),
            Backing::Lost => Ok(PathState::Dead(mount)),
            Backing::NoDevice => Ok(PathState::Foreign(mount)),
        }
    }

    /// Whether a mount shows a volume as a whole and not a directory in it. Of btrfs it may be a subvolume, which the mount
    /// options or the file system itself can name. Blocking.
    pub fn shows_all(&self, mount: &Mount) -> bool {
        /// The root of each subvolume has this one.
        const FIRST_INODE: u64 = 256;
        match self.backing(mount) {
            Backing::Block(_) => true,
            Backing::Fs(_) if mount.fs_type == "btrfs" => {
                mount.root == Path::new("/")
                    || fs::metadata(&mount.mount_point).is_ok_and(|found| found.ino() == FIRST_INODE)
            }
            Backing::Fs(_) | Backing::Lost | Backing::NoDevice => mount.root == Path::new("/"),
        }
    }

    /// Refuses to take off what no volume can be: the host's own file systems, or those of other programs. What a volume
    /// may have left, of a disk that is gone or still there, passes. Blocking.
    pub fn prove_no_foreign(&self, mounts: &Mounts, path: &Path) -> Result<(), UnmountError> {
        for mount in mounts.at(path) {
            let foreign = match self.backing(mount) {
                Backing::Fs(number) | Backing::Block(number) => {
                    self.sysfs.by_number(number)?.is_none() && self.sysfs.has_partition(number)?
                }
                Backing::Lost => false,
                // A device node whose look is not to be had any more could be a raw block volume's.
                Backing::NoDevice => !self.may_hold_nodes(mount),
            };
            if foreign {
                let what = format!("{} {}", mount.fs_type, mount.source.display());
                return Err(UnmountError::Foreign { path: path.to_owned(), what });
            }
        }
        Ok(())
    }

    /// The mount points that show `device`, other than those at `except`. Blocking.
    pub fn others_of(&self, mounts: &Mounts, device: DeviceNumber, except: &[&Path]) -> Vec<PathBuf> {
        let mut others: Vec<PathBuf> = mounts
            .iter()
            .filter(|mount| !except.contains(&mount.mount_point.as_path()))
            .filter(|mount| self.backing(mount).device() == Some(device))
            .map(|mount| mount.mount_point.clone())
            .collect();
        others.dedup();
        others
    }

    /// Opens the device of this number; `None` when it is gone.
    pub fn open_number(&self, number: DeviceNumber) -> Result<Option<OpenDevice>, OpenError> {
        match self.sysfs.by_number(number)? {
            Some(described) => OpenDevice::open(&self.sysfs, &self.dev_root, described).map(Some),
            None => Ok(None),
        }
    }
}
