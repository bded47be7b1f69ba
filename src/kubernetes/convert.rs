//! From the API's objects to what is compared.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::shape::{self, Meta};
use crate::inventory::cluster::{Attachment, Claim, Life, Node, Requirement, Volume};

/// Which driver was chosen for a claim. The second is what Kubernetes before 1.23 wrote.
const PROVISIONER: [&str; 2] =
    ["volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"];
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// Where the attacher notes the node's CSI id.
const NODE_ID: &str = "csi.alpha.kubernetes.io/node-id";
/// How UK8S writes the host's id on its nodes; its documents spell the older label in two ways.
const HOST_LABELS: [&str; 3] = ["node.uk8s.ucloud.cn/resource_id", "UhostID", "UHostID"];

type Converted<T> = Result<T, serde_json::Error>;

pub(super) fn volume(value: Value) -> Converted<Volume> {
    let shape::Volume { metadata, spec, status } = serde_json::from_value(value)?;
    let spec = spec.unwrap_or_default();
    let status = status.unwrap_or_default();
    let (driver, handle) = spec.csi.map(|csi| (csi.driver, csi.volume_handle)).unzip();
    let capacity = spec.capacity.and_then(|capacity| capacity.get("storage").cloned());
    let required = spec.node_affinity.and_then(|affinity| affinity.required);
    let places = required.map(|selector| selector.node_selector_terms).unwrap_or_default();
    let claim_uid = spec.claim_ref.as_ref().and_then(|claim| claim.uid.clone());
    Ok(Volume {
        life: life(&metadata),
        name: metadata.name.unwrap_or_default(),
        driver,
        handle: handle.filter(|handle| !handle.is_empty()),
        bytes: capacity.as_deref().and_then(bytes),
        class: spec.storage_class_name.filter(|class| !class.is_empty()),
        phase: status.phase.unwrap_or_default(),
        phase_since: status.last_phase_transition_time.as_ref().and_then(seconds),
        message: status.message.filter(|message| !message.is_empty()),
        reclaim: spec.persistent_volume_reclaim_policy.unwrap_or_default(),
        claim: spec.claim_ref.and_then(|claim| Some((claim.namespace?, claim.name?))),
        claim_uid: claim_uid.filter(|uid| !uid.is_empty()),
        places: places.into_iter().map(place).collect(),
    })
}

fn place(term: shape::Term) -> Vec<Requirement> {
    let requirements = term.match_expressions.unwrap_or_default().into_iter();
    requirements
        .map(|one| Requirement {
            key: one.key,
            operator: one.operator,
            values: one.values.unwrap_or_default(),
        })
        .collect()
}

pub(super) fn claim(value: Value) -> Converted<Claim> {
    let shape::Claim { metadata, spec, status } = serde_json::from_value(value)?;
    let spec = spec.unwrap_or_default();
    let note = |key: &str| metadata.annotations.as_ref().and_then(|notes| notes.get(key)).cloned();
    Ok(Claim {
        life: life(&metadata),
        provisioner: PROVISIONER.into_iter().find_map(note),
        selected_node: note(SELECTED_NODE),
        namespace: metadata.namespace.unwrap_or_default(),
        name: metadata.name.unwrap_or_default(),
        uid: metadata.uid.unwrap_or_default(),
        phase: status.and_then(|status| status.phase).unwrap_or_default(),
        volume: spec.volume_name.filter(|name| !name.is_empty()),
        class: spec.storage_class_name,
    })
}

pub(super) fn attachment(value: Value) -> Converted<Attachment> {
    let shape::Attachment { metadata, spec, status } = serde_json::from_value(value)?;
    let status = status.unwrap_or_default();
    let node_id = metadata.annotations.as_ref().and_then(|notes| notes.get(NODE_ID)).cloned();
    let text = |error: Option<shape::Failure>| error.map(|error| error.message.unwrap_or_default());
    Ok(Attachment {
        life: life(&metadata),
        name: metadata.name.unwrap_or_default(),
        attacher: spec.attacher,
        node: spec.node_name,
        node_id,
        volume: spec.source.persistent_volume_name,
        attached: status.attached,
        attach_error: text(status.attach_error),
        detach_error: text(status.detach_error),
    })
}

pub(super) fn node(value: Value) -> Converted<Node> {
    let shape::Node { metadata, status } = serde_json::from_value(value)?;
    let mut node = Node { name: metadata.name.unwrap_or_default(), ..Node::default() };
    let labels = metadata.labels.unwrap_or_default();
    for id in HOST_LABELS.iter().filter_map(|key| labels.get(*key)) {
        // The newest of them also names nodes that are no hosts.
        if id.starts_with("uhost-") || id.starts_with("upm-") {
            node.names.add(id);
        }
    }
    let addresses = status.and_then(|status| status.addresses).unwrap_or_default();
    for address in addresses.iter().filter(|address| address.kind == "InternalIP") {
        if address.address.parse::<std::net::IpAddr>().is_ok() {
            node.names.add(&address.address);
        }
    }
    Ok(node)
}

/// The name of a node and its id for the driver.
pub(super) fn csi_node(value: Value, driver: &str) -> Converted<(String, Option<String>)> {
    let shape::CsiNode { metadata, spec } = serde_json::from_value(value)?;
    let ours = spec.drivers.into_iter().find(|known| known.name == driver);
    Ok((metadata.name.unwrap_or_default(), ours.map(|known| known.node_id)))
}

fn life(metadata: &Meta) -> Life {
    Life {
        created: metadata.creation_timestamp.as_ref().and_then(seconds),
        deleted: metadata.deletion_timestamp.as_ref().and_then(seconds),
        finalizers: metadata.finalizers.clone().unwrap_or_default(),
    }
}

fn seconds(time: &Time) -> Option<u64> {
    u64::try_from(time.0.as_second()).ok()
}

/// A quantity in bytes, a part of one counting whole. `None`: it is not understood.
fn bytes(quantity: &str) -> Option<u64> {
    let end = quantity.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+'));
    let (number, unit) = quantity.split_at(end.unwrap_or(quantity.len()));
    let (factor, divisor): (u128, u128) = match unit {
        "" => (1, 1),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "m" => (1, 1000),
        _ => {
            let exponent: u32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
            (10_u128.checked_pow(exponent)?, 1)
        }
    };
    let (whole, part) = number.trim_start_matches('+').split_once('.').unwrap_or((number, ""));
    let digits = format!("{}{part}", whole.trim_start_matches('+'));
    let divisor = divisor.checked_mul(10_u128.checked_pow(u32::try_from(part.len()).ok()?)?)?;
    let units: u128 = digits.parse().ok()?;
    u64::try_from(units.checked_mul(factor)?.div_ceil(divisor)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_in_all_their_forms() {
        for (text, expected) in [
            ("20Gi", Some(20 << 30)),
            ("21474836480", Some(20 << 30)),
            ("20G", Some(20_000_000_000)),
            ("1.5Gi", Some(3 << 29)),
            ("0.5Ti", Some(1 << 39)),
            ("2e10", Some(20_000_000_000)),
            ("1E3", Some(1000)),
            ("1500m", Some(2)),
            ("+5k", Some(5000)),
            ("128974848", Some(128_974_848)),
            ("", None),
            ("Gi", None),
            ("20gi", None),
            ("-1", None),
            ("99999999999Ti", None),
            ("1e99", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_volume_without_anything_is_read_too() {
        let volume = volume(json!({"metadata": {"name": "pv"}, "spec": {}})).unwrap();
        assert_eq!(volume, Volume { name: "pv".into(), ..Volume::default() });
        let nfs = json!({"metadata": {"name": "pv"}, "spec": {"nfs": {"path": "/", "server": "s"}}});
        assert_eq!(super::volume(nfs).unwrap().driver, None);
        assert!(super::volume(json!({"metadata": {"name": "pv"}, "spec": {"csi": 1}})).is_err());
    }

    #[test]
    fn only_names_that_the_cloud_knows_are_taken_for_a_node() {
        let node = node(json!({
            "metadata": {"name": "10.9.0.11", "labels": {
                "node.uk8s.ucloud.cn/resource_id": "uk8s-abc-n-xyz", "UhostID": "uhost-a"
            }},
            "status": {"addresses": [
                {"type": "Hostname", "address": "10.9.0.99"}, {"type": "InternalIP", "address": "10.9.0.11"},
                {"type": "InternalIP", "address": "not-an-address"}, {"type": "ExternalIP", "address": "1.2.3.4"}
            ]}
        }))
        .unwrap();
        assert_eq!(node.names.hosts.iter().map(|h| h.as_str()).collect::<Vec<_>>(), ["uhost-a"]);
        assert_eq!(node.names.addresses.len(), 1);
    }

    proptest! {
        #[test]
        fn any_quantity_is_understood_or_not(text in "\\PC{0,20}|[0-9.]{1,30}(Gi|m|e[0-9]{1,12})?") {
            let _ = bytes(&text);
        }
    }
}
