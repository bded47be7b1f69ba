//! ControllerPublishVolume, ControllerUnpublishVolume: attach and detach.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::cloud::Cloud;
use crate::controller::AttachRequest;
use crate::csi::capability::capability;
use crate::csi::proto::v1;
use crate::csi::status::controller as errors;
use crate::csi::status::request::RequestError;
use crate::volume::{FsType, NodeRef};

use super::{Change, ControllerService, disk, disk_if_possible, shown};

/// An attachment takes seconds, but a host takes few changes at a time: on one that gets 26 disks at once the last
/// waits some minutes. Not longer, because a detachment that is wanted meanwhile has to wait for its end.
const ATTACH_TIME: Duration = Duration::from_secs(300);
/// Likewise; and nothing else can be done with a disk that is being detached, so it may take longer.
const DETACH_TIME: Duration = Duration::from_secs(600);

impl<C: Cloud> ControllerService<C> {
    pub(super) async fn publish(
        &self,
        request: v1::ControllerPublishVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::ControllerPublishVolumeResponse, Status> {
        let wanted = publish_request(&request)?;
        let what = format!("the attachment of UDisk {} to node {}", wanted.disk, wanted.node);
        let change = Change::of_disk(&wanted.disk, &request, what, ATTACH_TIME);
        self.run(change, answer_by, |controller, deadline, progress| async move {
            let context = controller.attach(wanted, deadline, &progress).await.map_err(errors::attach)?;
            Ok(v1::ControllerPublishVolumeResponse { publish_context: context.to_map() })
        })
        .await
    }

    pub(super) async fn unpublish(
        &self,
        request: v1::ControllerUnpublishVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::ControllerUnpublishVolumeResponse, Status> {
        let Some(id) = disk_if_possible(&request.volume_id)? else {
            return Ok(v1::ControllerUnpublishVolumeResponse {});
        };
        let node = match request.node_id.as_str() {
            // CSI: from wherever it is.
            "" => None,
            text => match NodeRef::parse(text) {
                Ok(node) => Some(node),
                // No node has such an id, so the volume is not there.
                Err(_) => return Ok(v1::ControllerUnpublishVolumeResponse {}),
            },
        };
        let what = match &node {
            Some(node) => format!("the detachment of UDisk {id} from node {node}"),
            None => format!("the detachment of UDisk {id}"),
        };
        let change = Change::of_disk(&id, &request, what, DETACH_TIME);
        self.run(change, answer_by, |controller, deadline, progress| async move {
            controller.detach(&id, node.as_ref(), deadline, &progress).await.map_err(errors::detach)?;
            Ok(v1::ControllerUnpublishVolumeResponse {})
        })
        .await
    }
}

fn publish_request(request: &v1::ControllerPublishVolumeRequest) -> Result<AttachRequest, RequestError> {
    // What is missing first, then what cannot be: CSI's tests send both at once.
    if request.volume_id.is_empty() {
        return Err(RequestError::Required("volume_id"));
    }
    if request.node_id.is_empty() {
        return Err(RequestError::Required("node_id"));
    }
    let asked = request.volume_capability.as_ref().ok_or(RequestError::Required("volume_capability"))?;
    capability(asked, FsType::default())?;
    // Callers set it only for a driver that offers PUBLISH_READONLY. A UDisk cannot be attached read-only, and a
    // writable attachment in its place would be less than what was asked for.
    if request.readonly {
        return Err(RequestError::Unsupported {
            field: "readonly",
            reason: "a UDisk is always attached writable; mount it read-only on the node",
        });
    }
    let disk = disk(&request.volume_id)?;
    let node = NodeRef::parse(&request.node_id)
        .map_err(|reason| RequestError::NoSuchNode { id: shown(&request.node_id), reason })?;
    Ok(AttachRequest { disk, node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csi::proto::v1::volume_capability::{AccessMode, AccessType, BlockVolume};
    use crate::csi::status::Code;

    fn request() -> v1::ControllerPublishVolumeRequest {
        v1::ControllerPublishVolumeRequest {
            volume_id: "bs-1".to_owned(),
            node_id: "uhost-1".to_owned(),
            volume_capability: Some(v1::VolumeCapability {
                access_mode: Some(AccessMode { mode: 1 }),
                access_type: Some(AccessType::Block(BlockVolume {})),
            }),
            ..v1::ControllerPublishVolumeRequest::default()
        }
    }

    #[test]
    fn both_forms_of_node_ids_are_taken() {
        let wanted = publish_request(&request()).unwrap();
        assert_eq!(wanted.disk.as_str(), "bs-1");
        assert!(matches!(wanted.node, NodeRef::Host(ref id) if id.as_str() == "uhost-1"));
        let old = v1::ControllerPublishVolumeRequest { node_id: "10.9.184.108".to_owned(), ..request() };
        let address: std::net::IpAddr = "10.9.184.108".parse().unwrap();
        assert!(matches!(publish_request(&old).unwrap().node, NodeRef::Address(ip) if ip == address));
    }

    #[test]
    fn bad_requests_name_the_field() {
        type Case = (fn(&mut v1::ControllerPublishVolumeRequest), Code, &'static str);
        let cases: [Case; 8] = [
            (|r| r.volume_id.clear(), Code::InvalidArgument, "volume_id is required"),
            (|r| r.node_id.clear(), Code::InvalidArgument, "node_id is required"),
            (|r| r.volume_capability = None, Code::InvalidArgument, "volume_capability is required"),
            (
                |r| r.volume_capability = Some(v1::VolumeCapability::default()),
                Code::InvalidArgument,
                "access_mode is required",
            ),
            (|r| r.readonly = true, Code::InvalidArgument, "readonly is not supported"),
            (|r| r.volume_id = "bs/1".to_owned(), Code::NotFound, r#"volume "bs/1" does not exist"#),
            (|r| r.node_id = "a node".to_owned(), Code::NotFound, r#"node "a node" does not exist"#),
            (|r| r.node_id = "n".repeat(200), Code::NotFound, "is longer than 128 bytes"),
        ];
        for (change, code, text) in cases {
            let mut request = request();
            change(&mut request);
            let error = publish_request(&request).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
