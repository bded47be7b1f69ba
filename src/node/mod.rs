//! The node's use cases: what to do with a volume on this host. How it is done is in [`linux`].
//!
//! Each operation looks first, decides in a pure function, and acts. Each can be cut off between any two steps and
//! called again: what is there already is recognised, what is missing is done.

mod adopt;
pub mod expand;
mod failures;
mod format;
pub mod health;
pub mod info;
pub mod linux;
pub mod lookup;
pub mod noted;
pub mod observe;
mod other_volume;
pub mod paths;
pub mod plan;
pub mod propagation;
pub mod publish;
mod publish_block;
pub mod stage;
mod stage_fs;
pub mod stats;
pub mod unplaced;
pub mod unpublish;
pub mod unstage;
pub mod verdict;

use std::collections::HashMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use failures::Failures;
use linux::sysfs::BlockDevice;
use linux::{Host, Purpose, StuckCalls};
use lookup::Lookup;
use observe::{Observer, Step, Timer};

use crate::volume::DiskId;

pub use expand::{ExpandError, ExpandRequest};
pub use health::{HealthError, HealthRequest, RunningChange};
pub use info::{IdentityState, NodeIdentity};
pub use other_volume::OtherVolume;
pub use publish::{PublishError, PublishRequest};
pub use stage::{StageError, StageRequest};
pub use stats::{StatsError, StatsRequest, Usage};
pub use unpublish::{UnpublishError, UnpublishRequest};
pub use unstage::{UnstageError, UnstageRequest};
pub use verdict::{Problem, Reason, Severity};

/// Where the node finds the kernel's view of the disks.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// `/sys`.
    pub sysfs_root: PathBuf,
    /// `/dev`.
    pub dev_root: PathBuf,
}

/// The node's use cases. Clones share their limits.
#[derive(Debug, Clone)]
pub struct Node {
    host: Host,
    /// The cloud, if this node may ask it.
    lookup: Option<Arc<dyn Lookup>>,
    /// Devices that were unmounted and not yet seen free, so that a retry of an unstage looks at them again.
    lingering: Arc<Mutex<HashMap<DiskId, Vec<BlockDevice>>>>,
    failures: Failures,
    observer: Arc<dyn Observer>,
}

impl Node {
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            host: Host::new(&config.sysfs_root, &config.dev_root),
            lookup: None,
            lingering: Arc::default(),
            failures: Failures::default(),
            observer: Arc::new(()),
        }
    }

    /// Lets the node ask the cloud for the place of a disk whose attachment does not say it.
    pub fn asking(self, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup: Some(lookup), ..self }
    }

    /// This node, whose steps are told to `observer`.
    pub fn observed_by(self, observer: Arc<dyn Observer>) -> Self {
        Self { observer, ..self }
    }

    fn time(&self, step: Step, fs: impl Display) -> Timer {
        Timer::start(&self.observer, step, fs)
    }

    /// This node, whose calls to the kernel are for one operation of a volume from now on.
    pub fn acting_for(&self, volume: &DiskId, operation: &'static str) -> Self {
        let purpose = Purpose { volume: volume.clone(), operation };
        Self { host: self.host.for_purpose(purpose), ..self.clone() }
    }

    /// How many calls to the kernel have not come back in their time, for which volumes and since when.
    pub fn stuck_calls(&self) -> Vec<StuckCalls> {
        self.host.stuck()
    }

    fn lingering(&self) -> MutexGuard<'_, HashMap<DiskId, Vec<BlockDevice>>> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
