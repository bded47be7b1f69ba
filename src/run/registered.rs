//! What kubelet was told about this node, kept over restarts of the driver.
//!
//! Kubelet writes the answer of NodeGetInfo into the Node's labels and into the CSINode object, and refuses to change
//! either later. So an answer that differs from the one before is worth a word before kubelet says no. And where nobody
//! can say it at a start, the one that kubelet accepted since the host booted still holds: while a host runs, its id,
//! its place and its type do not change.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::node::NodeIdentity;
use crate::volume::{HostId, Segment};

const FILE: &str = "registered.json";
/// A new one at each boot of the host, the same in all its containers.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Where it is remembered: a directory of the host, so it outlives the container.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    dir: PathBuf,
    /// Unknown: what is written holds for no boot.
    boot: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    #[serde(flatten)]
    answer: Answer,
    /// Versions before this one did not write it.
    #[serde(default)]
    boot: Option<String>,
}

impl Memory {
    pub(super) fn beside(endpoint: &Path) -> Self {
        let dir = endpoint.parent().unwrap_or(Path::new("/")).to_owned();
        let boot = std::fs::read_to_string(BOOT).ok().map(|text| text.trim().to_owned());
        Self { dir, boot: boot.filter(|id| !id.is_empty()) }
    }

    /// What was accepted before. A file that cannot be read is like none.
    pub(super) fn before(&self) -> Option<Answer> {
        Some(self.read()?.answer)
    }

    /// What was accepted since the host booted: it holds still. An image of a host's disk that another host was made
    /// from has this file, too, but another boot.
    pub(super) fn since_boot(&self) -> Option<NodeIdentity> {
        let Remembered { answer, boot } = self.read()?;
        if boot.is_none() || boot != self.boot {
            return None;
        }
        answer.identity()
    }

    pub(super) fn write(&self, answer: &Answer) -> io::Result<()> {
        let remembered = Remembered { answer: answer.clone(), boot: self.boot.clone() };
        // Beside it first, so that a stop in the middle leaves the older one whole.
        let beside = self.dir.join(format!(".{FILE}"));
        std::fs::write(&beside, serde_json::to_vec(&remembered)?)?;
        std::fs::rename(&beside, self.dir.join(FILE))
    }

    fn read(&self) -> Option<Remembered> {
        serde_json::from_slice(&std::fs::read(self.dir.join(FILE)).ok()?).ok()
    }
}

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

    /// The identity that was answered; `None` when the file was damaged or is of another version.
    fn identity(&self) -> Option<NodeIdentity> {
        let segment = Segment::parse(&self.topology.iter().cloned().collect()).ok()?;
        let identity = NodeIdentity {
            host: HostId::parse(&self.node_id).ok()?,
            region: segment.region?,
            zone: segment.zone?,
            rssd: segment.rssd?,
        };
        (Self::of(&identity) == *self).then_some(identity)
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
    use crate::volume::Zone;

    fn node(host: &str, zone: &str, rssd: bool) -> NodeIdentity {
        NodeIdentity {
            host: HostId::parse(host).unwrap(),
            region: "cn-bj2".to_owned(),
            zone: Zone::parse(zone).unwrap(),
            rssd,
        }
    }

    fn identity(host: &str, zone: &str, rssd: bool) -> Answer {
        Answer::of(&node(host, zone, rssd))
    }

    fn memory(dir: &Path, boot: Option<&str>) -> Memory {
        Memory { dir: dir.to_owned(), boot: boot.map(str::to_owned) }
    }

    #[test]
    fn a_restart_remembers_what_kubelet_accepted_and_names_what_changed() {
        let dir = tempfile::tempdir().unwrap();
        let memory = memory(dir.path(), None);
        assert_eq!(memory.before(), None);
        let before = identity("uhost-a", "cn-bj2-05", false);
        memory.write(&before).unwrap();
        let read = memory.before().unwrap();
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
        assert_eq!(memory.before(), None);
    }

    #[test]
    fn what_was_accepted_holds_until_the_host_boots_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let this_boot = memory(dir.path(), Some("b-1"));
        assert_eq!(this_boot.since_boot(), None);
        for rssd in [false, true] {
            let node = node("uhost-a", "cn-bj2-05", rssd);
            this_boot.write(&Answer::of(&node)).unwrap();
            assert_eq!(this_boot.since_boot(), Some(node));
        }
        assert_eq!(memory(dir.path(), Some("b-2")).since_boot(), None);
        assert_eq!(memory(dir.path(), None).since_boot(), None);
        let whole = std::fs::read_to_string(&file).unwrap();
        for (from, to) in [
            // Of a version that did not remember the boot.
            (r#","boot":"b-1""#, ""),
            (r#""b-1""#, "null"),
            (r#""node_id":"uhost-a""#, r#""node_id":"uhost-b""#),
            (r#""uhost-a""#, r#""uhost a""#),
            ("/rssd", "/rsd"),
            (r#""true""#, r#""yes""#),
            ("/zone", "/Zone"),
        ] {
            assert!(whole.contains(from), "{whole}");
            std::fs::write(&file, whole.replace(from, to)).unwrap();
            assert_eq!(this_boot.since_boot(), None, "{from} is {to}");
        }
        // What was written without a boot holds for none.
        memory(dir.path(), None).write(&identity("uhost-a", "cn-bj2-05", false)).unwrap();
        assert_eq!(memory(dir.path(), None).since_boot(), None);
        assert!(Memory::beside(&dir.path().join("csi.sock")).boot.is_some(), "no boot id on this machine");
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
