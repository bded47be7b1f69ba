//! The CSI Node service.
//!
//! Every mutating call runs as an operation of its own, keyed by the volume: kubelet's retry joins it. Secrets are
//! dropped at the door; the driver has no use for them.

mod health;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::capability::capability;
use super::deadline::answer_by;
use super::operation::{Operation, Operations};
use super::proto::v1;
use super::status::node::{NodeError, unanswered_stats};
use super::status::request::RequestError;
use super::status::{Code, status};
use super::trace::record_volume;
use crate::node::linux::usage::Amount;
use crate::node::{
    ExpandRequest, IdentityState, Node, PublishRequest, StageRequest, StatsRequest, UnpublishRequest,
    UnstageRequest, Usage,
};
use crate::progress::Progress;
use crate::volume::{Capability, DiskId, PublishContext, SizeRange, VolumeContext};

/// A file system that lives answers in microseconds.
const STATS_TIME: Duration = Duration::from_secs(10);

/// The Node service over the use cases.
#[derive(Debug)]
pub struct NodeService {
    node: Node,
    operations: Operations,
    /// Reads, which are joined in the same way but never waited for when the process stops: a hung file system holds
    /// one of these per volume, not one per question.
    queries: Operations,
    identity: watch::Receiver<IdentityState>,
    max_volumes: u8,
}

impl NodeService {
    /// `operations` is shared with whoever stops the process: it is drained there.
    pub fn new(
        node: Node,
        operations: Operations,
        identity: watch::Receiver<IdentityState>,
        max_volumes: u8,
    ) -> Self {
        Self { node, operations, queries: Operations::new(), identity, max_volumes }
    }

    /// Runs a change of a volume, or joins the equal one that runs.
    async fn change<T, E, F>(
        &self,
        call: Call,
        work: impl FnOnce(Node, Progress) -> F + Send,
    ) -> Result<Response<T>, Status>
    where
        T: Clone + Send + Sync + 'static,
        E: NodeError,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let Call { name, volume, operation, answer_by } = call;
        let node = self.node.acting_for(&volume, name);
        let answer = self.operations.run(operation, answer_by, |progress| {
            let result = work(node, progress);
            async move { result.await.map_err(|error| error.status(&volume)) }
        });
        Ok(Response::new(answer.await??))
    }
}

/// One changing call.
struct Call {
    name: &'static str,
    volume: DiskId,
    operation: Operation,
    answer_by: Instant,
}

impl Call {
    /// All kinds of change share the volume's key, so a volume has one change at a time.
    fn new(name: &'static str, volume: &DiskId, request: &impl fmt::Debug, answer_by: Instant) -> Self {
        // It names the message's type and all its fields but secrets, so equal requests have equal fingerprints.
        let fingerprint = format!("{request:?}");
        let operation = Operation { key: key(volume), fingerprint, what: format!("{name} of {volume}") };
        Self { name, volume: volume.clone(), operation, answer_by }
    }
}

/// Of all changes of a volume.
fn key(volume: &DiskId) -> String {
    format!("volume:{volume}")
}

fn volume(id: &str) -> Result<DiskId, RequestError> {
    if id.is_empty() {
        return Err(RequestError::Required("volume_id"));
    }
    let volume = DiskId::parse(id)
        .map_err(|reason| RequestError::NoSuchVolume { id: id.chars().take(128).collect(), reason })?;
    record_volume(volume.as_str());
    Ok(volume)
}

/// The volume of a call that takes something away. `None`: no disk can have such an id, so nothing of it is here, and
/// the call is done; an error would keep the pod or its node waiting for ever.
fn volume_if_possible(id: &str) -> Result<Option<DiskId>, RequestError> {
    match volume(id) {
        Ok(volume) => Ok(Some(volume)),
        Err(RequestError::NoSuchVolume { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn path(field: &'static str, path: &str) -> Result<PathBuf, RequestError> {
    if path.is_empty() { Err(RequestError::Required(field)) } else { Ok(PathBuf::from(path)) }
}

fn checked_capability(
    asked: Option<&v1::VolumeCapability>,
    context: &std::collections::BTreeMap<String, String>,
) -> Result<Capability, RequestError> {
    let asked = asked.ok_or(RequestError::Required("volume_capability"))?;
    Ok(capability(asked, VolumeContext::parse(context).fs.unwrap_or_default())?)
}

#[tonic::async_trait]
impl v1::node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<v1::NodeStageVolumeRequest>,
    ) -> Result<Response<v1::NodeStageVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        let volume = volume(&request.volume_id)?;
        let stage = StageRequest {
            volume: volume.clone(),
            staging_path: path("staging_target_path", &request.staging_target_path)?,
            capability: checked_capability(request.volume_capability.as_ref(), &request.volume_context)?,
            context: PublishContext::parse(&request.publish_context).map_err(RequestError::from)?,
            volume_context: VolumeContext::parse(&request.volume_context),
        };
        let call = Call::new("NodeStageVolume", &volume, &request, answer_by);
        self.change(call, |node, progress| async move {
            node.stage(stage, &progress).await.map(|()| v1::NodeStageVolumeResponse {})
        })
        .await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<v1::NodeUnstageVolumeRequest>,
    ) -> Result<Response<v1::NodeUnstageVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let request = request.into_inner();
        let staging_path = path("staging_target_path", &request.staging_target_path)?;
        let Some(volume) = volume_if_possible(&request.volume_id)? else {
            return Ok(Response::new(v1::NodeUnstageVolumeResponse {}));
        };
        let unstage = UnstageRequest { volume: volume.clone(), staging_path };
        let call = Call::new("NodeUnstageVolume", &volume, &request, answer_by);
        self.change(call, |node, progress| async move {
            node.unstage(unstage, &progress).await.map(|()| v1::NodeUnstageVolumeResponse {})
        })
        .await
    }

    async fn node_publish_volume(
        &self,
        request: Request<v1::NodePublishVolumeRequest>,
    ) -> Result<Response<v1::NodePublishVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        let volume = volume(&request.volume_id)?;
        let target_path = path("target_path", &request.target_path)?;
        let capability = checked_capability(request.volume_capability.as_ref(), &request.volume_context)?;
        let publish = PublishRequest {
            volume: volume.clone(),
            staging_path: path("staging_target_path", &request.staging_target_path)?,
            target_path,
            capability,
            context: PublishContext::parse(&request.publish_context).map_err(RequestError::from)?,
            volume_context: VolumeContext::parse(&request.volume_context),
            read_only: request.readonly,
        };
        let call = Call::new("NodePublishVolume", &volume, &request, answer_by);
        self.change(call, |node, progress| async move {
            node.publish(publish, &progress).await.map(|()| v1::NodePublishVolumeResponse {})
        })
        .await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<v1::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<v1::NodeUnpublishVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let request = request.into_inner();
        let target_path = path("target_path", &request.target_path)?;
        let Some(volume) = volume_if_possible(&request.volume_id)? else {
            return Ok(Response::new(v1::NodeUnpublishVolumeResponse {}));
        };
        let unpublish = UnpublishRequest { volume: volume.clone(), target_path };
        let call = Call::new("NodeUnpublishVolume", &volume, &request, answer_by);
        self.change(call, |node, progress| async move {
            node.unpublish(unpublish, &progress).await.map(|()| v1::NodeUnpublishVolumeResponse {})
        })
        .await
    }

    async fn node_expand_volume(
        &self,
        request: Request<v1::NodeExpandVolumeRequest>,
    ) -> Result<Response<v1::NodeExpandVolumeResponse>, Status> {
        let answer_by = answer_by(&request);
        let mut request = request.into_inner();
        request.secrets.clear();
        let volume = volume(&request.volume_id)?;
        let range = request.capacity_range.unwrap_or_default();
        let range = SizeRange::parse(range.required_bytes, range.limit_bytes).map_err(RequestError::from)?;
        let expand = ExpandRequest {
            volume: volume.clone(),
            path: path("volume_path", &request.volume_path)?,
            staging_path: path("staging_target_path", &request.staging_target_path).ok(),
            required: Some(range.required_bytes).filter(|required| *required > 0),
        };
        let call = Call::new("NodeExpandVolume", &volume, &request, answer_by);
        self.change(call, |node, progress| async move {
            let size = node.expand(expand, &progress).await?;
            Ok::<_, crate::node::ExpandError>(v1::NodeExpandVolumeResponse { capacity_bytes: wire(size) })
        })
        .await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<v1::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<v1::NodeGetVolumeStatsResponse>, Status> {
        let answer_by = answer_by(&request).min(Instant::now() + STATS_TIME);
        let request = request.into_inner();
        let volume = volume(&request.volume_id)?;
        let stats = StatsRequest { volume: volume.clone(), path: path("volume_path", &request.volume_path)? };
        let operation = Operation {
            key: format!("{volume} at {}", stats.path.display()),
            fingerprint: String::new(),
            what: format!("NodeGetVolumeStats of {volume}"),
        };
        let (node, id) = (self.node.clone(), volume.clone());
        let usage = self
            .queries
            .run(operation, answer_by, |_| async move {
                node.stats(stats).await.map_err(|error| error.status(&id))
            })
            .await
            .map_err(|reason| unanswered_stats(&volume, &reason))??;
        Ok(Response::new(v1::NodeGetVolumeStatsResponse { usage: wire_usage(usage) }))
    }

    async fn node_get_volume_health(
        &self,
        request: Request<v1::NodeGetVolumeHealthRequest>,
    ) -> Result<Response<v1::NodeGetVolumeHealthResponse>, Status> {
        self.health(request).await
    }

    async fn node_get_capabilities(
        &self,
        _: Request<v1::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<v1::NodeGetCapabilitiesResponse>, Status> {
        use v1::node_service_capability::rpc::Type;
        use v1::node_service_capability::{Rpc, Type as Kind};
        let capabilities =
            [Type::StageUnstageVolume, Type::GetVolumeStats, Type::ExpandVolume, Type::GetVolumeHealth]
                .map(|rpc| v1::NodeServiceCapability { r#type: Some(Kind::Rpc(Rpc { r#type: rpc.into() })) });
        Ok(Response::new(v1::NodeGetCapabilitiesResponse { capabilities: capabilities.to_vec() }))
    }

    async fn node_get_info(
        &self,
        _: Request<v1::NodeGetInfoRequest>,
    ) -> Result<Response<v1::NodeGetInfoResponse>, Status> {
        let identity = self.identity.borrow().clone();
        match identity {
            IdentityState::Known(identity) => Ok(Response::new(v1::NodeGetInfoResponse {
                node_id: identity.host.to_string(),
                max_volumes_per_node: self.max_volumes.into(),
                accessible_topology: Some(v1::Topology { segments: identity.segment().to_map() }),
            })),
            IdentityState::Missing(what) => {
                Err(status(Code::Unavailable, format!("this node is not known yet: {what}")))
            }
        }
    }
}

/// A number of bytes; disks are far smaller than what an i64 holds.
fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn wire_usage(usage: Usage) -> Vec<v1::VolumeUsage> {
    use v1::volume_usage::Unit;
    let of = |unit: Unit, amount: Amount| v1::VolumeUsage {
        available: wire(amount.available),
        total: wire(amount.total),
        used: wire(amount.used),
        unit: unit.into(),
    };
    match usage {
        Usage::Fs(fs) => {
            let inodes = fs.inodes.map(|inodes| of(Unit::Inodes, inodes));
            std::iter::once(of(Unit::Bytes, fs.bytes)).chain(inodes).collect()
        }
        // CSI: what is not known is left zero.
        Usage::Block { total } => {
            vec![v1::VolumeUsage { total: wire(total), unit: Unit::Bytes.into(), ..Default::default() }]
        }
    }
}
