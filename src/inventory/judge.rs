//! Single judgements on a volume, its disk and its attachments. Each says what it found, and what to do.

use std::collections::BTreeSet;

use super::cluster::{Attachment, Life, NodeNames, Requirement, Volume};
use super::finding::{Kind, ago};
use super::volumes::View;
use crate::cloud::{Disk, DiskStatus};
use crate::volume::topology::key;

/// Labels that tell the zone of a node: ours, the standard one, and the one before it.
const ZONE_KEYS: [&str; 3] =
    [key::ZONE, "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"];

/// What plugins before 22.09.1 wrote into volumes.
const RDMA_KEY: &str = "topology.udisk.csi.ucloud.cn/rdma-cluster-id";

/// States that no volume comes out of by itself.
pub(super) fn state(disk: &Disk, say: &mut impl FnMut(Kind, String)) {
    let what = match &disk.status {
        DiskStatus::Failed => "Failed",
        DiskStatus::RestoreFailed => "RestoreFailed",
        DiskStatus::Initializing
        | DiskStatus::Available
        | DiskStatus::Attaching
        | DiskStatus::InUse
        | DiskStatus::Detaching
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::Other(_) => return,
    };
    say(Kind::DiskFailed, format!("UDisk {} is {what}: ask UCloud's support", disk.id));
}

/// Where the disk is, and where the cluster wants it. `wanted` are its attachments with the names of their nodes.
pub(super) fn attachment(
    disk: &Disk,
    wanted: &[(&Attachment, NodeNames)],
    view: &View,
    say: &mut impl FnMut(Kind, String),
) {
    let place = place_of(disk);
    let elsewhere = |names: &NodeNames| names.have(disk) == Some(false);
    let age = |since: Option<u64>| since.map(|since| view.now.saturating_sub(since));
    let late = |since: Option<u64>| age(since).filter(|age| *age > view.stuck_after);
    let held =
        || wanted.iter().filter(|(attachment, _)| attachment.attached && attachment.life.deleted.is_none());
    match &disk.status {
        DiskStatus::InUse => {
            let mut told = false;
            for (attachment, _) in held().filter(|(_, names)| elsewhere(names)) {
                told = true;
                say(
                    Kind::AttachedElsewhere,
                    format!(
                        "VolumeAttachment {} says attached to node {}, but the disk is at {place}: somebody moved it; \
                         detach it there, then delete the VolumeAttachment",
                        attachment.name, attachment.node
                    ),
                );
            }
            if !told && wanted.iter().all(|(_, names)| elsewhere(names)) {
                let waits = match wanted {
                    [] => "no VolumeAttachment asks for that".to_owned(),
                    [(attachment, _), ..] => format!("its VolumeAttachment is for node {}", attachment.node),
                };
                say(
                    Kind::AttachedUnasked,
                    format!(
                        "the disk is attached to {place}, and {waits}; if no pod there uses it, detach it in the console"
                    ),
                );
            }
        }
        DiskStatus::Available => {
            for (attachment, _) in held() {
                say(
                    Kind::AttachedNowhere,
                    format!(
                        "VolumeAttachment {} says attached to node {}, but the disk is attached nowhere: somebody \
                         detached it; the attacher repairs this where it re-syncs, else delete the VolumeAttachment",
                        attachment.name, attachment.node
                    ),
                );
            }
        }
        DiskStatus::Attaching => {
            let waiting = wanted.iter().filter(|(attachment, _)| attachment.life.deleted.is_none());
            let since = waiting.map(|(attachment, _)| attachment.life.created).min().flatten();
            if wanted.is_empty() {
                say(
                    Kind::AttachedUnasked,
                    format!("the disk is Attaching to {place}, and no VolumeAttachment asks for that"),
                );
            } else if let Some(age) = late(since) {
                say(
                    Kind::StuckAttaching,
                    format!(
                        "the disk is Attaching to {place}, asked for {} ago: ask UCloud's support",
                        ago(age)
                    ),
                );
            }
        }
        DiskStatus::Detaching => {
            let leaving = wanted.iter().filter_map(|(attachment, _)| attachment.life.deleted).min();
            match (leaving, late(leaving)) {
                (None, _) => say(
                    Kind::StuckDetaching,
                    format!(
                        "the disk is Detaching from {place}, and no VolumeAttachment asks for that: somebody else does"
                    ),
                ),
                (Some(_), Some(age)) => say(
                    Kind::StuckDetaching,
                    format!(
                        "the disk is Detaching from {place}, asked for {} ago: ask UCloud's support",
                        ago(age)
                    ),
                ),
                (Some(_), None) => {}
            }
        }
        DiskStatus::Initializing
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::RestoreFailed
        | DiskStatus::Failed
        | DiskStatus::Other(_) => {}
    }
}

pub(super) fn errors(attachment: &Attachment, say: &mut impl FnMut(Kind, String)) {
    for (kind, verb, error) in [
        (Kind::AttachError, "attach to", &attachment.attach_error),
        (Kind::DetachError, "detach from", &attachment.detach_error),
    ] {
        if let Some(error) = error {
            say(kind, format!("{} cannot {verb} node {}: {error}", attachment.name, attachment.node));
        }
    }
}

/// A volume may be larger than its disk only until the disk has grown.
pub(super) fn size(volume: &Volume, disk: &Disk, say: &mut impl FnMut(Kind, String)) {
    let Some(bytes) = volume.bytes else { return };
    // A part of a GiB takes a whole one.
    let (wanted, is) = (bytes.div_ceil(1 << 30), u64::from(disk.size.get()));
    if is < wanted {
        say(
            Kind::DiskSmaller,
            format!(
                "the PersistentVolume says {wanted} GiB, the disk has {is}: an expansion was lost; grow the disk"
            ),
        );
    } else if is > wanted {
        say(
            Kind::DiskLarger,
            format!(
                "the PersistentVolume says {wanted} GiB, the disk has {is}: it was grown without Kubernetes, or an \
                 expansion was not noted; ask for {is}Gi in the claim"
            ),
        );
    }
}

/// Whether the pods that may use the volume can run where the disk is.
pub(super) fn place(volume: &Volume, disk: &Disk, say: &mut impl FnMut(Kind, String)) {
    let zones = |requirement: &Requirement| ZONE_KEYS.contains(&requirement.key.as_str());
    if let Some(others) = allowed_only(&volume.places, zones, disk.zone.as_str()) {
        say(
            Kind::OtherZone,
            format!(
                "the PersistentVolume may be used in {others} only, the disk is in {}: no pod can have it",
                disk.zone
            ),
        );
    }
    let Some(cluster) = disk.rdma_cluster.as_deref().filter(|cluster| !cluster.is_empty()) else { return };
    if let Some(others) = allowed_only(&volume.places, |requirement| requirement.key == RDMA_KEY, cluster) {
        say(
            Kind::OtherRdmaCluster,
            format!(
                "the PersistentVolume is bound to RDMA cluster {others}, the disk is in {cluster} now: UCloud moves \
                 disks; make the PersistentVolume anew without {RDMA_KEY}"
            ),
        );
    }
}

/// The values that are allowed instead, if every place excludes `value`.
fn allowed_only(
    places: &[Vec<Requirement>],
    concerns: impl Fn(&Requirement) -> bool,
    value: &str,
) -> Option<String> {
    let mut others = BTreeSet::new();
    for place in places {
        let mut excludes = false;
        for requirement in place.iter().filter(|r| r.operator == "In" && concerns(r)) {
            if !requirement.values.iter().any(|allowed| allowed == value) {
                excludes = true;
                others.extend(requirement.values.iter().map(String::as_str));
            }
        }
        if !excludes {
            return None;
        }
    }
    (!places.is_empty()).then(|| others.into_iter().collect::<Vec<_>>().join(", "))
}

/// What is not paid for is deleted, whoever uses it.
pub(super) fn bill(disk: &Disk, now: u64, say: &mut impl FnMut(Kind, String)) {
    let Some(bill) = &disk.bill else { return };
    if bill.overdue {
        say(
            Kind::Overdue,
            format!(
                "the bill of UDisk {} is overdue: UCloud deletes disks after ten days in arrears; pay",
                disk.id
            ),
        );
    } else if let Some(end) = bill.paid_until.filter(|end| *end < now) {
        say(
            Kind::Expired,
            format!("what was paid for UDisk {} in advance ended {} ago: renew it", disk.id, ago(now - end)),
        );
    }
}

/// Volumes that should have gone.
pub(super) fn phase(volume: &Volume, disk: Option<&Disk>, view: &View, say: &mut impl FnMut(Kind, String)) {
    let age = volume.phase_since.map(|since| view.now.saturating_sub(since));
    match volume.phase.as_str() {
        "Failed" => {
            let why = volume.message.as_deref().unwrap_or("see the events of the PersistentVolume");
            say(Kind::ReclaimFailed, format!("the disk could not be deleted: {why}"));
        }
        "Released" if volume.reclaim == "Delete" && age.is_none_or(|age| age > view.stuck_after) => {
            let since = age.map_or_else(String::new, |age| format!(" {} ago", ago(age)));
            let left = match disk {
                Some(_) => "the disk is still there, though it should be deleted",
                None => "the PersistentVolume is still there, though it should be deleted with its disk",
            };
            say(
                Kind::Released,
                format!("the claim went{since} and {left}: see the events of the PersistentVolume"),
            );
        }
        _ => {}
    }
}

/// An object whose deletion does not end.
pub(super) fn terminating(what: &str, life: &Life, view: &View) -> Option<String> {
    let age = view.now.saturating_sub(life.deleted?);
    if age <= view.stuck_after {
        return None;
    }
    let held = match life.finalizers.as_slice() {
        [] => "nothing that its finalizers name".to_owned(),
        finalizers => finalizers.join(", "),
    };
    Some(format!("{what} is being deleted for {}, held by {held}", ago(age)))
}

/// Where a disk is, by both names of its host.
pub(super) fn place_of(disk: &Disk) -> String {
    match (&disk.host, disk.host_ip) {
        (Some(host), Some(ip)) => format!("{host} ({ip})"),
        (Some(host), None) => host.to_string(),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => "a host that the cloud does not name".to_owned(),
    }
}
