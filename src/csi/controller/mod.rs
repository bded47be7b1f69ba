//! The CSI Controller service: requests in, use cases out.
//!
//! Every call has one shape: check the request (nothing is sent for a bad one), turn it into values, run the use
//! case, turn the result into an answer. Calls that change something run as operations of their own, which go on
//! when the caller leaves. Secrets are dropped at the door: the driver uses its own keys, and what is not there
//! cannot be logged.

mod publish;
mod read;
#[cfg(test)]
mod tests;
mod volume;

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::cloud::{Cloud, Deadline};
use crate::controller::{Controller, Volume};
use crate::csi::deadline::answer_by;
use crate::csi::operation::{NoAnswer, Operation, Operations};
use crate::csi::proto::v1;
use crate::csi::status::request::RequestError;
use crate::csi::trace::record_volume;
use crate::progress::Progress;
use crate::volume::id::MAX_ID_LENGTH;
use crate::volume::{DiskId, Segment, VolumeContext};

/// The Controller service over the use cases.
#[derive(Debug)]
pub struct ControllerService<C> {
    controller: Controller<C>,
    operations: Operations,
    /// Part of every volume's place.
    region: String,
}

impl<C> ControllerService<C> {
    /// `operations` is shared with whoever stops the process: it is drained there.
    pub fn new(controller: Controller<C>, operations: Operations, region: impl Into<String>) -> Self {
        Self { controller, operations, region: region.into() }
    }
}

/// One changing call: what it changes, what it is called, and for how long its task may go on.
struct Change {
    operation: Operation,
    time: Duration,
}

impl Change {
    /// A change of the volume that has, or will have, this CSI name.
    fn of_name(name: &str, request: &impl fmt::Debug, what: String, time: Duration) -> Self {
        Self::new(format!("create:{name}"), request, what, time)
    }

    /// A change of a disk. All kinds of change share the key, so one disk has one change at a time.
    fn of_disk(id: &DiskId, request: &impl fmt::Debug, what: String, time: Duration) -> Self {
        Self::new(format!("disk:{id}"), request, what, time)
    }

    fn new(key: String, request: &impl fmt::Debug, what: String, time: Duration) -> Self {
        // Names the message's type and all its fields; maps are sorted and secrets are gone, so equal requests
        // and only those have equal fingerprints.
        let fingerprint = format!("{request:?}");
        Self { operation: Operation { key, fingerprint, what }, time }
    }
}

impl<C: Cloud> ControllerService<C> {
    /// Runs a change, or joins the equal one that runs, and answers in the caller's time.
    async fn run<T, F>(
        &self,
        change: Change,
        answer_by: Instant,
        work: impl FnOnce(Controller<C>, Deadline, Progress) -> F,
    ) -> Result<T, Status>
    where
        T: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let controller = self.controller.clone();
        let Change { operation, time } = change;
        let result = self
            .operations
            .run(operation, answer_by, |progress| work(controller, Instant::now() + time, progress))
            .await;
        result.map_err(|reason| self.explained(reason))?
    }

    /// The operation knows what it waits for, and not that nothing gets through to the cloud.
    fn explained(&self, reason: NoAnswer) -> NoAnswer {
        match (reason, self.controller.held_up()) {
            (NoAnswer::StillRunning { what, age, phase }, Some(why)) => {
                NoAnswer::StillRunning { what, age, phase: format!("{phase}; {why}") }
            }
            (reason, _) => reason,
        }
    }
}

/// A volume as CSI shows it.
fn wire_volume(volume: &Volume, region: &str, context: &VolumeContext) -> v1::Volume {
    let place = Segment::of_volume(region, &volume.zone, volume.disk_type);
    v1::Volume {
        // A disk is far smaller than what an i64 can count.
        capacity_bytes: i64::try_from(volume.size.bytes()).unwrap_or(i64::MAX),
        volume_id: volume.id.to_string(),
        volume_context: context.to_map(),
        content_source: None,
        accessible_topology: vec![v1::Topology { segments: place.to_map() }],
    }
}

/// The disk that a volume id names. `None`: no disk can have such an id.
fn disk_if_possible(volume_id: &str) -> Result<Option<DiskId>, RequestError> {
    if volume_id.is_empty() {
        return Err(RequestError::Required("volume_id"));
    }
    Ok(DiskId::parse(volume_id).ok())
}

/// Likewise, for calls that need the volume to exist.
fn disk(volume_id: &str) -> Result<DiskId, RequestError> {
    if volume_id.is_empty() {
        return Err(RequestError::Required("volume_id"));
    }
    DiskId::parse(volume_id).map_err(|reason| RequestError::NoSuchVolume { id: shown(volume_id), reason })
}

/// An id as it came, for texts: not longer than a good one.
fn shown(id: &str) -> String {
    id.chars().take(MAX_ID_LENGTH).collect()
}

#[tonic::async_trait]
impl<C: Cloud> v1::controller_server::Controller for ControllerService<C> {
    async fn create_volume(
        &self,
        request: Request<v1::CreateVolumeRequest>,
    ) -> Result<Response<v1::CreateVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        // It has no id yet; the disk bears this name.
        record_volume(&shown(&request.name));
        self.create(request, answer_by).await.map(Response::new)
    }

    async fn delete_volume(
        &self,
        request: Request<v1::DeleteVolumeRequest>,
    ) -> Result<Response<v1::DeleteVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        record_volume(&shown(&request.volume_id));
        self.delete(request, answer_by).await.map(Response::new)
    }

    async fn controller_publish_volume(
        &self,
        request: Request<v1::ControllerPublishVolumeRequest>,
    ) -> Result<Response<v1::ControllerPublishVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        record_volume(&shown(&request.volume_id));
        self.publish(request, answer_by).await.map(Response::new)
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<v1::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<v1::ControllerUnpublishVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        record_volume(&shown(&request.volume_id));
        self.unpublish(request, answer_by).await.map(Response::new)
    }

    async fn controller_expand_volume(
        &self,
        request: Request<v1::ControllerExpandVolumeRequest>,
    ) -> Result<Response<v1::ControllerExpandVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        record_volume(&shown(&request.volume_id));
        self.expand(request, answer_by).await.map(Response::new)
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<v1::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<v1::ValidateVolumeCapabilitiesResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        record_volume(&shown(&request.volume_id));
        self.validate(request, answer_by).await.map(Response::new)
    }

    async fn list_volumes(
        &self,
        request: Request<v1::ListVolumesRequest>,
    ) -> Result<Response<v1::ListVolumesResponse>, Status> {
        let answer_by = answer_by(&request);
        self.list(&request.into_inner(), answer_by).await.map(Response::new)
    }

    async fn controller_get_volume(
        &self,
        request: Request<v1::ControllerGetVolumeRequest>,
    ) -> Result<Response<v1::ControllerGetVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let request = request.into_inner();
        record_volume(&shown(&request.volume_id));
        self.get(&request, answer_by).await.map(Response::new)
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<v1::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<v1::ControllerGetCapabilitiesResponse>, Status> {
        Ok(Response::new(read::capabilities()))
    }
}
