//! Each disagreement between cluster and cloud, and the agreement that is silent.

use crate::cloud::testing::odd;
use crate::cloud::{Bill, Disk, DiskStatus};
use crate::inventory::cluster::{Attachment, Claim, Cluster, Life, Node, Requirement, Volume};
use crate::inventory::finding::Kind;
use crate::inventory::report::{self, Format};
use crate::inventory::testing::{DAY, DRIVER, NOW, at, disk};
use crate::inventory::volumes::{Row, View, confirmed, join};
use crate::volume::{DiskName, Gib};

const UID: &str = "0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d";

fn view() -> View {
    View {
        driver: DRIVER.into(),
        name_prefix: "pvc".into(),
        now: NOW,
        stuck_after: 600,
        account: "region cn-bj2".into(),
    }
}

fn life(created: u64) -> Life {
    Life { created: Some(NOW - created), ..Life::default() }
}

/// A cluster with one volume that is in use on one node, as the cloud says too.
fn cluster() -> Cluster {
    let volume = Volume {
        name: format!("pvc-{UID}"),
        life: life(DAY),
        driver: Some(DRIVER.into()),
        handle: Some("bs-1".into()),
        bytes: Some(20 << 30),
        class: Some("rssd".into()),
        phase: "Bound".into(),
        phase_since: Some(NOW - DAY),
        message: None,
        reclaim: "Delete".into(),
        claim: Some(("shop".into(), "data-mysql-0".into())),
        claim_uid: Some(UID.into()),
        places: vec![vec![within("topology.udisk.csi.ucloud.cn/zone", "cn-bj2-05")]],
    };
    let claim = Claim {
        namespace: "shop".into(),
        name: "data-mysql-0".into(),
        uid: UID.into(),
        life: life(DAY),
        phase: "Bound".into(),
        volume: Some(volume.name.clone()),
        class: Some("rssd".into()),
        provisioner: Some(DRIVER.into()),
        selected_node: Some("10.9.0.11".into()),
    };
    let mut node = Node { name: "10.9.0.11".into(), ..Node::default() };
    node.names.add("uhost-a");
    node.names.add("10.9.0.11");
    let attachment = Attachment {
        name: "csi-1".into(),
        life: life(DAY),
        attacher: DRIVER.into(),
        node: "10.9.0.11".into(),
        node_id: Some("uhost-a".into()),
        volume: Some(volume.name.clone()),
        attached: true,
        ..Attachment::default()
    };
    Cluster {
        volumes: vec![volume],
        claims: vec![claim],
        attachments: vec![attachment],
        nodes: vec![node],
        ..Cluster::default()
    }
}

fn within(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: "In".into(), values: vec![value.into()] }
}

fn used() -> Disk {
    Disk { name: format!("pvc-{UID}"), ..at(disk("bs-1"), "uhost-a", "10.9.0.11", DiskStatus::InUse) }
}

fn rows(cluster: &Cluster, disks: &[Disk]) -> Vec<Row> {
    join(cluster, disks, &[], &view())
}

/// All that is found, and the texts of it.
fn findings(change: impl FnOnce(&mut Cluster, &mut Vec<Disk>)) -> Vec<(Kind, String)> {
    let (mut cluster, mut disks) = (cluster(), vec![used()]);
    change(&mut cluster, &mut disks);
    let found = rows(&cluster, &disks).into_iter().flat_map(|row| row.findings);
    found.map(|finding| (finding.kind, finding.text)).collect()
}

/// Expects exactly one finding, whose text holds the words.
fn only(kind: Kind, words: &[&str], change: impl FnOnce(&mut Cluster, &mut Vec<Disk>)) {
    let found = findings(change);
    assert_eq!(found.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [kind], "{found:?}");
    for word in words {
        assert!(found[0].1.contains(word), "{word:?} is not in {:?}", found[0].1);
    }
}

fn nothing(change: impl FnOnce(&mut Cluster, &mut Vec<Disk>)) {
    assert_eq!(findings(change), []);
}

fn free(disk: &mut Disk, status: DiskStatus) {
    (disk.host, disk.host_ip, disk.device, disk.status) = (None, None, None, status);
}

#[test]
fn a_volume_in_use_as_it_should_be_is_silent() {
    nothing(|_, _| {});
    let rows = rows(&cluster(), &[used()]);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].attachments[0].here, Some(true));
    // So are a volume that nobody uses, and volumes of others.
    nothing(|cluster, disks| {
        cluster.attachments.clear();
        free(&mut disks[0], DiskStatus::Available);
    });
    nothing(|cluster, disks| {
        cluster.volumes[0].driver = Some("nfs.csi.k8s.io".into());
        cluster.volumes[0].handle = Some("nfs-1".into());
        cluster.claims[0].provisioner = Some("nfs.csi.k8s.io".into());
        cluster.attachments.clear();
        disks.clear();
    });
}

#[test]
fn a_disk_that_the_cloud_does_not_have() {
    only(Kind::DiskMissing, &["bs-1", "region cn-bj2"], |_, disks| disks.clear());
    only(Kind::DiskMissing, &["names no UDisk"], |cluster, _| cluster.volumes[0].handle = None);
}

#[test]
fn a_disk_that_failed() {
    only(Kind::DiskFailed, &["bs-1", "Failed", "support"], |cluster, disks| {
        cluster.attachments.clear();
        free(&mut disks[0], DiskStatus::Failed);
    });
}

#[test]
fn a_disk_that_is_attached_without_being_asked_for() {
    only(Kind::AttachedUnasked, &["uhost-a (10.9.0.11)", "no VolumeAttachment"], |cluster, _| {
        cluster.attachments.clear();
    });
    // Attached to another host than the one that waits for it.
    only(Kind::AttachedUnasked, &["uhost-b", "for node 10.9.0.11"], |cluster, disks| {
        cluster.attachments[0].attached = false;
        disks[0] = at(disks[0].clone(), "uhost-b", "10.9.0.12", DiskStatus::InUse);
    });
    only(Kind::AttachedUnasked, &["Attaching to uhost-a"], |cluster, disks| {
        cluster.attachments.clear();
        disks[0].status = DiskStatus::Attaching;
    });
    // Not yet noted by the attacher, or not yet detached: no disagreement.
    nothing(|cluster, _| cluster.attachments[0].attached = false);
    nothing(|cluster, _| cluster.attachments[0].life.deleted = Some(NOW - 5));
}

#[test]
fn an_attachment_whose_disk_is_nowhere() {
    only(Kind::AttachedNowhere, &["csi-1", "node 10.9.0.11", "attached nowhere"], |_, disks| {
        free(&mut disks[0], DiskStatus::Available);
    });
    nothing(|cluster, disks| {
        cluster.attachments[0].life.deleted = Some(NOW - 5);
        free(&mut disks[0], DiskStatus::Available);
    });
}

#[test]
fn an_attachment_whose_disk_is_elsewhere() {
    let moved = |disks: &mut Vec<Disk>| {
        disks[0] = at(disks[0].clone(), "uhost-b", "10.9.0.12", DiskStatus::InUse);
    };
    only(Kind::AttachedElsewhere, &["csi-1", "node 10.9.0.11", "uhost-b (10.9.0.12)"], |_, disks| {
        moved(disks)
    });
    // The node ids of the plugin that was replaced are addresses, and so are the names of UK8S's nodes.
    let old = |cluster: &mut Cluster| {
        cluster.nodes.clear();
        cluster.attachments[0].node_id = Some("10.9.0.11".into());
    };
    only(Kind::AttachedElsewhere, &["uhost-b"], |cluster, disks| {
        old(cluster);
        moved(disks);
    });
    nothing(|cluster, _| old(cluster));
    // Of a node of which nothing is known, nothing is said.
    nothing(|cluster, disks| {
        cluster.nodes.clear();
        cluster.attachments[0].node = "worker-1".into();
        cluster.attachments[0].node_id = None;
        moved(disks);
    });
}

#[test]
fn what_should_pass_and_does_not() {
    only(Kind::StuckAttaching, &["Attaching to uhost-a", "24 h"], |cluster, disks| {
        cluster.attachments[0].attached = false;
        disks[0].status = DiskStatus::Attaching;
    });
    nothing(|cluster, disks| {
        cluster.attachments[0].attached = false;
        cluster.attachments[0].life = life(599);
        disks[0].status = DiskStatus::Attaching;
    });
    let leaving = |since: u64| {
        move |cluster: &mut Cluster, disks: &mut Vec<Disk>| {
            cluster.attachments[0].life.deleted = Some(NOW - since);
            disks[0].status = DiskStatus::Detaching;
        }
    };
    nothing(leaving(600));
    let found = findings(leaving(601));
    let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::StuckDetaching, Kind::Terminating], "{found:?}");
    only(Kind::StuckDetaching, &["no VolumeAttachment asks"], |_, disks| {
        disks[0].status = DiskStatus::Detaching
    });
}

#[test]
fn what_the_attacher_could_not_do() {
    only(Kind::AttachError, &["csi-1", "node 10.9.0.11", "RetCode 17218"], |cluster, _| {
        cluster.attachments[0].attach_error = Some("AttachUDisk failed with RetCode 17218".into());
    });
    only(Kind::DetachError, &["csi-1", "busy"], |cluster, _| {
        cluster.attachments[0].detach_error = Some("busy".into());
    });
}

#[test]
fn sizes_that_differ() {
    only(Kind::DiskSmaller, &["30 GiB", "has 20"], |cluster, _| cluster.volumes[0].bytes = Some(30 << 30));
    only(Kind::DiskLarger, &["says 10 GiB", "20Gi in the claim"], |cluster, _| {
        cluster.volumes[0].bytes = Some(10 << 30);
    });
    // 20G are less than 20Gi and still take a disk of 20 GiB.
    nothing(|cluster, disks| {
        cluster.volumes[0].bytes = Some(20_000_000_000);
        disks[0].size = Gib::new(19);
    });
    nothing(|cluster, _| cluster.volumes[0].bytes = None);
}

#[test]
fn zones_that_differ() {
    for key in ["topology.udisk.csi.ucloud.cn/zone", "topology.kubernetes.io/zone"] {
        only(Kind::OtherZone, &["cn-bj2-02 only", "in cn-bj2-05"], |cluster, _| {
            cluster.volumes[0].places = vec![vec![within("x", "y"), within(key, "cn-bj2-02")]];
        });
    }
    // One place that fits is enough, and none says nothing.
    nothing(|cluster, _| {
        let other = vec![within("topology.udisk.csi.ucloud.cn/zone", "cn-bj2-02")];
        cluster.volumes[0].places.push(other);
    });
    nothing(|cluster, _| cluster.volumes[0].places.clear());
    nothing(|cluster, _| {
        cluster.volumes[0].places[0][0].operator = "NotIn".into();
        cluster.volumes[0].places[0][0].values = vec!["cn-bj2-02".into()];
    });
}

#[test]
fn an_rdma_cluster_that_the_disk_has_left() {
    let bound = |cluster: &mut Cluster, disks: &mut Vec<Disk>, is: &str| {
        let key = "topology.udisk.csi.ucloud.cn/rdma-cluster-id";
        cluster.volumes[0].places[0].push(within(key, "9002_25GE_D_R006"));
        disks[0].rdma_cluster = Some(is.into());
    };
    only(
        Kind::OtherRdmaCluster,
        &["9002_25GE_D_R006", "in 9003", "make the PersistentVolume anew"],
        |cluster, disks| {
            bound(cluster, disks, "9003");
        },
    );
    nothing(|cluster, disks| bound(cluster, disks, "9002_25GE_D_R006"));
    nothing(|cluster, disks| bound(cluster, disks, ""));
}

#[test]
fn volumes_that_should_have_gone() {
    let released = |cluster: &mut Cluster, since: Option<u64>| {
        cluster.claims.clear();
        cluster.volumes[0].phase = "Released".into();
        cluster.volumes[0].phase_since = since.map(|since| NOW - since);
    };
    only(Kind::Released, &["24 h ago", "still there"], |cluster, _| released(cluster, Some(DAY)));
    only(Kind::Released, &["still there"], |cluster, _| released(cluster, None));
    nothing(|cluster, _| released(cluster, Some(60)));
    let found = findings(|cluster, disks| {
        released(cluster, Some(DAY));
        cluster.attachments.clear();
        disks.clear();
    });
    let kinds: Vec<_> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::DiskMissing, Kind::Released], "{found:?}");
    assert!(!found[1].1.contains("the disk is still there"), "{found:?}");
    nothing(|cluster, _| {
        released(cluster, Some(DAY));
        cluster.volumes[0].reclaim = "Retain".into();
    });
    only(Kind::ReclaimFailed, &["RetCode 17026"], |cluster, _| {
        released(cluster, Some(DAY));
        cluster.volumes[0].phase = "Failed".into();
        cluster.volumes[0].message = Some("DeleteUDisk failed with RetCode 17026".into());
    });
}

#[test]
fn objects_whose_deletion_does_not_end() {
    let ending = |life: &mut Life, since: u64| {
        life.deleted = Some(NOW - since);
        life.finalizers = vec!["kubernetes.io/pvc-protection".into()];
    };
    only(
        Kind::Terminating,
        &["claim shop/data-mysql-0", "24 h", "kubernetes.io/pvc-protection"],
        |cluster, _| {
            ending(&mut cluster.claims[0].life, DAY);
        },
    );
    only(Kind::Terminating, &["PersistentVolume pvc-"], |cluster, _| {
        ending(&mut cluster.volumes[0].life, DAY)
    });
    only(Kind::Terminating, &["VolumeAttachment csi-1"], |cluster, _| {
        ending(&mut cluster.attachments[0].life, DAY);
    });
    nothing(|cluster, _| ending(&mut cluster.claims[0].life, 60));
}

#[test]
fn a_new_claim_of_an_old_name_is_not_the_volumes() {
    let found = findings(|cluster, _| {
        cluster.claims[0].uid = "0f0e0d0c-0000-4000-8000-000000000001".into();
        cluster.claims[0].volume = Some("another".into());
        cluster.claims[0].life.deleted = Some(NOW - DAY);
    });
    // Once each, from its own row.
    let kinds: Vec<Kind> = found.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::ClaimLost, Kind::Terminating], "{found:?}");
    // A volume that somebody made for a claim names no uid until it is bound.
    only(Kind::Terminating, &["claim shop/data-mysql-0"], |cluster, _| {
        cluster.volumes[0].claim_uid = None;
        cluster.claims[0].life.deleted = Some(NOW - DAY);
    });
}

#[test]
fn a_disk_in_two_volumes_and_a_name_on_two_disks() {
    let found = findings(|cluster, _| {
        cluster.volumes.push(Volume { name: "by-hand".into(), claim: None, ..cluster.volumes[0].clone() });
    });
    let two: Vec<&str> = found
        .iter()
        .filter(|(kind, _)| *kind == Kind::DiskInTwoVolumes)
        .map(|(_, text)| text.as_str())
        .collect();
    assert_eq!(two.len(), 2, "{found:?}");
    assert!(two[0].contains("by-hand"), "{two:?}");

    only(Kind::NameTwice, &["bs-2"], |_, disks| {
        disks.push(Disk { name: disks[0].name.clone(), ..disk("bs-2") })
    });
    // Names that people give mean nothing.
    nothing(|_, disks| {
        disks[0].name = "mysql".into();
        disks.push(Disk { name: "mysql".into(), ..disk("bs-2") });
    });
}

#[test]
fn bills_that_endanger_a_disk() {
    let bill = |disks: &mut Vec<Disk>, overdue: bool, paid_until: Option<u64>| {
        disks[0].bill = Some(Box::new(Bill { paid_until, overdue }));
    };
    only(Kind::Overdue, &["bs-1", "ten days"], |_, disks| bill(disks, true, Some(NOW - DAY)));
    only(Kind::Expired, &["24 h ago"], |_, disks| bill(disks, false, Some(NOW - DAY)));
    nothing(|_, disks| bill(disks, false, Some(NOW + DAY)));
}

#[test]
fn claims_without_a_volume() {
    let waits = |cluster: &mut Cluster, disks: &mut Vec<Disk>| {
        cluster.volumes.clear();
        cluster.attachments.clear();
        (cluster.claims[0].phase, cluster.claims[0].volume) = ("Pending".into(), None);
        free(&mut disks[0], DiskStatus::Available);
    };
    only(Kind::ClaimPending, &["24 h", "UDisk bs-1 is made"], waits);
    only(Kind::ClaimPending, &["no UDisk has its name"], |cluster, disks| {
        waits(cluster, disks);
        disks.clear();
    });
    // Names that the cloud does not take are found by their hash.
    let mut view = view();
    view.name_prefix = "a.b".into();
    let (mut cluster, mut disks) = (cluster(), vec![used()]);
    waits(&mut cluster, &mut disks);
    disks[0].name = DiskName::for_volume(&format!("a.b-{UID}")).to_string();
    assert_eq!(join(&cluster, &disks, &[], &view)[0].handle.as_deref(), Some("bs-1"));
    // A claim that waits for its first pod is no disagreement, and one of another driver no row.
    nothing(|cluster, disks| {
        waits(cluster, disks);
        disks.clear();
        cluster.claims[0].selected_node = None;
    });
    nothing(|cluster, disks| {
        waits(cluster, disks);
        cluster.claims[0].life = life(60);
    });
    nothing(|cluster, disks| {
        waits(cluster, disks);
        cluster.claims[0].provisioner = Some("nfs.csi.k8s.io".into());
    });
    only(Kind::ClaimLost, &["PersistentVolume pvc-", "does not exist"], |cluster, disks| {
        cluster.volumes.clear();
        cluster.attachments.clear();
        cluster.claims[0].phase = "Lost".into();
        disks.clear();
    });
}

#[test]
fn attachments_without_a_volume() {
    only(Kind::AttachmentWithoutVolume, &["csi-1", "pvc-"], |cluster, _| {
        cluster.volumes.clear();
        cluster.claims.clear();
    });
    nothing(|cluster, _| {
        cluster.volumes.clear();
        cluster.claims.clear();
        cluster.attachments[0].attacher = "nfs.csi.k8s.io".into();
    });
}

#[test]
fn only_what_holds_in_two_readings_is_told() {
    let mut moving = cluster();
    moving.attachments.clear();
    let earlier = rows(&moving, &[used()]);
    assert_eq!(earlier[0].findings.len(), 1);
    // The attachment came between the readings, and another disagreement with it.
    let mut later = cluster();
    later.volumes[0].bytes = Some(30 << 30);
    assert!(confirmed(&earlier, rows(&later, &[used()]))[0].findings.is_empty());
    assert_eq!(confirmed(&earlier, earlier.clone()), earlier);
    // A row that was not there before has nothing to be confirmed by.
    assert!(confirmed(&[], earlier)[0].findings.is_empty());
}

#[test]
fn the_table_fits_120_columns_and_json_says_it_all() {
    let mut cluster = cluster();
    cluster.attachments[0].attach_error = Some("first line\nsecond line ".repeat(20));
    let mut other = cluster.volumes[0].clone();
    other.name = format!("pvc-{}", "f".repeat(36));
    other.claim =
        Some(("a-namespace-with-a-long-name".into(), "a-claim-with-a-very-long-name-as-well-0".into()));
    other.handle = Some("bsm-gone12345".into());
    cluster.volumes.push(other);
    let rows = rows(&cluster, &[used()]);
    let text = report::volumes(&rows, "region cn-bj2", Format::Text);
    for line in text.lines() {
        assert!(line.chars().count() <= 120, "{line:?}");
    }
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "CLAIM                                     PV             UDISK          TYPE  SIZE  STATE    HOST     ATTACHMENT",
            "a-namespace-with-a-long-na…ame-as-well-0  pvc-ffff…ffff  bsm-gone12345  -        -  missing  -        -",
        ]
    );
    let wide = report::volumes(&rows, "region cn-bj2", Format::Wide);
    assert!(wide.contains(&format!("pvc-{UID}  bs-1 ")), "{wide}");
    assert!(wide.contains("2 volumes, 2 with findings\nregion cn-bj2\n"), "{wide}");

    let json: serde_json::Value =
        serde_json::from_str(&report::volumes(&rows, "region cn-bj2", Format::Json)).unwrap();
    assert_eq!(json["withFindings"], 2);
    let volume = &json["volumes"][1];
    assert_eq!(volume["claim"]["name"], "data-mysql-0");
    assert_eq!(volume["persistentVolume"]["capacityBytes"], 20_u64 << 30);
    assert_eq!(volume["udisk"]["state"], "InUse");
    assert_eq!(volume["udisk"]["hostIP"], "10.9.0.11");
    assert_eq!(volume["volumeAttachments"][0]["diskIsThere"], true);
    assert_eq!(volume["findings"][0]["kind"], "attach-error");
    assert_eq!(json["volumes"][0]["udisk"], serde_json::Value::Null);
    assert_eq!(json["volumes"][0]["volumeHandle"], "bsm-gone12345");
}

#[test]
fn a_disk_that_cannot_be_read_is_not_called_missing() {
    let rows = join(&cluster(), &[], &[odd("bs-1", None)], &view());
    let [finding] = rows[0].findings.as_slice() else { panic!("{rows:#?}") };
    assert_eq!(finding.kind, Kind::DiskUnreadable);
    assert!(
        finding.text.contains("UDisk bs-1 exists")
            && finding.text.contains("Size is missing [request req-1]"),
        "{finding:?}"
    );
    let text = report::volumes(&rows, "cn-bj2", Format::Wide);
    assert!(text.contains(" unreadable "), "{text}");
}

#[test]
fn a_claim_waits_for_a_disk_that_cannot_be_read() {
    let mut cluster = cluster();
    cluster.volumes.clear();
    cluster.attachments.clear();
    (cluster.claims[0].phase, cluster.claims[0].volume) = ("Pending".into(), None);
    let rows = join(&cluster, &[], &[odd("bs-1", Some(&format!("pvc-{UID}")))], &view());
    let [finding] = rows[0].findings.as_slice() else { panic!("{rows:#?}") };
    assert_eq!(finding.kind, Kind::ClaimPending);
    assert!(finding.text.contains("UDisk bs-1 has its name and cannot be read"), "{finding:?}");
}
