//! Grows file systems to the size of their device, and proves it.
//!
//! Mounted ones of all kinds are grown by the same ioctl(2) that the tools would send, so nothing is needed on the host
//! and the kernel's answer is known exactly. Unmounted ext file systems are grown by `resize2fs`.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::Host;
use super::device::OpenDevice;
use super::error::{Doing as _, HostError};
use super::exec::{self, Tool, ToolError};
use super::fsck::{self, CheckError};
use super::ioctl;
use super::mount::open_directory;
use super::mountinfo::{Mounts, mount_id};
use super::probe::{BTRFS, FoundFs, FsKind, GRANULE, le64, probe_fs, read};
use crate::progress::Progress;

const RESIZE2FS: Tool = Tool { name: "resize2fs", package: "e2fsprogs" };

/// Why a file system is smaller than its device.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(
        "growing a mounted {0} needs CAP_SYS_RESOURCE, which this driver's container does not have: run it privileged, or \
         restart the pod, then the file system is grown before it is mounted again"
    )]
    NoCapability(FsKind),
    #[error("the file system at {0} is read-only and cannot be grown")]
    ReadOnly(String),
    #[error("the {kind} on {device} has {found} bytes after growing it, but the device has {wanted}")]
    StillSmall { kind: FsKind, device: String, found: u64, wanted: u64 },
    #[error("{0} shows no file system any more")]
    NoSuperblock(String),
    #[error(transparent)]
    Host(#[from] HostError),
}

impl GrowError {
    /// Whether the kernel does not grow this file system while it is mounted, or not for this process. After any other
    /// failure, such as a disk that cannot be read, it stays mounted.
    pub fn needs_unmount(&self) -> bool {
        match self {
            Self::NoCapability(_) | Self::StillSmall { .. } => true,
            Self::Host(error) => matches!(
                error.errno(),
                // What is hidden is not unmounted either, and that names the way out.
                Some(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ESTALE)
            ),
            Self::Check(_) | Self::Tool(_) | Self::ReadOnly(_) | Self::NoSuperblock(_) => false,
        }
    }
}

impl Host {
    /// Grows an ext file system that is not mounted, if its device has room. Others cannot grow unmounted.
    pub async fn grow_unmounted(
        &self,
        device: Arc<OpenDevice>,
        fs: FoundFs,
        progress: &Progress,
    ) -> Result<(), GrowError> {
        if !fs.kind.is_ext() || !fs.can_grow_to(device.size()) {
            return Ok(());
        }
        fsck::check(fs.kind, &device, true, progress).await?;
        progress.set(format!("growing {} of {}", fs.kind, device.path().display()));
        exec::succeed_on(RESIZE2FS, [], &device).await?;
        self.calls.run(move || prove(&device, device.size(), read_back(&device)?)).await
    }
}

/// Grows the file system mounted at `path` from `device`, if there is room.
pub fn grow_mounted(path: &Path, kind: FsKind, device: &OpenDevice) -> Result<(), GrowError> {
    let mount = open_top(path)?;
    let wanted = device.current_size()?;
    let before = mounted(path, &mount, kind, device)?;
    if !before.can_grow_to(wanted) {
        return Ok(());
    }
    let blocks = wanted.checked_div(before.block_size).unwrap_or(0);
    let grown = match kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => ioctl::ext4_resize(&mount, blocks),
        FsKind::Xfs => ioctl::xfs_geometry(&mount)
            .and_then(|geometry| ioctl::xfs_grow(&mount, blocks, geometry.inode_max_percent)),
        FsKind::Btrfs => ioctl::btrfs_grow_to_device(&mount, btrfs_device_id(device)?),
    };
    match grown {
        Ok(()) => {}
        Err(Errno::EPERM) => return Err(GrowError::NoCapability(kind)),
        Err(Errno::EROFS) => return Err(GrowError::ReadOnly(path.display().to_string())),
        Err(errno) => return Err(HostError::new(format!("cannot grow {}", path.display()), errno).into()),
    }
    prove(device, wanted, mounted(path, &mount, kind, device)?)
}

/// Opens what is mounted on `path`. Under a mount that was made over it later the path leads to another file system,
/// which would be grown to the size of a disk that is not its own.
fn open_top(path: &Path) -> Result<File, HostError> {
    let opened = open_directory(path);
    let id = opened.as_ref().ok().map(mount_id).transpose().doing("ask for the mount of", path)?;
    let mounts = Mounts::read()?;
    let top = mounts.top(path);
    let by = top.and_then(|top| mounts.hiding(top));
    match opened {
        Ok(opened) if top.is_some_and(|top| id == Some(top.id)) => Ok(opened),
        Err(error) if by.is_none() || error.errno() != Some(Errno::ENOENT) => Err(error),
        Ok(_) | Err(_) => {
            let (path, by) = (path.display(), by.map(|by| by.mount_point.display()));
            let doing = by.map_or_else(
                || format!("{path} shows another mount than a moment ago"),
                |by| format!("{path} is hidden by {by}, which was mounted over it later; unmount that first"),
            );
            Err(HostError::new(doing, Errno::ESTALE))
        }
    }
}

/// A mounted file system's present size. Only ext shows it on the device at once; others write their superblock
/// some time later.
fn mounted(path: &Path, mount: &File, kind: FsKind, device: &OpenDevice) -> Result<FoundFs, GrowError> {
    let on_disk = read_back(device)?;
    match kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => Ok(on_disk),
        FsKind::Xfs => {
            let geometry = ioctl::xfs_geometry(mount).doing("ask the geometry of", path)?;
            let block_size = u64::from(geometry.block_size);
            let size = block_size.saturating_mul(geometry.data_blocks);
            Ok(FoundFs { size, block_size, granule: GRANULE, ..on_disk })
        }
        FsKind::Btrfs => {
            let id = btrfs_device_id(device)?;
            let size = ioctl::btrfs_device_size(mount, id).doing("ask the size of", path)?;
            Ok(FoundFs { size, granule: GRANULE, ..on_disk })
        }
    }
}

/// By which number a btrfs knows its device: 1, unless it once had several.
fn btrfs_device_id(device: &OpenDevice) -> Result<u64, HostError> {
    const DEVICE_ID: usize = 0xc9;
    let superblock = read(device, BTRFS as u64, 4096).doing("read", device.path())?;
    Ok(le64(&superblock, DEVICE_ID))
}

fn read_back(device: &OpenDevice) -> Result<FoundFs, GrowError> {
    let path = device.path().display();
    match probe_fs(device) {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(GrowError::NoSuperblock(path.to_string())),
        Err(source) => Err(HostError::new(format!("cannot read {path}"), source).into()),
    }
}

fn prove(device: &OpenDevice, wanted: u64, found: FoundFs) -> Result<(), GrowError> {
    if found.can_grow_to(wanted) {
        let device = device.path().display().to_string();
        return Err(GrowError::StillSmall { kind: found.kind, device, found: found.size, wanted });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_does_not_grow_mounted_is_unmounted_for_it() {
        let host = |errno| GrowError::Host(HostError::new("cannot grow /x", errno));
        for errno in [Errno::EOPNOTSUPP, Errno::ENOTTY, Errno::EINVAL, Errno::ESTALE] {
            assert!(host(errno).needs_unmount(), "{errno}");
        }
        for errno in [Errno::EIO, Errno::EBUSY, Errno::ENOSPC, Errno::ENOMEM, Errno::ENOENT] {
            assert!(!host(errno).needs_unmount(), "{errno}");
        }
        assert!(GrowError::NoCapability(FsKind::Ext4).needs_unmount());
        for stays in [GrowError::ReadOnly("/x".into()), GrowError::NoSuperblock("/dev/vdb".into())] {
            assert!(!stays.needs_unmount(), "{stays}");
        }
    }
}
