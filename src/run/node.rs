//! The node's part of the driver.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::background::Background;
use super::count;
use super::lookup::CloudLookup;
use super::registered::Memory;
use super::{place, registration};
use crate::config::Config;
use crate::csi::node::NodeService;
use crate::csi::operation::Operations;
use crate::csi::proto::v1::node_server::NodeServer;
use crate::node::linux::mountinfo::Mounts;
use crate::node::{IdentityState, Node, NodeConfig, propagation};
use crate::readiness::Readiness;
use crate::telemetry::metrics::{self, Metrics};
use crate::ucloud::{BuildError, Instance};

/// Makes the Node service. It serves at once, for volumes can be unmounted on a host that nobody knows yet; only
/// NodeGetInfo waits until `ask` has told who the node is.
pub(super) fn start<A, F>(
    config: &Arc<Config>,
    operations: &Operations,
    readiness: &Readiness,
    background: &Background,
    metrics: &Metrics,
    ask: A,
    stop: &CancellationToken,
) -> Result<NodeServer<NodeService>, BuildError>
where
    A: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Instance, String>> + Send + 'static,
{
    let latch = readiness.latch("identity of this node");
    let first = IdentityState::Missing("the metadata service has not answered yet".to_owned());
    let (sender, identity) = watch::channel(first);
    let settings = Arc::clone(config);
    let memory = Memory::beside(&config.endpoint);
    let remembered = memory.clone();
    background.spawn(async move {
        let waiting = |why: &str| {
            latch.blocked_by(why);
            sender.send_replace(IdentityState::Missing(why.to_owned()));
        };
        let resolve = |said: Option<&Instance>| place::node_identity(&settings, said);
        let fallback = || place::remembered_identity(&settings, remembered.since_boot()?);
        let known = place::find(resolve, ask, fallback, waiting).await;
        let (host, region, zone) = (&known.host, &known.region, &known.zone);
        tracing::info!(%host, region, %zone, rssd = known.rssd, "this node is known");
        sender.send_replace(IdentityState::Known(known));
        latch.open();
    });

    if let Some(settings) = config.node.registration.clone() {
        let latch = readiness.latch("registration with kubelet");
        let (config, identity, stop) = (Arc::clone(config), identity.clone(), stop.clone());
        background.spawn(registration::run(config, settings, memory, identity, latch, stop));
    }

    let kubelet_dir = config.node.kubelet_dir.clone();
    background.spawn(async move {
        // A thread of the pool: the directory may be on a file system that hangs.
        let _ = tokio::task::spawn_blocking(move || check_propagation(&kubelet_dir)).await;
    });

    let mut node = Node::new(&NodeConfig {
        sysfs_root: config.node.sysfs_root.clone(),
        dev_root: config.node.dev_root.clone(),
    })
    .observed_by(Arc::new(metrics.clone()));
    if config.node.cloud_lookup {
        let observer = Arc::new(metrics.clone());
        node = node.asking(Arc::new(CloudLookup::start(config, identity.clone(), background, observer)?));
    }
    let of = node.clone();
    metrics
        .gauge(&metrics::STUCK_CALLS, move || count(of.stuck_calls().iter().map(|calls| calls.count).sum()));
    let service = NodeService::new(node, operations.clone(), identity, config.node.max_volumes);
    Ok(NodeServer::new(service))
}

/// Only a warning: the driver cannot tell whether it runs in a container.
fn check_propagation(kubelet_dir: &std::path::Path) {
    match (kubelet_dir.canonicalize(), Mounts::read()) {
        (Err(error), _) => {
            tracing::warn!(dir = %kubelet_dir.display(), %error, "the directory of --kubelet-dir is not there");
        }
        (Ok(_), Err(error)) => tracing::warn!(%error, "mount propagation was not checked"),
        (Ok(dir), Ok(mounts)) => {
            if let Some(fault) = propagation::fault(&mounts, &dir) {
                tracing::warn!("{fault}");
            }
        }
    }
}
