//! A small reference model of the cloud for the tests of this module: disks move through their states over paused
//! time, reads may lag, and calls can be made to fail in every way that matters.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::cloud::{
    Attachment, Cause, Cloud, CloudError, Deadline, Disk, DiskFilter, DiskPage, DiskStatus, Grown, Host,
    HostPage, NewDisk, Outcome, Unreadable,
};
use crate::volume::{DiskId, DiskType, Gib, HostId, HostKind, Zone};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Done, and the reply is lost.
    ReplyLost,
    /// Not done, and nobody can know.
    RequestLost,
    Refused(Cause),
    /// Not done, and never answered.
    Hang,
    /// Done, and never answered.
    DoneHang,
}

#[derive(Debug, Default)]
pub(super) struct Fake {
    model: Mutex<Model>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// What was called, in order.
    pub(super) calls: Vec<&'static str>,
    pub(super) attachments: Vec<Attachment>,
    pub(super) created: Vec<NewDisk>,
    pub(super) faults: HashMap<&'static str, VecDeque<Option<Fault>>>,
    /// How long a change takes.
    pub(super) work: Duration,
    pub(super) read_lag: Duration,
    /// Every read lags by a random part of the lag, so that a later one may show an older state.
    pub(super) wobble: Option<fastrand::Rng>,
    pub(super) list_lag: Duration,
    /// Every listing lags by a random part of the lag.
    pub(super) list_wobble: Option<fastrand::Rng>,
    /// Disks that no listing shows.
    pub(super) unlisted: Vec<DiskId>,
    /// A disk of which no read, and no page that holds it, ever answers.
    pub(super) unreadable: Option<DiskId>,
    /// Disks whose answers the client does not understand.
    pub(super) odd: Vec<Unreadable>,
    /// Reads are throttled for as long as they may wait.
    pub(super) throttled: bool,
    /// How long a call takes, half of it before its effect.
    pub(super) latency: Duration,
    pub(super) host_limit: usize,
    /// Whether a host takes one change at a time.
    pub(super) one_by_one: bool,
    /// A busy host says no more than "failed".
    pub(super) bare_busy: bool,
    pub(super) filters_ignored: bool,
    /// A filtered listing counts all disks.
    pub(super) counts_all: bool,
    /// Every listing counts so many more than it shows.
    pub(super) counts_ahead: usize,
    pub(super) needs_restart: bool,
    /// What the next disks become.
    pub(super) ends_failed: bool,
    pub(super) nameless_devices: bool,
    pub(super) hosts: Vec<Host>,
    /// The next create is refused, because all hosts have just moved to this RDMA cluster.
    pub(super) moves_to: Option<String>,
    disks: BTreeMap<DiskId, History>,
}

/// What was true since when, the oldest first, and what will be.
#[derive(Debug, Default)]
struct History {
    past: Vec<(Instant, Option<Disk>)>,
    coming: Option<(Instant, Disk)>,
}

impl History {
    fn settle(&mut self) {
        if let Some((at, disk)) = self.coming.take_if(|(at, _)| *at <= Instant::now()) {
            self.past.push((at, Some(disk)));
        }
    }

    fn at(&self, when: Instant) -> Option<&Disk> {
        self.past.iter().rev().find(|(since, _)| *since <= when).and_then(|(_, disk)| disk.as_ref())
    }
}

/// A free data disk of 10 GiB.
pub(super) fn disk(id: &str, status: DiskStatus) -> Disk {
    Disk {
        id: DiskId::parse(id).unwrap(),
        name: format!("name-of-{id}"),
        zone: zone(),
        size: Gib::new(10),
        status,
        disk_type: Some(DiskType::Ssd),
        host: None,
        host_ip: None,
        device: None,
        created_at: Some(1),
        tag: None,
        charge_type: None,
        bill: None,
        snapshots: None,
        rdma_cluster: None,
        is_boot: false,
        cmk_id: None,
    }
}

pub(super) fn zone() -> Zone {
    Zone::parse("cn-bj2-05").unwrap()
}

pub(super) fn host_id(text: &str) -> HostId {
    HostId::parse(text).unwrap()
}

pub(super) fn host(id: &str, ip: &str) -> Host {
    Host {
        id: host_id(id),
        zone: Some(zone()),
        state: String::from("Running"),
        machine_type: None,
        private_ips: vec![ip.parse().unwrap()],
        rdma_cluster: None,
    }
}

impl Fake {
    /// Three hosts that take two disks each, no latency, no lag.
    pub(super) fn new() -> Self {
        let fake = Self::default();
        {
            let mut model = fake.model();
            model.host_limit = 2;
            model.one_by_one = true;
            model.hosts =
                vec![host("uhost-a", "10.0.0.1"), host("uhost-b", "10.0.0.2"), host("upm-c", "10.0.0.3")];
        }
        fake
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes something so, at once and without a call.
    pub(super) fn put(&self, disk: Disk) {
        let mut model = self.model();
        let history = model.disks.entry(disk.id.clone()).or_default();
        history.coming = None;
        history.past.push((Instant::now(), Some(disk)));
    }

    pub(super) fn put_attached(&self, id: &str, host: &str) {
        let mut attached = disk(id, DiskStatus::InUse);
        attached.host = Some(host_id(host));
        attached.host_ip = self.model().address(&host_id(host));
        attached.device = Some(String::from("vdb"));
        self.put(attached);
    }

    pub(super) fn truth(&self, id: &str) -> Option<Disk> {
        let mut model = self.model();
        let history = model.disks.get_mut(&DiskId::parse(id).unwrap())?;
        history.settle();
        history.at(Instant::now()).cloned()
    }

    pub(super) fn disks_named(&self, name: &str) -> usize {
        let mut model = self.model();
        model.settle();
        let now = Instant::now();
        model.disks.values().filter(|h| h.at(now).is_some_and(|d| d.name == name)).count()
    }

    pub(super) fn fail(&self, action: &'static str, faults: &[Fault]) {
        self.model().faults.entry(action).or_default().extend(faults.iter().copied().map(Some));
    }

    /// Lets `passed` calls of the action pass before one fails.
    pub(super) fn fail_after(&self, action: &'static str, passed: usize, fault: Fault) {
        let mut model = self.model();
        let faults = model.faults.entry(action).or_default();
        faults.extend(std::iter::repeat_n(None, passed));
        faults.push_back(Some(fault));
    }

    /// The calls since the last time this was asked.
    pub(super) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.model().calls)
    }

    /// Waits for the turn of a read, as the client does.
    async fn turn(&self, action: &'static str, deadline: Deadline) -> Result<(), CloudError> {
        while self.model().throttled {
            if Instant::now() >= deadline {
                return Err(error(action, Cause::Throttled, Outcome::NothingHappened));
            }
            tokio::time::sleep_until(deadline.min(Instant::now() + Duration::from_secs(1))).await;
        }
        Ok(())
    }

    async fn call<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut Model) -> Result<T, Cause>,
    ) -> Result<T, CloudError> {
        let latency = self.model().latency;
        if !latency.is_zero() {
            tokio::time::sleep(latency / 2).await;
        }
        let (fault, done) = {
            let mut model = self.model();
            model.calls.push(action);
            model.settle();
            let fault = model.faults.get_mut(action).and_then(VecDeque::pop_front).flatten();
            let done = match fault {
                None | Some(Fault::ReplyLost | Fault::DoneHang) => Some(work(&mut model)),
                Some(Fault::RequestLost | Fault::Hang | Fault::Refused(_)) => None,
            };
            (fault, done)
        };
        if !latency.is_zero() {
            tokio::time::sleep(latency / 2).await;
        }
        match (fault, done) {
            (None, Some(done)) => done.map_err(|cause| error(action, cause, outcome(cause))),
            (Some(Fault::Refused(cause)), _) => Err(error(action, cause, outcome(cause))),
            (Some(Fault::Hang | Fault::DoneHang), _) => std::future::pending().await,
            (Some(_) | None, _) => Err(error(action, Cause::NoAnswer, Outcome::Unknown)),
        }
    }
}

/// What the client promises of a refusal: a number that only says "failed" promises nothing.
fn outcome(cause: Cause) -> Outcome {
    if matches!(cause, Cause::AttachFailed | Cause::DetachFailed) {
        Outcome::Unknown
    } else {
        Outcome::NothingHappened
    }
}

fn error(action: &'static str, cause: Cause, outcome: Outcome) -> CloudError {
    let message = format!("{cause:?}");
    CloudError {
        action,
        cause,
        outcome,
        ret_code: Some(17000),
        message,
        advice: None,
        request_id: Some(String::from("r-1")),
        attempts: 1,
    }
}

impl Model {
    fn settle(&mut self) {
        self.disks.values_mut().for_each(History::settle);
    }

    fn address(&self, host: &HostId) -> Option<IpAddr> {
        self.hosts.iter().find(|h| h.id == *host).and_then(|h| h.private_ips.first().copied())
    }

    fn now(&self, id: &DiskId) -> Result<Disk, Cause> {
        self.disks.get(id).and_then(|h| h.at(Instant::now())).cloned().ok_or(Cause::NotFound)
    }

    fn on_host(&self, host: &HostId) -> Vec<&Disk> {
        let now = Instant::now();
        self.disks.values().filter_map(|h| h.at(now)).filter(|d| d.host.as_ref() == Some(host)).collect()
    }

    /// Puts a disk into `during` and, when the cloud has done its work, into `after`.
    fn change(&mut self, during: Disk, after: Disk) {
        let now = Instant::now();
        let work = self.work;
        let history = self.disks.entry(during.id.clone()).or_default();
        history.past.push((now, Some(during)));
        history.coming = Some((now + work, after));
        history.settle();
    }

    fn busy(&self, host: &HostId) -> bool {
        let moving = |disk: &Disk| {
            let grows = self.disks.get(&disk.id).is_some_and(|history| history.coming.is_some());
            grows || matches!(disk.status, DiskStatus::Attaching | DiskStatus::Detaching)
        };
        self.one_by_one && self.on_host(host).into_iter().any(moving)
    }

    fn grow(&mut self, id: &DiskId, size: Gib) -> Result<(), Cause> {
        let mut disk = self.now(id)?;
        if size <= disk.size {
            return Err(Cause::InvalidRequest);
        }
        let before = disk.clone();
        disk.size = size;
        self.change(before, disk);
        Ok(())
    }
}

impl Cloud for Fake {
    async fn disk(&self, id: &DiskId, deadline: Deadline) -> Result<Option<Disk>, CloudError> {
        self.turn("disk", deadline).await?;
        if self.model().unreadable.as_ref() == Some(id) {
            return std::future::pending().await;
        }
        self.call("disk", |model| {
            if model.odd.iter().any(|odd| odd.id == *id) {
                return Err(Cause::NoAnswer);
            }
            let part = model.wobble.as_mut().map_or(1.0, fastrand::Rng::f64);
            let when = Instant::now().checked_sub(model.read_lag.mul_f64(part)).unwrap();
            Ok(model.disks.get(id).and_then(|h| h.at(when)).cloned())
        })
        .await
    }

    async fn disks(
        &self,
        filter: &DiskFilter,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> Result<DiskPage, CloudError> {
        self.turn("disks", deadline).await?;
        self.call("disks", |model| {
            let part = model.list_wobble.as_mut().map_or(1.0, fastrand::Rng::f64);
            let when = Instant::now().checked_sub(model.list_lag.mul_f64(part)).unwrap();
            let wanted = |disk: &&Disk| {
                model.filters_ignored
                    || (filter.name.as_ref().is_none_or(|name| disk.name.contains(name))
                        && filter.host.as_ref().is_none_or(|host| disk.host.as_ref() == Some(host)))
            };
            let shown = |disk: &&Disk| wanted(disk) && !model.unlisted.contains(&disk.id);
            let all: Vec<&Disk> = model.disks.values().filter_map(|h| h.at(when)).filter(shown).collect();
            let read = |disk: &&Disk| match model.odd.iter().find(|odd| odd.id == disk.id) {
                Some(odd) => Err(odd.clone()),
                None => Ok((*disk).clone()),
            };
            let page: Vec<&Disk> = all.iter().skip(offset).take(limit).copied().collect();
            let disks = page.iter().map(read).collect();
            let shown_of_all = model.disks.values().filter(|history| history.at(when).is_some()).count();
            let total = if model.counts_all { shown_of_all } else { all.len() } + model.counts_ahead;
            match &model.unreadable {
                Some(bad) if page.iter().any(|disk| disk.id == *bad) => Err(Cause::NoAnswer),
                Some(_) | None => Ok(DiskPage { total, disks }),
            }
        })
        .await
    }

    async fn create_disk(&self, new: &NewDisk, _: Deadline) -> Result<DiskId, CloudError> {
        self.call("create_disk", |model| {
            if let Some(cluster) = model.moves_to.take() {
                model.hosts.iter_mut().for_each(|host| host.rdma_cluster = Some(cluster.clone()));
                return Err(Cause::InvalidRequest);
            }
            model.created.push(new.clone());
            let number = u32::try_from(model.created.len()).unwrap();
            let mut made = disk(&format!("bs-new{number}"), DiskStatus::Initializing);
            made.name.clone_from(&new.name);
            made.zone.clone_from(&new.zone);
            made.size = new.size;
            made.disk_type = Some(new.disk_type);
            made.rdma_cluster.clone_from(&new.rdma_cluster);
            made.created_at = Some(1000 + u64::from(number));
            let mut ready = made.clone();
            ready.status = if model.ends_failed { DiskStatus::Failed } else { DiskStatus::Available };
            let id = made.id.clone();
            model.change(made, ready);
            Ok(id)
        })
        .await
    }

    async fn delete_disk(&self, zone: &Zone, id: &DiskId, _: Deadline) -> Result<(), CloudError> {
        self.call("delete_disk", |model| {
            let disk = model.now(id).ok().filter(|d| d.zone == *zone).ok_or(Cause::NotFound)?;
            if disk.host.is_some() {
                return Err(Cause::InUse);
            }
            let history = model.disks.entry(id.clone()).or_default();
            history.coming = None;
            history.past.push((Instant::now(), None));
            Ok(())
        })
        .await
    }

    async fn attach_disk(&self, attachment: &Attachment, _: Deadline) -> Result<(), CloudError> {
        self.call("attach_disk", |model| {
            model.attachments.push(attachment.clone());
            let mut disk = model.now(&attachment.disk)?;
            let host =
                model.hosts.iter().find(|h| h.id == attachment.host).ok_or(Cause::AttachFailed)?.clone();
            if model.bare_busy && model.busy(&host.id) {
                return Err(Cause::AttachFailed);
            }
            if model.busy(&host.id) || matches!(disk.status, DiskStatus::Attaching | DiskStatus::Detaching) {
                return Err(Cause::Busy);
            }
            if disk.host.is_some() {
                return Err(Cause::AlreadyAttached);
            }
            if disk.status != DiskStatus::Available
                || host.zone.as_ref() != Some(&disk.zone)
                || !matches!(host.state.as_str(), "Running" | "Stopped")
                || model.on_host(&host.id).len() >= model.host_limit
            {
                return Err(Cause::AttachFailed);
            }
            if disk.rdma_cluster.is_some() && disk.rdma_cluster != host.rdma_cluster && !attachment.cross_pod
            {
                return Err(Cause::RdmaMismatch);
            }
            disk.host_ip = host.private_ips.first().copied();
            disk.host = Some(host.id);
            disk.status = DiskStatus::Attaching;
            let mut after = disk.clone();
            after.status = DiskStatus::InUse;
            after.device = (!model.nameless_devices).then(|| String::from("vdb"));
            model.change(disk, after);
            Ok(())
        })
        .await
    }

    async fn detach_disk(&self, _: &Zone, id: &DiskId, host: &HostId, _: Deadline) -> Result<(), CloudError> {
        self.call("detach_disk", |model| {
            let mut disk = model.now(id)?;
            if disk.status != DiskStatus::InUse || disk.host.as_ref() != Some(host) {
                return Err(Cause::DetachFailed);
            }
            if model.busy(host) {
                return Err(if model.bare_busy { Cause::DetachFailed } else { Cause::Busy });
            }
            let mut after = disk.clone();
            disk.status = DiskStatus::Detaching;
            after.status = DiskStatus::Available;
            (after.host, after.host_ip, after.device) = (None, None, None);
            model.change(disk, after);
            Ok(())
        })
        .await
    }

    async fn resize_detached_disk(
        &self,
        _: &Zone,
        id: &DiskId,
        size: Gib,
        _: Deadline,
    ) -> Result<(), CloudError> {
        self.call("resize_detached_disk", |model| {
            if model.now(id)?.status != DiskStatus::Available {
                return Err(Cause::InUse);
            }
            model.grow(id, size)
        })
        .await
    }

    async fn resize_attached_disk(
        &self,
        _: &Zone,
        id: &DiskId,
        host: &HostId,
        size: Gib,
        _: Deadline,
    ) -> Result<Grown, CloudError> {
        self.call("resize_attached_disk", |model| {
            if model.now(id)?.host.as_ref() != Some(host) {
                return Err(Cause::Refused);
            }
            if model.busy(host) {
                return Err(Cause::Busy);
            }
            model.grow(id, size)?;
            Ok(if model.needs_restart { Grown::NeedsRestart } else { Grown::Online })
        })
        .await
    }

    async fn host(&self, id: &HostId, _: Deadline) -> Result<Option<Host>, CloudError> {
        self.call("host", |model| Ok(model.hosts.iter().find(|h| h.id == *id).cloned())).await
    }

    async fn virtual_hosts(&self, offset: usize, limit: usize, _: Deadline) -> Result<HostPage, CloudError> {
        self.call("virtual_hosts", |model| Ok(model.host_page(HostKind::Virtual, offset, limit))).await
    }

    async fn bare_metal_hosts(
        &self,
        offset: usize,
        limit: usize,
        _: Deadline,
    ) -> Result<HostPage, CloudError> {
        self.call("bare_metal_hosts", |model| Ok(model.host_page(HostKind::BareMetal, offset, limit))).await
    }
}

impl Model {
    fn host_page(&self, kind: HostKind, offset: usize, limit: usize) -> HostPage {
        let all: Vec<&Host> = self.hosts.iter().filter(|h| h.id.kind() == kind).collect();
        HostPage { total: all.len(), hosts: all.into_iter().skip(offset).take(limit).cloned().collect() }
    }
}
