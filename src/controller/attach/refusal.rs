//! Why the cloud refuses an attach: it gives no reason, so one is found in the states of disk and host.

use crate::cloud::{Cause, Cloud, CloudError, Disk, DiskFilter, DiskStatus, Host, Unreadable};
use crate::controller::recent::{Change, Trust};
use crate::controller::view::View;
use crate::controller::{CallError, Unresolved, pages};
use crate::volume::NodeRef;

use super::{Attach, AttachError, Next, TRIES};

/// The number of data disks that UCloud's documentation states for a host. Some hosts take fewer.
const DOCUMENTED_LIMIT: usize = 26;

impl<C: Cloud> Attach<'_, C> {
    /// Explains a refusal for which the cloud gives no reason, or tries again.
    ///
    /// A full host is not named as such, and the limit of a host is not known here. So it is concluded: the disk is
    /// free, the host exists in the same zone and runs (or is stopped), nothing else explains the refusal, the
    /// host has data disks already, and either they are as many as the documentation allows or the refusal stood
    /// for several tries. "Full" moves the pod to another node, which is right also for a host that refuses for
    /// a reason of its own; a host without any disk is never called full.
    pub(super) async fn refused(
        &mut self,
        view: &mut View<'_, C>,
        error: CloudError,
    ) -> Result<Next, AttachError> {
        let inner = &self.controller.inner;
        if error.cause == Cause::RdmaMismatch && self.cross_pods() {
            return Ok(Next::Resend);
        }
        self.refusals += 1;
        let taken = matches!(error.cause, Cause::AlreadyAttached | Cause::InUse);
        if taken && self.refusals > TRIES {
            let (disk, host) = (self.disk.clone(), self.host.clone());
            return Err(AttachError::Contradiction { disk, host, source: error });
        }
        if taken {
            // Whoever reads a free disk now reads an old picture.
            inner.recent.note(self.disk, Change::Bound);
        }
        let sight = view.read().await?;
        let free = |disk: &&Disk| disk.status == DiskStatus::Available && sight.trust != Trust::Stale;
        let Some(disk) = sight.disk.as_ref().filter(free) else {
            // Its state explains the refusal, or will.
            return Ok(Next::Look(sight));
        };
        let host = inner.cloud.host(&self.host, view.deadline).await;
        let host = host.map_err(|source| Unresolved::Unreadable { what: view.what.clone(), source })?;
        let Some(host) = host else {
            return self.host_is_gone(view, error).await;
        };
        if let Some(host_zone) = host.zone.as_ref().filter(|zone| **zone != disk.zone) {
            return Err(AttachError::WrongZone {
                disk: disk.id.clone(),
                zone: disk.zone.clone(),
                host: host.id.clone(),
                host_zone: host_zone.clone(),
                source: error,
            });
        }
        if error.cause == Cause::RdmaMismatch || rdma_apart(disk, &host) {
            if self.cross_pods() {
                return Ok(Next::Resend);
            }
            if !self.cross_pod || error.cause == Cause::RdmaMismatch {
                return Err(AttachError::OtherRdmaCluster {
                    disk: disk.id.clone(),
                    disk_cluster: disk.rdma_cluster.clone().unwrap_or_else(|| String::from("unknown")),
                    host: host.id.clone(),
                    host_cluster: host.rdma_cluster.clone().unwrap_or_else(|| String::from("none")),
                    source: error,
                });
            }
        }
        if !matches!(host.state.as_str(), "Running" | "Stopped") {
            view.phase(format!("host {} is {}", host.id, host.state));
            self.refusals = 0;
            return Ok(Next::Pause(error));
        }
        if error.cause == Cause::AttachFailed {
            let count = self.disks_on_host(view).await?;
            if count >= DOCUMENTED_LIMIT || (count > 0 && self.refusals >= TRIES) {
                tracing::warn!(host = %self.host, count, "the host takes no more disks");
                let (disk, host) = (disk.id.clone(), self.host.clone());
                return Err(AttachError::HostFull { disk, host, count, source: error });
            }
        }
        let may_pass = matches!(error.cause, Cause::AttachFailed | Cause::NotFound);
        if !taken && (!may_pass || self.refusals >= TRIES) {
            return Err(CallError::new(view.what.clone(), error).into());
        }
        Ok(Next::Pause(error))
    }

    /// Whether the attach may be sent once more, across RDMA clusters this time.
    fn cross_pods(&mut self) -> bool {
        let allowed = self.controller.inner.config.cross_pod_attach && !self.cross_pod;
        if allowed {
            tracing::info!(disk = %self.disk, host = %self.host, "attaching across RDMA clusters");
            self.cross_pod = true;
        }
        allowed
    }

    async fn host_is_gone(&mut self, view: &View<'_, C>, error: CloudError) -> Result<Next, AttachError> {
        if matches!(self.node, NodeRef::Address(_)) {
            // What was remembered of the address may be out of date: ask anew, and give up if it is the same.
            self.controller.inner.hosts.distrust().await;
            let now = self.controller.host_of(self.disk, self.node, view.deadline).await?;
            if now != self.host {
                self.host = now;
                return Ok(Next::Pause(error));
            }
        }
        Err(AttachError::NoHost { disk: self.disk.clone(), host: self.host.clone(), source: error })
    }

    async fn disks_on_host(&self, view: &View<'_, C>) -> Result<usize, Unresolved> {
        let filter = DiskFilter { host: Some(self.host.clone()), ..DiskFilter::default() };
        let mut count = 0;
        let here = |disk: Disk| disk.host.as_ref() == Some(&self.host) && !disk.is_boot;
        // One that cannot be read may be at any host. Too low a count only tries the attach once more.
        let take = |disk: Result<Disk, Unreadable>| count += usize::from(disk.is_ok_and(here));
        pages::disks(&*self.controller.inner.cloud, &filter, view.deadline, take)
            .await
            .map_err(|source| Unresolved::Unreadable { what: view.what.clone(), source })?;
        Ok(count)
    }
}

/// Whether the disk lives in an RDMA cluster that the host is not in.
fn rdma_apart(disk: &Disk, host: &Host) -> bool {
    let cluster = |cluster: &Option<String>| cluster.clone().filter(|cluster| !cluster.is_empty());
    match (cluster(&disk.rdma_cluster), cluster(&host.rdma_cluster)) {
        (Some(disk), Some(host)) => disk != host,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
