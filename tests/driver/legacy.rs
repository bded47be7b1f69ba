//! Attachments made by the plugin that this driver replaces, by a node that may ask the cloud and by one that may not.

use std::fs;
use std::path::Path;

use tonic::Code;

use crate::csi::{self, AtNode};
use crate::world::{Driver, World, own_mounts};

const FLAG: &str = "--node-cloud-lookup";

/// The node of the first host with more arguments. What it may ask the cloud, it asks at the sandbox's.
async fn node(world: &World, name: &str, extra: &[&str]) -> Driver {
    world.driver("node", name, extra, &[("UCLOUD_API_ENDPOINT", world.url())]).await
}

#[tokio::test]
async fn a_node_asks_the_cloud_for_a_place_only_when_it_may() {
    if !own_mounts("legacy::a_node_asks_the_cloud_for_a_place_only_when_it_may") {
        return;
    }
    let world = World::start("none").await;
    let (driver, here) = (world.controller().await, world.first_host());
    let mut controller = driver.controller();
    let created = controller.create_volume(csi::create("pvc-legacy", "ext4", 10)).await.unwrap();
    let id = created.into_inner().volume.unwrap().volume_id;
    controller.controller_publish_volume(csi::attach(&id, &here, "ext4")).await.unwrap();
    let kubelet = world.dir.join("kubelet");
    fs::create_dir_all(kubelet.join("pods")).unwrap();
    let at = AtNode {
        id: id.clone(),
        kind: "ext4".to_owned(),
        context: [("devicePath".to_owned(), "/dev/vdb".to_owned())].into(),
        staging: kubelet.join("staging").display().to_string(),
        target: kubelet.join("pods/target").display().to_string(),
    };

    // Without the flag: no question, and no keys either.
    let before = world.total_calls().await;
    let silent = node(&world, "node.silent", &[]).await;
    let refused = silent.node().node_stage_volume(at.stage()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    for part in [id.as_str(), "UCLOUD_DISK_VDA) is the system disk", "holds no file system", FLAG] {
        assert!(refused.message().contains(part), "{refused:?} lacks {part:?}");
    }
    assert_eq!(world.total_calls().await, before);
    silent.process.stop();

    // With it but without a role to take: volumes whose place is known do not wait for keys.
    let roles = ["--sts-role", "none", "--sts-role-v2", "none"];
    let keyless = node(&world, "node.keyless", &[&[FLAG], &roles[..]].concat()).await;
    let refused = keyless.node().node_stage_volume(at.stage()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("cannot be asked where"), "{refused:?}");
    assert!(keyless.process.log().contains("--node-cloud-lookup cannot ask the cloud yet"));
    keyless.process.stop();

    // With the keys of the host's role: one question, which takes no part of the account's changes.
    let asking = node(&world, "node.asking", &[FLAG]).await;
    let before = world.calls().await;
    asking.node().node_stage_volume(at.stage()).await.unwrap();
    asking.node().node_publish_volume(at.publish()).await.unwrap();
    let after = world.calls().await;
    let asked = |calls: &std::collections::BTreeMap<String, u64>| calls.get("DescribeUDisk").copied();
    assert_eq!(asked(&after), asked(&before).map(|n| n + 1), "{after:?}");
    assert_eq!(after.values().sum::<u64>(), before.values().sum::<u64>() + 1, "{after:?}");
    fs::write(Path::new(&at.target).join("data"), "content").unwrap();
    asking.node().node_unpublish_volume(at.unpublish()).await.unwrap();
    asking.node().node_unstage_volume(at.unstage()).await.unwrap();

    // The file system carries the mark now, so a node that may not ask finds it as well.
    let silent = node(&world, "node.silent", &[]).await;
    silent.node().node_publish_volume(at.publish()).await.unwrap();
    assert_eq!(fs::read_to_string(Path::new(&at.target).join("data")).unwrap(), "content");
    silent.node().node_unpublish_volume(at.unpublish()).await.unwrap();
    silent.node().node_unstage_volume(at.unstage()).await.unwrap();

    // Moved behind Kubernetes' back.
    let there =
        world.environment("node-2").into_iter().find(|(name, _)| name == "CSI_UDISK_NODE_ID").unwrap().1;
    controller.controller_unpublish_volume(csi::detach(&id, &here)).await.unwrap();
    let refused = asking.node().node_stage_volume(at.stage()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("attached to no host (it is Available)"), "{refused:?}");
    controller.controller_publish_volume(csi::attach(&id, &there, "ext4")).await.unwrap();
    let refused = asking.node().node_stage_volume(at.stage()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains(&format!("attached to host {there}")), "{refused:?}");
    controller.controller_unpublish_volume(csi::detach(&id, &there)).await.unwrap();
    controller.delete_volume(csi::delete(&id)).await.unwrap();
    let gone = asking.node().node_stage_volume(at.stage()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
}
