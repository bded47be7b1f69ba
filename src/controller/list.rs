//! ListVolumes and the reads of one volume.

use std::collections::BTreeMap;

use crate::cloud::{Cloud, CloudError, Deadline, Disk, DiskFilter, DiskStatus};
use crate::volume::{DiskId, ListToken};

use super::error::Unresolved;
use super::recent::Trust;
use super::view::View;
use super::{Controller, Volume, pages};
use crate::progress::Progress;

/// A volume and where it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStatus {
    pub volume: Volume,
    /// All node ids of the node that has it: the host's id and its private address, by which the plugin that
    /// this driver replaces named its nodes. Empty when it is attached to none.
    pub nodes: Vec<String>,
}

impl From<&Disk> for VolumeStatus {
    fn from(disk: &Disk) -> Self {
        // While it attaches or detaches, it can be used on no node.
        let published = disk.status == DiskStatus::InUse;
        let host = disk.host.as_ref().filter(|_| published).map(ToString::to_string);
        let address = disk.host_ip.filter(|_| published).map(|ip| ip.to_string());
        Self { volume: Volume::from(disk), nodes: host.into_iter().chain(address).collect() }
    }
}

/// A part of the list of all volumes, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePage {
    pub volumes: Vec<VolumeStatus>,
    pub next: Option<ListToken>,
}

/// Nothing can be said of the volumes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the volumes cannot be listed: {source}")]
pub struct ListError {
    pub source: CloudError,
}

impl<C: Cloud> Controller<C> {
    /// One volume. `None`: the cloud knows no such data disk.
    pub async fn get(&self, id: &DiskId, deadline: Deadline) -> Result<Option<VolumeStatus>, Unresolved> {
        let progress = Progress::default();
        let mut view = View::new(self, id, format!("read UDisk {id}"), deadline, &progress);
        let mut sight = view.read().await?;
        // A volume that was just made must not be called unknown; any other lag is harmless here.
        while sight.disk.is_none() && sight.trust == Trust::Stale {
            sight = view.again(String::from("the cloud does not show it yet")).await?;
        }
        Ok(sight.disk.filter(|disk| !disk.is_boot).as_ref().map(VolumeStatus::from))
    }

    /// The volumes after `start`, at most `max_entries` of them (`None` or 0: all).
    ///
    /// The cloud pages by position, so every call reads the whole listing and keeps the wanted window of it: a
    /// token that names an id stays right whatever comes and goes, and is good for any controller.
    pub async fn list(
        &self,
        start: Option<&ListToken>,
        max_entries: Option<usize>,
        deadline: Deadline,
    ) -> Result<VolumePage, ListError> {
        let limit = max_entries.filter(|max| *max > 0).unwrap_or(usize::MAX);
        let mut window = Window { start, limit, volumes: BTreeMap::new(), more: false };
        pages::disks(&*self.inner.cloud, &DiskFilter::default(), deadline, |disk| window.offer(&disk))
            .await
            .map_err(|source| ListError { source })?;
        Ok(window.finish())
    }
}

/// The lowest ids after `start`; never holds more than is asked for.
struct Window<'a> {
    start: Option<&'a ListToken>,
    limit: usize,
    volumes: BTreeMap<DiskId, VolumeStatus>,
    /// Whether anything comes after the window.
    more: bool,
}

impl Window<'_> {
    fn offer(&mut self, disk: &Disk) {
        if disk.is_boot || self.start.is_some_and(|start| disk.id <= start.after) {
            return;
        }
        let full = self.volumes.len() >= self.limit;
        if full && self.volumes.last_key_value().is_some_and(|(last, _)| disk.id > *last) {
            self.more = true;
            return;
        }
        self.volumes.insert(disk.id.clone(), VolumeStatus::from(disk));
        if self.volumes.len() > self.limit {
            self.volumes.pop_last();
            self.more = true;
        }
    }

    fn finish(self) -> VolumePage {
        let next = self.volumes.last_key_value().filter(|_| self.more);
        let next = next.map(|(id, _)| ListToken { after: id.clone() });
        VolumePage { volumes: self.volumes.into_values().collect(), next }
    }
}
