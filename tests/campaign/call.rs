//! The changing calls as the sidecars send them, and what is true when they are answered with OK.

use std::time::Duration;

use csi_udisk::csi::proto::v1;
use csi_udisk::sandbox::cloud::{Disk, SimCloud, Status};
use tonic::Request;
use v1::controller_server::Controller as _;
use v1::volume_capability::access_mode::Mode;
use v1::volume_capability::{AccessMode, AccessType, BlockVolume};

use crate::process::Process;
use crate::world::{HOST_A, HOST_B, METAL, OLD, ZONE};

/// How long the sidecars wait, as their manifests say.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A call about the volume `name`, whose disk is `id` where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Of a type.
    Create(&'static str),
    Delete,
    /// To a node by its id or its address.
    Publish(&'static str),
    Unpublish(&'static str),
    /// To so many GiB.
    Expand(u64),
}

/// What a call was answered with, or that nobody is left to answer.
#[derive(Debug, Clone)]
pub enum Outcome {
    Done(Done),
    Refused(tonic::Status),
    Died,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Of a volume that was made.
    pub id: String,
    /// Of one that grew.
    pub bytes: i64,
    pub node_expansion: bool,
    /// Of one that was attached.
    pub device: String,
}

impl Call {
    pub async fn run(self, process: &Process, name: &str, id: &str) -> Outcome {
        self.with_patience(process, name, id, PATIENCE, process.end()).await
    }

    /// Waits no longer than to `end`.
    pub async fn with_patience(
        self,
        process: &Process,
        name: &str,
        id: &str,
        patience: Duration,
        end: impl Future<Output = ()>,
    ) -> Outcome {
        tokio::select! {
            biased;
            answer = self.answer(process, name, id, patience) => match answer {
                Ok(done) => Outcome::Done(done),
                Err(status) => Outcome::Refused(status),
            },
            () = end => Outcome::Died,
        }
    }

    async fn answer(
        self,
        process: &Process,
        name: &str,
        id: &str,
        patience: Duration,
    ) -> Result<Done, tonic::Status> {
        let service = &process.service;
        let volume_id = id.to_owned();
        match self {
            Self::Create(kind) => {
                let answer = service.create_volume(timed(create(name, kind), patience)).await?.into_inner();
                Ok(Done { id: answer.volume.unwrap().volume_id, ..Done::default() })
            }
            Self::Delete => {
                let request = v1::DeleteVolumeRequest { volume_id, ..Default::default() };
                service.delete_volume(timed(request, patience)).await?;
                Ok(Done::default())
            }
            Self::Publish(node) => {
                let request = v1::ControllerPublishVolumeRequest {
                    volume_id,
                    node_id: node.to_owned(),
                    volume_capability: Some(capability()),
                    ..Default::default()
                };
                let answer = service.controller_publish_volume(timed(request, patience)).await?.into_inner();
                let device = answer.publish_context.get("device").cloned().unwrap_or_default();
                Ok(Done { device, ..Done::default() })
            }
            Self::Unpublish(node) => {
                let node_id = node.to_owned();
                let request =
                    v1::ControllerUnpublishVolumeRequest { volume_id, node_id, ..Default::default() };
                service.controller_unpublish_volume(timed(request, patience)).await?;
                Ok(Done::default())
            }
            Self::Expand(gib) => {
                let required_bytes = i64::try_from(gib << 30).unwrap();
                let request = v1::ControllerExpandVolumeRequest {
                    volume_id,
                    capacity_range: Some(v1::CapacityRange { required_bytes, limit_bytes: 0 }),
                    ..Default::default()
                };
                let answer = service.controller_expand_volume(timed(request, patience)).await?.into_inner();
                let (bytes, node_expansion) = (answer.capacity_bytes, answer.node_expansion_required);
                Ok(Done { bytes, node_expansion, ..Done::default() })
            }
        }
    }

    /// Why an answer that says yes is not true. `id` is the volume's before the call.
    pub fn doubt(self, done: &Done, cloud: &SimCloud, name: &str, id: &str) -> Option<String> {
        let disk = cloud.disk(id);
        let host = disk.as_ref().and_then(Disk::host).unwrap_or_default().to_owned();
        let right = match self {
            Self::Create(_) => {
                let made = cloud.disk(&done.id);
                let known = disk.is_some_and(|disk| disk.name == name);
                (!known || id == done.id)
                    && made.is_some_and(|made| made.name == name && made.status != Status::Failed)
            }
            Self::Delete => disk.is_none(),
            Self::Publish(node) => {
                let device =
                    disk.as_ref().and_then(|disk| disk.attachment.as_ref()).map(|at| at.device.to_string());
                disk.as_ref().is_some_and(|disk| disk.status == Status::InUse)
                    && host == host_of(node)
                    && device.as_deref() == Some(done.device.as_str())
            }
            Self::Unpublish("") => host.is_empty(),
            Self::Unpublish(node) => host != host_of(node),
            Self::Expand(gib) => {
                let size = disk.map(|disk| disk.size.bytes());
                size.is_some_and(|size| size >= gib << 30 && u64::try_from(done.bytes) == Ok(size))
            }
        };
        (!right).then(|| format!("{self:?} answered {done:?}, which is not true of {:?}", cloud.disk(id)))
    }

    /// Whether a caller with this answer believes that nothing was done and nothing is under way.
    pub fn is_final(self, code: tonic::Code) -> bool {
        use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
        let exhausted = code == ResourceExhausted && !matches!(self, Self::Create(_));
        !exhausted && ![Cancelled, DeadlineExceeded, Unavailable, Aborted].contains(&code)
    }
}

/// The host that a node id means.
pub fn host_of(node: &str) -> &str {
    match node {
        "10.9.0.11" => HOST_A,
        "10.9.0.12" => HOST_B,
        "10.9.0.13" => METAL,
        "10.9.0.14" => OLD,
        id => id,
    }
}

fn timed<T>(message: T, patience: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

fn create(name: &str, kind: &str) -> v1::CreateVolumeRequest {
    let key = |name: &str| format!("topology.udisk.csi.ucloud.cn/{name}");
    let segments = [(key("zone"), ZONE.to_owned()), (key("host"), HOST_A.to_owned())].into();
    let requisite = vec![v1::Topology { segments }];
    v1::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(v1::CapacityRange { required_bytes: 20 << 30, limit_bytes: 0 }),
        volume_capabilities: vec![capability()],
        parameters: [("type".to_owned(), kind.to_owned())].into(),
        accessibility_requirements: Some(v1::TopologyRequirement { requisite, preferred: vec![] }),
        ..Default::default()
    }
}

fn capability() -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}
