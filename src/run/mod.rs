//! Puts the parts together and runs them: the driver as a library function.

mod access;
mod background;
mod controller;
#[cfg(feature = "kube")]
pub mod inventory;
mod lookup;
mod node;
mod place;
mod registered;
mod registration;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

use self::background::Background;
use crate::config::Config;
use crate::csi::identity::IdentityService;
use crate::csi::operation::Operations;
use crate::csi::proto::v1::identity_server::IdentityServer;
use crate::csi::server::{self, STOP_WITHIN, ServeError};
use crate::csi::socket::{Socket, SocketError};
use crate::readiness::Readiness;
use crate::telemetry::admin::{Admin, Port};
use crate::telemetry::level::LogLevel;
use crate::telemetry::metrics::{self, Metrics};
use crate::ucloud::{BuildError, Instance, Metadata, ReqwestTransport};

/// One question to the metadata service, which answers in milliseconds where there is one. The next follows soon.
const ASK_WITHIN: Duration = Duration::from_secs(3);

/// Why the driver could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot create the directory {} of --plugin-dir: {cause}", .path.display())]
    PluginDir { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("cannot listen on {address} of --http-endpoint: {cause}")]
    Port { address: SocketAddr, cause: io::Error },
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] BuildError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Serves until `stop`, then stops in order. Several drivers may run in one process, on sockets of their own.
pub async fn run(config: Config, log: LogLevel, stop: CancellationToken) -> Result<(), RunError> {
    announce(&config);
    if let Some(path) = &config.plugin_dir {
        // A host directory, which a DaemonSet's volume may or may not have created.
        std::fs::create_dir_all(path).map_err(|cause| RunError::PluginDir { path: path.clone(), cause })?;
    }
    // First, so that a second driver on one socket has done nothing yet when it is refused.
    let socket = Socket::bind(&config.endpoint).await?;

    let config = Arc::new(config);
    let operations = Operations::new();
    let readiness = Readiness::new();
    let background = Background::default();
    let ask = asker(&config)?;
    let metrics = metrics(&config, &operations, &readiness);
    if let Some(address) = config.http_endpoint {
        let port = Port::bind(address).await.map_err(|cause| RunError::Port { address, cause })?;
        let admin = Admin { metrics: metrics.clone(), readiness: readiness.clone(), log };
        background.spawn(port.serve(admin));
    }

    let mut routes = RoutesBuilder::default();
    routes.add_service(IdentityServer::new(IdentityService::new(
        config.driver_name.clone(),
        readiness.clone(),
    )));
    if config.mode.has_controller() {
        routes.add_service(controller::start(
            &config,
            &operations,
            &readiness,
            &background,
            &metrics,
            ask.clone(),
            &stop,
        )?);
    }
    if config.mode.has_node() {
        routes.add_service(node::start(&config, &operations, &readiness, &background, &metrics, ask, &stop)?);
    }

    let served = server::serve(socket, routes.routes(), operations, metrics, stop, STOP_WITHIN).await;
    background.end().await;
    Ok(served?)
}

/// Asks the metadata service who this host is.
fn asker(config: &Config) -> Result<impl Fn() -> Asked + Clone + Send + Sync + 'static, BuildError> {
    let transport = ReqwestTransport::for_endpoint(&config.metadata_endpoint)?;
    let metadata = Arc::new(Metadata::new(transport, config.metadata_endpoint.clone()));
    Ok(move || -> Asked {
        let metadata = Arc::clone(&metadata);
        Box::pin(async move {
            metadata.instance(Instant::now() + ASK_WITHIN).await.map_err(|error| error.to_string())
        })
    })
}

/// The metrics of this process, with the gauges that both roles have.
fn metrics(config: &Config, operations: &Operations, readiness: &Readiness) -> Metrics {
    let metrics = Metrics::new(config.mode.word());
    let running = operations.clone();
    metrics.gauge(&metrics::OPERATIONS, move || count(running.len()));
    let running = operations.clone();
    metrics.gauge(&metrics::OLDEST, move || running.oldest().map_or(0.0, |age| age.as_secs_f64()));
    let readiness = readiness.clone();
    metrics.gauge(&metrics::READY, move || f64::from(u8::from(readiness.is_ready())));
    metrics
}

/// A count as Prometheus takes it; none of ours comes near the limit.
fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::from(u32::MAX), f64::from)
}

type Asked = std::pin::Pin<Box<dyn Future<Output = Result<Instance, String>> + Send>>;

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
