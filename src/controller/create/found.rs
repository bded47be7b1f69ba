//! A disk that bears the name, or was given out for it: whether it is the volume that is asked for, and when it can be
//! used.

use crate::cloud::{Cloud, Disk, DiskStatus};
use crate::controller::recent::{Change, Trust};
use crate::controller::view::{Sight, View, state, word};
use crate::controller::{Volume, placement};
use crate::volume::{DiskId, SizeRequest};

use super::{Create, CreateError};

impl<C: Cloud> Create<'_, C> {
    /// The volume on a disk that should exist. `None`: it does not; what said so lagged.
    pub(super) async fn adopt(&self, id: &DiskId, listed: bool) -> Result<Option<Volume>, CreateError> {
        let mut view = self.view(id);
        let mut sight = view.read().await?;
        if listed && sight.disk.is_none() && sight.trust != Trust::Stale {
            self.controller.inner.recent.doubt_absence(id);
            sight.trust = Trust::Stale;
        }
        loop {
            let awaited = sight.disk.is_none() && self.awaits(id);
            sight = if awaited || sight.trust == Trust::Stale {
                view.again(format!("UDisk {id} was made or deleted a moment ago")).await?
            } else if sight.listed {
                view.read().await?
            } else {
                break;
            };
        }
        let Some(disk) = sight.disk.as_ref() else { return Ok(None) };
        if disk.name == self.name.as_str() {
            self.controller.inner.names.found(self.name.as_str(), id);
            // The next read may be an older one, of the time before it was made.
            self.controller.inner.recent.doubt_absence(id);
            if let Some(differences) = self.differences(disk) {
                let (name, disk) = (self.name.clone(), id.clone());
                return Err(CreateError::Incompatible { name, disk, differences });
            }
            tracing::info!(name = %self.name, disk = %id, "the UDisk exists already");
        }
        self.usable(view, sight).await.map(Some)
    }

    /// Waits until the disk can be handed out.
    pub(super) async fn usable(
        &self,
        mut view: View<'_, C>,
        mut sight: Sight,
    ) -> Result<Volume, CreateError> {
        loop {
            // What a page shows of a disk that this call did not make ends the wait only together with a read by id.
            let waits = |disk: &Disk| disk.name == self.name.as_str() && disk.status.is_changing();
            if sight.listed && sight.trust != Trust::Stale && !sight.disk.as_ref().is_some_and(waits) {
                sight = view.read().await?;
            }
            let shown = sight.disk.as_ref().filter(|_| sight.trust != Trust::Stale);
            if let Some(disk) = shown.filter(|disk| disk.name == self.name.as_str()) {
                self.controller.inner.names.found(self.name.as_str(), &disk.id);
            }
            let phase = match (&sight.disk, sight.trust) {
                (_, Trust::Stale) => String::from("the cloud does not show the new disk yet"),
                (None, Trust::Sound | Trust::Young) if self.awaits(view.id()) => {
                    format!("the cloud gave out UDisk {} and does not show it yet", view.id())
                }
                (None, Trust::Sound | Trust::Young) => {
                    let disk = view.id().clone();
                    self.controller.inner.names.deleted(&disk, None);
                    return Err(CreateError::Vanished { name: self.name.clone(), disk });
                }
                (Some(disk), Trust::Sound | Trust::Young) if disk.name != self.name.as_str() => {
                    // Whether a disk was made is as open as without an answer.
                    self.controller.inner.names.unanswered(self.name.as_str(), None);
                    let (name, id, found) = (self.name.clone(), disk.id.clone(), disk.name.clone());
                    return Err(CreateError::Foreign { name, disk: id, found });
                }
                (Some(disk), Trust::Sound | Trust::Young) => match &disk.status {
                    DiskStatus::Available
                    | DiskStatus::Attaching
                    | DiskStatus::InUse
                    | DiskStatus::Detaching => {
                        let inner = &self.controller.inner;
                        inner.names.handed_out(self.name.as_str());
                        // Whoever has it may delete it at once, and must not be told that there is none.
                        inner.recent.doubt_absence(&disk.id);
                        return Ok(Volume::from(disk));
                    }
                    DiskStatus::Failed | DiskStatus::RestoreFailed => return Err(self.failed(disk).await),
                    DiskStatus::Initializing
                    | DiskStatus::Cloning
                    | DiskStatus::Restoring
                    | DiskStatus::Other(_) => state(disk),
                },
            };
            sight = view.again(phase).await?;
        }
    }

    /// Whether the disk was given out for the name and was not seen yet.
    fn awaits(&self, id: &DiskId) -> bool {
        self.controller.inner.names.is_awaited(self.name.as_str(), id)
    }

    /// Removes a failed disk if this process made it and nobody has it; somebody may want to look at any other.
    async fn failed(&self, disk: &Disk) -> CreateError {
        let inner = &self.controller.inner;
        let mut removed = false;
        let mut source = None;
        if disk.status == DiskStatus::Failed && inner.names.is_ours_alone(self.name.as_str(), &disk.id) {
            match inner.cloud.delete_disk(&disk.zone, &disk.id, self.deadline).await {
                Ok(()) => {
                    inner.recent.note(&disk.id, Change::Deleted);
                    inner.names.deleted(&disk.id, None);
                    removed = true;
                }
                Err(error) => source = Some(error),
            }
        }
        tracing::warn!(name = %self.name, disk = %disk.id, removed, "the UDisk ended in state {:?}", disk.status);
        CreateError::Failed {
            name: self.name.clone(),
            disk: disk.id.clone(),
            status: word(&disk.status).to_owned(),
            removed,
            source,
        }
    }

    fn differences(&self, disk: &Disk) -> Option<String> {
        let SizeRequest { required_bytes, limit_bytes, .. } = self.request.size;
        let parameters = &self.request.parameters;
        let mut differences = Vec::new();
        if disk.size.bytes() < required_bytes {
            differences
                .push(format!("has {}, which is less than the {required_bytes} bytes asked for", disk.size));
        }
        if let Some(limit) = limit_bytes.filter(|limit| disk.size.bytes() > *limit) {
            differences.push(format!("has {}, which is more than the limit of {limit} bytes", disk.size));
        }
        if disk.disk_type != Some(parameters.disk_type) {
            let found = disk.disk_type.map_or("one that is not sold as a volume", |t| t.word());
            differences.push(format!("its type is {found} and not {}", parameters.disk_type));
        }
        let topology = self.request.topology.as_ref();
        if !placement::allows(topology, &disk.zone) {
            differences.push(format!(
                "it is in zone {} and the request allows only {}",
                disk.zone,
                placement::zones(topology)
            ));
        }
        if let (Some(asked), Some(found)) = (&parameters.cmk_id, &disk.cmk_id)
            && asked != found
        {
            differences.push(format!("its encryption key is {found} and not {asked}"));
        }
        (!differences.is_empty()).then(|| differences.join(" and "))
    }
}
