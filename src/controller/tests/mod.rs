//! The use cases against the reference model, in paused time.

mod attaching;
mod creating;
mod detaching;
mod life;
mod looking_up;
mod polling;
mod queueing;
mod random;
mod reading;
mod sizing;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fake::{Fake, disk, zone};
use super::{AttachError, AttachRequest, Controller, ControllerConfig, CreateError, CreateRequest, Volume};
use crate::cloud::{Deadline, Disk, DiskStatus};
use crate::progress::Progress;
use crate::volume::{
    ChargeType, DiskId, DiskType, Gib, NodeRef, Parameters, PublishContext, SizeRequest, TopologyRequirement,
};

struct Bench {
    cloud: Arc<Fake>,
    controller: Controller<Fake>,
    progress: Progress,
}

impl Bench {
    /// A controller that has run for a while.
    async fn new() -> Self {
        let bench = Self::young();
        bench.controller.inner.recent.settled_at();
        tokio::time::advance(Duration::from_secs(3600)).await;
        bench
    }

    /// A controller that has just started.
    fn young() -> Self {
        Self::with(ControllerConfig { zone: Some(zone()), ..ControllerConfig::new("cn-bj2") })
    }

    fn with(config: ControllerConfig) -> Self {
        let cloud = Arc::new(Fake::new());
        let controller = Controller::new(Arc::clone(&cloud), config);
        Self { cloud, controller, progress: Progress::default() }
    }

    /// Another process on the same cloud.
    fn restarted(&self) -> Self {
        let config = self.controller.inner.config.clone();
        let cloud = Arc::clone(&self.cloud);
        Self { controller: Controller::new(Arc::clone(&cloud), config), cloud, progress: Progress::default() }
    }

    async fn create(&self, name: &str) -> Result<Volume, CreateError> {
        self.controller.create(request(name), soon(), &self.progress).await
    }

    async fn attach(&self, disk: &str, node: &str) -> Result<PublishContext, AttachError> {
        let request = AttachRequest { disk: id(disk), node: NodeRef::parse(node).unwrap() };
        self.controller.attach(request, soon(), &self.progress).await
    }

    async fn detach(&self, disk: &str, node: &str) -> Result<(), super::DetachError> {
        let node = (!node.is_empty()).then(|| NodeRef::parse(node).unwrap());
        self.controller.detach(&id(disk), node.as_ref(), soon(), &self.progress).await
    }

    async fn delete(&self, disk: &str) -> Result<(), super::DeleteError> {
        self.controller.delete(&id(disk), soon(), &self.progress).await
    }
}

fn id(text: &str) -> DiskId {
    DiskId::parse(text).unwrap()
}

fn soon() -> Deadline {
    Instant::now() + Duration::from_secs(300)
}

fn request(name: &str) -> CreateRequest {
    CreateRequest {
        name: name.to_owned(),
        size: SizeRequest { wanted: Gib::new(20), required_bytes: Gib::new(15).bytes(), limit_bytes: None },
        parameters: Parameters {
            disk_type: DiskType::Ssd,
            fs: None,
            data_ark: false,
            charge_type: ChargeType::Dynamic,
            quantity: None,
            cmk_id: None,
            blank: crate::volume::BlankSectors::Zero,
            tag: None,
        },
        fs: None,
        topology: None::<TopologyRequirement>,
    }
}

/// An attached disk whose state is then changed by hand.
fn bound(id: &str, host: &str, status: DiskStatus) -> Disk {
    let mut bound = disk(id, status);
    bound.host = Some(super::fake::host_id(host));
    bound.host_ip = match host {
        "uhost-a" => "10.0.0.1".parse().ok(),
        "uhost-b" => "10.0.0.2".parse().ok(),
        _ => None,
    };
    bound.device = Some(String::from("vdb"));
    bound
}

/// A free disk as CreateVolume would have made it.
fn named(id: &str, name: &str) -> Disk {
    let mut named = disk(id, DiskStatus::Available);
    named.name = name.to_owned();
    named.size = Gib::new(20);
    named
}
