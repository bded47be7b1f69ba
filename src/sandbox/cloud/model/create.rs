//! Disks come and go.

use std::time::Duration;

use super::disk::{Change, Entry};
use super::{Device, Disk, Happening, Host, HostSpec, Refusal, Status, WorkKind, World};
use crate::volume::{DiskType, Gib};

/// What a new disk is to be.
#[derive(Debug, Clone)]
pub struct NewDisk {
    pub project: String,
    pub zone: String,
    pub name: String,
    pub size: Gib,
    pub kind: DiskType,
    pub charge_type: String,
    pub tag: String,
    pub ark: bool,
    pub key: Option<String>,
    pub snapshot_service: bool,
    /// `None` lets the cloud choose.
    pub rdma: Option<String>,
    /// `None` for billing by the hour.
    pub paid_for: Option<Duration>,
}

/// A copy of a disk or of a snapshot.
#[derive(Debug, Clone)]
pub struct CloneOrder {
    pub source: String,
    pub name: String,
    pub size: Option<Gib>,
    pub charge_type: String,
    pub tag: String,
    pub snapshot_service: bool,
    pub rdma: Option<String>,
    pub paid_for: Option<Duration>,
}

impl World {
    pub fn create(&mut self, new: NewDisk) -> Result<String, Refusal> {
        let rdma = self.admit(&new)?;
        let size = new.size;
        let due = self.due(self.rules.latencies.create);
        let id = self.insert(new, rdma, Status::Initializating);
        self.start(&id, Change::Create, due, Some(WorkKind::Create { size }));
        Ok(id)
    }

    /// Checks whether a disk can be made, and chooses its RDMA cluster.
    fn admit(&mut self, new: &NewDisk) -> Result<String, Refusal> {
        let limits = &self.rules.limits;
        if limits.out_of_stock.iter().any(|stock| stock.covers(&new.zone, new.kind)) {
            return Err(Refusal::OutOfStock);
        }
        if self.disks().filter(|disk| !disk.boot).count() >= limits.disks {
            return Err(Refusal::Quota);
        }
        let Some(zone) = self.rules.zone(&new.zone) else { return Err(Refusal::NotSold) };
        if zone.not_sold.iter().any(|word| word == new.kind.word()) {
            return Err(Refusal::NotSold);
        }
        if !new.kind.needs_rdma() {
            return Ok(String::new());
        }
        match &new.rdma {
            Some(wanted) if zone.rdma_clusters.contains(wanted) => Ok(wanted.clone()),
            Some(_) => Err(Refusal::NoSuchRdmaCluster),
            None => self.rng.choice(&zone.rdma_clusters).cloned().ok_or(Refusal::OutOfStock),
        }
    }

    fn insert(&mut self, new: NewDisk, rdma: String, status: Status) -> String {
        let id = self.new_id("bsm");
        let snapshot_service = new.snapshot_service;
        let disk = Disk {
            id: id.clone(),
            project: new.project,
            zone: new.zone,
            name: new.name,
            size: new.size,
            kind: new.kind,
            boot: false,
            status,
            attachment: None,
            rdma,
            charge_type: new.charge_type,
            tag: new.tag,
            ark: new.ark,
            key: new.key,
            created: self.now,
            paid_for: new.paid_for,
        };
        self.disks.insert(id.clone(), Entry::new(disk, None));
        self.note(Happening::CreateAccepted, &id, None);
        if snapshot_service {
            self.add_service(&id, "Dynamic");
        }
        id
    }

    pub(super) fn complete_create(&mut self, id: &str, fails: bool) {
        let now = self.now;
        let Some(entry) = self.disks.get_mut(id) else { return };
        entry.change(now, |disk| disk.status = if fails { Status::Failed } else { Status::Available });
        self.note(if fails { Happening::CreateFailed } else { Happening::Created }, id, None);
    }

    /// A detached disk becomes the source of a new one.
    pub fn clone_disk(&mut self, order: CloneOrder) -> Result<String, Refusal> {
        let source = self.disk(&order.source).ok_or(Refusal::NoSuchDisk)?.clone();
        self.settled(&order.source, Status::Available)?;
        self.unread(&order.source)?;
        let from = order.source.clone();
        let id = self.copy(order, &source, source.size)?;
        if let Some(pending) = self.entry(&id)?.pending.as_mut() {
            pending.source = Some(from);
        }
        Ok(id)
    }

    pub fn clone_snapshot(&mut self, order: CloneOrder) -> Result<String, Refusal> {
        let snapshot = self.snapshots.get(&order.source).ok_or(Refusal::NoSuchSnapshot)?;
        if !snapshot.ready(self.now) {
            return Err(Refusal::SnapshotCreating);
        }
        let (pattern, size) = (snapshot.of.clone(), snapshot.of.size);
        self.copy(order, &pattern, size)
    }

    fn copy(&mut self, order: CloneOrder, pattern: &Disk, least: Gib) -> Result<String, Refusal> {
        // A smaller or missing size means the source's.
        let size = order.size.map_or(least, |size| size.max(least));
        let new = NewDisk {
            project: pattern.project.clone(),
            zone: pattern.zone.clone(),
            name: order.name,
            size,
            kind: pattern.kind,
            charge_type: order.charge_type,
            tag: order.tag,
            ark: false,
            key: pattern.key.clone(),
            snapshot_service: order.snapshot_service,
            rdma: order.rdma.or_else(|| Some(pattern.rdma.clone()).filter(|rdma| !rdma.is_empty())),
            paid_for: order.paid_for,
        };
        let rdma = self.admit(&new)?;
        let due = self.due(self.rules.latencies.clone);
        let id = self.insert(new, rdma, Status::Cloning);
        self.start(&id, Change::Clone, due, Some(WorkKind::Copy { from: order.source, size }));
        Ok(id)
    }

    pub fn delete(&mut self, id: &str) -> Result<(), Refusal> {
        let entry = self.entry(id)?;
        if entry.disk.boot {
            return Err(Refusal::SystemDisk);
        }
        match entry.disk.status {
            Status::Attaching | Status::InUse => return Err(Refusal::AttachedHere),
            Status::Detaching => return Err(Refusal::Detaching),
            Status::Failed | Status::RestoreFailed => {}
            Status::Available if entry.pending.is_none() => {}
            Status::Available => return Err(Refusal::Updating),
            other @ (Status::Initializating | Status::Cloning | Status::Restoring) => {
                return Err(Refusal::NotReady(other));
            }
        }
        self.unread(id)?;
        self.remove(id);
        Ok(())
    }

    pub(super) fn remove(&mut self, id: &str) {
        let now = self.now;
        if let Some(entry) = self.disks.get_mut(id) {
            entry.gone = Some(now);
            entry.pending = None;
        }
        self.services.retain(|_, service| service.disk != id);
        self.note(Happening::Deleted, id, None);
        self.order(now, id, WorkKind::Delete);
    }

    pub fn rename(&mut self, id: &str, name: &str) -> Result<(), Refusal> {
        let now = self.now;
        self.entry(id)?.change(now, |disk| name.clone_into(&mut disk.name));
        self.note(Happening::Renamed, id, None);
        Ok(())
    }

    /// Refuses while a snapshot or a clone is being made of the disk.
    pub(super) fn unread(&self, id: &str) -> Result<(), Refusal> {
        if self.snapshotting(id) {
            return Err(Refusal::SnapshotCreating);
        }
        if self.cloning(id) { Err(Refusal::Cloning) } else { Ok(()) }
    }

    /// Whether a clone is being made of the disk.
    pub(super) fn cloning(&self, id: &str) -> bool {
        let pending = self.disks.values().filter_map(|entry| entry.pending.as_ref());
        pending.filter_map(|pending| pending.source.as_deref()).any(|source| source == id)
    }

    /// Checks that a disk has this state and nothing is going on with it.
    pub(super) fn settled(&mut self, id: &str, wanted: Status) -> Result<(), Refusal> {
        let entry = self.entry(id)?;
        if entry.disk.status == wanted {
            return if entry.pending.is_none() { Ok(()) } else { Err(Refusal::Updating) };
        }
        match entry.disk.status {
            Status::Attaching => Err(Refusal::Attaching),
            Status::Detaching => Err(Refusal::Detaching),
            Status::InUse => Err(Refusal::AttachedHere),
            other @ (Status::Available
            | Status::Initializating
            | Status::Failed
            | Status::Cloning
            | Status::Restoring
            | Status::RestoreFailed) => Err(Refusal::NotReady(other)),
        }
    }

    /// A host appears, with its system disk.
    pub fn add_host(&mut self, spec: HostSpec) {
        let system_disk = self.new_id("bsi");
        let disk = Disk {
            id: system_disk.clone(),
            project: spec.project.clone(),
            zone: spec.zone.clone(),
            name: format!("{}-system", spec.name),
            size: Gib::new(40),
            kind: if spec.takes(DiskType::Rssd) { DiskType::Rssd } else { DiskType::Ssd },
            boot: true,
            status: Status::InUse,
            attachment: Some(super::Attachment { host: spec.id.clone(), device: Device::SYSTEM }),
            rdma: spec.rdma_cluster.clone(),
            charge_type: "Dynamic".to_owned(),
            tag: "Default".to_owned(),
            ark: false,
            key: None,
            created: self.now,
            paid_for: None,
        };
        self.disks.insert(system_disk.clone(), Entry::new(disk, None));
        let id = spec.id.clone();
        self.order(self.now, "", WorkKind::AddHost { host: id.clone() });
        self.hosts.insert(id, Host::new(spec, system_disk));
    }
}
