//! Expand: the file system of a mounted volume as large as its disk.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Node;
use super::linux::device::{OpenDevice, OpenError};
use super::linux::error::HostError;
use super::linux::grow::{GrowError, grow_mounted};
use super::linux::mountinfo::{Mount, Mounts, as_listed};
use super::linux::probe::FsKind;
use super::linux::staged::{Backing, PathState};
use super::linux::sysfs::BlockDevice;
use super::paths::{self, quoted};
use crate::progress::Progress;
use crate::volume::DiskId;

/// How long the host may take to see what the cloud has done.
const SIZE_LIMIT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Which volume, and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandRequest {
    pub volume: DiskId,
    pub path: PathBuf,
    /// Where it is mounted as well, when the caller says so.
    pub staging_path: Option<PathBuf>,
    /// In bytes.
    pub required: Option<u64>,
}

/// Why the volume is not as large as asked.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    #[error("no volume is mounted at {}", quoted(.0))]
    NotMounted(PathBuf),
    #[error("the disk mounted at {path} has left this host, so the volume is dead", path = .0.display())]
    Gone(PathBuf),
    #[error(
        "this host sees the disk {device} with {found} bytes, but {required} are asked for: the cloud has not grown it, or \
         this host must be stopped and started once before it sees the new size"
    )]
    DiskSmall { device: String, found: u64, required: u64 },
    #[error("{path} holds {fs}, which this driver does not grow", path = .path.display())]
    Unsupported { path: PathBuf, fs: String },
    #[error(transparent)]
    Grow(#[from] GrowError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// A mounted volume with its open device.
struct Mounted {
    path: PathBuf,
    backing: Backing,
    fs_type: String,
    device: OpenDevice,
}

impl Node {
    /// Grows the file system, if there is one and it is smaller than its disk. Returns the disk's size in bytes.
    pub async fn expand(&self, request: ExpandRequest, progress: &Progress) -> Result<u64, ExpandError> {
        let mounted = self.wait_for_size(&request, progress).await?;
        let size = mounted.device.size();
        match mounted.backing {
            Backing::Block(_) => return Ok(size),
            Backing::Fs(_) | Backing::Lost | Backing::NoDevice => {}
        }
        let Some(kind) = FsKind::from_word(&mounted.fs_type) else {
            return Err(ExpandError::Unsupported { path: mounted.path, fs: mounted.fs_type });
        };
        progress.set(format!("growing {kind} at {}", mounted.path.display()));
        self.host.calls.run(move || grow_mounted(&mounted.path, kind, &mounted.device)).await?;
        info!(volume = %request.volume, bytes = size, "the file system fills its disk");
        Ok(size)
    }

    /// Finds the volume and waits until the host sees the disk as large as required.
    async fn wait_for_size(
        &self,
        request: &ExpandRequest,
        progress: &Progress,
    ) -> Result<Mounted, ExpandError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        let required = request.required.unwrap_or(0);
        loop {
            let (this, again) = (self.clone(), request.clone());
            let found = self.host.calls.run(move || this.mounted(&again)).await;
            let error = match found {
                Ok(mounted) if mounted.device.size() >= required => return Ok(mounted),
                Ok(mounted) => ExpandError::DiskSmall {
                    device: mounted.device.path().display().to_string(),
                    found: mounted.device.size(),
                    required,
                },
                // Sysfs and the device may disagree in the moment in which the disk grows.
                Err(ExpandError::Open(OpenError::Mismatch(reason))) => ExpandError::Open(reason.into()),
                Err(error) => return Err(error),
            };
            if start.elapsed() >= SIZE_LIMIT {
                return Err(error);
            }
            progress.set(format!("waiting for the host to see the disk's new size: {error}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Where the volume is mounted. Kubelet names the pod's path, which refuses to be grown through when it is read-only;
    /// then the staging path is as good, if it shows the same disk.
    fn mounted(&self, request: &ExpandRequest) -> Result<Mounted, ExpandError> {
        let mounts = Mounts::read()?;
        let staging = request.staging_path.iter();
        let paths = [request.path.clone()]
            .into_iter()
            .chain(staging.flat_map(|path| [path.clone(), paths::block_file(path, &request.volume)]))
            .chain([paths::block_file(&request.path, &request.volume)]);
        let mut found: Option<(PathBuf, Mount, Backing, BlockDevice)> = None;
        for path in paths {
            match self.host.state_at(&mounts, &as_listed(&path))? {
                PathState::Live { mount, backing, device } => match &found {
                    None => found = Some((path, mount, backing, device)),
                    Some((_, first, of, _)) if first.read_only() && !mount.read_only() && *of == backing => {
                        found = Some((path, mount, backing, device));
                    }
                    Some(_) => {}
                },
                PathState::Dead(_) if found.is_none() => return Err(ExpandError::Gone(path)),
                PathState::Dead(_) | PathState::Unmounted | PathState::Foreign(_) => {}
            }
        }
        let Some((path, mount, backing, device)) = found else {
            return Err(ExpandError::NotMounted(request.path.clone()));
        };
        let Some(device) = self.host.open_number(device.number)? else {
            return Err(ExpandError::Gone(path));
        };
        Ok(Mounted { path: as_listed(&path), backing, fs_type: mount.fs_type, device })
    }
}
