//! Requests as kubelet and the sidecars send them.

use std::collections::BTreeMap;

use csi_udisk::csi::proto::v1;
use v1::volume_capability::access_mode::Mode;
use v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

pub const GIB: i64 = 1 << 30;

/// `block`, or the name of a file system.
pub fn capability(kind: &str) -> v1::VolumeCapability {
    let access_type = match kind {
        "block" => AccessType::Block(BlockVolume {}),
        fs => AccessType::Mount(MountVolume { fs_type: fs.to_owned(), ..MountVolume::default() }),
    };
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(access_type),
    }
}

pub fn create(name: &str, kind: &str, gib: i64) -> v1::CreateVolumeRequest {
    v1::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(v1::CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 }),
        volume_capabilities: vec![capability(kind)],
        parameters: BTreeMap::from([("type".to_owned(), "ssd".to_owned())]),
        ..v1::CreateVolumeRequest::default()
    }
}

pub fn delete(id: &str) -> v1::DeleteVolumeRequest {
    v1::DeleteVolumeRequest { volume_id: id.to_owned(), ..v1::DeleteVolumeRequest::default() }
}

pub fn attach(id: &str, node: &str, kind: &str) -> v1::ControllerPublishVolumeRequest {
    v1::ControllerPublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(capability(kind)),
        ..v1::ControllerPublishVolumeRequest::default()
    }
}

pub fn detach(id: &str, node: &str) -> v1::ControllerUnpublishVolumeRequest {
    v1::ControllerUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: node.to_owned(),
        ..v1::ControllerUnpublishVolumeRequest::default()
    }
}

pub fn grow(id: &str, kind: &str, gib: i64) -> v1::ControllerExpandVolumeRequest {
    v1::ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: Some(v1::CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 }),
        volume_capability: Some(capability(kind)),
        ..v1::ControllerExpandVolumeRequest::default()
    }
}

/// A volume at a node, with all that kubelet remembers of it.
#[derive(Debug, Clone)]
pub struct AtNode {
    pub id: String,
    pub kind: String,
    pub context: BTreeMap<String, String>,
    pub staging: String,
    pub target: String,
}

impl AtNode {
    pub fn stage(&self) -> v1::NodeStageVolumeRequest {
        v1::NodeStageVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.context.clone(),
            staging_target_path: self.staging.clone(),
            volume_capability: Some(capability(&self.kind)),
            ..v1::NodeStageVolumeRequest::default()
        }
    }

    pub fn publish(&self) -> v1::NodePublishVolumeRequest {
        v1::NodePublishVolumeRequest {
            volume_id: self.id.clone(),
            publish_context: self.context.clone(),
            staging_target_path: self.staging.clone(),
            target_path: self.target.clone(),
            volume_capability: Some(capability(&self.kind)),
            ..v1::NodePublishVolumeRequest::default()
        }
    }

    pub fn grow(&self, gib: i64) -> v1::NodeExpandVolumeRequest {
        v1::NodeExpandVolumeRequest {
            volume_id: self.id.clone(),
            volume_path: self.target.clone(),
            staging_target_path: self.staging.clone(),
            capacity_range: Some(v1::CapacityRange { required_bytes: gib * GIB, limit_bytes: 0 }),
            volume_capability: Some(capability(&self.kind)),
            ..v1::NodeExpandVolumeRequest::default()
        }
    }

    pub fn stats(&self) -> v1::NodeGetVolumeStatsRequest {
        v1::NodeGetVolumeStatsRequest {
            volume_id: self.id.clone(),
            volume_path: self.target.clone(),
            staging_target_path: self.staging.clone(),
        }
    }

    pub fn unpublish(&self) -> v1::NodeUnpublishVolumeRequest {
        v1::NodeUnpublishVolumeRequest { volume_id: self.id.clone(), target_path: self.target.clone() }
    }

    pub fn unstage(&self) -> v1::NodeUnstageVolumeRequest {
        v1::NodeUnstageVolumeRequest { volume_id: self.id.clone(), staging_target_path: self.staging.clone() }
    }
}
