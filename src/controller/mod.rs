//! The controller's use cases over [`Cloud`].
//!
//! Every operation has one shape: read the disk, let a pure function decide from what was read, act or wait,
//! and look again. So "already done" is decided here, the cloud's state is the truth, and an operation that was
//! cut off anywhere goes on when it is called again, also by another process. What the process remembers (recent
//! changes, names being created, addresses of hosts) only saves calls or delays a conclusion.
//!
//! One mutating call runs per disk and per name at a time; the protocol edge sees to that. A `create` and a
//! `delete` of the same disk may overlap.

mod attach;
mod create;
mod delete;
mod detach;
mod error;
mod expand;
mod hosts;
mod list;
mod names;
pub(crate) mod pages;
mod placement;
mod poller;
mod recent;
mod slots;
mod spells;
mod view;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

pub use attach::{AttachError, AttachRequest};
pub use create::{CreateError, CreateRequest};
pub use delete::DeleteError;
pub use detach::DetachError;
pub use error::{CallError, Unresolved, Verdict};
pub use expand::{ExpandError, ExpandRequest, Expanded, HostSees};
pub use hosts::HostError;
pub use list::{ListError, Listed, VolumePage, VolumeStatus};
pub use placement::PlacementError;
pub use poller::Pace;

use crate::cloud::{Cloud, Disk};
use crate::volume::{DiskId, DiskType, Gib, Zone};

use self::hosts::Hosts;
use self::list::Listings;
use self::names::Names;
use self::poller::Poller;
use self::recent::Recent;
use self::slots::Slots;
use self::spells::Spells;

/// How many names are looked up at a time.
const LOOK_UPS: usize = 8;

/// What the operator decides.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Where disks are made when the request names no zone.
    pub zone: Option<Zone>,
    pub region: String,
    /// What is sent as `MultiAttach`; `None` sends nothing. The API's default allows several hosts.
    pub multi_attach: Option<bool>,
    /// Whether an RDMA disk may be attached to a host of another RDMA cluster.
    pub cross_pod_attach: bool,
    /// How long listings may lag behind creations.
    pub create_settle: Duration,
    /// How long reads of a disk may lag behind changes.
    pub read_lag: Duration,
    /// How long a disk may be attaching, detaching or new before it counts as stuck.
    pub stuck_after: Duration,
    /// How long an attached disk may be without a device name.
    pub device_wait: Duration,
    /// For how long the private addresses of hosts are remembered.
    pub host_memory: Duration,
    /// How many changes may run on one host at a time, if the cloud takes so many.
    pub host_width: u32,
    pub pace: Pace,
}

impl ControllerConfig {
    /// The defaults for a region.
    pub fn new(region: impl Into<String>) -> Self {
        Self {
            zone: None,
            region: region.into(),
            multi_attach: Some(false),
            cross_pod_attach: false,
            create_settle: Duration::from_secs(60),
            read_lag: Duration::from_secs(10),
            stuck_after: Duration::from_secs(180),
            device_wait: Duration::from_secs(30),
            host_memory: Duration::from_secs(60),
            host_width: 4,
            pace: Pace::default(),
        }
    }
}

/// The use cases. Clones share all state.
#[derive(Debug)]
pub struct Controller<C> {
    inner: Arc<Inner<C>>,
}

impl<C> Clone for Controller<C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

#[derive(Debug)]
struct Inner<C> {
    cloud: Arc<C>,
    config: ControllerConfig,
    poller: Poller<C>,
    slots: Slots,
    recent: Arc<Recent>,
    spells: Spells,
    listings: Listings,
    names: Names,
    look_ups: Semaphore,
    hosts: Hosts,
}

/// A volume as the cloud describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub id: DiskId,
    pub size: Gib,
    pub zone: Zone,
    pub disk_type: Option<DiskType>,
}

impl From<&Disk> for Volume {
    fn from(disk: &Disk) -> Self {
        Self { id: disk.id.clone(), size: disk.size, zone: disk.zone.clone(), disk_type: disk.disk_type }
    }
}

impl<C: Cloud> Controller<C> {
    pub fn new(cloud: Arc<C>, config: ControllerConfig) -> Self {
        let recent = Arc::new(Recent::new(config.read_lag));
        let inner = Inner {
            poller: Poller::new(Arc::clone(&cloud), config.pace, Arc::clone(&recent)),
            slots: Slots::new(config.host_width),
            recent,
            spells: Spells::new(config.stuck_after),
            listings: Listings::default(),
            names: Names::new(config.create_settle),
            look_ups: Semaphore::new(LOOK_UPS),
            hosts: Hosts::new(config.host_memory),
            cloud,
            config,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Why the cloud has not been answering for a while, if so.
    pub fn held_up(&self) -> Option<String> {
        self.inner.cloud.held_up()
    }

    /// How many attach, detach and grow operations wait for their turn on a host.
    pub fn changes_waiting(&self) -> usize {
        self.inner.slots.waiting()
    }

    /// How many disks that somebody waits for are stuck on their way to another state, for a gauge.
    pub fn disks_stuck(&self) -> usize {
        self.inner.spells.stuck()
    }
}
