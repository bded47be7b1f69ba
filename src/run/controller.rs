//! The controller's part of the driver.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::access::{Access, wait_for_keys};
use super::background::Background;
use super::count;
use super::place::{self, ControllerPlace};
use crate::config::{Config, MultiAttach};
use crate::controller::{Controller, ControllerConfig};
use crate::csi::controller::ControllerService;
use crate::csi::gate::Gate;
use crate::csi::operation::Operations;
use crate::csi::proto::v1::controller_server::ControllerServer;
use crate::readiness::Readiness;
use crate::telemetry::metrics::{self, Metrics};
use crate::ucloud::{BuildError, Instance, UCloud};

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
    stop: &CancellationToken,
) -> Result<Service, BuildError>
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Instance, String>> + Send + 'static,
{
    let access = Access::new(&config.cloud, &config.metadata_endpoint)?;
    let gate = Gate::new(readiness.clone());
    let (placed, keyed) =
        (readiness.latch("region and zone of the controller"), readiness.latch("keys of the API"));
    let (config, operations, opened) = (Arc::clone(config), operations.clone(), gate.clone());
    let (metrics, stop) = (metrics.clone(), stop.clone());
    background.spawn(async move {
        let resolve = |said: Option<&Instance>| ControllerPlace::resolve(&config, said);
        let place = place::find(resolve, ask, || None, |why| placed.blocked_by(why)).await;
        tracing::info!(region = place.region, zone = %place.zone, "the controller's place is known");
        let client = access.client(&config.cloud, &place.region, Arc::new(metrics.clone()));
        let cloud = Arc::new(client.stopped_by(stop));
        let controller = Controller::new(Arc::clone(&cloud), settings(&config, &place));
        show(&metrics, &cloud, &controller);
        opened.open(ControllerServer::new(ControllerService::new(controller, operations, place.region)));
        placed.open();
        wait_for_keys(cloud.credentials(), |why| {
            tracing::warn!("not ready yet: {why}");
            keyed.blocked_by(why);
        })
        .await;
        keyed.open();
    });
    Ok(gate)
}

/// The gauges that only a controller has.
fn show(metrics: &Metrics, cloud: &Arc<UCloud>, controller: &Controller<UCloud>) {
    let of = Arc::clone(cloud);
    metrics.gauge(&metrics::API_RATE, move || of.limiter().width());
    let of = Arc::clone(cloud);
    metrics.gauge(&metrics::API_WAITING, move || count(of.limiter().waiting()));
    let of = controller.clone();
    metrics.gauge(&metrics::HOST_QUEUES, move || count(of.changes_waiting()));
    let of = controller.clone();
    metrics.gauge(&metrics::STUCK_DISKS, move || count(of.disks_stuck()));
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
