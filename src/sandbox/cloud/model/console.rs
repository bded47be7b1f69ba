//! What happens without any API call: people at the console, the provider's own migrations, machines that die.

use serde::{Deserialize, Serialize};

use super::{
    AttachOrder, Attachment, Cause, Happening, HostState, Lags, Refusal, Status, Stock, Twist, WorkKind,
    World,
};

/// Something that somebody else does to the account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// Makes a kind of disk unavailable; given twice, it counts once.
    StockOut(Stock),
    /// Everything can be made again.
    Restock,
    /// The provider moves a host to another RDMA cluster.
    MoveHost {
        host: String,
        cluster: String,
    },
    /// The provider moves a disk to another RDMA cluster.
    MoveDisk {
        disk: String,
        cluster: String,
    },
    HostState {
        host: String,
        state: HostState,
    },
    /// The host is gone; its disks survive, detached.
    DeleteHost {
        host: String,
    },
    /// At once, without passing through `Attaching`.
    Attach {
        disk: String,
        host: String,
    },
    /// At once, without passing through `Detaching`.
    Detach {
        disk: String,
    },
    /// At once, wherever it is.
    DeleteDisk {
        disk: String,
    },
    Rename {
        disk: String,
        name: String,
    },
    FailDisk {
        disk: String,
    },
    /// Ends what a disk is stuck in.
    Free {
        disk: String,
    },
    Lags(Lags),
    /// `null` when there is money again.
    NoBalance {
        code: Option<i64>,
    },
}

impl World {
    /// Lets an event happen now.
    pub fn happen(&mut self, event: Event) -> Result<(), Refusal> {
        self.begin(Cause::console(), Twist::default());
        match event {
            Event::StockOut(stock) => {
                let list = &mut self.rules.limits.out_of_stock;
                if !list.contains(&stock) {
                    list.push(stock);
                }
                Ok(())
            }
            Event::Restock => {
                self.rules.limits.out_of_stock.clear();
                Ok(())
            }
            Event::MoveHost { host, cluster } => {
                self.hosts.get_mut(&host).ok_or(Refusal::NoSuchHost)?.spec.rdma_cluster = cluster;
                Ok(())
            }
            Event::MoveDisk { disk, cluster } => {
                let now = self.now;
                self.entry(&disk)?.change(now, |disk| disk.rdma = cluster);
                self.note(Happening::Moved, &disk, None);
                Ok(())
            }
            Event::HostState { host, state } => self.set_host_state(&host, state),
            Event::DeleteHost { host } => self.delete_host(&host),
            Event::Attach { disk, host } => self.attach_by_hand(&disk, &host),
            Event::Detach { disk } => self.detach_by_hand(&disk),
            Event::DeleteDisk { disk } => {
                self.entry(&disk)?;
                self.unplug_now(&disk);
                self.remove(&disk);
                Ok(())
            }
            Event::Rename { disk, name } => self.rename(&disk, &name),
            Event::FailDisk { disk } => {
                self.unplug_now(&disk);
                let now = self.now;
                let entry = self.entry(&disk)?;
                entry.pending = None;
                entry.change(now, |disk| disk.status = Status::Failed);
                Ok(())
            }
            Event::Free { disk } => self.free(&disk),
            Event::Lags(lags) => {
                self.rules.lags = lags;
                Ok(())
            }
            Event::NoBalance { code } => {
                self.rules.limits.no_balance = code;
                Ok(())
            }
        }
    }

    fn set_host_state(&mut self, id: &str, state: HostState) -> Result<(), Refusal> {
        let host = self.hosts.get_mut(id).ok_or(Refusal::NoSuchHost)?;
        let starts = state == HostState::Running && host.spec.state != HostState::Running;
        host.spec.state = state;
        if !starts {
            return Ok(());
        }
        // A start shows the guest what it could not see while it ran.
        for disk in std::mem::take(&mut host.resize_at_start) {
            let Some(found) = self.disk(&disk) else { continue };
            let size = found.size;
            let seen_by = found.attachment.clone().map(|at| (at.host, at.device));
            self.order(self.now, &disk, WorkKind::Resize { size, seen_by });
        }
        Ok(())
    }

    fn delete_host(&mut self, id: &str) -> Result<(), Refusal> {
        let host = self.hosts.get(id).ok_or(Refusal::NoSuchHost)?;
        let (disks, system_disk) =
            (host.disks.values().cloned().collect::<Vec<_>>(), host.system_disk.clone());
        for disk in disks {
            self.unplug_now(&disk);
            self.note(Happening::Detached, &disk, Some(id));
        }
        self.hosts.remove(id);
        let now = self.now;
        if let Some(entry) = self.disks.get_mut(&system_disk) {
            entry.gone = Some(now);
        }
        self.order(now, "", WorkKind::RemoveHost { host: id.to_owned() });
        Ok(())
    }

    /// Takes a disk off its host without asking.
    fn unplug_now(&mut self, id: &str) {
        let now = self.now;
        if let Some(entry) = self.disks.get_mut(id) {
            entry.pending = None;
        }
        if self.disk(id).is_none_or(|disk| disk.attachment.is_none()) {
            return;
        }
        if let Some(Attachment { host, device }) = self.release(id) {
            self.order(now, id, WorkKind::Unplug { host, device });
        }
    }

    fn attach_by_hand(&mut self, id: &str, host: &str) -> Result<(), Refusal> {
        if self.entry(id)?.disk.attachment.is_some() {
            self.detach_by_hand(id)?;
        }
        let order = AttachOrder { disk: id.to_owned(), host: host.to_owned(), across_clusters: true };
        let attachment = self.admit_attachment(&order)?;
        self.occupy(id, &attachment, Status::InUse);
        let size = self.entry(id)?.disk.size;
        self.order(self.now, id, WorkKind::Plug { host: attachment.host, device: attachment.device, size });
        self.note(Happening::Moved, id, Some(host));
        self.note(Happening::Attached, id, Some(host));
        Ok(())
    }

    fn detach_by_hand(&mut self, id: &str) -> Result<(), Refusal> {
        let host = self.entry(id)?.disk.host().map(str::to_owned).ok_or(Refusal::NotAttached)?;
        self.unplug_now(id);
        self.note(Happening::Moved, id, Some(&host));
        self.note(Happening::Detached, id, Some(&host));
        Ok(())
    }
}
