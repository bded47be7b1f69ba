//! The client of UCloud's HTTP API: the production side of [`Cloud`].
//!
//! # Layers
//!
//! ```text
//! UCloud (impl Cloud) ─▶ action/*   what goes in and comes out of each action
//!                    └─▶ client     keys ▸ turn ▸ sign ▸ send ▸ envelope ▸ again?
//!                          ├─▶ credentials, sts, metadata   where keys come from
//!                          ├─▶ crate::limit, retry          when to send, when to send again
//!                          ├─▶ error, ret_code              what a failure means for the disk
//!                          └─▶ transport                    HTTP, or a simulated cloud
//! ```
//!
//! # What holds here
//!
//! * A change is sent a second time only when the cloud certainly did not take the first one.
//! * An answer that is not understood is an error and never "gone": `Ok(None)` needs a complete answer that says so.
//! * Errors say through their outcome whether the change may have happened. Only documented refusals are certain.
//! * Everything ends by the caller's deadline.
//! * Keys, signatures and tokens are in no error, no log and no `Debug` print, also when the cloud quotes them.

mod action;
mod client;
mod credentials;
mod decode;
mod envelope;
mod error;
mod metadata;
mod observe;
mod params;
mod ret_code;
mod retry;
mod sign;
mod sts;
#[cfg(test)]
mod testing;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use tokio_util::sync::CancellationToken;

use action::{
    AttachUDisk, CreateUDisk, DeleteUDisk, DescribePHost, DescribePHosts, DescribeUDisk, DescribeUDiskPrice,
    DescribeUDisks, DescribeUHostInstance, DescribeUHostInstances, DetachUDisk, ResizeAttachedDisk,
    ResizePHostAttachedDisk, ResizeUDisk,
};
use client::{Client, Common};

pub use credentials::{CredentialError, CredentialSource, Credentials};
pub use metadata::{DEFAULT_ENDPOINT as DEFAULT_METADATA_ENDPOINT, Instance, Metadata, MetadataError};
pub use observe::{Attempt, Observer};
pub use retry::RetryBudget;
pub use sts::{DEFAULT_ROLE_V1, DEFAULT_ROLE_V2, Roles};
pub use transport::{
    BuildError, HttpRequest, HttpResponse, MAX_RESPONSE, Method, REQUEST_ID_HEADER, ReqwestTransport,
    Transport, TransportError, TransportErrorKind,
};

use crate::cloud::{
    Attachment, Cloud, CloudError, Deadline, Disk, DiskFilter, DiskPage, Grown, Host, HostPage, NewDisk,
    PriceClass, Prices,
};
use crate::limit::Limiter;
use crate::volume::{DiskId, Gib, HostId, HostKind, Zone};

/// For how long everything is refused before it is worth a word.
const HELD_UP: Duration = Duration::from_secs(5);

/// Where the account's disks are.
#[derive(Debug, Clone)]
pub struct UCloudConfig {
    /// The API's address; plain `http` inside a VPC.
    pub endpoint: Url,
    pub region: String,
    /// `None`: the project of temporary keys, else the account's default project.
    pub project_id: Option<String>,
    /// The VPC that host listings are narrowed to.
    pub vpc_id: Option<String>,
    /// Time for one send of a read. A change has at least the 65 s in which the API itself gives up.
    pub read_timeout: Duration,
}

/// UCloud's API as a [`Cloud`].
#[derive(Debug)]
pub struct UCloud<T = ReqwestTransport> {
    client: Client<T>,
    vpc_id: Option<String>,
}

impl<T: Transport> UCloud<T> {
    /// A client that nobody listens to and whose delays are random.
    pub fn new(config: UCloudConfig, transport: T, credentials: CredentialSource<T>) -> Self {
        Self::with(config, transport, credentials, Arc::new(()), fastrand::Rng::new())
    }

    /// A client with an observer of its requests and its own source of jitter.
    pub fn with(
        config: UCloudConfig,
        transport: T,
        credentials: CredentialSource<T>,
        observer: Arc<dyn Observer>,
        rng: fastrand::Rng,
    ) -> Self {
        let UCloudConfig { endpoint, region, project_id, vpc_id, read_timeout } = config;
        let user_agent = concat!("csi-udisk/", env!("CARGO_PKG_VERSION")).to_owned();
        let common = Common { endpoint, region, project_id, user_agent, read_timeout };
        Self { client: Client::new(common, transport, credentials, observer, rng), vpc_id }
    }

    /// From `stop` on it sends no change any more; reads go on.
    pub fn stopped_by(self, stop: CancellationToken) -> Self {
        Self { client: self.client.stopped_by(stop), ..self }
    }

    /// Where the keys come from; readiness asks for them once.
    pub fn credentials(&self) -> &CredentialSource<T> {
        self.client.credentials()
    }

    /// The limiter of the account's request rate, for gauges.
    pub fn limiter(&self) -> &Limiter {
        self.client.limiter()
    }
}

impl<T: Transport> Cloud for UCloud<T> {
    async fn disk(&self, id: &DiskId, deadline: Deadline) -> Result<Option<Disk>, CloudError> {
        self.client.call(&DescribeUDisk { id }, deadline).await
    }

    async fn disks(
        &self,
        filter: &DiskFilter,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> Result<DiskPage, CloudError> {
        let listing = DescribeUDisks { filter, offset, limit };
        let (listed, request_id) = self.client.answered(&listing, deadline).await?;
        Ok(listed.into_page(request_id.as_deref()))
    }

    async fn create_disk(&self, disk: &NewDisk, deadline: Deadline) -> Result<DiskId, CloudError> {
        self.client.call(&CreateUDisk { disk }, deadline).await
    }

    async fn delete_disk(&self, zone: &Zone, id: &DiskId, deadline: Deadline) -> Result<(), CloudError> {
        self.client.call(&DeleteUDisk { zone, id }, deadline).await
    }

    async fn attach_disk(&self, attachment: &Attachment, deadline: Deadline) -> Result<(), CloudError> {
        self.client.call(&AttachUDisk { attachment }, deadline).await
    }

    async fn detach_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        host: &HostId,
        deadline: Deadline,
    ) -> Result<(), CloudError> {
        self.client.call(&DetachUDisk { zone, id, host }, deadline).await
    }

    async fn resize_detached_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        size: Gib,
        deadline: Deadline,
    ) -> Result<(), CloudError> {
        self.client.call(&ResizeUDisk { zone, id, size }, deadline).await
    }

    async fn resize_attached_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        host: &HostId,
        size: Gib,
        deadline: Deadline,
    ) -> Result<Grown, CloudError> {
        match host.kind() {
            HostKind::Virtual => {
                self.client.call(&ResizeAttachedDisk { zone, id, host, size }, deadline).await
            }
            HostKind::BareMetal => {
                self.client.call(&ResizePHostAttachedDisk { zone, id, host, size }, deadline).await
            }
        }
    }

    async fn host(&self, id: &HostId, deadline: Deadline) -> Result<Option<Host>, CloudError> {
        match id.kind() {
            HostKind::Virtual => self.client.call(&DescribeUHostInstance { id }, deadline).await,
            HostKind::BareMetal => self.client.call(&DescribePHost { id }, deadline).await,
        }
    }

    async fn virtual_hosts(
        &self,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> Result<HostPage, CloudError> {
        let vpc_id = self.vpc_id.as_deref();
        self.client.call(&DescribeUHostInstances { vpc_id, offset, limit }, deadline).await
    }

    async fn bare_metal_hosts(
        &self,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> Result<HostPage, CloudError> {
        let vpc_id = self.vpc_id.as_deref();
        self.client.call(&DescribePHosts { vpc_id, offset, limit }, deadline).await
    }

    fn held_up(&self) -> Option<String> {
        let refused = self.limiter().refused_since()?.elapsed();
        // Shorter ones are everyday life.
        (refused >= HELD_UP).then(|| {
            format!(
                "the cloud has been refusing requests of this account as too many (RetCode 153) for {:.0} s; the driver \
                 slows down, other users of the account may have to as well",
                refused.as_secs_f64()
            )
        })
    }
}

impl<T: Transport> Prices for UCloud<T> {
    async fn price(&self, class: &PriceClass, deadline: Deadline) -> Result<u64, CloudError> {
        self.client.call(&DescribeUDiskPrice { class }, deadline).await
    }
}
