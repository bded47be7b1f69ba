//! ControllerPublishVolume: the disk on the wanted host, once, whatever state it is found in.

mod refusal;

use tokio::time::Instant;

use crate::cloud::{Attachment, Cause, Cloud, CloudError, Deadline, Disk, DiskStatus, Outcome};
use crate::progress::Progress;
use crate::volume::{DiskId, HostId, NodeRef, PublishContext, Zone};

use super::error::Because;
use super::recent::{Change, Trust};
use super::slots::{Slot, Urgency};
use super::view::{Backoff, Sight, View, place, state, word};
use super::{CallError, Controller, HostError, Unresolved};

/// How often a refusal without a reason is met before it is explained. What passes by itself (a host that just
/// booted, a backend that stumbled) passes in this time.
const TRIES: u32 = 3;

/// What to attach where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachRequest {
    pub disk: DiskId,
    pub node: NodeRef,
}

/// Why the disk is not on the host.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AttachError {
    #[error(
        "UDisk {disk} does not exist, so it cannot be attached to {node}; if it was deleted by hand, its data is gone: \
         delete the claim"
    )]
    NoDisk { disk: DiskId, node: NodeRef },
    #[error("UDisk {disk} is a system disk and is never touched by this driver")]
    SystemDisk { disk: DiskId },
    /// The node id leads to no host.
    #[error("UDisk {disk} cannot be attached to node {node}: {source}")]
    Node { disk: DiskId, node: NodeRef, source: HostError },
    #[error("UDisk {disk} cannot be attached: host {host} does not exist; the cloud said: {source}")]
    NoHost { disk: DiskId, host: HostId, source: CloudError },
    #[error(
        "UDisk {disk} is attached to host {host} and not to {wanted}; it can be on one host only. It moves when \
         Kubernetes has detached it there; if no VolumeAttachment names that host, detach it in the console"
    )]
    Elsewhere { disk: DiskId, host: String, wanted: HostId },
    #[error(
        "UDisk {disk} is in state {status} and cannot be attached to {node}; see the disk in the console"
    )]
    Unusable { disk: DiskId, node: NodeRef, status: String },
    #[error(
        "UDisk {disk} is in zone {zone} and host {host} in zone {host_zone}; they must be in one zone: {source}"
    )]
    WrongZone { disk: DiskId, zone: Zone, host: HostId, host_zone: Zone, source: CloudError },
    #[error(
        "UDisk {disk} (RDMA cluster {disk_cluster}) and host {host} (RDMA cluster {host_cluster}) are in different \
         RDMA clusters; move the pod to a host of the disk's cluster or allow it with --cross-pod-attach: {source}"
    )]
    OtherRdmaCluster {
        disk: DiskId,
        disk_cluster: String,
        host: HostId,
        host_cluster: String,
        source: CloudError,
    },
    /// The scheduler may choose another node.
    #[error(
        "host {host} takes no more disks: it has {count} data disks, and the cloud refuses UDisk {disk} although \
         host and disk are fit for each other (the documented limit is 26): {source}"
    )]
    HostFull { disk: DiskId, host: HostId, count: usize, source: CloudError },
    #[error(
        "UDisk {disk} is Available after {times} requests to attach it to host {host}, none of which the cloud refused; \
         trying again at the next call. If it stays so, ask UCloud's support{}",
        Because(.source)
    )]
    FellBack { disk: DiskId, host: HostId, times: u32, source: Option<CloudError> },
    #[error(
        "UDisk {disk} cannot be attached to host {host} yet: the cloud says that it is attached already and shows it as \
         Available; looking again at the next call. If it stays so, ask UCloud's support with the request id: {source}"
    )]
    Contradiction { disk: DiskId, host: HostId, source: CloudError },
    /// Attached, but the node could not tell which device it is.
    #[error(
        "UDisk {disk} is attached to host {host}, but the cloud does not say as which device; looking again at the \
         next call"
    )]
    NoDevice { disk: DiskId, host: HostId },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

/// What follows from a read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done(PublishContext),
    Send(Zone),
    Wait(String),
    /// On the wanted host, with no device name yet.
    AwaitDevice,
    Elsewhere(String),
    Unusable(String),
    NoDisk,
    SystemDisk,
}

impl<C: Cloud> Controller<C> {
    pub async fn attach(
        &self,
        request: AttachRequest,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<PublishContext, AttachError> {
        let AttachRequest { disk, node } = &request;
        let what = format!("attach UDisk {disk} to {node}");
        let mut view = View::new(self, disk, what, deadline, progress);
        let sight = view.look().await?;
        let host = match (node, &sight.disk) {
            (NodeRef::Host(host), _) => host.clone(),
            // There is nothing to look up a host for.
            (NodeRef::Address(_), None) if sight.trust == Trust::Sound => {
                return Err(AttachError::NoDisk { disk: disk.clone(), node: node.clone() });
            }
            (NodeRef::Address(address), Some(Disk { host: Some(host), host_ip: Some(ip), .. }))
                if ip == address =>
            {
                host.clone()
            }
            (NodeRef::Address(_), _) => self.host_of(disk, node, deadline).await?,
        };
        let attach = Attach { controller: self, disk, node, host, cross_pod: false, sent: 0, refusals: 0 };
        attach.run(view, sight).await
    }

    async fn host_of(
        &self,
        disk: &DiskId,
        node: &NodeRef,
        deadline: Deadline,
    ) -> Result<HostId, AttachError> {
        let inner = &self.inner;
        inner.hosts.resolve(&*inner.cloud, node, deadline).await.map_err(|source| AttachError::Node {
            disk: disk.clone(),
            node: node.clone(),
            source,
        })
    }
}

struct Attach<'a, C> {
    controller: &'a Controller<C>,
    disk: &'a DiskId,
    node: &'a NodeRef,
    host: HostId,
    /// Whether disk and host are known to be in different RDMA clusters, which is allowed.
    cross_pod: bool,
    /// How often the cloud took the attach, or may have.
    sent: u32,
    /// How often the cloud refused without a reason.
    refusals: u32,
}

impl<C: Cloud> Attach<'_, C> {
    async fn run(mut self, mut view: View<'_, C>, mut sight: Sight) -> Result<PublishContext, AttachError> {
        let inner = &self.controller.inner;
        let mut slot: Option<Slot> = None;
        let mut backoff = Backoff::new();
        let mut nameless: Option<Instant> = None;
        let disk = || self.disk.clone();
        // With this, the cloud refuses what has been attached elsewhere meanwhile.
        let exclusive = inner.config.multi_attach == Some(false);
        loop {
            let step = step(&sight, &self.host, exclusive);
            if sight.listed && step.concludes(exclusive) {
                sight = view.read().await?;
                continue;
            }
            sight = match step {
                Step::Done(context) => {
                    tracing::info!(disk = %self.disk, host = %self.host, ?context, "UDisk is attached");
                    return Ok(context);
                }
                Step::NoDisk => {
                    return Err(AttachError::NoDisk { disk: disk(), node: self.node.clone() });
                }
                Step::SystemDisk => return Err(AttachError::SystemDisk { disk: disk() }),
                Step::Unusable(status) => {
                    return Err(AttachError::Unusable { disk: disk(), node: self.node.clone(), status });
                }
                Step::Elsewhere(host) => {
                    return Err(AttachError::Elsewhere { disk: disk(), host, wanted: self.host.clone() });
                }
                Step::Wait(phase) => {
                    if view.is_stuck() {
                        drop(slot.take());
                    }
                    view.again(phase).await?
                }
                Step::AwaitDevice => {
                    let since = *nameless.get_or_insert_with(Instant::now);
                    if since.elapsed() >= inner.config.device_wait {
                        return Err(AttachError::NoDevice { disk: disk(), host: self.host.clone() });
                    }
                    view.again(String::from("it is attached and the cloud does not name its device yet"))
                        .await?
                }
                Step::Send(_) if self.sent >= TRIES => {
                    let (host, times) = (self.host.clone(), self.sent);
                    return Err(AttachError::FellBack {
                        disk: disk(),
                        host,
                        times,
                        source: view.last_trouble(),
                    });
                }
                Step::Send(zone) => match slot.take() {
                    None => {
                        let what = format!("attach UDisk {}", self.disk);
                        let place = view.queue(&self.host, Urgency::Other, what).await?;
                        let again = place.waited && !exclusive;
                        slot = Some(place);
                        if again { view.read().await? } else { sight }
                    }
                    Some(mut place) => match self.send(&mut view, zone, &place).await? {
                        Next::Follow => {
                            place.took();
                            slot = Some(place);
                            view.restart(Some(DiskStatus::Attaching));
                            view.again(String::from("the cloud was asked to attach it")).await?
                        }
                        Next::Look(sight) => {
                            slot = Some(place);
                            sight
                        }
                        Next::Resend => {
                            slot = Some(place);
                            sight
                        }
                        Next::Busy(error) => {
                            let uncertain = error.outcome == Outcome::Unknown;
                            // With what we asked for, so that the disk is as it was.
                            let ours = !uncertain && !place.is_alone();
                            let place = view.queue_again(place, error).await;
                            if place.is_err() && uncertain {
                                inner.recent.note_uncertain(self.disk, Change::Attached(self.host.clone()));
                            }
                            slot = Some(place?);
                            if ours && exclusive { sight } else { view.read().await? }
                        }
                        // Others may use the host meanwhile, detaches first.
                        Next::Pause(error) => {
                            drop(place);
                            view.pause(&mut backoff, error).await?;
                            view.read().await?
                        }
                    },
                },
            };
        }
    }

    async fn send(&mut self, view: &mut View<'_, C>, zone: Zone, place: &Slot) -> Result<Next, AttachError> {
        let inner = &self.controller.inner;
        let attachment = Attachment {
            disk: self.disk.clone(),
            host: self.host.clone(),
            zone: zone.clone(),
            multi_attach: inner.config.multi_attach,
            cross_pod: self.cross_pod,
        };
        view.phase(format!("the cloud is asked to attach it to host {}", self.host));
        let Err(error) = inner.cloud.attach_disk(&attachment, view.deadline).await else {
            self.sent += 1;
            inner.recent.note(self.disk, Change::Attached(self.host.clone()));
            return Ok(Next::Follow);
        };
        if error.cause == Cause::AttachFailed && !place.is_alone() {
            // It may say no more than that the host does not take two at a time, so nothing is concluded from it.
            return Ok(Next::Busy(error));
        }
        if error.outcome == Outcome::Unknown && error.cause == Cause::AttachFailed {
            // An answer, though one that promises nothing. The disk is read before anything is concluded; should it
            // be attached after all, a detach must not trust a picture that shows it free.
            let next = self.refused(view, error).await;
            if next.is_err() {
                inner.recent.note_uncertain(self.disk, Change::Attached(self.host.clone()));
            }
            return next;
        }
        if error.outcome == Outcome::Unknown {
            self.sent += 1;
            inner.recent.note_uncertain(self.disk, Change::Attached(self.host.clone()));
            tracing::warn!(disk = %self.disk, host = %self.host, %error, "an attach got no answer; looking");
            view.trouble(error);
            return Ok(Next::Follow);
        }
        match error.cause {
            Cause::Busy => Ok(Next::Busy(error)),
            Cause::AlreadyAttached
            | Cause::InUse
            | Cause::AttachFailed
            | Cause::RdmaMismatch
            | Cause::NotFound
            | Cause::InvalidRequest
            | Cause::Refused => self.refused(view, error).await,
            Cause::NoAnswer
            | Cause::Unreachable
            | Cause::Throttled
            | Cause::Credentials
            | Cause::Denied
            | Cause::Payment
            | Cause::Quota
            | Cause::NoStock
            | Cause::DetachFailed
            | Cause::HostMustStop => Err(CallError::new(view.what.clone(), error).into()),
        }
    }
}

impl Step {
    /// Whether it ends the operation, or sends a call that the cloud does not check: without `exclusive` it puts a disk on
    /// a second host.
    fn concludes(&self, exclusive: bool) -> bool {
        match self {
            Self::Done(_) | Self::Elsewhere(_) | Self::Unusable(_) | Self::NoDisk | Self::SystemDisk => true,
            Self::Send(_) => !exclusive,
            Self::Wait(_) | Self::AwaitDevice => false,
        }
    }
}

/// What to do after an attach was sent.
enum Next {
    /// The change may be under way: follow the disk.
    Follow,
    /// The disk's state explains the refusal: decide anew.
    Look(Sight),
    Resend,
    /// The host does not take it now.
    Busy(CloudError),
    Pause(CloudError),
}

fn step(sight: &Sight, wanted: &HostId, exclusive: bool) -> Step {
    if sight.trust == Trust::Stale {
        return Step::Wait(String::from("the cloud's answers contradict a change made a moment ago"));
    }
    // What a predecessor did a moment before it died may not be seen yet: it may have made the disk, attached it here or
    // detached it.
    let young =
        |what: String| Step::Wait(format!("{what}; making sure, because the driver has just begun its work"));
    let Some(disk) = &sight.disk else {
        return match sight.trust {
            Trust::Young => young(String::from("the cloud does not know it")),
            Trust::Sound | Trust::Stale => Step::NoDisk,
        };
    };
    if disk.is_boot {
        return Step::SystemDisk;
    }
    match &disk.status {
        DiskStatus::Available if sight.trust == Trust::Young && !exclusive => young(state(disk)),
        DiskStatus::Available => Step::Send(disk.zone.clone()),
        DiskStatus::InUse if sight.trust == Trust::Young => young(state(disk)),
        DiskStatus::InUse => match &disk.host {
            Some(host) if host == wanted => match &disk.device {
                Some(device) => {
                    Step::Done(PublishContext { device: Some(device.clone()), size: Some(disk.size) })
                }
                None => Step::AwaitDevice,
            },
            Some(_) => Step::Elsewhere(place(disk).unwrap_or_default()),
            None => Step::Wait(format!("{} to a host that the cloud does not name", state(disk))),
        },
        DiskStatus::Failed | DiskStatus::RestoreFailed => Step::Unusable(word(&disk.status).to_owned()),
        DiskStatus::Initializing
        | DiskStatus::Attaching
        | DiskStatus::Detaching
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::Other(_) => Step::Wait(state(disk)),
    }
}
