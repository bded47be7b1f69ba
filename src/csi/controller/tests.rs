//! The service as a whole, against a cloud that never answers: what is decided without it, and what callers hear
//! while it is silent.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::Code;

use super::*;
use crate::cloud::{Attachment, CloudError, Disk, DiskFilter, DiskPage, Grown, Host, HostPage, NewDisk};
use crate::controller::ControllerConfig;
use crate::csi::proto::v1::controller_server::Controller as _;
use crate::csi::proto::v1::controller_service_capability::{self, rpc};
use crate::csi::proto::v1::volume_capability::{AccessMode, AccessType, BlockVolume};
use crate::volume::{Gib, HostId, Zone};

/// Counts the calls and answers none.
#[derive(Debug, Default)]
struct Silent {
    calls: AtomicUsize,
}

impl Silent {
    fn ask<T>(&self) -> impl Future<Output = T> + Send + use<T> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        pending()
    }
}

type Answer<T> = Result<T, CloudError>;

impl Cloud for Silent {
    async fn disk(&self, _: &DiskId, _: Deadline) -> Answer<Option<Disk>> {
        self.ask().await
    }

    async fn disks(&self, _: &DiskFilter, _: usize, _: usize, _: Deadline) -> Answer<DiskPage> {
        self.ask().await
    }

    async fn create_disk(&self, _: &NewDisk, _: Deadline) -> Answer<DiskId> {
        self.ask().await
    }

    async fn delete_disk(&self, _: &Zone, _: &DiskId, _: Deadline) -> Answer<()> {
        self.ask().await
    }

    async fn attach_disk(&self, _: &Attachment, _: Deadline) -> Answer<()> {
        self.ask().await
    }

    async fn detach_disk(&self, _: &Zone, _: &DiskId, _: &HostId, _: Deadline) -> Answer<()> {
        self.ask().await
    }

    async fn resize_detached_disk(&self, _: &Zone, _: &DiskId, _: Gib, _: Deadline) -> Answer<()> {
        self.ask().await
    }

    async fn resize_attached_disk(
        &self,
        _: &Zone,
        _: &DiskId,
        _: &HostId,
        _: Gib,
        _: Deadline,
    ) -> Answer<Grown> {
        self.ask().await
    }

    async fn host(&self, _: &HostId, _: Deadline) -> Answer<Option<Host>> {
        self.ask().await
    }

    async fn virtual_hosts(&self, _: usize, _: usize, _: Deadline) -> Answer<HostPage> {
        self.ask().await
    }

    async fn bare_metal_hosts(&self, _: usize, _: usize, _: Deadline) -> Answer<HostPage> {
        self.ask().await
    }
}

fn service() -> (ControllerService<Silent>, Arc<Silent>) {
    let cloud = Arc::new(Silent::default());
    let controller = Controller::new(Arc::clone(&cloud), ControllerConfig::new("cn-bj2"));
    (ControllerService::new(controller, Operations::new(), "cn-bj2"), cloud)
}

fn publish() -> v1::ControllerPublishVolumeRequest {
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

fn unpublish() -> v1::ControllerUnpublishVolumeRequest {
    v1::ControllerUnpublishVolumeRequest {
        volume_id: "bs-1".to_owned(),
        node_id: "uhost-1".to_owned(),
        ..v1::ControllerUnpublishVolumeRequest::default()
    }
}

fn within<T>(timeout: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Whether a call is served: it answers anything but `Unimplemented`, or goes to the cloud.
macro_rules! served {
    ($service:expr, $method:ident) => {{
        let call = $service.$method(Request::new(Default::default()));
        match tokio::time::timeout(Duration::from_secs(1), call).await {
            Ok(Err(status)) => status.code() != Code::Unimplemented,
            Ok(Ok(_)) | Err(_) => true,
        }
    }};
}

#[tokio::test(start_paused = true)]
async fn what_is_advertised_is_served_and_nothing_else() {
    let (service, _) = service();
    let advertised: BTreeSet<i32> = read::capabilities()
        .capabilities
        .into_iter()
        .filter_map(|capability| capability.r#type)
        .map(|controller_service_capability::Type::Rpc(rpc)| rpc.r#type)
        .collect();
    let calls = [
        (rpc::Type::CreateDeleteVolume, served!(service, create_volume)),
        (rpc::Type::CreateDeleteVolume, served!(service, delete_volume)),
        (rpc::Type::PublishUnpublishVolume, served!(service, controller_publish_volume)),
        (rpc::Type::PublishUnpublishVolume, served!(service, controller_unpublish_volume)),
        (rpc::Type::ListVolumes, served!(service, list_volumes)),
        (rpc::Type::ListVolumesPublishedNodes, served!(service, list_volumes)),
        (rpc::Type::GetVolume, served!(service, controller_get_volume)),
        (rpc::Type::ExpandVolume, served!(service, controller_expand_volume)),
        (rpc::Type::GetCapacity, served!(service, get_capacity)),
        (rpc::Type::CreateDeleteSnapshot, served!(service, create_snapshot)),
        (rpc::Type::CreateDeleteSnapshot, served!(service, delete_snapshot)),
        (rpc::Type::ListSnapshots, served!(service, list_snapshots)),
        (rpc::Type::GetSnapshot, served!(service, get_snapshot)),
        (rpc::Type::ModifyVolume, served!(service, controller_modify_volume)),
        (rpc::Type::GetVolumeHealth, served!(service, controller_get_volume_health)),
        (rpc::Type::ListVolumeHealth, served!(service, controller_list_volume_health)),
    ];
    for (capability, served) in calls {
        let advertised = advertised.contains(&capability.into());
        assert_eq!(advertised, served, "{}", capability.as_str_name());
    }
    // Details of calls above; what they offer is refused by name (see the tests of each call).
    let details = [rpc::Type::CloneVolume, rpc::Type::PublishReadonly, rpc::Type::SingleNodeMultiWriter];
    for detail in details {
        assert!(!advertised.contains(&detail.into()), "{}", detail.as_str_name());
    }
    let known = calls.iter().map(|(capability, _)| *capability).chain(details).collect::<BTreeSet<_>>();
    let all = (1..64).filter_map(|number| rpc::Type::try_from(number).ok()).collect::<BTreeSet<_>>();
    assert_eq!(known, all, "a capability of CSI is not looked at here");
    // These have no capability of their own.
    assert!(served!(service, validate_volume_capabilities));
    assert!(served!(service, controller_get_capabilities));
}

#[tokio::test]
async fn removing_what_cannot_exist_succeeds_without_a_call() {
    let (service, cloud) = service();
    for odd in ["reallyfakevolumeid/with/slashes", "a b", "数据盘"] {
        let request = v1::DeleteVolumeRequest { volume_id: odd.to_owned(), ..Default::default() };
        service.delete_volume(Request::new(request)).await.unwrap();
        let request = v1::ControllerUnpublishVolumeRequest { volume_id: odd.to_owned(), ..unpublish() };
        service.controller_unpublish_volume(Request::new(request)).await.unwrap();
        let request = v1::ControllerUnpublishVolumeRequest { node_id: odd.to_owned(), ..unpublish() };
        service.controller_unpublish_volume(Request::new(request)).await.unwrap();
    }
    assert_eq!(cloud.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn other_calls_do_not_find_what_cannot_exist() {
    let (service, cloud) = service();
    let odd = || "reallyfake/id".to_owned();
    let volume_capabilities = publish().volume_capability.into_iter().collect();
    let codes = [
        service
            .controller_publish_volume(Request::new(v1::ControllerPublishVolumeRequest {
                volume_id: odd(),
                ..publish()
            }))
            .await
            .unwrap_err(),
        service
            .controller_publish_volume(Request::new(v1::ControllerPublishVolumeRequest {
                node_id: odd(),
                ..publish()
            }))
            .await
            .unwrap_err(),
        service
            .controller_get_volume(Request::new(v1::ControllerGetVolumeRequest { volume_id: odd() }))
            .await
            .unwrap_err(),
        service
            .validate_volume_capabilities(Request::new(v1::ValidateVolumeCapabilitiesRequest {
                volume_id: odd(),
                volume_capabilities,
                ..Default::default()
            }))
            .await
            .unwrap_err(),
        service
            .controller_expand_volume(Request::new(v1::ControllerExpandVolumeRequest {
                volume_id: odd(),
                capacity_range: Some(v1::CapacityRange { required_bytes: 1 << 34, limit_bytes: 0 }),
                ..Default::default()
            }))
            .await
            .unwrap_err(),
    ];
    for status in codes {
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert!(status.message().contains("reallyfake/id"), "{status}");
    }
    assert_eq!(cloud.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn ids_are_required() {
    let (service, cloud) = service();
    let statuses = [
        service.create_volume(Request::new(Default::default())).await.unwrap_err(),
        service.delete_volume(Request::new(Default::default())).await.unwrap_err(),
        service.controller_publish_volume(Request::new(Default::default())).await.unwrap_err(),
        service.controller_unpublish_volume(Request::new(Default::default())).await.unwrap_err(),
        service.controller_expand_volume(Request::new(Default::default())).await.unwrap_err(),
        service.controller_get_volume(Request::new(Default::default())).await.unwrap_err(),
        service.validate_volume_capabilities(Request::new(Default::default())).await.unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().ends_with("is required"), "{status}");
    }
    assert_eq!(cloud.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_caller_hears_what_is_going_on_before_its_time_is_over() {
    let (service, _) = service();
    let begun = Instant::now();
    let request = within(Duration::from_secs(10), publish());
    let status = service.controller_publish_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("the attachment of UDisk bs-1 to node uhost-1"), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_retry_joins_and_another_change_of_the_disk_waits() {
    let (service, cloud) = service();
    let second = Duration::from_secs(1);
    let first = service.controller_publish_volume(within(second, publish())).await.unwrap_err();
    assert_eq!(first.code(), Code::DeadlineExceeded);
    let calls = cloud.calls.load(Ordering::Relaxed);
    assert!(calls > 0);

    // The same request, with other secrets.
    let mut retry = publish();
    retry.secrets.insert("key".to_owned(), "hunter2".to_owned());
    let status = service.controller_publish_volume(within(second, retry)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(service.operations.len(), 1);

    let delete = v1::DeleteVolumeRequest { volume_id: "bs-1".to_owned(), ..Default::default() };
    let range = Some(v1::CapacityRange { required_bytes: 1 << 34, limit_bytes: 0 });
    let expand = v1::ControllerExpandVolumeRequest {
        volume_id: "bs-1".to_owned(),
        capacity_range: range,
        ..Default::default()
    };
    let elsewhere = v1::ControllerPublishVolumeRequest { node_id: "uhost-2".to_owned(), ..publish() };
    let statuses = [
        service.delete_volume(within(second, delete)).await.unwrap_err(),
        service.controller_unpublish_volume(within(second, unpublish())).await.unwrap_err(),
        service.controller_expand_volume(within(second, expand)).await.unwrap_err(),
        service.controller_publish_volume(within(second, elsewhere)).await.unwrap_err(),
    ];
    for status in statuses {
        assert_eq!(status.code(), Code::Aborted, "{status}");
        assert!(status.message().contains("the attachment of UDisk bs-1 to node uhost-1"), "{status}");
    }
    assert_eq!(cloud.calls.load(Ordering::Relaxed), calls, "a refused call reached the cloud");
}

#[tokio::test(start_paused = true)]
async fn creates_of_different_names_do_not_wait_for_each_other() {
    let (service, _) = service();
    let create = |name: &str| {
        let parameters = [("type".to_owned(), "ssd".to_owned())].into();
        let volume_capabilities = publish().volume_capability.into_iter().collect();
        let request = v1::CreateVolumeRequest {
            name: name.to_owned(),
            parameters,
            volume_capabilities,
            ..Default::default()
        };
        within(Duration::from_secs(1), request)
    };
    for name in ["pvc-1", "pvc-2", "pvc-1"] {
        let status = service.create_volume(create(name)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains(&format!("the creation of volume {name:?}")), "{status}");
    }
    assert_eq!(service.operations.len(), 2);
    let mut other = create("pvc-1");
    other.get_mut().parameters.insert("udataArkMode".to_owned(), "yes".to_owned());
    let status = service.create_volume(other).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status}");
}

/// The server drops a call when its time-out is over, and the caller then reads nothing of ours. Only a real
/// connection has that time-out.
#[tokio::test]
async fn the_text_arrives_before_the_servers_own_time_out() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("csi.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let (service, _) = service();
    let operations = service.operations.clone();
    let server = tonic::transport::Server::builder()
        .add_service(v1::controller_server::ControllerServer::new(service))
        .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));
    let server = tokio::spawn(server);

    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = v1::controller_client::ControllerClient::new(channel);
    let request = within(Duration::from_secs(1), publish());
    let status = client.controller_publish_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("the attachment of UDisk bs-1 to node uhost-1"), "{status}");

    // A caller that hangs up does not end the operation.
    drop(client);
    assert_eq!(operations.len(), 1);
    server.abort();
}

#[tokio::test]
async fn a_volume_that_cannot_be_read_is_listed_without_a_size_and_on_no_node() {
    let id = DiskId::parse("bs-1").unwrap();
    let entry = service().0.entry(&crate::controller::Listed::Unreadable(id));
    let volume = v1::Volume { volume_id: "bs-1".to_owned(), ..v1::Volume::default() };
    assert_eq!(entry.volume, Some(volume));
    // Go's getters take an absent status, and CSI does not.
    assert_eq!(entry.status, Some(v1::list_volumes_response::VolumeStatus::default()));
}
