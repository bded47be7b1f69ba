//! CreateVolume, DeleteVolume, ControllerExpandVolume.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use crate::cloud::Cloud;
use crate::controller::{CreateRequest, ExpandRequest, Expanded, HostSees};
use crate::csi::capability::{capability, is_block};
use crate::csi::proto::v1;
use crate::csi::status::controller as errors;
use crate::csi::status::request::RequestError;
use crate::volume::{
    Access, DiskId, FsType, Parameters, SizeRange, TopologyRequirement, VolumeContext, name,
};

use super::{Change, ControllerService, disk, disk_if_possible, wire_volume};

/// A disk is made in seconds, and UCloud's own tools wait five minutes for it. The same time covers the minute
/// for which a create with a lost answer must not be sent again.
const CREATE_TIME: Duration = Duration::from_secs(300);
/// A delete is done when it is answered; the API gives its backends one minute, so this is time for two tries.
const DELETE_TIME: Duration = Duration::from_secs(120);
/// Growing a disk takes about a minute, up to five as UCloud's tools see it, and waits for other changes on its
/// host.
const EXPAND_TIME: Duration = Duration::from_secs(600);

impl<C: Cloud> ControllerService<C> {
    pub(super) async fn create(
        &self,
        request: v1::CreateVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::CreateVolumeResponse, Status> {
        let wanted = create_request(&request)?;
        let what = format!("the creation of volume {:?}", request.name);
        let change = Change::of_name(&request.name, &request, what, CREATE_TIME);
        let region = self.region.clone();
        self.run(change, answer_by, |controller, deadline, progress| async move {
            let (fs, blank) = (wanted.parameters.fs, wanted.parameters.blank);
            let volume = controller.create(wanted, deadline, &progress).await.map_err(errors::create)?;
            let context =
                VolumeContext { disk_type: volume.disk_type, fs, blank, ..VolumeContext::default() };
            Ok(v1::CreateVolumeResponse { volume: Some(wire_volume(&volume, &region, &context)) })
        })
        .await
    }

    pub(super) async fn delete(
        &self,
        request: v1::DeleteVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::DeleteVolumeResponse, Status> {
        let Some(id) = disk_if_possible(&request.volume_id)? else {
            return Ok(v1::DeleteVolumeResponse {});
        };
        let change = Change::of_disk(&id, &request, format!("the deletion of UDisk {id}"), DELETE_TIME);
        self.run(change, answer_by, |controller, deadline, progress| async move {
            controller.delete(&id, deadline, &progress).await.map_err(errors::delete)?;
            Ok(v1::DeleteVolumeResponse {})
        })
        .await
    }

    pub(super) async fn expand(
        &self,
        request: v1::ControllerExpandVolumeRequest,
        answer_by: Instant,
    ) -> Result<v1::ControllerExpandVolumeResponse, Status> {
        let (id, range) = expand_request(&request)?;
        let block = request.volume_capability.as_ref().is_some_and(is_block);
        let change = Change::of_disk(&id, &request, format!("the growth of UDisk {id}"), EXPAND_TIME);
        self.run(change, answer_by, |controller, deadline, progress| async move {
            let SizeRange { required_bytes, limit_bytes } = range;
            let wanted = ExpandRequest { disk: id, required_bytes, limit_bytes };
            let expanded = controller.expand(wanted, deadline, &progress).await.map_err(errors::expand)?;
            Ok(expand_response(&expanded, block))
        })
        .await
    }
}

/// Checks a CreateVolume request, field by field.
fn create_request(request: &v1::CreateVolumeRequest) -> Result<CreateRequest, RequestError> {
    name::check_csi_name(&request.name)?;
    if request.volume_content_source.is_some() {
        return Err(RequestError::Unsupported {
            field: "volume_content_source",
            reason: "this driver makes empty volumes only; remove dataSource from the claim",
        });
    }
    if !request.mutable_parameters.is_empty() {
        return Err(RequestError::Unsupported {
            field: "mutable_parameters",
            reason: "this driver has no VolumeAttributesClass; remove volumeAttributesClassName from the claim",
        });
    }
    let parameters = Parameters::parse(&request.parameters)?;
    let fs = file_system(&request.volume_capabilities, parameters.fs.unwrap_or_default())?;
    let range = request.capacity_range.unwrap_or_default();
    let size = SizeRange::parse(range.required_bytes, range.limit_bytes)?.request(parameters.disk_type)?;
    let topology = match &request.accessibility_requirements {
        Some(requirement) => TopologyRequirement::parse(
            requirement.requisite.iter().map(|topology| &topology.segments),
            requirement.preferred.iter().map(|topology| &topology.segments),
        )?,
        None => None,
    };
    Ok(CreateRequest { name: request.name.clone(), size, parameters, fs, topology })
}

/// Checks all ways of use. They may be block and mount together, one after the other, but a volume has only one
/// file system. `None`: it is used as a raw block device only.
fn file_system(
    capabilities: &[v1::VolumeCapability],
    default_fs: FsType,
) -> Result<Option<FsType>, RequestError> {
    if capabilities.is_empty() {
        return Err(RequestError::Required("volume_capabilities"));
    }
    let mut fs = None;
    for asked in capabilities {
        let Access::Mount(mount) = capability(asked, default_fs)?.access else { continue };
        match fs.replace(mount.fs) {
            Some(one) if one != mount.fs => {
                return Err(RequestError::FileSystems { one, other: mount.fs });
            }
            Some(_) | None => {}
        }
    }
    Ok(fs)
}

fn expand_request(request: &v1::ControllerExpandVolumeRequest) -> Result<(DiskId, SizeRange), RequestError> {
    // The range before the id's form: a bad request is one whatever the volume.
    if request.volume_id.is_empty() {
        return Err(RequestError::Required("volume_id"));
    }
    let range = request.capacity_range.unwrap_or_default();
    let range = SizeRange::parse(range.required_bytes, range.limit_bytes)?;
    if range == SizeRange::default() {
        return Err(RequestError::Required("capacity_range"));
    }
    Ok((disk(&request.volume_id)?, range))
}

/// A raw device needs no step on the node, except when its host may not see the new size yet: that step then says
/// so until the host was restarted, where silence would show a size that the pod does not have.
fn expand_response(expanded: &Expanded, block: bool) -> v1::ControllerExpandVolumeResponse {
    let node_expansion_required = match expanded.host_sees {
        HostSees::Now => !block,
        HostSees::AfterRestart | HostSees::NotKnown => true,
    };
    v1::ControllerExpandVolumeResponse {
        capacity_bytes: i64::try_from(expanded.size.bytes()).unwrap_or(i64::MAX),
        node_expansion_required,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tonic::Code;

    use super::*;
    use crate::csi::proto::v1::volume_capability::{
        AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode,
    };
    use crate::volume::{DiskType, Gib, SizeRequest};

    const GIB: i64 = 1 << 30;

    fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn with_access(access: AccessType) -> v1::VolumeCapability {
        let mode = Mode::SingleNodeWriter.into();
        v1::VolumeCapability { access_mode: Some(AccessMode { mode }), access_type: Some(access) }
    }

    fn mount(fs_type: &str) -> v1::VolumeCapability {
        let fs_type = fs_type.to_owned();
        with_access(AccessType::Mount(MountVolume { fs_type, ..MountVolume::default() }))
    }

    fn block() -> v1::VolumeCapability {
        with_access(AccessType::Block(BlockVolume {}))
    }

    fn request() -> v1::CreateVolumeRequest {
        v1::CreateVolumeRequest {
            name: "pvc-1".to_owned(),
            capacity_range: Some(v1::CapacityRange { required_bytes: 15 * GIB, limit_bytes: 0 }),
            volume_capabilities: vec![mount("")],
            parameters: map(&[("type", "ssd")]),
            ..v1::CreateVolumeRequest::default()
        }
    }

    fn refused(change: impl FnOnce(&mut v1::CreateVolumeRequest)) -> (Code, String) {
        let mut request = request();
        change(&mut request);
        let status = Status::from(create_request(&request).unwrap_err());
        (status.code(), status.message().to_owned())
    }

    #[test]
    fn a_plain_request_arrives_whole() {
        let mut request = request();
        request.accessibility_requirements = Some(v1::TopologyRequirement {
            requisite: vec![v1::Topology {
                segments: map(&[("topology.udisk.csi.ucloud.cn/zone", "cn-bj2-05")]),
            }],
            preferred: vec![],
        });
        let wanted = create_request(&request).unwrap();
        assert_eq!(wanted.name, "pvc-1");
        assert_eq!(
            wanted.size,
            SizeRequest { wanted: Gib::new(20), required_bytes: Gib::new(15).bytes(), limit_bytes: None }
        );
        assert_eq!(wanted.parameters.disk_type, DiskType::Ssd);
        assert_eq!(wanted.fs, Some(FsType::Ext4));
        let topology = wanted.topology.unwrap();
        assert_eq!(topology.requisite[0].zone.as_ref().unwrap().as_str(), "cn-bj2-05");
        assert_eq!(topology.preferred, []);
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let request =
            v1::CreateVolumeRequest { capacity_range: None, volume_capabilities: vec![block()], ..request() };
        let wanted = create_request(&request).unwrap();
        assert_eq!(wanted.size, SizeRequest { wanted: Gib::new(10), required_bytes: 0, limit_bytes: None });
        assert_eq!(wanted.fs, None);
        assert_eq!(wanted.topology, None);
    }

    #[test]
    fn the_file_system_is_the_capabilitys_then_the_parameters_then_ext4() {
        for (capability, parameter, fs) in [
            ("xfs", None, FsType::Xfs),
            ("xfs", Some("btrfs"), FsType::Xfs),
            ("", Some("btrfs"), FsType::Btrfs),
            ("", None, FsType::Ext4),
        ] {
            let mut request = request();
            request.volume_capabilities = vec![block(), mount(capability), mount(capability)];
            if let Some(parameter) = parameter {
                request.parameters.insert("fsType".to_owned(), parameter.to_owned());
            }
            assert_eq!(create_request(&request).unwrap().fs, Some(fs));
        }
    }

    #[test]
    fn bad_requests_name_the_field() {
        type Case = (fn(&mut v1::CreateVolumeRequest), Code, &'static str);
        let cases: [Case; 12] = [
            (|r| r.name.clear(), Code::InvalidArgument, "name is required"),
            (|r| r.name = "x".repeat(129), Code::InvalidArgument, "name has 129 bytes"),
            (|r| r.volume_capabilities.clear(), Code::InvalidArgument, "volume_capabilities is required"),
            (
                |r| r.volume_capabilities = vec![mount("xfs"), mount("ext4")],
                Code::InvalidArgument,
                "the file systems xfs and ext4",
            ),
            (
                |r| r.volume_capabilities.push(v1::VolumeCapability::default()),
                Code::InvalidArgument,
                "access_mode is required",
            ),
            (
                |r| r.volume_content_source = Some(v1::VolumeContentSource::default()),
                Code::InvalidArgument,
                "volume_content_source",
            ),
            (|r| r.mutable_parameters = map(&[("iops", "9")]), Code::InvalidArgument, "mutable_parameters"),
            (|r| r.parameters.clear(), Code::InvalidArgument, "\"type\" is required"),
            (
                |r| {
                    let segments = map(&[("topology.kubernetes.io/zone", "x")]);
                    let requisite = vec![v1::Topology { segments }];
                    r.accessibility_requirements =
                        Some(v1::TopologyRequirement { requisite, preferred: vec![] });
                },
                Code::InvalidArgument,
                "topology.udisk.csi.ucloud.cn/zone",
            ),
            (
                |r| r.capacity_range = Some(v1::CapacityRange { required_bytes: -1, limit_bytes: 0 }),
                Code::InvalidArgument,
                "required_bytes is -1",
            ),
            (
                |r| {
                    r.capacity_range =
                        Some(v1::CapacityRange { required_bytes: 11 * GIB, limit_bytes: 12 * GIB });
                },
                Code::OutOfRange,
                "10 GiB and 20 GiB",
            ),
            (
                |r| r.capacity_range = Some(v1::CapacityRange { required_bytes: i64::MAX, limit_bytes: 0 }),
                Code::OutOfRange,
                "8000 GiB",
            ),
        ];
        for (change, code, text) in cases {
            let (got, message) = refused(change);
            assert_eq!(got, code, "{message}");
            assert!(message.contains(text), "{message}");
        }
    }

    #[test]
    fn a_growth_needs_a_volume_and_a_size() {
        let expand = |volume_id: &str, range: Option<(i64, i64)>| {
            let request = v1::ControllerExpandVolumeRequest {
                volume_id: volume_id.to_owned(),
                capacity_range: range
                    .map(|(required_bytes, limit_bytes)| v1::CapacityRange { required_bytes, limit_bytes }),
                ..v1::ControllerExpandVolumeRequest::default()
            };
            expand_request(&request).map_err(|error| (error.code(), error.to_string()))
        };
        use crate::csi::status::Code::{InvalidArgument, NotFound};
        let range = SizeRange { required_bytes: Gib::new(20).bytes(), limit_bytes: None };
        assert_eq!(expand("bs-1", Some((20 * GIB, 0))), Ok((DiskId::parse("bs-1").unwrap(), range)));
        assert_eq!(
            expand("", Some((20 * GIB, 0))),
            Err((InvalidArgument, "volume_id is required".to_owned()))
        );
        for none in [None, Some((0, 0))] {
            let error = (InvalidArgument, "capacity_range is required".to_owned());
            assert_eq!(expand("bs-1", none), Err(error));
        }
        assert_eq!(expand("bs 1", Some((20 * GIB, 0))).unwrap_err().0, NotFound);
        assert_eq!(expand("bs 1", Some((-1, 0))).unwrap_err().0, InvalidArgument);
    }

    #[test]
    fn a_raw_device_asks_for_a_node_step_only_to_report_a_restart() {
        for (host_sees, block, required) in [
            (HostSees::Now, false, true),
            (HostSees::Now, true, false),
            (HostSees::AfterRestart, false, true),
            (HostSees::AfterRestart, true, true),
            (HostSees::NotKnown, false, true),
            (HostSees::NotKnown, true, true),
        ] {
            let response = expand_response(&Expanded { size: Gib::new(20), host_sees }, block);
            assert_eq!(response.node_expansion_required, required);
            assert_eq!(response.capacity_bytes, 20 * GIB);
        }
    }
}
