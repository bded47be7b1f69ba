//! `csi-udisk volumes`.

use csi_udisk::sandbox::cloud::Event;
use serde_json::{Value, json};

use crate::api::{ATTACHMENTS, CLAIMS, CONTENTS, NODES, VOLUMES};
use crate::world::{World, ago, attachment, end, name, volume};

const ONCE: &str = "volumes --output json --recheck 0s";

#[tokio::test]
async fn a_cluster_that_agrees_with_its_account_is_one_quiet_table() {
    let world = World::start().await;
    let used = world.volume(1).await;
    let free = world.free_volume("pvc", 2).await;
    let answer = world.run("volumes").await;
    assert_eq!((answer.status, answer.err.as_str()), (0, ""), "{answer:?}");
    let lines: Vec<&str> = answer.out.lines().collect();
    assert!(lines[0].starts_with("CLAIM") && lines[0].ends_with("ATTACHMENT"), "{answer:?}");
    for (line, parts) in [
        (lines[1], ["shop/data-mysql-1", &used, "sata", "20Gi", "InUse", "uhost-a", "10.9.0.11 attached"]),
        (lines[2], ["shop/data-mysql-2", &free, "sata", "20Gi", "Available", "-", "-"]),
    ] {
        for part in parts {
            assert!(line.contains(part), "{part:?} is not in {line:?}");
        }
    }
    assert!(lines.iter().all(|line| line.chars().count() <= 120), "{}", answer.out);
    assert!(
        answer.out.contains("2 volumes, 0 with findings\nregion cn-sh2, the default project; cluster http")
    );
    // Only lists were asked for, and nothing that orphans alone need.
    assert_eq!(world.api.asked(CONTENTS), 0);
    let wide = world.run("volumes --output wide").await;
    assert!(wide.out.contains(&name("pvc", 1)), "{}", wide.out);
}

#[tokio::test]
async fn an_empty_cluster_is_empty() {
    let answer = World::start().await.run("volumes").await;
    assert_eq!(answer.status, 0, "{answer:?}");
    assert!(answer.out.starts_with("0 volumes, 0 with findings"), "{answer:?}");
}

/// What people do at the console, and what old plugins leave.
#[tokio::test]
async fn disagreements_are_found_and_scripts_are_told() {
    let world = World::start().await;
    let mut disks = Vec::new();
    for number in 0..8 {
        disks.push(world.volume(number).await);
    }
    let id = |number: usize| disks[number].clone();
    world.happen(Event::DeleteDisk { disk: id(1) }).await;
    world.detach(&id(2)).await;
    world.attach(&id(3), "uhost-b").await;
    world.api.change(|lists| {
        let without = |value: &Value| value["spec"]["source"]["persistentVolumeName"] != json!(name("pvc", 4));
        lists.get_mut(ATTACHMENTS).unwrap().retain(without);
        let volumes = lists.get_mut(VOLUMES).unwrap();
        volumes[5]["spec"]["capacity"]["storage"] = json!("30Gi");
        volumes[6]["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][1]["values"] =
            json!(["cn-sh2-01"]);
        volumes[7]["status"] = json!({ "phase": "Released", "lastPhaseTransitionTime": ago(3600) });
        volumes[7]["metadata"]["deletionTimestamp"] = json!(ago(7200));
    });
    let answer = world.run(ONCE).await;
    assert_eq!(answer.status, 2, "{answer:?}");
    let expected = [
        (1, "disk-missing"),
        (2, "attached-nowhere"),
        (3, "attached-elsewhere"),
        (4, "attached-unasked"),
        (5, "disk-smaller"),
        (6, "other-zone"),
        (7, "released"),
        (7, "terminating"),
    ];
    let expected: Vec<String> =
        expected.iter().map(|(number, kind)| format!("{} {kind}", id(*number))).collect();
    assert_eq!(answer.findings(), expected);
    let json = answer.json();
    assert_eq!(json["withFindings"], 7);
    assert_eq!(json["volumes"][7]["persistentVolume"]["phase"], "Released");
    let text = world.run("volumes --recheck 0s").await;
    assert_eq!(text.status, 2);
    assert!(text.out.lines().all(|line| line.chars().count() <= 120), "{}", text.out);
    assert!(text.out.contains("  ! attached-elsewhere: VolumeAttachment"), "{}", text.out);
}

/// The plugin that was replaced knew nodes by their address. Its attachments live on.
#[tokio::test]
async fn attachments_of_the_replaced_plugin_are_understood() {
    let world = World::start().await;
    let moved = world.free_volume("pvc", 1).await;
    let right = world.free_volume("pvc", 2).await;
    world.attach(&moved, "uhost-b").await;
    world.attach(&right, "uhost-a").await;
    world.api.add(ATTACHMENTS, attachment(&name("pvc", 1), "10.9.0.11", "10.9.0.11"));
    world.api.add(ATTACHMENTS, attachment(&name("pvc", 2), "10.9.0.11", "10.9.0.11"));
    // Their node is gone from the cluster, so only the attachments tell where they are.
    world.api.change(|lists| lists.get_mut(NODES).unwrap().clear());
    assert_eq!(world.run(ONCE).await.findings(), [format!("{moved} attached-elsewhere")]);
}

#[tokio::test]
async fn what_is_under_way_is_no_disagreement() {
    let world = World::start().await;
    let stays = world.free_volume("pvc", 1).await;
    let passes = world.free_volume("pvc", 2).await;
    for disk in [&stays, &passes] {
        world.attach(disk, "uhost-a").await;
    }
    // The attachment of one is noted after the first reading.
    world.api.change_after(ATTACHMENTS, 1, |lists| {
        lists.get_mut(ATTACHMENTS).unwrap().push(attachment(&name("pvc", 2), "10.9.0.11", "uhost-a"));
    });
    let answer = world.run("volumes --output json --recheck 1s").await;
    assert_eq!(answer.findings(), [format!("{stays} attached-unasked")]);
    assert_eq!(world.api.asked(ATTACHMENTS), 2);
}

#[tokio::test]
async fn claims_that_wait_are_shown_with_the_disk_that_is_made_for_them() {
    let world = World::start().await;
    let disk = world.free_volume("pvc", 1).await;
    world.api.change(|lists| {
        lists.get_mut(VOLUMES).unwrap().clear();
        let claim = &mut lists.get_mut(CLAIMS).unwrap()[0];
        claim["spec"].as_object_mut().unwrap().remove("volumeName");
        claim["status"] = json!({ "phase": "Pending" });
        claim["metadata"]["creationTimestamp"] = json!(ago(3600));
    });
    let answer = world.run(ONCE).await;
    assert_eq!(answer.findings(), [format!("{disk} claim-pending")]);
    // A claim that is a minute old may wait.
    world
        .api
        .change(|lists| lists.get_mut(CLAIMS).unwrap()[0]["metadata"]["creationTimestamp"] = json!(ago(60)));
    assert_eq!(world.run(ONCE).await.status, 0);
}

#[tokio::test]
async fn thousands_of_objects_come_in_pages() {
    let world = World::start().await;
    world.api.pages_of(7);
    for number in 0..30 {
        world.free_volume("pvc", number).await;
    }
    world.api.add(VOLUMES, volume("pvc", 99, "bs-gone"));
    let answer = world.run(ONCE).await;
    assert_eq!(answer.json()["volumes"].as_array().unwrap().len(), 31);
    assert_eq!(answer.findings(), ["bs-gone disk-missing"]);
    assert_eq!(world.api.asked(VOLUMES), 5);
}

#[tokio::test]
async fn a_closed_pipe_and_an_unknown_flag_are_told() {
    let world = World::start().await;
    let answer = end(world.command("volumes --nonsense")).await;
    assert_eq!(answer.status, 64);
    assert!(answer.err.contains("--nonsense"), "{answer:?}");
    let help = end(world.command("volumes --help")).await;
    assert_eq!(help.status, 0);
    assert!(help.out.contains("csi-udisk volumes [FLAGS]"), "{help:?}");
}
