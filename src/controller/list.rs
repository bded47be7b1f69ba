//! ListVolumes and the reads of one volume.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{Cloud, CloudError, Deadline, Disk, DiskFilter, DiskStatus, Unreadable};
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

/// An entry of the list of all volumes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    Known(VolumeStatus),
    /// It exists, and nothing more is known. Left out, it would count as deleted, and failing for it would hide all
    /// others; its own calls say what is wrong with it.
    Unreadable(DiskId),
}

impl Listed {
    pub fn id(&self) -> &DiskId {
        match self {
            Self::Known(status) => &status.volume.id,
            Self::Unreadable(id) => id,
        }
    }

    /// `None`: system disks are no volumes.
    fn of(disk: Result<Disk, Unreadable>) -> Option<Self> {
        match disk {
            Ok(disk) => (!disk.is_boot).then(|| Self::Known(VolumeStatus::from(&disk))),
            Err(disk) if disk.is_boot => None,
            Err(disk) => {
                tracing::warn!(disk = %disk.id, error = %disk.source, "a disk of the account cannot be read");
                Some(Self::Unreadable(disk.id))
            }
        }
    }
}

/// A part of the list of all volumes, by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePage {
    pub volumes: Vec<Listed>,
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
    /// The cloud pages by position, so a page of volumes in the order of their ids needs the whole listing. It is kept
    /// for a moment for the pages that follow. A token names an id, so it stays right whatever comes and goes, and is
    /// good for any controller.
    pub async fn list(
        &self,
        start: Option<&ListToken>,
        max_entries: Option<usize>,
        deadline: Deadline,
    ) -> Result<VolumePage, ListError> {
        let limit = max_entries.filter(|max| *max > 0).unwrap_or(usize::MAX);
        let inner = &self.inner;
        let made_or_deleted = inner.recent.made_or_deleted();
        let kept = start.and_then(|start| inner.listings.take(&start.after, made_or_deleted));
        let mut listing = match kept {
            Some(listing) => listing,
            None => {
                let mut volumes = Vec::new();
                let take = |disk| {
                    let wanted = |listed: &Listed| start.is_none_or(|start| *listed.id() > start.after);
                    volumes.extend(Listed::of(disk).filter(wanted));
                };
                pages::disks(&*inner.cloud, &DiskFilter::default(), deadline, take)
                    .await
                    .map_err(|source| ListError { source })?;
                // The first at the end, where they are taken from.
                volumes.sort_by(|a: &Listed, b| b.id().cmp(a.id()));
                Listing { read: Instant::now(), made_or_deleted, after: None, volumes }
            }
        };
        if let Some(start) = start {
            let rest = listing.volumes.partition_point(|listed| *listed.id() > start.after);
            listing.volumes.truncate(rest);
        }
        let rest = listing.volumes.len().saturating_sub(limit);
        let mut volumes = listing.volumes.split_off(rest);
        volumes.reverse();
        let next = volumes.last().filter(|_| rest > 0);
        let next = next.map(|last| ListToken { after: last.id().clone() });
        if let Some(next) = &next {
            inner.listings.keep(Listing { after: Some(next.after.clone()), ..listing });
        }
        Ok(VolumePage { volumes, next })
    }
}

/// For how long a listing is kept for its next page.
const KEPT: Duration = Duration::from_secs(30);

/// What is left of a whole listing after a page of it was answered.
#[derive(Debug)]
struct Listing {
    /// When it was complete; reading a long one takes longer than it is kept.
    read: Instant,
    /// How many disks this process had made or deleted by then.
    made_or_deleted: u64,
    /// Where the answered page ended. Whoever is not that far, as one whose answer was lost, is not served from here.
    after: Option<DiskId>,
    /// By id, the last one first.
    volumes: Vec<Listed>,
}

/// The listing that is kept, if one is. Two that list at a time take it from each other, and pay with a reading.
#[derive(Debug, Default)]
pub(super) struct Listings(Mutex<Option<Listing>>);

impl Listings {
    /// What is kept, if it holds all that comes after `start`, unless it is too old or this process has made or deleted
    /// disks since.
    fn take(&self, start: &DiskId, made_or_deleted: u64) -> Option<Listing> {
        let serves = |listing: &Listing| {
            listing.read.elapsed() <= KEPT
                && listing.made_or_deleted == made_or_deleted
                && listing.after.as_ref().is_some_and(|after| after <= start)
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().filter(serves)
    }

    fn keep(&self, listing: Listing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listing);
    }
}
