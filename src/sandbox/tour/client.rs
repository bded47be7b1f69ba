//! The caller's side of CSI: what kubelet and the sidecars would send, over the same sockets.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tonic::Status;
use tonic::transport::Channel;

use crate::csi::proto::v1;
use v1::controller_client::ControllerClient;
use v1::identity_client::IdentityClient;
use v1::node_client::NodeClient;
use v1::volume_capability::access_mode::Mode;
use v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

/// How long a call may take, like the sidecars' `--timeout`.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What a volume of the tour is used as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mount(&'static str),
    Block,
}

impl Kind {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Mount(fs) => fs,
            Self::Block => "block",
        }
    }

    fn capability(self) -> v1::VolumeCapability {
        v1::VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(match self {
                Self::Block => AccessType::Block(BlockVolume {}),
                Self::Mount(fs) => {
                    AccessType::Mount(MountVolume { fs_type: fs.to_owned(), ..MountVolume::default() })
                }
            }),
        }
    }
}

async fn connect(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    tonic::transport::Endpoint::try_from(format!("unix://{}", socket.display()))?
        .timeout(CALL_TIMEOUT)
        .connect()
        .await
}

/// The controller as the sidecars see it.
#[derive(Debug, Clone)]
pub(super) struct Controller(ControllerClient<Channel>);

impl Controller {
    pub(super) async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self(ControllerClient::new(connect(socket).await?)))
    }

    pub(super) async fn create(
        &mut self,
        name: &str,
        kind: Kind,
        bytes: i64,
        node_topology: &BTreeMap<String, String>,
    ) -> Result<v1::Volume, Status> {
        let topology = v1::Topology { segments: node_topology.clone() };
        let request = v1::CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capabilities: vec![kind.capability()],
            parameters: BTreeMap::from([("type".to_owned(), "ssd".to_owned())]),
            accessibility_requirements: Some(v1::TopologyRequirement {
                requisite: vec![topology.clone()],
                preferred: vec![topology],
            }),
            ..v1::CreateVolumeRequest::default()
        };
        let answer = self.0.create_volume(request).await?.into_inner();
        answer.volume.ok_or_else(|| Status::data_loss("CreateVolume answered without a volume"))
    }

    pub(super) async fn attach(
        &mut self,
        volume: &v1::Volume,
        kind: Kind,
        node_id: &str,
    ) -> Result<BTreeMap<String, String>, Status> {
        let request = v1::ControllerPublishVolumeRequest {
            volume_id: volume.volume_id.clone(),
            node_id: node_id.to_owned(),
            volume_capability: Some(kind.capability()),
            volume_context: volume.volume_context.clone(),
            ..v1::ControllerPublishVolumeRequest::default()
        };
        Ok(self.0.controller_publish_volume(request).await?.into_inner().publish_context)
    }

    pub(super) async fn detach(&mut self, volume_id: &str, node_id: &str) -> Result<(), Status> {
        let request = v1::ControllerUnpublishVolumeRequest {
            volume_id: volume_id.to_owned(),
            node_id: node_id.to_owned(),
            ..v1::ControllerUnpublishVolumeRequest::default()
        };
        self.0.controller_unpublish_volume(request).await.map(|_| ())
    }

    pub(super) async fn grow(
        &mut self,
        volume_id: &str,
        kind: Kind,
        bytes: i64,
    ) -> Result<v1::ControllerExpandVolumeResponse, Status> {
        let request = v1::ControllerExpandVolumeRequest {
            volume_id: volume_id.to_owned(),
            capacity_range: Some(v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            volume_capability: Some(kind.capability()),
            ..v1::ControllerExpandVolumeRequest::default()
        };
        Ok(self.0.controller_expand_volume(request).await?.into_inner())
    }

    pub(super) async fn delete(&mut self, volume_id: &str) -> Result<(), Status> {
        let request =
            v1::DeleteVolumeRequest { volume_id: volume_id.to_owned(), ..v1::DeleteVolumeRequest::default() };
        self.0.delete_volume(request).await.map(|_| ())
    }
}

/// A volume at a node: the values that kubelet keeps for it.
#[derive(Debug, Clone)]
pub(super) struct Mounting<'a> {
    pub(super) volume: &'a v1::Volume,
    pub(super) kind: Kind,
    pub(super) publish_context: BTreeMap<String, String>,
    pub(super) staging: String,
    pub(super) target: String,
}

/// One node as its kubelet sees it.
#[derive(Debug, Clone)]
pub(super) struct Node(NodeClient<Channel>);

impl Node {
    pub(super) async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        Ok(Self(NodeClient::new(connect(socket).await?)))
    }

    pub(super) async fn info(&mut self) -> Result<v1::NodeGetInfoResponse, Status> {
        Ok(self.0.node_get_info(v1::NodeGetInfoRequest {}).await?.into_inner())
    }

    pub(super) async fn stage(&mut self, at: &Mounting<'_>) -> Result<(), Status> {
        let request = v1::NodeStageVolumeRequest {
            volume_id: at.volume.volume_id.clone(),
            publish_context: at.publish_context.clone(),
            staging_target_path: at.staging.clone(),
            volume_capability: Some(at.kind.capability()),
            volume_context: at.volume.volume_context.clone(),
            ..v1::NodeStageVolumeRequest::default()
        };
        self.0.node_stage_volume(request).await.map(|_| ())
    }

    pub(super) async fn publish(&mut self, at: &Mounting<'_>) -> Result<(), Status> {
        let request = v1::NodePublishVolumeRequest {
            volume_id: at.volume.volume_id.clone(),
            publish_context: at.publish_context.clone(),
            staging_target_path: at.staging.clone(),
            target_path: at.target.clone(),
            volume_capability: Some(at.kind.capability()),
            volume_context: at.volume.volume_context.clone(),
            ..v1::NodePublishVolumeRequest::default()
        };
        self.0.node_publish_volume(request).await.map(|_| ())
    }

    pub(super) async fn grow(&mut self, at: &Mounting<'_>, bytes: i64) -> Result<(), Status> {
        let request = v1::NodeExpandVolumeRequest {
            volume_id: at.volume.volume_id.clone(),
            volume_path: at.target.clone(),
            capacity_range: Some(v1::CapacityRange { required_bytes: bytes, limit_bytes: 0 }),
            staging_target_path: at.staging.clone(),
            volume_capability: Some(at.kind.capability()),
            ..v1::NodeExpandVolumeRequest::default()
        };
        self.0.node_expand_volume(request).await.map(|_| ())
    }

    pub(super) async fn stats(&mut self, at: &Mounting<'_>) -> Result<Vec<v1::VolumeUsage>, Status> {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: at.volume.volume_id.clone(),
            volume_path: at.target.clone(),
            staging_target_path: at.staging.clone(),
        };
        Ok(self.0.node_get_volume_stats(request).await?.into_inner().usage)
    }

    pub(super) async fn unpublish(&mut self, at: &Mounting<'_>) -> Result<(), Status> {
        let request = v1::NodeUnpublishVolumeRequest {
            volume_id: at.volume.volume_id.clone(),
            target_path: at.target.clone(),
        };
        self.0.node_unpublish_volume(request).await.map(|_| ())
    }

    pub(super) async fn unstage(&mut self, at: &Mounting<'_>) -> Result<(), Status> {
        let request = v1::NodeUnstageVolumeRequest {
            volume_id: at.volume.volume_id.clone(),
            staging_target_path: at.staging.clone(),
        };
        self.0.node_unstage_volume(request).await.map(|_| ())
    }
}

/// Waits until the driver behind a socket says that it is ready.
pub(super) async fn ready(socket: &Path) -> Result<(), Status> {
    let channel = connect(socket).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut identity = IdentityClient::new(channel);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let answer = identity.probe(v1::ProbeRequest {}).await?.into_inner();
        if answer.ready.unwrap_or(true) {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(Status::unavailable("the driver does not become ready"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
