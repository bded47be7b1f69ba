//! Snapshots, and the paid service that a disk needs for them.

use std::time::Duration;

use super::disk::Change;
use super::{Disk, Happening, Hold, Refusal, Status, WorkKind, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStatus {
    Creating,
    Normal,
    Failed,
}

impl SnapshotStatus {
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Normal => "Normal",
            Self::Failed => "Failed",
        }
    }
}

/// A disk's content at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub id: String,
    pub name: String,
    /// The disk as it was.
    pub of: Disk,
    pub created: Duration,
    /// `None`: never.
    ready_at: Option<Duration>,
    fails: bool,
}

impl Snapshot {
    pub fn status(&self, now: Duration) -> SnapshotStatus {
        match self.ready_at {
            Some(at) if at <= now && self.fails => SnapshotStatus::Failed,
            Some(at) if at <= now => SnapshotStatus::Normal,
            Some(_) | None => SnapshotStatus::Creating,
        }
    }

    pub(super) fn ready(&self, now: Duration) -> bool {
        self.status(now) == SnapshotStatus::Normal
    }
}

/// The snapshot service of one disk.
#[derive(Debug, Clone)]
pub struct Service {
    pub id: String,
    pub disk: String,
    pub charge_type: String,
    pub created: Duration,
}

impl World {
    pub fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.snapshots.values()
    }

    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// Whether a snapshot of the disk is being made.
    pub(super) fn snapshotting(&self, disk: &str) -> bool {
        let making = |one: &Snapshot| one.of.id == disk && one.status(self.now) == SnapshotStatus::Creating;
        self.snapshots.values().any(making)
    }

    pub fn service_of(&self, disk: &str) -> Option<&Service> {
        self.services.values().find(|service| service.disk == disk)
    }

    pub fn snapshot(&mut self, id: &str, name: &str) -> Result<String, Refusal> {
        let disk = self.disk(id).ok_or(Refusal::NoSuchDisk)?.clone();
        match disk.status {
            Status::Available | Status::InUse => {}
            Status::Attaching => return Err(Refusal::Attaching),
            Status::Detaching => return Err(Refusal::Detaching),
            other @ (Status::Initializating
            | Status::Failed
            | Status::Cloning
            | Status::Restoring
            | Status::RestoreFailed) => return Err(Refusal::NotReady(other)),
        }
        if self.service_of(id).is_none() {
            return Err(Refusal::NoSnapshotService);
        }
        let now = self.now;
        if self.snapshotting(id) {
            return Err(Refusal::SnapshotCreating);
        }
        let own = self.snapshots.values().filter(|snapshot| snapshot.of.id == id).count();
        if own >= self.rules.limits.snapshots_per_disk {
            return Err(Refusal::SnapshotQuota);
        }
        let time = self.rules.latencies.snapshot.draw(&mut self.rng);
        let ready_at = match self.twist.hold {
            None => Some(now + time),
            Some(Hold::For(time)) => Some(now + time),
            Some(Hold::ForEver) => None,
        };
        let snapshot = self.new_id("bsSnap");
        self.note(Happening::SnapshotAccepted, id, disk.host());
        // The content is that of the moment of the call, so the copy is ordered at once.
        self.order(now, &snapshot, WorkKind::Copy { from: id.to_owned(), size: disk.size });
        let fails = self.twist.fails;
        let name = name.to_owned();
        self.snapshots.insert(
            snapshot.clone(),
            Snapshot { id: snapshot.clone(), name, of: disk, created: now, ready_at, fails },
        );
        Ok(snapshot)
    }

    pub fn delete_snapshot(&mut self, id: &str) -> Result<(), Refusal> {
        let snapshot = self.snapshots.get(id).ok_or(Refusal::NoSuchSnapshot)?;
        if snapshot.status(self.now) == SnapshotStatus::Creating {
            return Err(Refusal::SnapshotCreating);
        }
        let disk = snapshot.of.id.clone();
        self.snapshots.remove(id);
        self.note(Happening::SnapshotDeleted, &disk, None);
        self.order(self.now, id, WorkKind::Delete);
        Ok(())
    }

    /// Gives a detached disk the content of one of its snapshots.
    pub fn restore(&mut self, id: &str, snapshot: &str) -> Result<(), Refusal> {
        self.settled(id, Status::Available)?;
        let source = self.snapshots.get(snapshot).filter(|source| source.of.id == id);
        if !source.ok_or(Refusal::NoSuchSnapshot)?.ready(self.now) {
            return Err(Refusal::SnapshotCreating);
        }
        let now = self.now;
        let due = self.due(self.rules.latencies.restore);
        let entry = self.entry(id)?;
        let size = entry.disk.size;
        entry.change(now, |disk| disk.status = Status::Restoring);
        self.note(Happening::RestoreAccepted, id, None);
        self.start(id, Change::Restore, due, Some(WorkKind::Copy { from: snapshot.to_owned(), size }));
        Ok(())
    }

    pub(super) fn complete_restore(&mut self, id: &str, fails: bool) {
        let now = self.now;
        let Some(entry) = self.disks.get_mut(id) else { return };
        entry.change(now, |disk| disk.status = if fails { Status::RestoreFailed } else { Status::Available });
        self.note(if fails { Happening::RestoreFailed } else { Happening::Restored }, id, None);
    }

    pub fn open_service(&mut self, disk: &str, charge_type: &str) -> Result<String, Refusal> {
        self.disk(disk).ok_or(Refusal::NoSuchDisk)?;
        if self.service_of(disk).is_some() {
            return Err(Refusal::SnapshotServiceOpen);
        }
        Ok(self.add_service(disk, charge_type))
    }

    pub(super) fn add_service(&mut self, disk: &str, charge_type: &str) -> String {
        let id = self.new_id("usnap");
        let service = Service {
            id: id.clone(),
            disk: disk.to_owned(),
            charge_type: charge_type.to_owned(),
            created: self.now,
        };
        self.services.insert(id.clone(), service);
        id
    }

    pub fn close_service(&mut self, disk: &str) -> Result<(), Refusal> {
        let id = self.service_of(disk).map(|service| service.id.clone()).ok_or(Refusal::NoSnapshotService)?;
        self.services.remove(&id);
        Ok(())
    }
}
