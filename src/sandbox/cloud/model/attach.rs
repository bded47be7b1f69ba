//! Disks move between hosts.

use std::time::Duration;

use super::disk::{Change, Then};
use super::{Attachment, DeviceTiming, Disk, Happening, Host, NewDisk, Refusal, Status, WorkKind, World};
use crate::volume::DiskType;

/// Where a disk is to go.
#[derive(Debug, Clone)]
pub struct AttachOrder {
    pub disk: String,
    pub host: String,
    /// Allows a host in another RDMA cluster.
    pub across_clusters: bool,
}

/// What of a disk decides where it can go.
#[derive(Debug, Clone, Copy)]
struct Place<'a> {
    project: &'a str,
    zone: &'a str,
    kind: DiskType,
    rdma: &'a str,
}

impl Place<'_> {
    fn fits(self, host: &Host, across_clusters: bool) -> Result<(), Refusal> {
        let spec = &host.spec;
        if spec.project != self.project {
            return Err(Refusal::NoSuchHost);
        }
        if spec.zone != self.zone {
            return Err(Refusal::OtherZone);
        }
        if !spec.takes(self.kind) {
            return Err(Refusal::WrongMachine(self.kind));
        }
        if self.kind.needs_rdma() && self.rdma != spec.rdma_cluster && !across_clusters {
            return Err(Refusal::OtherRdmaCluster);
        }
        if !spec.state.settled() {
            return Err(Refusal::HostUnsettled(spec.state));
        }
        if host.disks.len() >= spec.max_disks {
            return Err(Refusal::HostFull);
        }
        Ok(())
    }
}

impl World {
    /// Whether a free disk could go to that host as things are.
    pub fn could_attach(&self, disk: &Disk, host: &str) -> bool {
        let place = Place { project: &disk.project, zone: &disk.zone, kind: disk.kind, rdma: &disk.rdma };
        disk.status == Status::Available
            && self.hosts.get(host).is_some_and(|host| place.fits(host, false).is_ok())
    }

    /// Whether a disk that is yet to be made could go to that host.
    pub fn admits(&self, host: &str, new: &NewDisk) -> Result<(), Refusal> {
        let own = self.hosts.get(host).ok_or(Refusal::NoSuchHost)?;
        // A new disk is made in the host's own cluster.
        let rdma = &own.spec.rdma_cluster;
        Place { project: &new.project, zone: &new.zone, kind: new.kind, rdma }.fits(own, false)?;
        self.host_idle(host)
    }

    /// Attaches a disk as soon as it is made. The letter is taken at once.
    pub fn attach_once_made(&mut self, order: AttachOrder) -> Result<Attachment, Refusal> {
        let device = self.hosts.get(&order.host).ok_or(Refusal::NoSuchHost)?.free_device();
        let attachment = Attachment { host: order.host, device };
        self.occupy(&order.disk, &attachment, Status::Initializating);
        if let Some(pending) = self.entry(&order.disk)?.pending.as_mut() {
            pending.then = Some(Then::Attach);
        }
        Ok(attachment)
    }

    /// Deletes a disk as soon as it is detached.
    pub fn detach_and_delete(&mut self, id: &str, from: &str) -> Result<String, Refusal> {
        let host = self.detach(id, from)?;
        if let Some(pending) = self.entry(id)?.pending.as_mut() {
            pending.then = Some(Then::Delete);
        }
        Ok(host)
    }

    /// Starts attaching. The letter is taken at once.
    pub fn attach(&mut self, order: &AttachOrder) -> Result<Attachment, Refusal> {
        let attachment = self.admit_attachment(order)?;
        self.begin_attach(&order.disk, &attachment)?;
        Ok(attachment)
    }

    /// Starts the change itself, when all is checked.
    pub(super) fn begin_attach(&mut self, id: &str, attachment: &Attachment) -> Result<(), Refusal> {
        let due = self.due(self.rules.latencies.attach);
        self.occupy(id, attachment, Status::Attaching);
        self.note(Happening::AttachAccepted, id, Some(&attachment.host));
        let size = self.entry(id)?.disk.size;
        let Attachment { host, device } = attachment.clone();
        let plug = WorkKind::Plug { host, device, size };
        match (self.rules.device_timing, due) {
            _ if self.twist.fails => self.start(id, Change::Attach, due, None),
            (DeviceTiming::AfterInUse(late), Some(in_use)) => {
                self.start(id, Change::Attach, due, None);
                self.order(in_use + late, id, plug);
            }
            (DeviceTiming::AfterInUse(_), None) | (DeviceTiming::BeforeInUse, _) => {
                self.start(id, Change::Attach, due, Some(plug));
            }
        }
        Ok(())
    }

    pub(super) fn admit_attachment(&mut self, order: &AttachOrder) -> Result<Attachment, Refusal> {
        let entry = self.entry(&order.disk)?;
        if entry.disk.boot {
            return Err(Refusal::SystemDisk);
        }
        match entry.disk.status {
            Status::Available if entry.pending.is_none() => {}
            Status::Available => return Err(Refusal::Updating),
            Status::Attaching => return Err(Refusal::Attaching),
            Status::Detaching => return Err(Refusal::Detaching),
            Status::InUse if entry.disk.host() == Some(&order.host) => return Err(Refusal::AttachedHere),
            Status::InUse => return Err(Refusal::AttachedElsewhere),
            other @ (Status::Initializating
            | Status::Failed
            | Status::Cloning
            | Status::Restoring
            | Status::RestoreFailed) => return Err(Refusal::NotReady(other)),
        }
        let disk = self.disk(&order.disk).ok_or(Refusal::NoSuchDisk)?;
        let host = self.hosts.get(&order.host).ok_or(Refusal::NoSuchHost)?;
        let place = Place { project: &disk.project, zone: &disk.zone, kind: disk.kind, rdma: &disk.rdma };
        place.fits(host, order.across_clusters)?;
        let device = host.free_device();
        if self.cloning(&order.disk) {
            return Err(Refusal::Cloning);
        }
        self.host_idle(&order.host)?;
        Ok(Attachment { host: order.host.clone(), device })
    }

    /// Refuses while the host is busy with another disk, if the rules say so.
    pub(super) fn host_idle(&self, host: &str) -> Result<(), Refusal> {
        if !self.rules.limits.one_change_per_host {
            return Ok(());
        }
        let busy = self
            .disks
            .values()
            .filter(|entry| entry.gone.is_none() && entry.disk.host() == Some(host))
            .find_map(|entry| entry.pending.as_ref());
        match busy.map(|pending| pending.change) {
            None => Ok(()),
            Some(Change::Detach) => Err(Refusal::HostDetaching),
            Some(Change::Resize(_)) => Err(Refusal::HostResizing),
            Some(Change::Attach | Change::Create | Change::Clone | Change::Restore) => {
                Err(Refusal::HostAttaching)
            }
        }
    }

    pub(super) fn occupy(&mut self, id: &str, attachment: &Attachment, status: Status) {
        let now = self.now;
        if let Some(host) = self.hosts.get_mut(&attachment.host) {
            host.disks.insert(attachment.device, id.to_owned());
        }
        if let Some(entry) = self.disks.get_mut(id) {
            entry.change(now, |disk| {
                disk.status = status;
                disk.attachment = Some(attachment.clone());
            });
        }
    }

    /// Takes the disk off its host's list and frees the letter.
    pub(super) fn release(&mut self, id: &str) -> Option<Attachment> {
        let now = self.now;
        let entry = self.disks.get_mut(id)?;
        let attachment = entry.disk.attachment.clone();
        entry.change(now, |disk| {
            disk.status = Status::Available;
            disk.attachment = None;
        });
        let attachment = attachment?;
        if let Some(host) = self.hosts.get_mut(&attachment.host) {
            host.disks.remove(&attachment.device);
            host.resize_at_start.retain(|disk| disk != id);
        }
        Some(attachment)
    }

    pub(super) fn complete_attach(&mut self, id: &str, fails: bool) {
        let now = self.now;
        if fails {
            let attachment = self.release(id);
            self.note(Happening::AttachFailed, id, attachment.as_ref().map(|at| at.host.as_str()));
            return;
        }
        let Some(entry) = self.disks.get_mut(id) else { return };
        entry.change(now, |disk| disk.status = Status::InUse);
        let host = entry.disk.host().map(str::to_owned);
        self.note(Happening::Attached, id, host.as_deref());
    }

    /// Starts detaching; the answer is the host that it goes away from. The letter is free when it has ended.
    pub fn detach(&mut self, id: &str, from: &str) -> Result<String, Refusal> {
        self.admit_detachment(id, from)?;
        let now = self.now;
        let due = self.due(self.rules.latencies.detach);
        let entry = self.entry(id)?;
        let Some(Attachment { host, device }) = entry.disk.attachment.clone() else {
            return Err(Refusal::NotAttached);
        };
        entry.change(now, |disk| disk.status = Status::Detaching);
        self.note(Happening::DetachAccepted, id, Some(&host));
        let unplug = (!self.twist.fails).then(|| WorkKind::Unplug { host: host.clone(), device });
        self.start(id, Change::Detach, due, unplug);
        Ok(host)
    }

    fn admit_detachment(&mut self, id: &str, from: &str) -> Result<(), Refusal> {
        let entry = self.entry(id)?;
        if entry.disk.boot {
            return Err(Refusal::SystemDisk);
        }
        match entry.disk.status {
            Status::InUse if entry.disk.host() != Some(from) => return Err(Refusal::NotAttached),
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
        if let Some(host) = self.hosts.get(from)
            && !host.spec.state.settled()
        {
            return Err(Refusal::HostUnsettled(host.spec.state));
        }
        self.host_idle(from)
    }

    pub(super) fn complete_detach(&mut self, id: &str, fails: bool) {
        let now = self.now;
        if fails {
            let Some(entry) = self.disks.get_mut(id) else { return };
            entry.change(now, |disk| disk.status = Status::InUse);
            let host = entry.disk.host().map(str::to_owned);
            self.note(Happening::DetachFailed, id, host.as_deref());
            return;
        }
        let attachment = self.release(id);
        self.note(Happening::Detached, id, attachment.as_ref().map(|at| at.host.as_str()));
    }

    /// Lets a stuck disk go on: its change ends as soon as the hosts are done with it.
    pub fn free(&mut self, id: &str) -> Result<(), Refusal> {
        let now = self.now;
        let entry = self.entry(id)?;
        let Some(pending) = entry.pending.as_mut() else { return Ok(()) };
        pending.due = Some(now.max(pending.due.unwrap_or(Duration::ZERO).min(now)));
        if let Some(job) = pending.held.take() {
            let ticket = self.order(now, id, job);
            if let Some(pending) = self.entry(id)?.pending.as_mut() {
                pending.waits_for = ticket;
            }
        }
        Ok(())
    }
}
