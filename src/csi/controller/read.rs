//! What only reads: ValidateVolumeCapabilities, ListVolumes, ControllerGetVolume, ControllerGetCapabilities.

use tokio::time::Instant;
use tonic::Status;

use crate::cloud::Cloud;
use crate::controller::{Listed, Volume, VolumeStatus};
use crate::csi::capability::capability;
use crate::csi::proto::v1;
use crate::csi::proto::v1::controller_service_capability::{Rpc, Type, rpc};
use crate::csi::status::request::RequestError;
use crate::csi::status::{Code, controller as errors, status};
use crate::volume::{DiskId, ListToken, Parameters, VolumeContext};

use super::{ControllerService, disk, wire_volume};

/// What is served. Whatever else CSI has answers `Unimplemented`.
const CAPABILITIES: [rpc::Type; 6] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::PublishUnpublishVolume,
    rpc::Type::ListVolumes,
    rpc::Type::ListVolumesPublishedNodes,
    rpc::Type::GetVolume,
    rpc::Type::ExpandVolume,
];

pub(super) fn capabilities() -> v1::ControllerGetCapabilitiesResponse {
    let capability = |rpc: rpc::Type| v1::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
    };
    v1::ControllerGetCapabilitiesResponse { capabilities: CAPABILITIES.map(capability).to_vec() }
}

impl<C: Cloud> ControllerService<C> {
    pub(super) async fn validate(
        &self,
        request: v1::ValidateVolumeCapabilitiesRequest,
        answer_by: Instant,
    ) -> Result<v1::ValidateVolumeCapabilitiesResponse, Status> {
        if request.volume_id.is_empty() {
            return Err(RequestError::Required("volume_id").into());
        }
        if request.volume_capabilities.is_empty() {
            return Err(RequestError::Required("volume_capabilities").into());
        }
        let id = disk(&request.volume_id)?;
        let volume = self.existing(&id, answer_by).await?.volume;
        Ok(validate_response(request, &volume))
    }

    pub(super) async fn list(
        &self,
        request: &v1::ListVolumesRequest,
        answer_by: Instant,
    ) -> Result<v1::ListVolumesResponse, Status> {
        let (start, max_entries) = list_request(request)?;
        let page =
            self.controller.list(start.as_ref(), max_entries, answer_by).await.map_err(errors::list)?;
        Ok(v1::ListVolumesResponse {
            entries: page.volumes.iter().map(|listed| self.entry(listed)).collect(),
            next_token: page.next.map(|token| token.to_string()).unwrap_or_default(),
        })
    }

    pub(super) async fn get(
        &self,
        request: &v1::ControllerGetVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::ControllerGetVolumeResponse, Status> {
        let id = disk(&request.volume_id)?;
        let VolumeStatus { volume, nodes } = self.existing(&id, answer_by).await?;
        Ok(v1::ControllerGetVolumeResponse {
            volume: Some(self.volume(&volume)),
            status: Some(v1::controller_get_volume_response::VolumeStatus { published_node_ids: nodes }),
        })
    }

    async fn existing(&self, id: &DiskId, answer_by: Instant) -> Result<VolumeStatus, Status> {
        match self.controller.get(id, answer_by).await.map_err(errors::read)? {
            Some(volume) => Ok(volume),
            None => Err(status(
                Code::NotFound,
                format!("volume {id} does not exist: the cloud knows no UDisk of this id in this project"),
            )),
        }
    }

    pub(super) fn entry(&self, listed: &Listed) -> v1::list_volumes_response::Entry {
        let (volume, nodes) = match listed {
            Listed::Known(status) => (self.volume(&status.volume), status.nodes.clone()),
            // A capacity of 0 means that it is not known. The attacher takes a volume that is on no node as a reason to
            // attach it again, and then tells in the VolumeAttachment what is wrong with it.
            Listed::Unreadable(id) => {
                (v1::Volume { volume_id: id.to_string(), ..v1::Volume::default() }, Vec::new())
            }
        };
        let status = v1::list_volumes_response::VolumeStatus { published_node_ids: nodes };
        v1::list_volumes_response::Entry { volume: Some(volume), status: Some(status) }
    }

    fn volume(&self, volume: &Volume) -> v1::Volume {
        let context = VolumeContext { disk_type: volume.disk_type, ..VolumeContext::default() };
        wire_volume(volume, &self.region, &context)
    }
}

/// Where a listing starts and how many entries it may have; `None`: from the first, and all.
fn list_request(
    request: &v1::ListVolumesRequest,
) -> Result<(Option<ListToken>, Option<usize>), RequestError> {
    let max_entries =
        usize::try_from(request.max_entries).map_err(|_| RequestError::MaxEntries(request.max_entries))?;
    let start = match request.starting_token.as_str() {
        "" => None,
        token => Some(ListToken::parse(token)?),
    };
    Ok((start, Some(max_entries).filter(|max| *max > 0)))
}

/// Confirms all or nothing; what was confirmed is named, so that a field of a newer CSI cannot pass unseen.
fn validate_response(
    request: v1::ValidateVolumeCapabilitiesRequest,
    volume: &Volume,
) -> v1::ValidateVolumeCapabilitiesResponse {
    match doubt(&request, volume) {
        Some(message) => v1::ValidateVolumeCapabilitiesResponse { confirmed: None, message },
        None => v1::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(v1::validate_volume_capabilities_response::Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: request.mutable_parameters,
            }),
            message: String::new(),
        },
    }
}

/// Why the volume cannot be confirmed to be as the request says. Only what the cloud can contradict is compared:
/// a context or parameters that say nothing are fine.
fn doubt(request: &v1::ValidateVolumeCapabilitiesRequest, volume: &Volume) -> Option<String> {
    let context = VolumeContext::parse(&request.volume_context);
    let parameters = match request.parameters.is_empty() {
        true => None,
        false => match Parameters::parse(&request.parameters) {
            Ok(parameters) => Some(parameters),
            Err(error) => return Some(error.to_string()),
        },
    };
    if !request.mutable_parameters.is_empty() {
        return Some("mutable_parameters are not supported".to_owned());
    }
    let default_fs =
        parameters.as_ref().and_then(|parameters| parameters.fs).or(context.fs).unwrap_or_default();
    let unsupported =
        request.volume_capabilities.iter().find_map(|asked| capability(asked, default_fs).err());
    if let Some(error) = unsupported {
        return Some(error.to_string());
    }
    let named = [
        ("parameters", parameters.map(|parameters| parameters.disk_type)),
        ("volume_context", context.disk_type),
    ];
    named.into_iter().find_map(|(field, named)| match (named, volume.disk_type) {
        (Some(named), Some(real)) if named != real => {
            Some(format!("UDisk {} is of type {real}, but {field} say {named}", volume.id))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::csi::proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
    use crate::volume::{DiskType, Gib, Zone};

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn volume() -> Volume {
        Volume {
            id: DiskId::parse("bs-1").unwrap(),
            size: Gib::new(20),
            zone: Zone::parse("cn-bj2-05").unwrap(),
            disk_type: Some(DiskType::Rssd),
        }
    }

    fn request(mode: i32) -> v1::ValidateVolumeCapabilitiesRequest {
        v1::ValidateVolumeCapabilitiesRequest {
            volume_id: "bs-1".to_owned(),
            volume_capabilities: vec![v1::VolumeCapability {
                access_mode: Some(AccessMode { mode }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            }],
            ..v1::ValidateVolumeCapabilitiesRequest::default()
        }
    }

    #[test]
    fn a_volume_is_shown_with_its_real_size_and_place() {
        let context = VolumeContext { disk_type: Some(DiskType::Rssd), ..VolumeContext::default() };
        let shown = wire_volume(&volume(), "cn-bj2", &context);
        assert_eq!(
            shown,
            v1::Volume {
                capacity_bytes: 20 << 30,
                volume_id: "bs-1".to_owned(),
                volume_context: map(&[("type", "rssd")]),
                content_source: None,
                accessible_topology: vec![v1::Topology {
                    segments: map(&[
                        ("topology.udisk.csi.ucloud.cn/region", "cn-bj2"),
                        ("topology.udisk.csi.ucloud.cn/zone", "cn-bj2-05"),
                        ("topology.udisk.csi.ucloud.cn/rssd", "true"),
                    ]),
                }],
            }
        );
    }

    #[test]
    fn what_fits_is_confirmed_as_it_was_asked() {
        let asked = v1::ValidateVolumeCapabilitiesRequest {
            volume_context: map(&[("type", "rssd"), ("unknown", "x")]),
            parameters: map(&[("type", "rssd")]),
            ..request(1)
        };
        let confirmed = validate_response(asked.clone(), &volume()).confirmed.unwrap();
        assert_eq!(confirmed.volume_capabilities, asked.volume_capabilities);
        assert_eq!(confirmed.volume_context, asked.volume_context);
        assert_eq!(confirmed.parameters, asked.parameters);
        // A disk made by hand may be of a type that is not sold; nothing contradicts the request then.
        let by_hand = Volume { disk_type: None, ..volume() };
        assert!(validate_response(asked, &by_hand).confirmed.is_some());
    }

    #[test]
    fn what_does_not_fit_is_said_in_the_message() {
        let with_parameter = |key: &str, value: &str| v1::ValidateVolumeCapabilitiesRequest {
            parameters: map(&[(key, value)]),
            ..request(1)
        };
        for (asked, text) in [
            (request(5), "MULTI_NODE_MULTI_WRITER"),
            (with_parameter("type", "ssd"), "UDisk bs-1 is of type rssd, but parameters say ssd"),
            (with_parameter("size", "1"), "unknown parameter"),
            (
                v1::ValidateVolumeCapabilitiesRequest {
                    volume_context: map(&[("type", "sata")]),
                    ..request(1)
                },
                "volume_context say sata",
            ),
            (
                v1::ValidateVolumeCapabilitiesRequest {
                    mutable_parameters: map(&[("iops", "1")]),
                    ..request(1)
                },
                "mutable_parameters",
            ),
        ] {
            let answer = validate_response(asked, &volume());
            assert_eq!(answer.confirmed, None);
            assert!(answer.message.contains(text), "{}", answer.message);
        }
    }

    #[test]
    fn listings_start_where_the_token_says() {
        let list = |max_entries, starting_token: &str| {
            let starting_token = starting_token.to_owned();
            list_request(&v1::ListVolumesRequest { max_entries, starting_token })
                .map(|(start, max)| (max, start.map(|token| token.to_string())))
                .map_err(|error| error.code())
        };
        assert_eq!(list(0, ""), Ok((None, None)));
        assert_eq!(list(7, "v1:bs-1"), Ok((Some(7), Some("v1:bs-1".to_owned()))));
        assert_eq!(list(-1, ""), Err(Code::InvalidArgument));
        assert_eq!(list(0, "invalid-token"), Err(Code::Aborted));
    }
}
