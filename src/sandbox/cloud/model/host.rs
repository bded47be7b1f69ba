//! Hosts that disks attach to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Device;
use crate::volume::DiskType;

/// A host's power state, as far as disks care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    Starting,
    Running,
    Stopping,
    Stopped,
    Rebooting,
}

impl HostState {
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Rebooting => "Rebooting",
        }
    }

    /// UCloud's own tools offer attaching and detaching for these two only.
    pub(super) fn settled(self) -> bool {
        matches!(self, Self::Running | Self::Stopped)
    }
}

/// A virtual machine or a bare-metal host, as an account sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostSpec {
    /// `uhost-…` for a virtual machine, `upm-…` for bare metal.
    pub id: String,
    pub name: String,
    pub ip: String,
    /// Empty: the first zone.
    pub zone: String,
    /// Empty: the account's default project.
    pub project: String,
    /// `O`, `OS`, `OM`… take RSSD disks; `N`, `C`, `G` do not.
    pub machine_type: String,
    /// Empty on hosts outside RDMA clusters.
    pub rdma_cluster: String,
    pub state: HostState,
    /// Data disks that fit; the API refuses one more.
    pub max_disks: usize,
    /// Whether the guest sees a new size while it runs. Hosts made before mid-2020 need a stop and a start.
    pub online_grow: bool,
}

/// The API's own limit of disks per host.
pub const DISKS_PER_HOST: usize = 26;

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            ip: String::new(),
            zone: String::new(),
            project: String::new(),
            machine_type: "O".to_owned(),
            rdma_cluster: String::new(),
            state: HostState::Running,
            max_disks: DISKS_PER_HOST,
            online_grow: true,
        }
    }
}

impl HostSpec {
    pub fn new(id: &str, ip: &str) -> Self {
        Self { id: id.to_owned(), name: id.to_owned(), ip: ip.to_owned(), ..Self::default() }
    }

    pub fn in_zone(mut self, zone: &str) -> Self {
        zone.clone_into(&mut self.zone);
        self
    }

    pub fn in_rdma_cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.rdma_cluster);
        self
    }

    pub fn bare_metal(&self) -> bool {
        self.id.starts_with("upm-")
    }

    /// Whether this machine can have disks of that type at all.
    pub(super) fn takes(&self, kind: DiskType) -> bool {
        if self.bare_metal() {
            return kind.needs_rdma();
        }
        !kind.needs_rdma() || self.machine_type.starts_with('O')
    }
}

/// A host and its disks.
#[derive(Debug, Clone)]
pub struct Host {
    pub spec: HostSpec,
    /// Data disks by place, incl. those on their way in or out.
    pub disks: BTreeMap<Device, String>,
    /// The system disk's id.
    pub system_disk: String,
    /// Resizes that the guest will see at its next start.
    pub(super) resize_at_start: Vec<String>,
}

impl Host {
    pub(super) fn new(spec: HostSpec, system_disk: String) -> Self {
        Self { spec, disks: BTreeMap::new(), system_disk, resize_at_start: Vec::new() }
    }

    /// The lowest free letter; a freed one is used again.
    pub(super) fn free_device(&self) -> Device {
        let mut device = Device::FIRST_DATA;
        while self.disks.contains_key(&device) {
            device = device.next();
        }
        device
    }
}
