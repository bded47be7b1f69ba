//! Reads a cluster through its API. The only place that knows kube-rs; the roles that serve volumes never come here.

mod connect;
mod convert;
mod list;
mod mention;
mod shape;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

pub use connect::ConnectError;
pub use list::ListError;

use crate::inventory::cluster::{Cluster, Node};
use list::{Kind, list};
use mention::Search;

/// Where the cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Files to merge, as kubectl does. Empty: `home` if it exists, else the pod's own service account.
    pub kubeconfig: Vec<PathBuf>,
    pub home: Option<PathBuf>,
    pub context: Option<String>,
}

/// A connection to one cluster.
#[derive(Clone)]
pub struct Kubernetes {
    client: kube::Client,
    /// The cluster in words.
    pub name: String,
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kubernetes {
    pub async fn connect(access: &Access) -> Result<Self, ConnectError> {
        connect::connect(access).await
    }

    /// Reads all that concerns volumes of `driver`, completely or not at all. With texts to look for, snapshots are
    /// searched, too.
    pub async fn read(
        &self,
        driver: &str,
        wanted: Option<&HashSet<String>>,
        within: Duration,
    ) -> Result<Cluster, ListError> {
        let reading = self.read_all(driver, wanted);
        tokio::time::timeout(within, reading)
            .await
            .unwrap_or_else(|_| Err(ListError::late(&self.name, within)))
    }

    async fn read_all(&self, driver: &str, wanted: Option<&HashSet<String>>) -> Result<Cluster, ListError> {
        let nothing = HashSet::new();
        let mut search = Search::new(wanted.unwrap_or(&nothing));
        let client = &self.client;
        // Claims first: what is made for one becomes a volume while its claim is there, so that whatever changes
        // meanwhile, one of the two is seen.
        let claims = list(client, Kind::Claims, |item| search.in_passing(item, convert::claim)).await?;
        let volumes = list(client, Kind::Volumes, |item| search.in_passing(item, convert::volume)).await?;
        let attachments =
            list(client, Kind::Attachments, |item| search.in_passing(item, convert::attachment)).await?;
        if wanted.is_some() {
            list(client, Kind::SnapshotContents, |item| search.in_passing(item, |_| Ok(()))).await?;
        }
        let mut nodes: BTreeMap<String, Node> = list(client, Kind::Nodes, convert::node)
            .await?
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect();
        for (name, id) in list(client, Kind::CsiNodes, |item| convert::csi_node(item, driver)).await? {
            if let Some(id) = id {
                let node = nodes.entry(name.clone()).or_insert_with(|| Node { name, ..Node::default() });
                node.names.add(&id);
            }
        }
        let nodes = nodes.into_values().collect();
        Ok(Cluster { volumes, claims, attachments, nodes, mentions: search.found() })
    }
}
