//! The CSI Node service: arguments, codes, and calls that come together.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use common::{Disk, SMALL, TestHost, on_a_host};
use csi_udisk::csi::node::NodeService;
use csi_udisk::csi::operation::Operations;
use csi_udisk::csi::proto::v1;
use csi_udisk::csi::proto::v1::node_server::Node as _;
use csi_udisk::csi::proto::v1::volume_capability::access_mode::Mode;
use csi_udisk::csi::proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{IdentityState, Node, NodeConfig, NodeIdentity};
use csi_udisk::volume::{HostId, Zone};
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

fn service(node: Node) -> (NodeService, watch::Sender<IdentityState>) {
    let (sender, identity) =
        watch::channel(IdentityState::Missing("no machine type; set --machine-type".into()));
    (NodeService::new(node, Operations::new(), identity, 20), sender)
}

fn nowhere() -> NodeService {
    let root = PathBuf::from("/nonexistent");
    service(Node::new(&NodeConfig { sysfs_root: root.clone(), dev_root: root })).0
}

fn writer() -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}

async fn code<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Code {
    answer.await.err().map_or(Code::Ok, |status| status.code())
}

#[tokio::test]
async fn what_is_missing_is_an_invalid_argument() {
    let node = nowhere();
    let id = || "bs-1".to_owned();
    let path = || "/nonexistent/path".to_owned();
    let stage = v1::NodeStageVolumeRequest {
        volume_id: id(),
        staging_target_path: path(),
        volume_capability: Some(writer()),
        publish_context: BTreeMap::from([("device".into(), "vdb".into()), ("size".into(), "10".into())]),
        ..Default::default()
    };
    for broken in [
        v1::NodeStageVolumeRequest { volume_id: String::new(), ..stage.clone() },
        v1::NodeStageVolumeRequest { staging_target_path: String::new(), ..stage.clone() },
        v1::NodeStageVolumeRequest { staging_target_path: "relative".into(), ..stage.clone() },
        v1::NodeStageVolumeRequest { volume_capability: None, ..stage.clone() },
    ] {
        assert_eq!(code(node.node_stage_volume(Request::new(broken))).await, Code::InvalidArgument);
    }
    // Nothing of this host was looked at before; now sysfs is missing.
    assert_eq!(code(node.node_stage_volume(Request::new(stage))).await, Code::Unavailable);

    let publish = v1::NodePublishVolumeRequest {
        volume_id: id(),
        target_path: "/nonexistent/target".into(),
        staging_target_path: path(),
        volume_capability: Some(writer()),
        ..Default::default()
    };
    for broken in [
        v1::NodePublishVolumeRequest { volume_id: String::new(), ..publish.clone() },
        v1::NodePublishVolumeRequest { target_path: String::new(), ..publish.clone() },
        v1::NodePublishVolumeRequest { staging_target_path: String::new(), ..publish.clone() },
        v1::NodePublishVolumeRequest { volume_capability: None, ..publish.clone() },
    ] {
        assert_eq!(code(node.node_publish_volume(Request::new(broken))).await, Code::InvalidArgument);
    }
    // An attachment of another driver has no slot, so the disks of this host are looked at, and sysfs is missing.
    assert_eq!(code(node.node_publish_volume(Request::new(publish))).await, Code::Unavailable);

    for (volume_id, path) in [(String::new(), path()), (id(), String::new())] {
        let (volume_id, path) = (|| volume_id.clone(), || path.clone());
        let request = v1::NodeUnstageVolumeRequest { volume_id: volume_id(), staging_target_path: path() };
        assert_eq!(code(node.node_unstage_volume(Request::new(request))).await, Code::InvalidArgument);
        let request = v1::NodeUnpublishVolumeRequest { volume_id: volume_id(), target_path: path() };
        assert_eq!(code(node.node_unpublish_volume(Request::new(request))).await, Code::InvalidArgument);
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: volume_id(),
            volume_path: path(),
            ..Default::default()
        };
        assert_eq!(code(node.node_get_volume_stats(Request::new(request))).await, Code::InvalidArgument);
        let request =
            v1::NodeExpandVolumeRequest { volume_id: volume_id(), volume_path: path(), ..Default::default() };
        assert_eq!(code(node.node_expand_volume(Request::new(request))).await, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn unknown_volumes_and_paths_are_not_found() {
    let node = nowhere();
    for (volume_id, volume_path) in [("bs-1", "some/path"), ("bs-1", "/none"), ("no disk's id", "/none")] {
        let request = v1::NodeGetVolumeStatsRequest {
            volume_id: volume_id.into(),
            volume_path: volume_path.into(),
            ..Default::default()
        };
        assert_eq!(code(node.node_get_volume_stats(Request::new(request))).await, Code::NotFound);
        let request = v1::NodeExpandVolumeRequest {
            volume_id: volume_id.into(),
            volume_path: volume_path.into(),
            ..Default::default()
        };
        assert_eq!(code(node.node_expand_volume(Request::new(request))).await, Code::NotFound);
    }
}

#[tokio::test]
async fn the_node_says_who_it_is_once_it_is_known() {
    let root = PathBuf::from("/nonexistent");
    let (node, identity) = service(Node::new(&NodeConfig { sysfs_root: root.clone(), dev_root: root }));
    let info = || node.node_get_info(Request::new(v1::NodeGetInfoRequest {}));
    let status = info().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("--machine-type"), "{status}");
    identity.send_replace(IdentityState::Known(NodeIdentity {
        host: HostId::parse("uhost-1").unwrap(),
        region: "cn-bj2".into(),
        zone: Zone::parse("cn-bj2-05").unwrap(),
        rssd: true,
    }));
    let known = info().await.unwrap().into_inner();
    assert_eq!((known.node_id.as_str(), known.max_volumes_per_node), ("uhost-1", 20));
    let segments = known.accessible_topology.unwrap().segments;
    assert_eq!(segments.get("topology.udisk.csi.ucloud.cn/zone").map(String::as_str), Some("cn-bj2-05"));
    assert_eq!(segments.get("topology.udisk.csi.ucloud.cn/rssd").map(String::as_str), Some("true"));
}

#[tokio::test]
async fn only_what_works_is_advertised() {
    use v1::node_service_capability::Type as Kind;
    use v1::node_service_capability::rpc::Type;
    let answer = nowhere().node_get_capabilities(Request::new(v1::NodeGetCapabilitiesRequest {})).await;
    let mut types: Vec<i32> = Vec::new();
    for capability in answer.unwrap().into_inner().capabilities {
        let Some(Kind::Rpc(rpc)) = capability.r#type else { panic!("no RPC") };
        types.push(rpc.r#type);
    }
    let expected =
        [Type::StageUnstageVolume, Type::GetVolumeStats, Type::ExpandVolume, Type::GetVolumeHealth];
    let expected = expected.map(i32::from);
    assert_eq!(types, expected);
}

fn plugged(host: &TestHost) -> (Disk, v1::NodeStageVolumeRequest) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDB", &disk);
    let id = format!("bs{}", host.dir().file_name().unwrap().display()).replace('.', "-");
    let request = v1::NodeStageVolumeRequest {
        staging_target_path: host.staging(&id).display().to_string(),
        volume_id: id,
        volume_capability: Some(writer()),
        publish_context: BTreeMap::from([("device".into(), "vdb".into()), ("size".into(), "1".into())]),
        secrets: BTreeMap::from([("key".into(), "value".into())]),
        ..Default::default()
    };
    (disk, request)
}

#[test]
fn equal_calls_share_one_operation_and_others_wait_their_turn() {
    on_a_host(false, |host| async move {
        let (_disk, request) = plugged(&host);
        let node = Arc::new(service(host.node()).0);
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (node, request) = (Arc::clone(&node), request.clone());
                tokio::spawn(async move { node.node_stage_volume(Request::new(request)).await })
            })
            .collect();
        // The first of them has started when this runs.
        tokio::task::yield_now().await;
        let unstage = v1::NodeUnstageVolumeRequest {
            volume_id: request.volume_id.clone(),
            staging_target_path: request.staging_target_path.clone(),
        };
        let status = node.node_unstage_volume(Request::new(unstage.clone())).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted);
        assert!(status.message().contains("NodeStageVolume"), "{status}");
        for call in calls {
            call.await.unwrap().unwrap();
        }
        let staging = PathBuf::from(&request.staging_target_path);
        assert_eq!(Mounts::read().unwrap().at(&staging).count(), 1);
        node.node_unstage_volume(Request::new(unstage)).await.unwrap();
    });
}

#[test]
fn a_call_outlives_its_caller() {
    on_a_host(false, |host| async move {
        let (_disk, request) = plugged(&host);
        let node = Arc::new(service(host.node()).0);
        let staging = PathBuf::from(&request.staging_target_path);
        let caller = {
            let (node, request) = (Arc::clone(&node), request.clone());
            tokio::spawn(async move { node.node_stage_volume(Request::new(request)).await })
        };
        tokio::task::yield_now().await;
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        while Mounts::read().unwrap().top(&staging).is_none() {
            tokio::task::yield_now().await;
        }
        node.node_stage_volume(Request::new(request)).await.unwrap();
        assert_eq!(Mounts::read().unwrap().at(&staging).count(), 1);
    });
}

#[test]
fn usage_is_told_in_bytes_and_inodes() {
    on_a_host(false, |host| async move {
        let (_disk, request) = plugged(&host);
        let node = service(host.node()).0;
        node.node_stage_volume(Request::new(request.clone())).await.unwrap();
        let stats = v1::NodeGetVolumeStatsRequest {
            volume_id: request.volume_id.clone(),
            volume_path: request.staging_target_path.clone(),
            ..Default::default()
        };
        let usage = node.node_get_volume_stats(Request::new(stats)).await.unwrap().into_inner().usage;
        assert_eq!(usage.iter().map(|usage| usage.unit).collect::<Vec<_>>(), [1, 2]);
        assert!(usage.iter().all(|usage| usage.total > 0 && usage.used > 0 && usage.available > 0));
        let size = i64::try_from(SMALL).unwrap();
        let expand = v1::NodeExpandVolumeRequest {
            volume_id: request.volume_id.clone(),
            volume_path: request.staging_target_path.clone(),
            capacity_range: Some(v1::CapacityRange { required_bytes: size, limit_bytes: 0 }),
            ..Default::default()
        };
        let grown = node.node_expand_volume(Request::new(expand)).await.unwrap().into_inner();
        assert_eq!(grown.capacity_bytes, size);
    });
}

#[test]
fn health_is_told_in_words_for_programs_and_for_people() {
    use v1::VolumeHealthErrorType as Type;
    on_a_host(false, |host| async move {
        let (_disk, request) = plugged(&host);
        let node = service(host.node()).0;
        let asked = v1::NodeGetVolumeHealthRequest {
            volume_id: request.volume_id.clone(),
            staging_target_path: request.staging_target_path.clone(),
            ..Default::default()
        };
        let health = async || {
            let answer = node.node_get_volume_health(Request::new(asked.clone())).await.unwrap();
            answer.into_inner().volume_health.unwrap()
        };
        // Refused, because the volume is asked for as something else than it is.
        node.node_stage_volume(Request::new(request.clone())).await.unwrap();
        let staging = PathBuf::from(&request.staging_target_path);
        nix::mount::umount(&staging).unwrap();
        let mut wrong = request.clone();
        let mount = MountVolume { fs_type: "xfs".into(), ..Default::default() };
        wrong.volume_capability.as_mut().unwrap().access_type = Some(AccessType::Mount(mount));
        node.node_stage_volume(Request::new(wrong)).await.unwrap_err();
        let told = health().await;
        assert_eq!(told.volume_id, request.volume_id);
        let [problem] = told.health_statuses.as_slice() else { panic!("{told:?}") };
        assert_eq!((problem.status(), problem.reason.as_str()), (Type::Inaccessible, "MountFailed"));
        assert!(problem.message.contains("it holds ext4"), "{told:?}");

        node.node_stage_volume(Request::new(request.clone())).await.unwrap();
        assert_eq!(health().await.health_statuses, []);
        // By the id alone, as csi-sanity asks.
        let by_id = v1::NodeGetVolumeHealthRequest { volume_id: request.volume_id, ..Default::default() };
        let answer = node.node_get_volume_health(Request::new(by_id)).await.unwrap().into_inner();
        assert_eq!(answer.volume_health.unwrap().health_statuses, []);
    });
}

#[tokio::test]
async fn health_needs_an_id_and_knows_no_unknown_volume() {
    let node = nowhere();
    for (id, expected) in [("", Code::InvalidArgument), ("no disk's id", Code::NotFound)] {
        let request = v1::NodeGetVolumeHealthRequest { volume_id: id.into(), ..Default::default() };
        assert_eq!(code(node.node_get_volume_health(Request::new(request))).await, expected);
    }
}
