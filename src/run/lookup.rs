//! `--node-cloud-lookup`: the node's way to ask the cloud for the place of a disk.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::access::{Access, wait_for_keys};
use super::background::Background;
use crate::cloud::{Cloud as _, Disk, DiskStatus};
use crate::config::Config;
use crate::node::IdentityState;
use crate::node::lookup::{Answer, Lookup, Sighting, State};
use crate::ucloud::{BuildError, Observer, UCloud};
use crate::volume::{DiskId, HostId};

/// For one question, with its retries. Kubelet asks again.
const ASK_WITHIN: Duration = Duration::from_secs(20);

/// The cloud, once this node knows which region it is in.
pub(super) struct CloudLookup {
    identity: watch::Receiver<IdentityState>,
    client: Arc<OnceLock<UCloud>>,
}

impl CloudLookup {
    /// Sends nothing but for keys, and those without holding up the node: most volumes need no lookup.
    pub(super) fn start(
        config: &Arc<Config>,
        identity: watch::Receiver<IdentityState>,
        background: &Background,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, BuildError> {
        let access = Access::new(&config.cloud, &config.metadata_endpoint)?;
        let client = Arc::new(OnceLock::new());
        let (config, slot, mut known) = (Arc::clone(config), Arc::clone(&client), identity.clone());
        background.spawn(async move {
            let region =
                match known.wait_for(|state| matches!(state, IdentityState::Known(_))).await.as_deref() {
                    Ok(IdentityState::Known(identity)) => identity.region.clone(),
                    // Nobody will know any more: the driver is stopping.
                    Ok(IdentityState::Missing(_)) | Err(_) => return,
                };
            let client = slot.get_or_init(|| access.client(&config.cloud, &region, observer));
            wait_for_keys(client.credentials(), |why| {
                tracing::warn!("--node-cloud-lookup cannot ask the cloud yet: {why}");
            })
            .await;
        });
        Ok(Self { identity, client })
    }
}

impl fmt::Debug for CloudLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudLookup").finish_non_exhaustive()
    }
}

impl Lookup for CloudLookup {
    fn this_host(&self) -> Result<HostId, String> {
        match &*self.identity.borrow() {
            IdentityState::Known(identity) => Ok(identity.host.clone()),
            IdentityState::Missing(what) => Err(format!("this node is not known yet: {what}")),
        }
    }

    fn disk<'a>(&'a self, disk: &'a DiskId) -> Answer<'a, Result<Option<Sighting>, String>> {
        Box::pin(async move {
            let client = self.client.get().ok_or("the driver is still starting")?;
            let found = client.disk(disk, Instant::now() + ASK_WITHIN).await;
            found.map(|disk| disk.map(sighting)).map_err(|error| error.to_string())
        })
    }
}

fn sighting(disk: Disk) -> Sighting {
    let state = match disk.status {
        DiskStatus::InUse => State::Attached,
        DiskStatus::Available => State::Free("Available".to_owned()),
        DiskStatus::Initializing => State::Other("Initializating".to_owned()),
        DiskStatus::Attaching => State::Other("Attaching".to_owned()),
        DiskStatus::Detaching => State::Other("Detaching".to_owned()),
        DiskStatus::Cloning => State::Other("Cloning".to_owned()),
        DiskStatus::Restoring => State::Other("Restoring".to_owned()),
        DiskStatus::RestoreFailed => State::Other("RestoreFailed".to_owned()),
        DiskStatus::Failed => State::Other("Failed".to_owned()),
        DiskStatus::Other(word) => State::Other(word),
    };
    let Disk { host, device, size, is_boot, .. } = disk;
    Sighting { host, state, device, size, is_boot }
}
