//! CreateVolume: one disk for one name, although the API has no token that would make a repetition harmless.
//!
//! Look up by name, make, wait. What was sent without an answer is looked up, not repeated ([`super::names`]).
//! A final error must mean that no disk of this name exists: the provisioner forgets the claim then. So the look
//! into the account comes first, and everything that could refuse the request after it.

mod error;
mod found;

use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::Instant;

use crate::cloud::{Cause, Cloud, CloudError, Deadline, Disk, DiskFilter, DiskStatus, NewDisk, Unreadable};
use crate::progress::Progress;
use crate::volume::{DiskId, DiskName, FsType, Parameters, SizeRequest, TopologyRequirement, Zone};

pub use self::error::CreateError;
use super::error::Seconds;
use super::names::Known;
use super::placement::{self, Place};
use super::recent::Change;
use super::view::View;
use super::{CallError, Controller, PlacementError, Unresolved, Volume, pages};

/// How many hosts are asked for their RDMA cluster when the request offers many: enough to pass by a few that
/// just left, too few to read a whole cluster.
const MAX_HOSTS: usize = 4;

/// How often a host is followed that moves between the look at it and the create.
const MAX_MOVES: usize = 2;

/// When a create got no answer, the name is looked up after these pauses before the caller is told to come again.
/// Most replies are lost on the way, and then the first look finds the disk.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// A volume to be made. `name` is CSI's; the disk's name follows from it.
#[derive(Debug, Clone)]
pub struct CreateRequest {
    pub name: String,
    pub size: SizeRequest,
    pub parameters: Parameters,
    pub fs: Option<FsType>,
    pub topology: Option<TopologyRequirement>,
}

impl<C: Cloud> Controller<C> {
    pub async fn create(
        &self,
        request: CreateRequest,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Volume, CreateError> {
        let name = DiskName::for_volume(&request.name);
        let what = format!("create UDisk {name}");
        let begun = Instant::now();
        Create { controller: self, request: &request, name, what, begun, deadline, progress }.run().await
    }
}

struct Create<'a, C> {
    controller: &'a Controller<C>,
    request: &'a CreateRequest,
    name: DiskName,
    /// The operation in words, as in "cannot …".
    what: String,
    begun: Instant,
    deadline: Deadline,
    progress: &'a Progress,
}

/// A complete listing of the disks of the name.
struct Listing {
    begun: Instant,
    /// The older first.
    disks: Vec<Disk>,
}

impl<C: Cloud> Create<'_, C> {
    async fn run(&self) -> Result<Volume, CreateError> {
        let names = &self.controller.inner.names;
        self.come_of_age().await?;
        let listing = self.look_up().await?;
        let begun = listing.begun;
        if let Some(volume) = self.existing(listing).await? {
            return Ok(volume);
        }
        match names.known(self.name.as_str(), begun) {
            Known::Nothing => {}
            Known::Unsettled { since, wait, why: source } => {
                return Err(CreateError::Unsettled { name: self.name.clone(), since, wait, source });
            }
            Known::Made(id) => {
                if let Some(volume) = self.adopt(&id, false).await? {
                    return Ok(volume);
                }
                names.forget(self.name.as_str());
            }
        }
        self.make().await
    }

    /// A predecessor may have made or deleted a disk of the name a moment before it died, and no read shows it yet.
    async fn come_of_age(&self) -> Result<(), Unresolved> {
        let from = self.controller.inner.recent.settled_at();
        let begun = Instant::now();
        if begun >= from {
            return Ok(());
        }
        let wait = Seconds(from - begun);
        let phase =
            format!("the driver has just begun its work and looks in {wait} for what the one before it made");
        self.progress.set(phase.as_str());
        tokio::time::sleep_until(from.min(self.deadline)).await;
        if from < self.deadline {
            return Ok(());
        }
        Err(Unresolved::TimedOut { what: self.what.clone(), phase, waited: begun.elapsed(), source: None })
    }

    /// What a young process was asked for it may send when another one leads already, which looked for it in vain. So it
    /// leaves what nobody waits for any more to the next call.
    fn is_left(&self) -> Option<Unresolved> {
        let young = self.begun < self.controller.inner.recent.settled_at();
        (young && self.progress.is_left()).then(|| Unresolved::TimedOut {
            what: self.what.clone(),
            phase: String::from("nobody waits for it any more, and another process may have been asked"),
            waited: self.begun.elapsed(),
            source: None,
        })
    }

    /// Waits until few look up names, so that the reads of disks which are made already do not wait behind a thousand
    /// look-ups.
    async fn turn(&self, phase: String) -> Result<SemaphorePermit<'_>, Unresolved> {
        let begun = Instant::now();
        let turn = self.controller.inner.look_ups.acquire();
        match tokio::time::timeout_at(self.deadline, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => {
                let (what, waited) = (self.what.clone(), begun.elapsed());
                Err(Unresolved::TimedOut { what, phase, waited, source: None })
            }
        }
    }

    async fn look_up(&self) -> Result<Listing, Unresolved> {
        let inner = &self.controller.inner;
        let phase = format!("looking for a UDisk named {}", self.name);
        self.progress.set(phase.as_str());
        let _turn = self.turn(phase).await?;
        let begun = Instant::now();
        // No zone: an earlier try may have been for another node, in another zone.
        let filter = DiskFilter { name: Some(self.name.to_string()), ..DiskFilter::default() };
        let (mut disks, mut hidden) = (Vec::new(), None);
        let named = |name: &str, is_boot: bool| name == self.name.as_str() && !is_boot;
        let take = |disk: Result<Disk, Unreadable>| match disk {
            Ok(disk) => {
                if named(&disk.name, disk.is_boot) && !inner.recent.deleted(&disk.id) {
                    disks.push(disk);
                }
            }
            Err(disk) => {
                let may_be = disk.name.as_deref().is_none_or(|name| named(name, disk.is_boot));
                if may_be && !inner.recent.deleted(&disk.id) {
                    hidden = Some(pages::hides(disk));
                }
            }
        };
        let read = pages::disks(&*inner.cloud, &filter, self.deadline, take).await;
        read.and_then(|()| hidden.map_or(Ok(()), Err))
            .map_err(|source| Unresolved::Unreadable { what: self.what.clone(), source })?;
        disks.sort_by_key(precedence);
        Ok(Listing { begun, disks })
    }

    /// The volume for the name, if a listed disk exists.
    async fn existing(&self, listing: Listing) -> Result<Option<Volume>, CreateError> {
        if let [winner, others @ ..] = listing.disks.as_slice()
            && !others.is_empty()
        {
            let others = others.iter().map(|d| d.id.as_str()).collect::<Vec<_>>().join(", ");
            tracing::warn!(
                name = %self.name, disk = %winner.id, %others,
                "several UDisks have one name; the first is used, delete the others if nothing uses them"
            );
        }
        for disk in &listing.disks {
            if let Some(volume) = self.adopt(&disk.id, true).await? {
                return Ok(Some(volume));
            }
        }
        Ok(None)
    }

    async fn make(&self) -> Result<Volume, CreateError> {
        let mut place = self.place().await?;
        for _ in 0..MAX_MOVES {
            match self.send(place.clone()).await {
                // UCloud moves hosts between RDMA clusters at will, perhaps since the host was read.
                Err(CreateError::Call(error)) if place.1.is_some() && may_be_elsewhere(&error.source) => {
                    let now = self.place().await?;
                    if now == place {
                        return Err(error.into());
                    }
                    tracing::info!(name = %self.name, ?place, ?now, "the host moved to another RDMA cluster");
                    place = now;
                }
                answer => return answer,
            }
        }
        self.send(place).await
    }

    async fn send(&self, (zone, rdma_cluster): (Zone, Option<String>)) -> Result<Volume, CreateError> {
        let inner = &self.controller.inner;
        if let Some(left) = self.is_left() {
            return Err(left.into());
        }
        let parameters = &self.request.parameters;
        let new = NewDisk {
            zone,
            name: self.name.to_string(),
            size: self.request.size.wanted,
            disk_type: parameters.disk_type,
            charge_type: parameters.charge_type,
            quantity: parameters.quantity,
            data_ark: parameters.data_ark,
            tag: parameters.tag.clone(),
            cmk_id: parameters.cmk_id.clone(),
            rdma_cluster,
        };
        self.progress.set(format!("creating UDisk {} in zone {}", self.name, new.zone));
        let name = self.name.as_str();
        if let Some(disk) = inner.names.deleted_since(name, self.begun) {
            return Err(CreateError::Vanished { name: self.name.clone(), disk });
        }
        inner.names.sending(name);
        match inner.cloud.create_disk(&new, self.deadline).await {
            Ok(id) => {
                inner.recent.note(&id, Change::Created);
                inner.names.made(name, &id);
                tracing::info!(name, disk = %id, zone = %new.zone, size = %new.size, "UDisk created");
                let mut view = self.view(&id);
                view.restart_for_new();
                let sight = view.again(format!("UDisk {id} is being made")).await?;
                self.usable(view, sight).await
            }
            Err(error) if error.nothing_happened() => {
                inner.names.forget(name);
                // What the cloud may have refused, and where.
                let what = format!("{} of type {} in zone {}", self.what, new.disk_type, new.zone);
                Err(CallError::new(what, error).into())
            }
            Err(error) => {
                inner.names.unanswered(name, Some(error.clone()));
                tracing::warn!(name, %error, "a create got no answer; looking for its disk");
                self.find(error).await
            }
        }
    }

    /// Looks for the disk of a create that got no answer.
    async fn find(&self, error: CloudError) -> Result<Volume, CreateError> {
        for pause in LOOKS {
            if Instant::now() + pause >= self.deadline {
                break;
            }
            tokio::time::sleep(pause).await;
            match self.look_up().await {
                Ok(listing) => {
                    if let Some(volume) = self.existing(listing).await? {
                        return Ok(volume);
                    }
                }
                Err(error) => tracing::debug!(name = %self.name, %error, "a look-up failed"),
            }
        }
        let (since, wait) = match self.controller.inner.names.known(self.name.as_str(), Instant::now()) {
            Known::Unsettled { since, wait, .. } => (since, wait),
            Known::Nothing | Known::Made(_) => Default::default(),
        };
        Err(CreateError::Unsettled { name: self.name.clone(), since, wait, source: Some(error) })
    }

    /// The zone of the new disk and the RDMA cluster of the host that shall use it, read now: UCloud moves hosts
    /// between clusters at will.
    async fn place(&self) -> Result<(Zone, Option<String>), CreateError> {
        let inner = &self.controller.inner;
        let config = &inner.config;
        let disk_type = self.request.parameters.disk_type;
        let topology = self.request.topology.as_ref();
        let nowhere = |source| CreateError::Placement { name: self.name.clone(), source };
        let places =
            placement::places(disk_type, topology, &config.region, config.zone.as_ref()).map_err(nowhere)?;
        let mut refusal = PlacementError::NoZone;
        for Place { zone, host } in places.into_iter().take(MAX_HOSTS) {
            let Some(id) = host else { return Ok((zone, None)) };
            self.progress.set(format!("reading the RDMA cluster of host {id}"));
            let host = inner
                .cloud
                .host(&id, self.deadline)
                .await
                .map_err(|source| Unresolved::Unreadable { what: self.what.clone(), source })?;
            let known = host.is_some();
            match host.and_then(|host| host.rdma_cluster).filter(|cluster| !cluster.is_empty()) {
                Some(cluster) => return Ok((zone, Some(cluster))),
                None => {
                    let reason =
                        if known { "it is in no RDMA cluster" } else { "the cloud does not know it" };
                    let (host, reason) = (format!("host {id}"), reason.to_owned());
                    refusal = PlacementError::Unsuitable { host, disk_type, reason };
                }
            }
        }
        Err(nowhere(refusal))
    }

    fn view<'v>(&'v self, id: &'v DiskId) -> View<'v, C> {
        View::new(self.controller, id, self.what.clone(), self.deadline, self.progress)
    }
}

/// Whether an RDMA cluster that the host is in no longer could be why.
fn may_be_elsewhere(error: &CloudError) -> bool {
    matches!(error.cause, Cause::InvalidRequest | Cause::NoStock | Cause::NotFound | Cause::Refused)
}

/// The order in which disks of one name are preferred: what failed last, then the older, then by id, so that every
/// process at every time chooses the same.
fn precedence(disk: &Disk) -> (bool, u64, DiskId) {
    (disk.status == DiskStatus::Failed, disk.created_at.unwrap_or(u64::MAX), disk.id.clone())
}
