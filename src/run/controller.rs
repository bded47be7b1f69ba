//! The controller's part of the driver.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::background::Background;
use super::count;
use super::place::{self, ControllerPlace};
use crate::config::{Config, Credentials as Source, MultiAttach};
use crate::controller::{Controller, ControllerConfig};
use crate::csi::controller::ControllerService;
use crate::csi::gate::Gate;
use crate::csi::operation::Operations;
use crate::csi::proto::v1::controller_server::ControllerServer;
use crate::readiness::{Latch, Readiness};
use crate::telemetry::metrics::{self, Metrics};
use crate::ucloud::{
    BuildError, CredentialSource, Credentials, Instance, Metadata, ReqwestTransport, Roles, UCloud,
    UCloudConfig,
};

/// Time for one try to get keys at start.
const KEYS_WITHIN: Duration = Duration::from_secs(10);
/// Between tries: nobody waits for anything but the Secret or the role that the operator adds.
const KEYS_PAUSE: Duration = Duration::from_secs(2);

type Service = Gate<ControllerServer<ControllerService<UCloud>>>;

/// Makes the Controller service. It is there once region and zone are known, from the configuration or from what
/// `ask` is told; ready when there are keys, too.
pub(super) fn start<A, F>(
    config: &Arc<Config>,
    operations: &Operations,
    readiness: &Readiness,
    background: &Background,
    metrics: &Metrics,
    ask: A,
) -> Result<Service, BuildError>
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Instance, String>> + Send + 'static,
{
    let transport = ReqwestTransport::for_endpoint(&config.cloud.api_endpoint)?;
    let credentials = credentials(config)?;
    let gate = Gate::new(readiness.clone());
    let (placed, keyed) =
        (readiness.latch("region and zone of the controller"), readiness.latch("keys of the API"));
    let (config, operations, opened) = (Arc::clone(config), operations.clone(), gate.clone());
    let metrics = metrics.clone();
    background.spawn(async move {
        let resolve = |said: Option<&Instance>| ControllerPlace::resolve(&config, said);
        let place = place::find(resolve, ask, |why| placed.blocked_by(why)).await;
        tracing::info!(region = place.region, zone = %place.zone, "the controller's place is known");
        let observer = Arc::new(metrics.clone());
        let access = access(&config, &place);
        let cloud = Arc::new(UCloud::with(access, transport, credentials, observer, fastrand::Rng::new()));
        let controller = Controller::new(Arc::clone(&cloud), settings(&config, &place));
        show(&metrics, &cloud, &controller);
        opened.open(ControllerServer::new(ControllerService::new(controller, operations, place.region)));
        placed.open();
        wait_for_keys(cloud.credentials(), &keyed).await;
    });
    Ok(gate)
}

/// The gauges that only a controller has.
fn show(metrics: &Metrics, cloud: &Arc<UCloud>, controller: &Controller<UCloud>) {
    let of = Arc::clone(cloud);
    metrics.gauge(&metrics::API_RATE, move || of.limiter().width());
    let of = Arc::clone(cloud);
    metrics.gauge(&metrics::API_WAITING, move || count(of.limiter().waiting()));
    let controller = controller.clone();
    metrics.gauge(&metrics::HOST_QUEUES, move || count(controller.changes_waiting()));
}

/// Says what is wrong with the keys before a volume needs them.
async fn wait_for_keys(credentials: &CredentialSource<ReqwestTransport>, latch: &Latch) {
    let mut said = String::new();
    while let Err(error) = credentials.current(Instant::now() + KEYS_WITHIN).await {
        let why = error.to_string();
        if said != why {
            tracing::warn!("not ready yet: {why}");
            latch.blocked_by(&why);
            said = why;
        }
        tokio::time::sleep(KEYS_PAUSE).await;
    }
    latch.open();
}

fn credentials(config: &Config) -> Result<CredentialSource<ReqwestTransport>, BuildError> {
    Ok(match &config.cloud.credentials {
        Source::Keys { public, private } => {
            CredentialSource::keys(Credentials::keys(public.clone(), private.clone()))
        }
        Source::Directory(path) => CredentialSource::directory(path.clone()),
        Source::Sts { role, role_v2 } => {
            let transport = ReqwestTransport::for_endpoint(&config.metadata_endpoint)?;
            let roles = Roles { v1: role.clone(), v2: role_v2.clone() };
            CredentialSource::sts(Metadata::new(transport, config.metadata_endpoint.clone()), roles)
        }
    })
}

fn access(config: &Config, place: &ControllerPlace) -> UCloudConfig {
    UCloudConfig {
        endpoint: config.cloud.api_endpoint.clone(),
        region: place.region.clone(),
        project_id: config.cloud.project_id.clone(),
        vpc_id: config.cloud.vpc_id.clone(),
        read_timeout: config.cloud.api_timeout,
    }
}

fn settings(config: &Config, place: &ControllerPlace) -> ControllerConfig {
    ControllerConfig {
        zone: Some(place.zone.clone()),
        multi_attach: match config.cloud.multi_attach {
            MultiAttach::No => Some(false),
            MultiAttach::Yes => Some(true),
            MultiAttach::Omit => None,
        },
        cross_pod_attach: config.cloud.cross_pod_attach,
        create_settle: config.cloud.create_settle,
        read_lag: config.cloud.read_lag,
        ..ControllerConfig::new(place.region.clone())
    }
}
