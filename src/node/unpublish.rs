//! Unpublish: nothing of the volume left at the pod's path.

use std::path::PathBuf;

use super::Node;
use super::linux::error::HostError;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mounts, as_listed};
use super::other_volume::OtherVolume;
use super::paths::{self, PathRefused};
use crate::progress::Progress;
use crate::volume::DiskId;

/// What to take away from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpublishRequest {
    pub volume: DiskId,
    pub target_path: PathBuf,
}

/// Why something is left.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    #[error(transparent)]
    Path(#[from] PathRefused),
    #[error(transparent)]
    OtherVolume(#[from] OtherVolume),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Leftover(#[from] PathError),
}

impl Node {
    /// Unmounts what is at the target path and removes it. Nothing there, a dead disk, several mounts: all the same. What
    /// was never a volume is not taken away, nor what is certainly another one.
    pub async fn unpublish(
        &self,
        request: UnpublishRequest,
        progress: &Progress,
    ) -> Result<(), UnpublishError> {
        paths::check("target_path", &request.target_path)?;
        progress.set(format!("unmounting {}", request.target_path.display()));
        let path = request.target_path.clone();
        let target = self.host.calls.run(move || as_listed(&path)).await;
        if let Some(other) = self.other_volume_at(&target, &request.volume).await? {
            return Err(other.into());
        }
        let host = self.host.clone();
        self.host
            .calls
            .run(move || {
                host.prove_no_foreign(&Mounts::read()?, &target)?;
                mount::unmount_all(&target)?;
                Ok(mount::remove_mount_point(&target)?)
            })
            .await
    }
}
