//! What a cluster wants of its volumes: the parts of Kubernetes objects that are compared with the cloud.
//!
//! Times are unix seconds.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::cloud::Disk;
use crate::volume::{HostId, NodeRef};

/// All that was read of one cluster. Only ever made of complete readings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cluster {
    pub volumes: Vec<Volume>,
    pub claims: Vec<Claim>,
    pub attachments: Vec<Attachment>,
    pub nodes: Vec<Node>,
    /// Those of the texts that were looked for which occur anywhere in a PersistentVolume, a claim, a
    /// VolumeAttachment or a VolumeSnapshotContent.
    pub mentions: BTreeSet<String>,
}

/// What every object has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Life {
    pub created: Option<u64>,
    /// Since when it is being deleted.
    pub deleted: Option<u64>,
    /// What its deletion waits for.
    pub finalizers: Vec<String>,
}

/// A PersistentVolume.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Volume {
    pub name: String,
    pub life: Life,
    /// The CSI driver; `None` for volumes of another kind.
    pub driver: Option<String>,
    pub handle: Option<String>,
    pub bytes: Option<u64>,
    pub class: Option<String>,
    pub phase: String,
    pub phase_since: Option<u64>,
    pub message: Option<String>,
    pub reclaim: String,
    /// Namespace and name of the claim that it is for.
    pub claim: Option<(String, String)>,
    /// Which claim of that name; `None` when any will do, as in a volume that was made for one by hand.
    pub claim_uid: Option<String>,
    /// Required node affinity: it may be used where one of these holds. Empty: everywhere.
    pub places: Vec<Vec<Requirement>>,
}

/// One condition on the labels of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: String,
    pub values: Vec<String>,
}

/// A PersistentVolumeClaim.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub life: Life,
    pub phase: String,
    /// The PersistentVolume that it is bound to, or was asked to be.
    pub volume: Option<String>,
    pub class: Option<String>,
    /// The driver that was chosen to make its volume.
    pub provisioner: Option<String>,
    /// The node that its first pod was scheduled to.
    pub selected_node: Option<String>,
}

/// A VolumeAttachment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attachment {
    pub name: String,
    pub life: Life,
    pub attacher: String,
    pub node: String,
    /// The node's CSI id at the time of the attachment, as the attacher notes it.
    pub node_id: Option<String>,
    /// The PersistentVolume; `None` for volumes that a pod describes itself.
    pub volume: Option<String>,
    pub attached: bool,
    pub attach_error: Option<String>,
    pub detach_error: Option<String>,
}

/// A Node with what its CSINode says of the driver.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    pub name: String,
    pub names: NodeNames,
}

/// The names that the cloud has for a node: host ids and private addresses. The plugin that this driver replaces
/// knew nodes by their address only.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeNames {
    pub hosts: BTreeSet<HostId>,
    pub addresses: BTreeSet<IpAddr>,
}

impl NodeNames {
    /// Takes a host id or an address; anything else is no name that the cloud knows.
    pub fn add(&mut self, text: &str) {
        match NodeRef::parse(text) {
            Ok(NodeRef::Host(host)) => {
                self.hosts.insert(host);
            }
            Ok(NodeRef::Address(address)) => {
                self.addresses.insert(address);
            }
            Err(_) => {}
        }
    }

    /// Whether the disk is at this node. `None`: neither name of its host can be compared.
    pub fn have(&self, disk: &Disk) -> Option<bool> {
        let by_id = disk.host.as_ref().filter(|_| !self.hosts.is_empty()).map(|id| self.hosts.contains(id));
        let address = disk.host_ip.map(|address| address.to_canonical());
        let by_address =
            address.filter(|_| !self.addresses.is_empty()).map(|address| self.addresses.contains(&address));
        match (by_id, by_address) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (None, None) => None,
            (Some(false), _) | (_, Some(false)) => Some(false),
        }
    }
}

impl Cluster {
    /// What the cloud calls the node of an attachment, from all that is known of it, also when the node is gone.
    pub fn names_of_node(&self, attachment: &Attachment) -> NodeNames {
        let node = self.nodes.iter().find(|node| node.name == attachment.node);
        let mut names = node.map(|node| node.names.clone()).unwrap_or_default();
        if let Some(id) = &attachment.node_id {
            names.add(id);
        }
        // UK8S names nodes by their address. Other names are not the cloud's.
        if let Ok(address) = attachment.node.parse::<IpAddr>() {
            names.addresses.insert(address.to_canonical());
        }
        names
    }

    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }
}

impl Volume {
    /// The disk, if it is a volume of the driver.
    pub fn disk_of(&self, driver: &str) -> Option<&str> {
        self.handle.as_deref().filter(|_| self.driver.as_deref() == Some(driver))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::disk;
    use super::*;

    #[test]
    fn a_node_is_known_by_either_name() {
        let mut names = NodeNames::default();
        let mut there = disk("bs-1");
        there.host = Some(HostId::parse("uhost-a").unwrap());
        there.host_ip = Some("10.9.0.11".parse().unwrap());
        assert_eq!(names.have(&there), None);
        names.add("10.9.0.11");
        assert_eq!(names.have(&there), Some(true));
        // A host that took over the address of another is found by it, and so is one whose id is not known.
        names.add("uhost-old");
        assert_eq!(names.have(&there), Some(true));
        let mut other = NodeNames::default();
        other.add("uhost-b");
        assert_eq!(other.have(&there), Some(false));
        other.add("::ffff:10.9.0.11");
        assert_eq!(other.have(&there), Some(true));
        there.host_ip = None;
        assert_eq!(other.have(&there), Some(false));
        there.host = None;
        assert_eq!(other.have(&there), None);
    }

    #[test]
    fn a_node_that_is_gone_is_known_by_what_its_attachment_says() {
        let cluster = Cluster::default();
        let attachment =
            Attachment { node: "10.9.0.11".into(), node_id: Some("uhost-a".into()), ..Attachment::default() };
        let names = cluster.names_of_node(&attachment);
        assert_eq!((names.hosts.len(), names.addresses.len()), (1, 1));
        let attachment = Attachment { node: "worker-1".into(), node_id: None, ..attachment };
        assert_eq!(cluster.names_of_node(&attachment), NodeNames::default());
    }
}
