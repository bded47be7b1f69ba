//! Puts the parts together and runs them: the driver as a library function.

use std::io;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use crate::config::Config;
use crate::csi::identity::IdentityService;
use crate::csi::operation::Operations;
use crate::csi::proto::v1::identity_server::IdentityServer;
use crate::csi::server::{self, STOP_WITHIN, ServeError};
use crate::csi::socket::{Socket, SocketError};
use crate::readiness::Readiness;

/// Why the driver could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot create the directory {} of --plugin-dir: {cause}", .path.display())]
    PluginDir { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves until `stop`, then stops in order. Two drivers may run in one process, on sockets of their own.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    announce(&config);
    if let Some(path) = &config.plugin_dir {
        // A host directory, which a DaemonSet's volume may or may not have created.
        std::fs::create_dir_all(path).map_err(|cause| RunError::PluginDir { path: path.clone(), cause })?;
    }
    // Before anything that may take time: sidecars and kubelet give up on a driver that is not there.
    let socket = Socket::bind(&config.endpoint).await?;

    let readiness = Readiness::new();
    let operations = Operations::new();
    let mut routes = RoutesBuilder::default();
    routes.add_service(IdentityServer::new(IdentityService::new(
        config.driver_name.clone(),
        config.mode.has_controller(),
        readiness.clone(),
    )));
    server::serve(socket, routes.routes(), operations, stop, STOP_WITHIN).await?;
    Ok(())
}

fn announce(config: &Config) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        mode = config.mode.word(),
        driver = config.driver_name,
        socket = %config.endpoint.display(),
        node_name = config.node.hostname.as_deref().unwrap_or_default(),
        log = %config.log.filter,
        "starting"
    );
    if !config.ignored.is_empty() {
        tracing::info!("taken for compatibility, without effect: {}", config.ignored.join(" "));
    }
}
