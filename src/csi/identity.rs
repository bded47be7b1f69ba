//! The Identity service: who the driver is, what it offers, whether it can work yet.

use tonic::{Request, Response, Status, async_trait};

use super::probe::attach_missing;
use super::proto::v1::identity_server::Identity;
use super::proto::v1::plugin_capability::{Service, Type, VolumeExpansion, service, volume_expansion};
use super::proto::v1::{
    GetPluginCapabilitiesRequest, GetPluginCapabilitiesResponse, GetPluginInfoRequest, GetPluginInfoResponse,
    PluginCapability, ProbeRequest, ProbeResponse,
};
use crate::readiness::Readiness;

#[derive(Debug)]
pub struct IdentityService {
    driver_name: String,
    readiness: Readiness,
}

impl IdentityService {
    pub fn new(driver_name: impl Into<String>, readiness: Readiness) -> Self {
        Self { driver_name: driver_name.into(), readiness }
    }
}

#[async_trait]
impl Identity for IdentityService {
    async fn get_plugin_info(
        &self,
        _: Request<GetPluginInfoRequest>,
    ) -> Result<Response<GetPluginInfoResponse>, Status> {
        Ok(Response::new(GetPluginInfoResponse {
            name: self.driver_name.clone(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }))
    }

    /// What the driver offers as a whole: CSI wants the same answer of every instance, whatever it serves, and
    /// csi-sanity believes a node that names no controller.
    async fn get_plugin_capabilities(
        &self,
        _: Request<GetPluginCapabilitiesRequest>,
    ) -> Result<Response<GetPluginCapabilitiesResponse>, Status> {
        let service = |r#type: service::Type| Type::Service(Service { r#type: r#type.into() });
        let capabilities = [
            service(service::Type::ControllerService),
            service(service::Type::VolumeAccessibilityConstraints),
            Type::VolumeExpansion(VolumeExpansion { r#type: volume_expansion::Type::Online.into() }),
        ]
        .map(|capability| PluginCapability { r#type: Some(capability) })
        .to_vec();
        Ok(Response::new(GetPluginCapabilitiesResponse { capabilities }))
    }

    /// Reads a flag and no more. It is never an error: a sidecar exits on one, and a liveness probe would
    /// restart the driver while the cloud is down.
    async fn probe(&self, _: Request<ProbeRequest>) -> Result<Response<ProbeResponse>, Status> {
        let mut response = Response::new(ProbeResponse { ready: Some(self.readiness.is_ready()) });
        if response.get_ref().ready == Some(false) {
            attach_missing(response.metadata_mut(), &self.readiness.missing().join("; "));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn probe_follows_the_latches() {
        let readiness = Readiness::new();
        let latch = readiness.latch("zone");
        let identity = IdentityService::new("x", readiness);
        let ready = async || identity.probe(Request::new(ProbeRequest {})).await.unwrap().into_inner().ready;
        assert_eq!(ready().await, Some(false));
        latch.open();
        assert_eq!(ready().await, Some(true));
    }

    #[tokio::test]
    async fn info_names_the_driver_and_its_version() {
        let identity = IdentityService::new("udisk.csi.ucloud.cn", Readiness::new());
        let info =
            identity.get_plugin_info(Request::new(GetPluginInfoRequest {})).await.unwrap().into_inner();
        assert_eq!(info.name, "udisk.csi.ucloud.cn");
        assert_eq!(info.vendor_version, env!("CARGO_PKG_VERSION"));
    }

    #[tokio::test]
    async fn the_capabilities_are_the_drivers_not_the_instances() {
        let identity = IdentityService::new("x", Readiness::new());
        let answer = identity.get_plugin_capabilities(Request::new(GetPluginCapabilitiesRequest {}));
        let capabilities = answer.await.unwrap().into_inner().capabilities;
        let has = |wanted: Type| capabilities.iter().any(|c| c.r#type == Some(wanted));
        let service = |r#type: service::Type| Type::Service(Service { r#type: r#type.into() });
        assert!(has(service(service::Type::ControllerService)));
        assert!(has(service(service::Type::VolumeAccessibilityConstraints)));
        assert!(has(Type::VolumeExpansion(VolumeExpansion {
            r#type: volume_expansion::Type::Online.into()
        })));
    }
}
