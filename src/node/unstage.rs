//! Unstage: the disk can be detached.

use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::Node;
use super::linux::Host;
use super::linux::device::{OpenDevice, OpenError, UseError};
use super::linux::device_number::DeviceNumber;
use super::linux::error::HostError;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mount, Mounts, as_listed};
use super::linux::staged::{Backing, PathState};
use super::linux::sysfs::BlockDevice;
use super::other_volume::OtherVolume;
use super::paths::{self, PathRefused};
use super::publish_block::list;
use crate::progress::Progress;
use crate::volume::DiskId;

/// What to take away from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnstageRequest {
    pub volume: DiskId,
    pub staging_path: PathBuf,
}

/// Why the disk must not be detached yet.
#[derive(Debug, thiserror::Error)]
pub enum UnstageError {
    #[error(transparent)]
    Path(#[from] PathRefused),
    #[error(transparent)]
    OtherVolume(#[from] OtherVolume),
    #[error("the volume is still mounted on {}; unpublish it (or unstage it) there first", list(.0))]
    Published(Vec<PathBuf>),
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Leftover(#[from] PathError),
    #[error(transparent)]
    InUse(#[from] UseError),
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Node {
    /// Writes out and unmounts what is staged, and waits until the kernel has let the disk go.
    pub async fn unstage(&self, request: UnstageRequest, progress: &Progress) -> Result<(), UnstageError> {
        paths::check("staging_target_path", &request.staging_path)?;
        progress.set(format!("unmounting {}", request.staging_path.display()));
        let path = request.staging_path.clone();
        let staged = self.host.calls.run(move || as_listed(&path)).await;
        if let Some(other) = self.other_volume_at(&staged, &request.volume).await? {
            return Err(other.into());
        }
        let (host, node, volume) = (self.host.clone(), self.clone(), request.volume.clone());
        self.host.calls.run(move || node.release(&host, &request)).await?;
        let noted = self.lingering().get(&volume).cloned();
        let devices = match noted {
            Some(devices) => devices,
            // Unmounted before, perhaps by a driver that was then stopped: the mark on the disk still tells.
            None => {
                let devices = self.host.marked(&volume).await?;
                self.to_wait_for(&volume, devices).await?
            }
        };
        for device in devices {
            progress.set(format!("waiting for {} to be let go", device.name));
            self.host.wait_until_free(device.clone()).await?;
            // A driver that was killed between the refusal and the read-only mount left no mount to tell of it.
            let name = device.name.clone();
            if let Err(error) = self.host.take_writes(device).await {
                warn!(%volume, device = %name, %error, "it is not known whether the disk takes writes again");
            }
        }
        self.lingering().remove(&volume);
        self.failures.forget(&volume);
        Ok(())
    }

    /// Of the disks that carry the volume's mark, those that are about to be let go. What is mounted elsewhere on this host
    /// is not; but copies that other volumes use are not this volume's matter.
    async fn to_wait_for(
        &self,
        volume: &DiskId,
        marked: Vec<BlockDevice>,
    ) -> Result<Vec<BlockDevice>, UnstageError> {
        let (host, volume) = (self.host.clone(), volume.clone());
        let look = move || {
            let mounts = Mounts::read()?;
            let (mut devices, mut elsewhere) = (Vec::new(), Vec::new());
            for device in marked {
                let shows = |mount: &&Mount| host.backing(mount).device() == Some(device.number);
                let shown: Vec<&Mount> = mounts.iter().filter(shows).collect();
                if shown.is_empty() {
                    devices.push(device);
                } else if !is_copy(&host, &shown, &volume) {
                    elsewhere.extend(shown.iter().map(|mount| mount.mount_point.clone()));
                }
            }
            Ok::<_, HostError>((devices, elsewhere))
        };
        let (devices, elsewhere) = self.host.calls.run(look).await?;
        if elsewhere.is_empty() { Ok(devices) } else { Err(UnstageError::Published(elsewhere)) }
    }

    /// Unmounts. Which devices that leaves to wait for is noted first, for the mounts that tell will be gone.
    fn release(&self, host: &Host, request: &UnstageRequest) -> Result<(), UnstageError> {
        let directory = as_listed(&request.staging_path);
        let file = as_listed(&paths::block_file(&request.staging_path, &request.volume));
        let mounts = Mounts::read()?;
        let mut devices: Vec<BlockDevice> = Vec::new();
        for path in [&file, &directory] {
            host.prove_no_foreign(&mounts, path)?;
        }
        for path in [&file, &directory] {
            let top = mounts.top(path).map(|top| top.id);
            // What is below is about to be unmounted as well.
            for mount in mounts.at(path).rev() {
                let is_top = top == Some(mount.id);
                let PathState::Live { mount, backing, device } = host.state_of(mount.clone())? else {
                    continue;
                };
                // Once the staging mount is gone nothing tells whose mounts those are, so it stays while they do.
                let others = host.others_of(&mounts, device.number, &[&file, &directory]);
                if !others.is_empty() {
                    return Err(UnstageError::Published(others));
                }
                if is_top {
                    write_out(host, path, &mount, backing);
                }
                if !devices.contains(&device) {
                    devices.push(device);
                }
            }
        }
        if !devices.is_empty() {
            self.lingering().insert(request.volume.clone(), devices);
        }
        // The file is below the directory, so it goes first.
        mount::unmount_all(&file)?;
        mount::unmount_all(&directory)?;
        mount::remove_mount_point(&file)?;
        info!(volume = %request.volume, path = %directory.display(), "unstaged");
        Ok(())
    }
}

/// Whether the mounts of a disk with the mark of `volume` show that it is a copy in the hands of another volume: given out
/// raw under that one's name, or only read, for a copy that is written gets a mark of its own. And should it be this
/// volume after all, a disk that is only read loses nothing.
fn is_copy(host: &Host, mounts: &[&Mount], volume: &DiskId) -> bool {
    let raw = |mount: &&&Mount| matches!(host.backing(mount), Backing::Block(_));
    let mut owners =
        mounts.iter().filter(raw).filter_map(|mount| paths::staged_volume(&mount.mount_point)).peekable();
    match owners.peek() {
        Some(_) => owners.all(|owner| owner != *volume),
        None => mounts.iter().all(|mount| mount.fs_read_only()),
    }
}

/// Unmounting writes out as well but keeps errors to itself; this puts them in the log. A dead disk must not keep
/// the volume from being unstaged. A disk that was made to refuse writes takes them again, as long as the mount tells
/// which one it is: what is mounted read-only leaves it alone.
fn write_out(host: &Host, path: &Path, mount: &Mount, backing: Backing) {
    let written = match backing {
        Backing::Block(number) => on_device(host, number, |device| {
            let written = device.sync();
            device.take_writes().and(written)
        }),
        Backing::Fs(number) if mount.read_only() => on_device(host, number, OpenDevice::take_writes),
        Backing::Fs(_) | Backing::Lost | Backing::NoDevice => {
            mount::sync_fs(path).map_err(|error| error.to_string())
        }
    };
    if let Err(error) = written {
        warn!(path = %path.display(), %error, "the last writes may be lost");
    }
}

/// One that is gone, or about to, is left alone.
fn on_device(
    host: &Host,
    number: DeviceNumber,
    act: impl FnOnce(&OpenDevice) -> Result<(), HostError>,
) -> Result<(), String> {
    match host.open_number(number) {
        Ok(Some(device)) => act(&device).map_err(|error| error.to_string()),
        Ok(None) | Err(OpenError::Mismatch(_)) => Ok(()),
        Err(OpenError::Host(error)) => Err(error.to_string()),
    }
}
