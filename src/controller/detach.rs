//! ControllerUnpublishVolume: the disk off the node, whatever has become of either.

use crate::cloud::{Cause, Cloud, CloudError, Deadline, Disk, DiskStatus, Host, Outcome};
use crate::progress::Progress;
use crate::volume::{DiskId, HostId, HostKind, NodeRef, Zone};

use super::recent::{Change, Trust};
use super::slots::{Slot, Urgency};
use super::view::{Backoff, Sight, View, state};
use super::{CallError, Controller, Unresolved};

/// How often a refusal is met that the disk's state does not explain. A host that just booted refuses for some
/// seconds; the pauses of this many tries are longer.
const TRIES: u32 = 5;

/// Why the disk may still be on the node.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DetachError {
    #[error("UDisk {disk} is a system disk and is never touched by this driver")]
    SystemDisk { disk: DiskId },
    #[error(
        "the cloud does not detach UDisk {disk} from host {host}; if the host is down for good, detach the disk in \
         the console, else ask UCloud's support with the request id: {source}"
    )]
    Stays { disk: DiskId, host: HostId, source: CallError },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

/// What follows from a read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    Send { zone: Zone, host: HostId },
    Wait(String),
    SystemDisk,
}

/// Whether the disk as it was read is on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// On it, by this id.
    Here(HostId),
    Elsewhere,
    /// The cloud does not name the host.
    Unnamed,
}

impl<C: Cloud> Controller<C> {
    /// Without a node the disk is detached from wherever it is.
    pub async fn detach(
        &self,
        disk: &DiskId,
        node: Option<&NodeRef>,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<(), DetachError> {
        let inner = &self.inner;
        let from = node.map_or_else(|| String::from("every host"), ToString::to_string);
        let mut view = View::new(self, disk, format!("detach UDisk {disk} from {from}"), deadline, progress);
        let mut slot: Option<Slot> = None;
        let mut backoff = Backoff::new();
        let mut refusals = 0;
        let mut sight = view.look().await?;
        loop {
            // Anew for every read: the disk may be on another host by now.
            let place = self.place(&view, &sight, node).await?;
            let step = step(&sight, place);
            if sight.listed && matches!(step, Step::Done | Step::SystemDisk) {
                sight = view.read().await?;
                continue;
            }
            sight = match step {
                Step::Done => {
                    tracing::info!(%disk, %from, "UDisk is detached");
                    return Ok(());
                }
                Step::SystemDisk => return Err(DetachError::SystemDisk { disk: disk.clone() }),
                Step::Wait(phase) => {
                    if view.is_stuck() {
                        drop(slot.take());
                    }
                    view.again(phase).await?
                }
                Step::Send { zone, host } => {
                    let Some(mut place) = slot.take().filter(|slot| slot.is_on(&host)) else {
                        let what = format!("detach UDisk {disk}");
                        // The cloud refuses to take it from a host where it is no more.
                        slot = Some(view.queue(&host, Urgency::Detach, what).await?);
                        continue;
                    };
                    view.phase(format!("the cloud is asked to detach it from host {host}"));
                    match inner.cloud.detach_disk(&zone, disk, &host, deadline).await {
                        Ok(()) => {
                            inner.recent.note(disk, Change::Detached(host));
                            place.took();
                            slot = Some(place);
                            view.restart(Some(DiskStatus::Detaching));
                            view.again(String::from("the cloud was asked to detach it")).await?
                        }
                        // "Detach failed" is an answer, though one that promises nothing: the disk tells.
                        Err(error)
                            if error.outcome == Outcome::Unknown && error.cause != Cause::DetachFailed =>
                        {
                            inner.recent.note_uncertain(disk, Change::Detached(host.clone()));
                            tracing::warn!(%disk, %host, %error, "a detach got no answer; looking");
                            view.trouble(error);
                            slot = Some(place);
                            view.restart(Some(DiskStatus::Detaching));
                            view.again(String::from("whether the cloud detaches it is not known")).await?
                        }
                        // The host is busy with what we asked for, and the disk is as it was.
                        Err(error) if error.cause == Cause::Busy && !place.is_alone() => {
                            slot = Some(view.queue_again(place, error).await?);
                            sight
                        }
                        Err(error) => {
                            let error = CallError::new(view.what.clone(), error);
                            let may_pass = matches!(
                                error.source.cause,
                                Cause::Busy
                                    | Cause::DetachFailed
                                    | Cause::NotFound
                                    | Cause::InUse
                                    | Cause::InvalidRequest
                                    | Cause::Refused
                            );
                            if !may_pass {
                                return Err(error.into());
                            }
                            // The disk's own state decides: "detach failed" is also the answer for a disk that is
                            // detached already, and a deleted host is unknown.
                            let now = view.read().await?;
                            let still = self::step(&now, self.place(&view, &now, node).await?);
                            // A bare "failed" beside another change of ours may mean no more than "busy".
                            let busy = error.source.cause == Cause::Busy
                                || (error.source.cause == Cause::DetachFailed && !place.is_alone());
                            if !matches!(still, Step::Send { .. }) {
                                slot = Some(place);
                                now
                            } else if busy {
                                let uncertain = error.source.outcome == Outcome::Unknown;
                                let place = view.queue_again(place, error.source).await;
                                if place.is_err() && uncertain {
                                    inner.recent.note_uncertain(disk, Change::Detached(host));
                                }
                                slot = Some(place?);
                                view.read().await?
                            } else {
                                refusals += 1;
                                if refusals >= TRIES {
                                    if error.source.outcome == Outcome::Unknown {
                                        inner.recent.note_uncertain(disk, Change::Detached(host.clone()));
                                    }
                                    let disk = disk.clone();
                                    return Err(DetachError::Stays { disk, host, source: error });
                                }
                                drop(place);
                                view.pause(&mut backoff, error.source).await?;
                                view.read().await?
                            }
                        }
                    }
                }
            };
        }
    }

    /// Whether the disk as it was read is on the node.
    ///
    /// The plugin we replace named nodes by their address. The disk itself names the address of its host, so a node
    /// that is gone never keeps a disk, and hosts are not listed here.
    async fn place(
        &self,
        view: &View<'_, C>,
        sight: &Sight,
        node: Option<&NodeRef>,
    ) -> Result<Place, Unresolved> {
        let named = |disk: &Disk| disk.host.clone().map_or(Place::Unnamed, Place::Here);
        let Some(disk) = &sight.disk else { return Ok(Place::Unnamed) };
        match (node, &disk.host) {
            (None, _) => Ok(named(disk)),
            (Some(NodeRef::Host(node)), Some(host)) if node != host => Ok(Place::Elsewhere),
            // Should it be on another host after all, the cloud refuses.
            (Some(NodeRef::Host(node)), _) => Ok(Place::Here(node.clone())),
            (Some(NodeRef::Address(address)), host) => match (disk.host_ip, host) {
                (Some(ip), _) if ip != *address => Ok(Place::Elsewhere),
                (Some(_), _) | (None, None) => Ok(named(disk)),
                (None, Some(host)) => {
                    let read = self.inner.cloud.host(host, view.deadline).await;
                    let read =
                        read.map_err(|source| Unresolved::Unreadable { what: view.what.clone(), source })?;
                    Ok(match read {
                        // Neither "not there" nor "there" follows, and both would take a disk from a pod.
                        Some(read) if read.private_ips.is_empty() => {
                            let what = view.what.clone();
                            return Err(Unresolved::Unreadable { what, source: nameless(&read) });
                        }
                        Some(read) if !read.private_ips.contains(address) => Place::Elsewhere,
                        // On a host that does not exist any more nothing can use the disk.
                        Some(_) | None => Place::Here(host.clone()),
                    })
                }
            },
        }
    }
}

fn nameless(host: &Host) -> CloudError {
    CloudError {
        action: match host.id.kind() {
            HostKind::Virtual => "DescribeUHostInstance",
            HostKind::BareMetal => "DescribePHost",
        },
        cause: Cause::NoAnswer,
        outcome: Outcome::NothingHappened,
        ret_code: None,
        message: format!("host {} has no private address in the answer", host.id),
        advice: Some("the driver looks again; if it stays so, detach the disk in the console"),
        request_id: None,
        attempts: 1,
    }
}

fn step(sight: &Sight, place: Place) -> Step {
    if sight.trust == Trust::Stale {
        return Step::Wait(String::from("the cloud's answers contradict a change made a moment ago"));
    }
    let Some(disk) = &sight.disk else {
        return match sight.trust {
            // A predecessor may have made and attached it a moment before it died.
            Trust::Young => Step::Wait(String::from(
                "the cloud does not know it; making sure, because the driver has just begun its work",
            )),
            Trust::Sound | Trust::Stale => Step::Done,
        };
    };
    if disk.is_boot {
        return Step::SystemDisk;
    }
    let done = || {
        if sight.trust == Trust::Young {
            // A predecessor may have attached it a moment before it died.
            return Step::Wait(format!(
                "{}; making sure, because the driver has just begun its work",
                state(disk)
            ));
        }
        Step::Done
    };
    match (&disk.status, place) {
        (DiskStatus::InUse, Place::Here(host)) => Step::Send { zone: disk.zone.clone(), host },
        (DiskStatus::InUse | DiskStatus::Attaching | DiskStatus::Detaching, Place::Elsewhere) => done(),
        (DiskStatus::InUse | DiskStatus::Attaching | DiskStatus::Detaching | DiskStatus::Other(_), _) => {
            Step::Wait(state(disk))
        }
        // These are states of a free disk; one that names its host is not known to be one.
        (DiskStatus::Initializing | DiskStatus::Cloning | DiskStatus::Restoring, _)
            if disk.host.is_some() =>
        {
            Step::Wait(state(disk))
        }
        (
            DiskStatus::Available
            | DiskStatus::Initializing
            | DiskStatus::Cloning
            | DiskStatus::Restoring
            | DiskStatus::RestoreFailed
            | DiskStatus::Failed,
            _,
        ) => done(),
    }
}
