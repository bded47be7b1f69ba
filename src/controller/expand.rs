//! ControllerExpandVolume: the disk at least as large as asked, attached or not.

use tokio::time::Instant;

use crate::cloud::{Cause, Cloud, CloudError, Deadline, DiskStatus, Grown, Outcome};
use crate::progress::Progress;
use crate::volume::capacity::CapacityError;
use crate::volume::{DiskId, Gib, HostId, SizeRange, Zone};

use super::error::Seconds;
use super::recent::{Change, Trust};
use super::slots::{Slot, Urgency};
use super::view::{Backoff, Sight, View, state, word};
use super::{CallError, Controller, Unresolved};

/// How often a refusal that contradicts what was read is tried again.
const TRIES: u32 = 4;

/// How large a disk shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandRequest {
    pub disk: DiskId,
    pub required_bytes: u64,
    pub limit_bytes: Option<u64>,
}

/// A disk that is large enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expanded {
    pub size: Gib,
    pub host_sees: HostSees,
}

/// Whether the host that a disk is attached to sees its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostSees {
    /// It does, or will when the disk is attached.
    Now,
    /// Only after it was stopped and started.
    AfterRestart,
    /// The cloud says it once, in its answer to the growth. That answer was lost, or given to an earlier call, perhaps of a
    /// driver that died before it passed it on.
    NotKnown,
}

/// Why the disk is not as large as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExpandError {
    #[error("UDisk {disk} does not exist")]
    NoDisk { disk: DiskId },
    #[error("UDisk {disk} is a system disk and is never touched by this driver")]
    SystemDisk { disk: DiskId },
    /// No size fits. Nothing was sent.
    #[error("UDisk {disk} cannot grow as asked: {source}")]
    Capacity { disk: DiskId, source: CapacityError },
    #[error("UDisk {disk} has {size}, more than the limit of {limit} bytes; disks cannot shrink")]
    OverLimit { disk: DiskId, size: Gib, limit: u64 },
    #[error("UDisk {disk} is in state {status} and cannot grow; see the disk in the console")]
    Unusable { disk: DiskId, status: String },
    /// The host does not take it while it runs.
    #[error(
        "UDisk {disk} cannot grow while host {host} runs; scale the workload down, so that the disk is detached, or \
         stop the host: {source}"
    )]
    HostMustStop { disk: DiskId, host: String, source: CloudError },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

/// What follows from a read.
#[derive(Debug)]
enum Step {
    Done { size: Gib, attached: bool },
    Grow(Growth),
    Wait(String),
    Refuse(ExpandError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Growth {
    zone: Zone,
    host: Option<HostId>,
    size: Gib,
}

/// A growth that the cloud works at, or seems to.
#[derive(Debug)]
struct Pending {
    growth: Growth,
    since: Instant,
    accepted: bool,
}

impl Pending {
    fn phase(&self) -> String {
        let (size, lasts) = (self.growth.size, Seconds(self.since.elapsed()));
        if self.accepted {
            format!("it is growing to {size}, for {lasts}")
        } else {
            format!("the cloud refuses the size; it may be growing to {size} already, watched for {lasts}")
        }
    }
}

impl<C: Cloud> Controller<C> {
    pub async fn expand(
        &self,
        request: ExpandRequest,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<Expanded, ExpandError> {
        let inner = &self.inner;
        let disk = &request.disk;
        let mut view = View::new(self, disk, format!("grow UDisk {disk}"), deadline, progress);
        let mut slot: Option<Slot> = None;
        let mut backoff = Backoff::new();
        let mut refusals = 0;
        let mut doubted = false;
        // Whether the cloud may be at a growth that it was asked for.
        let mut asked = false;
        // What this call's own growth says.
        let mut said: Option<HostSees> = None;
        let mut pending: Option<Pending> = None;
        let mut overdue = false;
        let mut sight = view.read().await?;
        loop {
            let step = match (step(&request, &sight), &pending) {
                // The disk is in no other state meanwhile. What the cloud makes of a second request is not documented.
                (Step::Grow(again), Some(pending))
                    if again == pending.growth && pending.since.elapsed() < inner.config.stuck_after =>
                {
                    Step::Wait(pending.phase())
                }
                (step, _) => step,
            };
            if sight.listed && !matches!(step, Step::Wait(_)) {
                sight = view.read().await?;
                continue;
            }
            if let Step::Grow(again) = &step
                && pending.take_if(|pending| pending.growth == *again).is_some()
            {
                // Before it is asked for again, those go whose turn is first: detaches.
                drop(slot.take());
                overdue = true;
            }
            sight = match step {
                Step::Refuse(error) => return Err(error),
                Step::Done { size, attached } => {
                    let found = if attached { HostSees::NotKnown } else { HostSees::Now };
                    let host_sees = said.unwrap_or(found);
                    tracing::info!(%disk, %size, ?host_sees, "UDisk is large enough");
                    return Ok(Expanded { size, host_sees });
                }
                Step::Wait(phase) => {
                    if overdue || view.is_stuck() {
                        drop(slot.take());
                    }
                    view.again(phase).await?
                }
                Step::Grow(Growth { host: Some(host), .. })
                    if !slot.as_ref().is_some_and(|slot| slot.is_on(&host)) =>
                {
                    drop(slot.take());
                    let place = view.queue(&host, Urgency::Other, format!("grow UDisk {disk}")).await?;
                    let waited = place.waited;
                    slot = Some(place);
                    if waited { view.read().await? } else { sight }
                }
                Step::Grow(growth) => match self.grow(&mut view, &growth).await {
                    Ok(answer) => {
                        said = Some(match answer {
                            Grown::Online => HostSees::Now,
                            Grown::NeedsRestart => HostSees::AfterRestart,
                        });
                        slot.iter_mut().for_each(Slot::took);
                        inner.recent.note(disk, Change::Grown(growth.size));
                        view.restart(None);
                        (asked, doubted) = (true, false);
                        let phase = format!("it is growing to {}", growth.size);
                        pending = Some(Pending { growth, since: Instant::now(), accepted: true });
                        view.again(phase).await?
                    }
                    Err(error) if error.outcome == Outcome::Unknown => {
                        said = growth.host.as_ref().map(|_| HostSees::NotKnown);
                        inner.recent.note_uncertain(disk, Change::Grown(growth.size));
                        tracing::warn!(%disk, %error, "a resize got no answer; looking");
                        (asked, doubted) = (true, false);
                        view.trouble(error);
                        view.restart(None);
                        view.again(String::from("whether it grows is not known")).await?
                    }
                    Err(source) if source.cause == Cause::HostMustStop => {
                        let host = growth.host.map_or_else(String::new, |host| host.to_string());
                        return Err(ExpandError::HostMustStop { disk: disk.clone(), host, source });
                    }
                    // It is also the answer when the disk has the size already, which a predecessor may have brought about
                    // so lately that no read shows it, or when the cloud is still at an earlier request.
                    Err(error) if error.cause == Cause::InvalidRequest && !doubted => {
                        doubted = true;
                        said = growth.host.as_ref().map(|_| HostSees::NotKnown);
                        inner.recent.note_uncertain(disk, Change::Grown(growth.size));
                        view.trouble(error);
                        view.restart(None);
                        let why =
                            "the cloud refuses the size; making sure that the disk has not got it already";
                        if std::mem::take(&mut asked) {
                            pending = Some(Pending { growth, since: Instant::now(), accepted: false });
                        }
                        view.again(why.to_owned()).await?
                    }
                    Err(error) => {
                        refusals += 1;
                        let look_again = matches!(
                            error.cause,
                            Cause::InUse
                                | Cause::AlreadyAttached
                                | Cause::InvalidRequest
                                | Cause::NotFound
                                | Cause::Refused
                        );
                        if matches!(error.cause, Cause::InUse | Cause::AlreadyAttached) {
                            inner.recent.note(disk, Change::Bound);
                        }
                        let now = view.read().await?;
                        let changed =
                            !matches!(self::step(&request, &now), Step::Grow(again) if again == growth);
                        let busy = error.cause == Cause::Busy;
                        if changed && (busy || (look_again && refusals < TRIES)) {
                            drop(slot.take());
                            now
                        } else if busy {
                            match slot.take() {
                                Some(place) => slot = Some(view.queue_again(place, error).await?),
                                None => view.pause(&mut backoff, error).await?,
                            }
                            view.read().await?
                        } else {
                            return Err(CallError::new(view.what.clone(), error).into());
                        }
                    }
                },
            };
        }
    }

    async fn grow(&self, view: &mut View<'_, C>, growth: &Growth) -> Result<Grown, CloudError> {
        view.phase(format!("the cloud is asked to grow it to {}", growth.size));
        let (cloud, Growth { zone, host, size }) = (&self.inner.cloud, growth);
        match host {
            Some(host) => cloud.resize_attached_disk(zone, view.id(), host, *size, view.deadline).await,
            None => cloud
                .resize_detached_disk(zone, view.id(), *size, view.deadline)
                .await
                .map(|()| Grown::Online),
        }
    }
}

fn step(request: &ExpandRequest, sight: &Sight) -> Step {
    let id = || request.disk.clone();
    if sight.trust == Trust::Stale {
        return Step::Wait(String::from("the cloud does not show the new size yet"));
    }
    let Some(disk) = &sight.disk else {
        return match sight.trust {
            Trust::Young => Step::Wait(String::from(
                "the cloud does not know it; making sure, because the driver has just begun its work",
            )),
            Trust::Sound | Trust::Stale => Step::Refuse(ExpandError::NoDisk { disk: id() }),
        };
    };
    if disk.is_boot {
        return Step::Refuse(ExpandError::SystemDisk { disk: id() });
    }
    let range = SizeRange { required_bytes: request.required_bytes, limit_bytes: request.limit_bytes };
    if range.admits(disk.size) {
        let attached = disk.host.is_some() || disk.status != DiskStatus::Available;
        return Step::Done { size: disk.size, attached };
    }
    if let Some(limit) = request.limit_bytes.filter(|limit| disk.size.bytes() > *limit) {
        return Step::Refuse(ExpandError::OverLimit { disk: id(), size: disk.size, limit });
    }
    let size = match range.smallest(disk.disk_type) {
        Ok(size) => size,
        Err(source) => return Step::Refuse(ExpandError::Capacity { disk: id(), source }),
    };
    let grow = |host| Step::Grow(Growth { zone: disk.zone.clone(), host, size });
    match (&disk.status, &disk.host) {
        (DiskStatus::Available, _) => grow(None),
        (DiskStatus::InUse, Some(host)) => grow(Some(host.clone())),
        (DiskStatus::InUse, None) => {
            Step::Wait(format!("{} to a host that the cloud does not name", state(disk)))
        }
        (DiskStatus::Failed | DiskStatus::RestoreFailed, _) => {
            Step::Refuse(ExpandError::Unusable { disk: id(), status: word(&disk.status).to_owned() })
        }
        (
            DiskStatus::Initializing
            | DiskStatus::Attaching
            | DiskStatus::Detaching
            | DiskStatus::Cloning
            | DiskStatus::Restoring
            | DiskStatus::Other(_),
            _,
        ) => Step::Wait(state(disk)),
    }
}
