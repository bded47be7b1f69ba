//! What kubelet was told about this node, kept over restarts of the driver.
//!
//! Kubelet writes the answer of NodeGetInfo into the Node's labels and into the CSINode object, and refuses to change
//! either later. So an answer that differs from the one before is worth a word before kubelet says no.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::node::NodeIdentity;

const FILE: &str = "registered.json";

/// An answer to NodeGetInfo, as kubelet accepted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    node_id: String,
    /// In the order of their keys.
    topology: Vec<(String, String)>,
}

impl Answer {
    pub(super) fn of(identity: &NodeIdentity) -> Self {
        let topology = identity.segment().to_map().into_iter().collect();
        Self { node_id: identity.host.to_string(), topology }
    }

    /// What was accepted before. A file that cannot be read is like none: it only serves a warning.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(dir.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        // Beside it first, so that a stop in the middle leaves the older one whole.
        let beside = dir.join(format!(".{FILE}"));
        std::fs::write(&beside, serde_json::to_vec(self)?)?;
        std::fs::rename(&beside, dir.join(FILE))
    }

    /// What is new since `before`, or `None`.
    pub(super) fn changes(&self, before: &Self) -> Option<String> {
        let mut text = String::new();
        let mut add = |what: &str, old: Option<&str>, new: Option<&str>| {
            if old != new {
                let separator = if text.is_empty() { "" } else { ", " };
                let (old, new) = (old.unwrap_or("nothing"), new.unwrap_or("nothing"));
                let _ = write!(text, "{separator}{what} was {old} and is {new}");
            }
        };
        add("the node id", Some(&before.node_id), Some(&self.node_id));
        let keys = before.topology.iter().chain(&self.topology).map(|(key, _)| key.as_str());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            add(key, before.value(key), self.value(key));
        }
        (!text.is_empty()).then_some(text)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.topology.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    /// What cures a refusal of kubelet: labels are for people to remove, as they may have reasons. Kubelet is asked again
    /// and again meanwhile.
    pub(super) fn cure(&self, refusal: &str, driver: &str, node: Option<&str>) -> String {
        let node = node.unwrap_or("NODE");
        // First, for it names all topology keys, too. Kubelet takes the older entry out when it fails.
        if refusal.contains("updating CSINode") || refusal.contains("immutable") {
            return format!(
                "kubelet removes the older entry itself and is asked again; if the refusal stays, kubectl edit csinode \
                 {node} and remove the entry named {driver} from spec.drivers"
            );
        }
        let colliding = self.topology.iter().map(|(key, _)| key).filter(|key| refusal.contains(key.as_str()));
        let labels: Vec<String> = colliding.map(|key| format!("{key}-")).collect();
        if !labels.is_empty() {
            return format!("kubectl label node {node} {}", labels.join(" "));
        }
        format!("kubectl describe node {node} and the log of kubelet tell more; kubelet is asked again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{HostId, Zone};

    fn identity(host: &str, zone: &str, rssd: bool) -> Answer {
        Answer::of(&NodeIdentity {
            host: HostId::parse(host).unwrap(),
            region: "cn-bj2".to_owned(),
            zone: Zone::parse(zone).unwrap(),
            rssd,
        })
    }

    #[test]
    fn a_restart_remembers_what_kubelet_accepted_and_names_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Answer::read(dir.path()), None);
        let before = identity("uhost-a", "cn-bj2-05", false);
        before.write(dir.path()).unwrap();
        let read = Answer::read(dir.path()).unwrap();
        assert_eq!(read, before);
        assert_eq!(identity("uhost-a", "cn-bj2-05", false).changes(&read), None);
        assert_eq!(
            identity("uhost-a", "cn-bj2-05", true).changes(&read).as_deref(),
            Some("topology.udisk.csi.ucloud.cn/rssd was false and is true")
        );
        assert_eq!(
            identity("uhost-b", "cn-bj2-05", false).changes(&read).as_deref(),
            Some(
                "the node id was uhost-a and is uhost-b, topology.udisk.csi.ucloud.cn/host was uhost-a and is uhost-b"
            )
        );
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Answer::read(dir.path()), None);
    }

    #[test]
    fn the_cure_names_the_label_that_collides() {
        let answer = identity("uhost-a", "cn-bj2-05", true);
        let collision = "error updating Node object with CSI driver node info: error updating node: detected topology \
                         value collision: driver reported \"topology.udisk.csi.ucloud.cn/rssd\":\"true\" but existing \
                         label is \"topology.udisk.csi.ucloud.cn/rssd\":\"false\"";
        assert_eq!(
            answer.cure(collision, "d", Some("10.9.1.2")),
            "kubectl label node 10.9.1.2 topology.udisk.csi.ucloud.cn/rssd-"
        );
        // As the API server says it, with the whole entry.
        let immutable = "RegisterPlugin error -- plugin registration failed with err: error updating CSINode object with \
                         CSI driver node info: error updating CSINode: timed out waiting for the condition; caused by: \
                         CSINode.storage.k8s.io \"10.9.1.2\" is invalid: spec.drivers: Invalid value: \
                         {\"Name\":\"d\",\"NodeID\":\"uhost-a\",\"TopologyKeys\":[\
                         \"topology.udisk.csi.ucloud.cn/host\",\"topology.udisk.csi.ucloud.cn/rssd\"],\
                         \"Allocatable\":null}: field is immutable";
        let cure = answer.cure(immutable, "d", None);
        assert!(cure.contains("kubectl edit csinode NODE and remove the entry named d"), "{cure}");
        assert!(!cure.contains("kubectl label"), "{cure}");
        assert!(answer.cure("?", "d", Some("n")).starts_with("kubectl describe node n"));
    }
}
