//! `csi-udisk orphans`: what is listed, and what never is.

use csi_udisk::sandbox::cloud::{Effect, Event, Rule};
use serde_json::json;

use crate::api::{ATTACHMENTS, CLAIMS, CONTENTS, VOLUMES};
use crate::world::{World, attachment, claim, name, snapshot_content, volume};

const LIST: &str = "orphans --output json --recheck 1s";

#[tokio::test]
async fn a_cluster_that_uses_its_disks_has_no_orphans() {
    let world = World::start().await;
    world.volume(1).await;
    world.disk("a-disk-of-somebody").await;
    let answer = world.run("orphans").await;
    assert_eq!((answer.status, answer.err.as_str()), (0, ""), "{answer:?}");
    assert!(
        answer.out.starts_with("0 disks that nothing refers to; 1 with a volume's name are in use"),
        "{answer:?}"
    );
    // Nothing to see twice, so it was looked at once.
    assert_eq!(world.api.asked(VOLUMES), 1);
}

#[tokio::test]
async fn what_nothing_refers_to_is_listed_as_unknown_with_its_price() {
    let world = World::start().await;
    world.volume(1).await;
    let leaked = world.disk(&name("pvc", 2)).await;
    world.disk("a-disk-of-somebody").await;
    let answer = world.run(LIST).await;
    assert_eq!(answer.status, 2, "{answer:?}");
    assert_eq!(answer.orphans(), std::slice::from_ref(&leaked));
    let json = answer.json();
    assert_eq!(json["orphans"][0]["chargeType"], "Dynamic");
    assert_eq!(json["orphans"][0]["priceFen"], 20);
    assert_eq!((&json["inUse"], &json["orphans"][0]["deleted"]), (&json!(1), &json!(null)));
    assert_eq!(world.api.asked(VOLUMES), 2, "it is looked at twice");

    let text = world.run("orphans --recheck 1s").await;
    assert!(text.out.starts_with("unknown to this cluster:\nUDISK"), "{}", text.out);
    let line = text.out.lines().nth(2).unwrap();
    for part in [leaked.as_str(), &name("pvc", 2), "sata", "20Gi", "Dynamic", "¥0.20/h", "10 d", "cn-sh2-02"]
    {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
    assert!(text.out.lines().all(|line| line.chars().count() <= 120), "{}", text.out);
}

#[tokio::test]
async fn a_price_that_cannot_be_learnt_keeps_nothing_from_being_listed() {
    let world = World::start().await;
    let leaked = world.disk(&name("pvc", 2)).await;
    let broken = Effect::RetCode { code: 17102, message: "no".into(), done: false };
    world.cloud.add_fault(Rule { count: None, ..Rule::once("DescribeUDiskPrice", broken) });
    let answer = world.run(LIST).await;
    assert_eq!(answer.orphans(), [leaked]);
    assert_eq!(answer.json()["orphans"][0]["priceFen"], json!(null));
}

#[tokio::test]
async fn marks_tell_this_clusters_disks_from_unknown_ones() {
    let world = World::start().await;
    world.named_volume("prod", 1).await;
    let ours = world.disk(&name("prod", 2)).await;
    let unknown = world.disk(&name("pvc", 3)).await;
    let by_hand = world.disk("prod-db").await;
    let answer = world.run(&format!("{LIST} --volume-name-prefix prod")).await;
    let mut others = [unknown, by_hand];
    others.sort();
    assert_eq!(answer.orphans(), [&[format!("{ours}*")][..], &others].concat());
    let text = world.run("orphans --recheck 1s --volume-name-prefix prod").await;
    assert!(text.out.starts_with("of this cluster (names prod-…):\n"), "{}", text.out);
    assert!(text.out.contains("\nunknown to this cluster:\n"), "{}", text.out);
    let grouped = world.run(&format!("{LIST} --business-group cluster-a")).await;
    assert!(grouped.orphans().iter().all(|id| !id.ends_with('*')), "{grouped:?}");
}

/// Each way in which an object of the cluster can refer to a disk, beside the volume's own.
#[tokio::test]
async fn whatever_refers_to_a_disk_keeps_it_off_the_list() {
    let world = World::start().await;
    let mut disks = Vec::new();
    for number in 0..8 {
        disks.push(world.disk(&name("pvc", number)).await);
    }
    // A volume of another driver, with another name.
    let mut other = volume("static", 100, &disks[0]);
    other["spec"]["csi"]["driver"] = json!("other.csi.example.com");
    world.api.add(VOLUMES, other);
    // The plugin before CSI.
    let mut flex = volume("flex", 101, "unused");
    flex["spec"].as_object_mut().unwrap().remove("csi");
    flex["spec"]["flexVolume"] = json!({ "driver": "ucloud/flexv", "options": { "diskId": disks[1] } });
    world.api.add(VOLUMES, flex);
    // A snapshot of it.
    world.api.add(CONTENTS, snapshot_content(&disks[2]));
    // A claim that waits for its volume.
    let mut pending = claim("pvc", 3);
    pending["spec"].as_object_mut().unwrap().remove("volumeName");
    pending["status"] = json!({ "phase": "Pending" });
    world.api.add(CLAIMS, pending);
    // An attachment whose volume is gone.
    world.api.add(ATTACHMENTS, attachment(&name("pvc", 4), "10.9.0.11", "uhost-a"));
    // A volume that a pod describes itself.
    let mut inline = attachment("unused", "10.9.0.11", "uhost-a");
    inline["spec"]["source"] = json!({ "inlineVolumeSpec": { "csi": { "driver": "udisk.csi.ucloud.cn", "volumeHandle": disks[5] } } });
    world.api.add(ATTACHMENTS, inline);
    // A note that somebody left.
    let mut noted = claim("pvc", 102);
    noted["metadata"]["annotations"]["example.com/restored-from"] =
        json!(format!("disk {}, by hand", disks[6]));
    world.api.add(CLAIMS, noted);
    assert_eq!(world.run(LIST).await.orphans(), [disks[7].clone()]);
}

#[tokio::test]
async fn doubts_are_counted_and_not_listed() {
    let world = World::start().await;
    let attached = world.disk(&name("pvc", 1)).await;
    world.attach(&attached, "uhost-b").await;
    let failed = world.disk(&name("pvc", 2)).await;
    world.happen(Event::FailDisk { disk: failed.clone() }).await;
    let answer = world.run(LIST).await;
    assert_eq!(answer.orphans(), [failed]);
    assert_eq!(answer.json()["notListed"][0]["why"], "attached to a host");
    // Everything here is ten days old.
    let young = world.run("orphans --older-than 241h --recheck 1s").await;
    assert_eq!(young.status, 0, "{young:?}");
    assert!(young.out.contains("not listed: 1 attached to a host, 1 too young"), "{young:?}");
}

/// Its volume came between the two readings.
#[tokio::test]
async fn once_seen_is_not_listed() {
    let world = World::start().await;
    let disk = world.disk(&name("pvc", 1)).await;
    let other = world.disk(&name("pvc", 2)).await;
    world.api.change_after(CONTENTS, 1, move |lists| {
        lists.get_mut(VOLUMES).unwrap().push(volume("by-hand", 100, &disk));
    });
    assert_eq!(world.run(LIST).await.orphans(), [other]);
}

#[tokio::test]
async fn the_second_disk_of_a_name_is_listed_and_the_first_is_not() {
    let world = World::start().await;
    let first = world.volume(1).await;
    let second = world.disk(&name("pvc", 1)).await;
    assert_eq!(world.run(LIST).await.orphans(), [second]);
    let volumes = world.run("volumes --output json --recheck 0s").await;
    assert_eq!(volumes.findings(), [format!("{first} name-twice")]);
}

#[tokio::test]
async fn a_cluster_without_snapshots_is_read_without_them() {
    let world = World::start().await;
    world.api.forget(CONTENTS);
    let disk = world.disk(&name("pvc", 1)).await;
    assert_eq!(world.run(LIST).await.orphans(), [disk]);
}
