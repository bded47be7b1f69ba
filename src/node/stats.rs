//! Statistics of a mounted volume. Changes nothing.

use std::path::PathBuf;

use tokio::time::Instant;

use super::Node;
use super::linux::error::HostError;
use super::linux::mountinfo::{Mounts, as_listed};
use super::linux::staged::{Backing, PathState};
use super::linux::usage::{FsUsage, fs_usage};
use super::paths::quoted;
use crate::volume::DiskId;

/// Which volume, and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsRequest {
    pub volume: DiskId,
    pub path: PathBuf,
}

/// How full the volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    Fs(FsUsage),
    /// A raw block device has a size only.
    Block {
        total: u64,
    },
}

/// Why there are no statistics.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    #[error("no volume is mounted at {}", quoted(.0))]
    NotMounted(PathBuf),
    #[error("the disk mounted at {path} has left this host, so the volume is dead", path = .0.display())]
    Gone(PathBuf),
    /// Asked before, and not answered yet.
    #[error("its disk hangs: a call to the kernel for {operation} has not come back for {} s", .since.elapsed().as_secs())]
    Hung { operation: &'static str, since: Instant },
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Node {
    /// Reads statistics. Hangs when the disk does, and the caller limits how long it waits; but once it is known to
    /// hang, it is not asked again, by whatever path.
    pub async fn stats(&self, request: StatsRequest) -> Result<Usage, StatsError> {
        let host = self.acting_for(&request.volume, "NodeGetVolumeStats").host;
        if let Some(stuck) = host.stuck_of(&request.volume) {
            let operation = stuck.operation.unwrap_or("this volume");
            return Err(StatsError::Hung { operation, since: stuck.since });
        }
        host.queries
            .clone()
            .run(move || {
                let path = as_listed(&request.path);
                // On a disk that was pulled statfs(2) still succeeds, so that is no sign of life; sysfs is.
                match host.state_at(&Mounts::read()?, &path)? {
                    PathState::Live { backing: Backing::Block(_), device, .. } => {
                        Ok(Usage::Block { total: device.size })
                    }
                    PathState::Live { .. } => Ok(Usage::Fs(fs_usage(&path)?)),
                    PathState::Dead(_) => Err(StatsError::Gone(request.path)),
                    PathState::Unmounted | PathState::Foreign(_) => Err(StatsError::NotMounted(request.path)),
                }
            })
            .await
    }
}
