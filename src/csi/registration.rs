//! Kubelet's plugin registration: kubelet finds this socket, asks who is behind it, and says whether it will use the
//! driver. No registrar beside the driver is needed.

use tokio::sync::watch;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

use super::connection::Connection;
use super::proto::registration::registration_server::{Registration, RegistrationServer};
use super::proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use super::socket::Socket;

/// The version of CSI as kubelet compares it: it knows 1 and takes all of its minor versions.
const VERSION: &str = "1.0.0";

/// What kubelet said last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Registered,
    /// In kubelet's own words.
    Refused(String),
}

/// Answers from memory, since kubelet waits one second only.
#[derive(Debug)]
pub struct RegistrationService {
    driver_name: String,
    /// The driver's socket as kubelet sees it, which is not where the driver's container sees it.
    endpoint: String,
    told: watch::Sender<Told>,
}

impl RegistrationService {
    pub fn new(
        driver_name: impl Into<String>,
        endpoint: impl Into<String>,
        told: watch::Sender<Told>,
    ) -> Self {
        Self { driver_name: driver_name.into(), endpoint: endpoint.into(), told }
    }
}

#[async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: self.driver_name.clone(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        self.told.send_replace(match status.plugin_registered {
            true => Told::Registered,
            false => Told::Refused(status.error),
        });
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// Serves until `stop`; then the socket is gone and its connections are cut, for nothing here takes time.
pub async fn serve(
    socket: Socket,
    service: RegistrationService,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let connections = socket
        .accept(stop.clone())
        .map(move |accepted| accepted.map(|stream| Connection::new(stream, cut.clone())));
    let server =
        Server::builder().add_service(RegistrationServer::new(service)).serve_with_incoming(connections);
    stop.run_until_cancelled(server).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kubelet_learns_the_name_the_path_and_the_version_and_is_heard() {
        let (told, heard) = watch::channel(Told::Nothing);
        let path = "/var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn/csi.sock";
        let service = RegistrationService::new("udisk.csi.ucloud.cn", path, told);
        let info = service.get_info(Request::new(InfoRequest {})).await.unwrap().into_inner();
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "udisk.csi.ucloud.cn"));
        assert_eq!(
            (info.endpoint.as_str(), info.supported_versions.as_slice()),
            (path, &["1.0.0".to_owned()][..])
        );
        assert_eq!(*heard.borrow(), Told::Nothing);
        for (plugin_registered, error, expected) in [
            (false, "no such label", Told::Refused("no such label".to_owned())),
            (true, "", Told::Registered),
        ] {
            let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
            service.notify_registration_status(Request::new(status)).await.unwrap();
            assert_eq!(*heard.borrow(), expected);
        }
    }
}
