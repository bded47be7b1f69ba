//! Publish: the staged volume, bound to the pod's path.

use std::path::PathBuf;

use tracing::{info, warn};

use super::Node;
use super::linux::Host;
use super::linux::error::HostError;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mounts, as_listed};
use super::linux::staged::{Backing, PathState};
use super::paths::{self, PathRefused};
use super::stage::{StageError, StageRequest, Staged};
use crate::progress::Progress;
use crate::volume::{AccessMode, Capability, DiskId, PublishContext, VolumeContext};

/// What to publish where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishRequest {
    pub volume: DiskId,
    pub staging_path: PathBuf,
    pub target_path: PathBuf,
    pub capability: Capability,
    pub context: PublishContext,
    pub volume_context: VolumeContext,
    pub read_only: bool,
}

/// Why a volume is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Path(#[from] PathRefused),
    /// The volume is not staged (any more), and could not be staged again.
    #[error("the volume is not staged as it should be: {0}")]
    Stage(#[from] StageError),
    #[error("{path} has {what} mounted on it, which is not this volume; unmount it", path = .path.display())]
    Occupied { path: PathBuf, what: String },
    #[error("the volume is published at {path} already, read-only and not writable; unpublish it first", path = .0.display())]
    Incompatible(PathBuf),
    #[error(transparent)]
    Mount(HostError),
    #[error("what appeared on {path} is not the staged volume; it was unmounted again", path = .0.display())]
    MountedOther(PathBuf),
    #[error(transparent)]
    MountPoint(#[from] PathError),
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Node {
    /// Publishes a volume.
    ///
    /// The staging path is never taken at its word: it may be an empty directory of the host's own disk, which a
    /// pod would fill. So staging is gone through again; where it holds, that changes nothing, and where it was lost it
    /// is done, because kubelet would not ask for it.
    pub async fn publish(&self, request: PublishRequest, progress: &Progress) -> Result<(), PublishError> {
        let volume = request.volume.clone();
        let outcome = self.stage_and_bind(request, progress).await;
        self.failures.note(&volume, "NodePublishVolume", &outcome);
        outcome
    }

    async fn stage_and_bind(&self, request: PublishRequest, progress: &Progress) -> Result<(), PublishError> {
        paths::check("target_path", &request.target_path)?;
        let stage = StageRequest {
            volume: request.volume.clone(),
            staging_path: request.staging_path.clone(),
            capability: request.capability.clone(),
            context: request.context.clone(),
            volume_context: request.volume_context.clone(),
        };
        let staged = self.ensure_staged(stage, progress).await?;
        progress.set(format!("binding to {}", request.target_path.display()));
        let host = self.host.clone();
        self.host.calls.run(move || bind(&host, &request, &staged)).await
    }
}

fn bind(host: &Host, request: &PublishRequest, staged: &Staged) -> Result<(), PublishError> {
    let read_only = request.read_only || request.capability.mode == AccessMode::SingleNodeReaderOnly;
    // A mount that was read-only from its beginning needs nothing more.
    let restrict = read_only && !staged.read_only;
    let target = as_listed(&request.target_path);
    let occupied = |what| Err(PublishError::Occupied { path: target.clone(), what });
    match host.state_at(&Mounts::read()?, &target)? {
        PathState::Live { mount, backing, .. } if backing == staged.backing => {
            if mount.read_only() && !read_only && !staged.read_only {
                return Err(PublishError::Incompatible(target));
            }
            if !restrict || mount.read_only() {
                return Ok(());
            }
            // What an older kernel leaves of a read-only publish that was cut off.
            mount::unmount_all(&target)?;
        }
        PathState::Live { mount, device, .. } => {
            return occupied(format!("{} of disk {} ({})", mount.fs_type, device.name, device.number));
        }
        PathState::Foreign(mount) => {
            return occupied(format!("{} {}", mount.fs_type, mount.source.display()));
        }
        PathState::Dead(mount) => {
            warn!(path = %target.display(), source = %mount.source.display(), "unmounting a disk that has left this host");
            mount::unmount_all(&target)?;
        }
        PathState::Unmounted => {}
    }
    match staged.backing {
        Backing::Block(_) => mount::make_file(&request.target_path)?,
        Backing::Fs(_) | Backing::Lost | Backing::NoDevice => mount::make_directory(&request.target_path)?,
    }
    // The directories above may have been missing before.
    let target = as_listed(&request.target_path);
    let bound = if restrict {
        mount::bind_read_only(&staged.source, &target)
    } else {
        mount::bind(&staged.source, &target)
    };
    bound.map_err(PublishError::Mount)?;
    let mounts = Mounts::read()?;
    if !mounts.top(&target).is_some_and(|mount| host.backing(mount) == staged.backing) {
        mount::unmount_top(&target)?;
        return Err(PublishError::MountedOther(target));
    }
    info!(volume = %request.volume, target = %target.display(), read_only, "published");
    Ok(())
}
