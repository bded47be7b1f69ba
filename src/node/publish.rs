//! Publish: the staged volume, bound to the pod's path.

use std::path::PathBuf;

use tracing::info;

use super::Node;
use super::linux::Host;
use super::linux::device::Mismatch;
use super::linux::error::HostError;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mount, Mounts, as_listed};
use super::linux::staged::{Backing, PathState};
use super::paths::{self, PathRefused};
use super::publish_block::{self, how, list};
use super::stage::{self, StageError, StageRequest, Staged};
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
    #[error(
        "the volume is published at {path} already, {} and not {}; unpublish it there first",
        how(!*.wanted_read_only), how(*.wanted_read_only), path = .path.display()
    )]
    Incompatible { path: PathBuf, wanted_read_only: bool },
    #[error(
        "the raw block volume cannot be published {} while it is published {} at {}: a disk refuses writes as a whole or not \
         at all. Unpublish it there first", how(*.read_only), how(!*.read_only), list(.elsewhere)
    )]
    OtherwiseElsewhere { read_only: bool, elsewhere: Vec<PathBuf> },
    #[error(
        "the disk {0} refuses writes, so the volume cannot be published writable; look at the disk in the cloud's console"
    )]
    WriteProtected(String),
    #[error("the disk that is wanted at {path} has left this host", path = .0.display())]
    Gone(PathBuf),
    #[error("the disk is not what it was a moment ago: {0}")]
    Device(Mismatch),
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
        paths::check("staging_target_path", &request.staging_path)?;
        let (target, staging) = (request.target_path.clone(), request.staging_path.clone());
        let apart = move || paths::check_apart(&as_listed(&target), &as_listed(&staging));
        self.host.calls.run(apart).await?;
        let stage = StageRequest {
            volume: request.volume.clone(),
            staging_path: request.staging_path.clone(),
            capability: request.capability.clone(),
            context: request.context.clone(),
            volume_context: request.volume_context.clone(),
        };
        // What is dead at the target would keep the disk, if that is back, from being staged.
        let (host, target) = (self.host.clone(), as_listed(&request.target_path));
        self.host.calls.run(move || stage::take_away_the_dead(&host, &target)).await?;
        let staged = match self.ensure_staged(stage, progress).await {
            Ok(staged) => staged,
            Err(error) => {
                let target = request.target_path.clone();
                return Err(self.with_what_is_left(error, &request.volume, vec![target]).await.into());
            }
        };
        progress.set(format!("binding to {}", request.target_path.display()));
        let host = self.host.clone();
        self.host.calls.run(move || bind(&host, &request, &staged)).await
    }
}

/// By the pod's wish, or because the volume is never anything else.
fn is_read_only(request: &PublishRequest) -> bool {
    request.read_only || request.capability.mode == AccessMode::SingleNodeReaderOnly
}

fn bind(host: &Host, request: &PublishRequest, staged: &Staged) -> Result<(), PublishError> {
    let read_only = is_read_only(request);
    // A mount that was read-only from its beginning needs nothing more.
    let restrict = read_only && !staged.read_only;
    let target = as_listed(&request.target_path);
    let occupied = |what| Err(PublishError::Occupied { path: target.clone(), what });
    let mounts = Mounts::read()?;
    let source_root = |mounts: &Mounts| mounts.top(&staged.source).map(|source| source.root.clone());
    match host.state_at(&mounts, &target)? {
        PathState::Live { mount, backing, .. }
            if backing == staged.backing && source_root(&mounts).as_ref() == Some(&mount.root) =>
        {
            let is_read_only = match backing {
                Backing::Block(number) => publish_block::is_read_only(host, number, &target)?,
                Backing::Fs(_) | Backing::Lost | Backing::NoDevice => mount.read_only() || staged.read_only,
            };
            if is_read_only == (read_only || staged.read_only) {
                return Ok(());
            }
            // On an older kernel this may be what is left of a read-only publish that was cut off.
            if is_read_only || mount::binds_read_only_at_once() {
                return Err(PublishError::Incompatible { path: target, wanted_read_only: read_only });
            }
            mount::unmount_top(&target)?;
        }
        PathState::Live { mount, device, .. } => return occupied(stage::shown(&mount, &device)),
        PathState::Foreign(mount) => {
            return occupied(format!("{} {}", mount.fs_type, mount.source.display()));
        }
        // Taken away before.
        PathState::Dead(_) => return Err(PublishError::Gone(target)),
        PathState::Unmounted => {}
    }
    if let Backing::Block(number) = staged.backing {
        publish_block::prepare(host, number, &staged.source, &target, read_only)?;
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
    let source_root = source_root(&mounts);
    let is_the_volume =
        |mount: &Mount| host.backing(mount) == staged.backing && source_root.as_ref() == Some(&mount.root);
    if !mounts.top(&target).is_some_and(is_the_volume) {
        mount::unmount_top(&target)?;
        return Err(PublishError::MountedOther(target));
    }
    info!(volume = %request.volume, target = %target.display(), read_only, "published");
    Ok(())
}
