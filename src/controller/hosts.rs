//! From a node id to a host id.
//!
//! Nodes are named by their host id. The plugin we replace named them by the node's private address, and its
//! VolumeAttachments live on in a cluster; there is no way to ask the cloud for an address, so the hosts are
//! listed and remembered for a short while.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::cloud::{Cloud, CloudError, Deadline, Host};
use crate::volume::{HostId, HostKind, NodeRef};

use super::pages;

/// Why a node id names no host.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HostError {
    #[error(
        "no host of this project (and VPC) has the private address {address}; \
         if the node is gone, delete its Node object"
    )]
    Unknown { address: IpAddr },
    /// Acting on the wrong one would take a disk from a running pod.
    #[error(
        "the private address {address} belongs to several hosts ({hosts}); set --vpc-id to the cluster's VPC"
    )]
    Ambiguous { address: IpAddr, hosts: String },
    #[error("cannot find the host of {address}: {source}")]
    Unreadable { address: IpAddr, source: CloudError },
}

#[derive(Debug)]
pub(super) struct Hosts {
    memory: Duration,
    /// Held while the hosts are listed, so that many lookups at once cost one listing.
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    begun: Instant,
    by_address: HashMap<IpAddr, Vec<HostId>>,
}

impl Hosts {
    pub(super) fn new(memory: Duration) -> Self {
        Self { memory, known: Mutex::new(None) }
    }

    /// The host that a node id names. A host id is taken as it is: whether it exists, the cloud says when it
    /// is asked to attach something.
    pub(super) async fn resolve<C: Cloud>(
        &self,
        cloud: &C,
        node: &NodeRef,
        deadline: Deadline,
    ) -> Result<HostId, HostError> {
        match node {
            NodeRef::Host(id) => Ok(id.clone()),
            NodeRef::Address(address) => self.by_address(cloud, *address, deadline).await,
        }
    }

    /// Makes the next lookup list the hosts again: what was remembered led to a refusal.
    pub(super) async fn distrust(&self) {
        *self.known.lock().await = None;
    }

    async fn by_address<C: Cloud>(
        &self,
        cloud: &C,
        address: IpAddr,
        deadline: Deadline,
    ) -> Result<HostId, HostError> {
        let asked = Instant::now();
        let mut known = self.known.lock().await;
        let fresh = known.as_ref().filter(|known| known.begun.elapsed() <= self.memory);
        if let Some(fresh) = fresh {
            match pick(fresh, address) {
                // A host that joined after the listing is not in it: list once more.
                Err(HostError::Unknown { .. }) if fresh.begun < asked => {}
                answer => return answer,
            }
        }
        let listed =
            list(cloud, deadline).await.map_err(|source| HostError::Unreadable { address, source })?;
        let answer = pick(&listed, address);
        *known = Some(listed);
        answer
    }
}

fn pick(known: &Known, address: IpAddr) -> Result<HostId, HostError> {
    match known.by_address.get(&address).map(Vec::as_slice) {
        None | Some([]) => Err(HostError::Unknown { address }),
        Some([host]) => Ok(host.clone()),
        Some(several) => {
            let hosts = several.iter().map(HostId::as_str).collect::<Vec<_>>().join(", ");
            Err(HostError::Ambiguous { address, hosts })
        }
    }
}

async fn list<C: Cloud>(cloud: &C, deadline: Deadline) -> Result<Known, CloudError> {
    let mut known = Known { begun: Instant::now(), by_address: HashMap::new() };
    let mut take = |host: Host| {
        for address in host.private_ips {
            let hosts = known.by_address.entry(address).or_default();
            if !hosts.contains(&host.id) {
                hosts.push(host.id.clone());
            }
        }
    };
    pages::hosts(cloud, HostKind::Virtual, deadline, &mut take).await?;
    pages::hosts(cloud, HostKind::BareMetal, deadline, &mut take).await?;
    Ok(known)
}
