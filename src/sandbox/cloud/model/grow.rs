//! Disks grow.

use super::disk::Change;
use super::{Happening, Refusal, Status, WorkKind, World};
use crate::volume::Gib;

/// What growing an attached disk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The guest sees the new size only after a stop and a start.
    pub needs_restart: bool,
}

impl World {
    /// Grows a disk that is on no host.
    pub fn resize_detached(&mut self, id: &str, size: Gib) -> Result<(), Refusal> {
        self.settled(id, Status::Available)?;
        if size <= self.entry(id)?.disk.size {
            return Err(Refusal::NotGrowing);
        }
        let due = self.due(self.rules.latencies.resize);
        self.note(Happening::ResizeAccepted, id, None);
        self.start(id, Change::Resize(size), due, Some(WorkKind::Resize { size, seen_by: None }));
        Ok(())
    }

    /// Grows a disk that `host` uses.
    pub fn resize_attached(
        &mut self,
        id: &str,
        host: &str,
        size: Gib,
        dry_run: bool,
    ) -> Result<Growth, Refusal> {
        let online = self.hosts.get(host).ok_or(Refusal::NoSuchHost)?.spec.online_grow;
        let entry = self.entry(id)?;
        match entry.disk.status {
            Status::InUse if entry.disk.host() != Some(host) => return Err(Refusal::NotAttached),
            Status::InUse if entry.pending.is_some() => return Err(Refusal::Updating),
            Status::InUse => {}
            Status::Attaching => return Err(Refusal::Attaching),
            Status::Detaching => return Err(Refusal::Detaching),
            Status::Available
            | Status::Initializating
            | Status::Failed
            | Status::Cloning
            | Status::Restoring
            | Status::RestoreFailed => return Err(Refusal::NotAttached),
        }
        if size <= entry.disk.size {
            return Err(Refusal::NotGrowing);
        }
        let seen_by = entry.disk.attachment.clone().map(|at| (at.host, at.device));
        let growth = Growth { needs_restart: !online };
        self.host_idle(host)?;
        if dry_run {
            return Ok(growth);
        }
        let due = self.due(self.rules.latencies.resize);
        self.note(Happening::ResizeAccepted, id, Some(host));
        let job = WorkKind::Resize { size, seen_by: seen_by.filter(|_| online) };
        self.start(id, Change::Resize(size), due, Some(job));
        if !online && let Some(host) = self.hosts.get_mut(host) {
            host.resize_at_start.push(id.to_owned());
        }
        Ok(growth)
    }

    pub(super) fn complete_resize(&mut self, id: &str, size: Gib, fails: bool) {
        let now = self.now;
        if fails {
            return;
        }
        let Some(entry) = self.disks.get_mut(id) else { return };
        entry.change(now, |disk| disk.size = size);
        let host = entry.disk.host().map(str::to_owned);
        self.note(Happening::Resized, id, host.as_deref());
    }
}
