//! The parts of the API's objects that are looked at. The whole types would take a megabyte of every node's program for
//! fields that nobody reads.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

pub(super) type Meta = ObjectMeta;

macro_rules! shapes {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty,)* })*) => {$(
        #[derive(Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name { $($(#[$attribute])* pub(super) $field: $kind,)* }
    )*};
}

shapes! {
    Volume { metadata: Meta, spec: Option<VolumeSpec>, status: Option<VolumeStatus>, }
    VolumeSpec {
        csi: Option<Csi>,
        capacity: Option<BTreeMap<String, String>>,
        claim_ref: Option<Reference>,
        node_affinity: Option<Affinity>,
        persistent_volume_reclaim_policy: Option<String>,
        storage_class_name: Option<String>,
    }
    Csi { driver: String, volume_handle: String, }
    Reference { namespace: Option<String>, name: Option<String>, uid: Option<String>, }
    Affinity { required: Option<Selector>, }
    Selector { node_selector_terms: Vec<Term>, }
    Term { match_expressions: Option<Vec<Expression>>, }
    Expression { key: String, operator: String, values: Option<Vec<String>>, }
    VolumeStatus {
        phase: Option<String>,
        message: Option<String>,
        last_phase_transition_time: Option<Time>,
    }

    Claim { metadata: Meta, spec: Option<ClaimSpec>, status: Option<ClaimStatus>, }
    ClaimSpec { volume_name: Option<String>, storage_class_name: Option<String>, }
    ClaimStatus { phase: Option<String>, }

    Attachment { metadata: Meta, spec: AttachmentSpec, status: Option<AttachmentStatus>, }
    AttachmentSpec { attacher: String, node_name: String, source: Source, }
    Source { persistent_volume_name: Option<String>, }
    AttachmentStatus { attached: bool, attach_error: Option<Failure>, detach_error: Option<Failure>, }
    Failure { message: Option<String>, }

    Node { metadata: Meta, status: Option<NodeStatus>, }
    NodeStatus { addresses: Option<Vec<Address>>, }
    Address { #[serde(rename = "type")] kind: String, address: String, }

    CsiNode { metadata: Meta, spec: CsiNodeSpec, }
    CsiNodeSpec { drivers: Vec<NodeDriver>, }
    NodeDriver {
        name: String,
        #[serde(rename = "nodeID")] node_id: String,
    }
}
