//! Who this node is. Found out by a background service, from flags and the metadata service.

use crate::volume::{HostId, Segment, Zone};

/// What kubelet writes down about the node, for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    pub host: HostId,
    pub region: String,
    pub zone: Zone,
    /// Whether RDMA disks can be attached, by the machine type.
    pub rssd: bool,
}

impl NodeIdentity {
    pub fn segment(&self) -> Segment {
        Segment::of_node(&self.region, &self.zone, self.rssd, &self.host)
    }
}

/// What is known so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityState {
    /// What is missing, why, and which flag would give it.
    Missing(String),
    Known(NodeIdentity),
}
