//! Unpublish: nothing of the volume left at the pod's path.

use std::path::PathBuf;

use super::Node;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mounts, as_listed};
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
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Leftover(#[from] PathError),
}

impl Node {
    /// Unmounts what is at the target path and removes it. Nothing there, a dead disk, several mounts: all the same. What
    /// was never a volume is not taken away.
    pub async fn unpublish(
        &self,
        request: UnpublishRequest,
        progress: &Progress,
    ) -> Result<(), UnpublishError> {
        paths::check("target_path", &request.target_path)?;
        progress.set(format!("unmounting {}", request.target_path.display()));
        let host = self.host.clone();
        self.host
            .calls
            .run(move || {
                let target = as_listed(&request.target_path);
                host.prove_no_foreign(&Mounts::read().map_err(UnmountError::Host)?, &target)?;
                mount::unmount_all(&target)?;
                Ok(mount::remove_mount_point(&target)?)
            })
            .await
    }
}
