//! A host that sees a disk's new size only after it was stopped and started, as UCloud's old ones do.

use std::fs;
use std::process::Command;

use tonic::Code;

use crate::csi::{self, AtNode, GIB};
use crate::world::{Driver, World, own_mounts, skip};

const HOST: &str = "uhost-old";

async fn node(world: &World) -> Driver {
    let place = |kind: &str| world.dir.join(format!("data/hosts/{HOST}/{kind}")).display().to_string();
    let metadata = format!("{}/_metadata/{HOST}", world.url());
    let (sysfs, dev) = (place("sys"), place("dev"));
    let variables = [
        ("CSI_UDISK_NODE_ID", HOST),
        ("CSI_UDISK_METADATA_ENDPOINT", &metadata),
        ("CSI_UDISK_SYSFS_ROOT", &sysfs),
        ("CSI_UDISK_DEV_ROOT", &dev),
    ];
    world.driver("node", "node.old", &[], &variables).await
}

async fn host_state(world: &World, state: &str) {
    let event = format!(r#"{{"kind": "host_state", "host": "{HOST}", "state": "{state}"}}"#);
    world.control("POST", "events", &event).await;
}

async fn grows_after_a_restart(kind: &str) {
    let world = World::start("none").await;
    let host = format!(r#"{{"id": "{HOST}", "ip": "10.9.0.20", "online_grow": false}}"#);
    world.control("POST", "hosts", &host).await;
    let (controller, mut serving) = (world.controller().await, node(&world).await);
    let created = controller.controller().create_volume(csi::create("pvc-old", kind, 10)).await.unwrap();
    let id = created.into_inner().volume.unwrap().volume_id;
    let attached = controller.controller().controller_publish_volume(csi::attach(&id, HOST, kind)).await;
    let kubelet = world.dir.join("kubelet");
    let at = AtNode {
        id: id.clone(),
        kind: kind.to_owned(),
        context: attached.unwrap().into_inner().publish_context,
        staging: kubelet.join("staging").display().to_string(),
        target: kubelet.join("pods/target").display().to_string(),
    };
    fs::create_dir_all(&at.staging).unwrap();
    fs::create_dir_all(kubelet.join("pods")).unwrap();
    serving.node().node_stage_volume(at.stage()).await.unwrap();
    serving.node().node_publish_volume(at.publish()).await.unwrap();
    let total = async |serving: &Driver| {
        let stats = serving.node().node_get_volume_stats(at.stats()).await.unwrap().into_inner();
        stats.usage[0].total
    };
    let before = total(&serving).await;

    let grown = controller.controller().controller_expand_volume(csi::grow(&id, kind, 20)).await.unwrap();
    let grown = grown.into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (20 * GIB, true));
    // A controller that is started anew was never told by the cloud.
    controller.process.kill();
    let controller = world.controller().await;
    let again = controller.controller().controller_expand_volume(csi::grow(&id, kind, 20)).await.unwrap();
    assert_eq!(again.into_inner(), grown);

    // The node says it until the host was restarted, also when it was itself started anew.
    for _ in 0..2 {
        let refused = serving.node().node_expand_volume(at.grow(20)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        for part in [id.as_str(), "must be stopped and started once before it sees the new size"] {
            assert!(refused.message().contains(part), "{refused:?} lacks {part:?}");
        }
        assert_eq!(total(&serving).await, before);
        serving.process.kill();
        serving = node(&world).await;
    }

    // What a restart of the host leaves: no process, no mount, and the devices in their new size.
    serving.process.kill();
    host_state(&world, "Stopped").await;
    for path in [&at.target, &at.staging, &format!("{}/{id}", at.staging)] {
        // A raw block volume is mounted on a file in the staging directory instead.
        let _ = Command::new("umount").arg(path).output().unwrap();
    }
    host_state(&world, "Running").await;
    let serving = node(&world).await;
    serving.node().node_stage_volume(at.stage()).await.unwrap();
    serving.node().node_publish_volume(at.publish()).await.unwrap();
    let done = serving.node().node_expand_volume(at.grow(20)).await.unwrap().into_inner();
    assert_eq!(done.capacity_bytes, 20 * GIB);
    assert!(total(&serving).await > 18 * GIB);
    serving.node().node_unpublish_volume(at.unpublish()).await.unwrap();
    serving.node().node_unstage_volume(at.unstage()).await.unwrap();
}

#[tokio::test]
async fn a_file_system_grows_after_the_restart_that_the_node_asks_for() {
    const TEST: &str = "restart_needed::a_file_system_grows_after_the_restart_that_the_node_asks_for";
    if own_mounts(TEST) {
        grows_after_a_restart("ext4").await;
        if std::path::Path::new("/usr/sbin/mkfs.xfs").exists()
            || std::path::Path::new("/sbin/mkfs.xfs").exists()
        {
            grows_after_a_restart("xfs").await;
        } else {
            skip(TEST, "mkfs.xfs is not installed, so only ext4 was grown");
        }
    }
}

#[tokio::test]
async fn a_raw_device_reports_the_restart_that_it_needs() {
    if own_mounts("restart_needed::a_raw_device_reports_the_restart_that_it_needs") {
        grows_after_a_restart("block").await;
    }
}
