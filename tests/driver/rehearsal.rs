//! The move from the plugin that this driver replaces, and the way back, as deploy/README.md has them: with that
//! plugin's node ids, publish contexts, file systems and mounts, while a pod writes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use csi_udisk::csi::proto::v1;
use tonic::Code;

use crate::csi::{self, AtNode};
use crate::life::installed;
use crate::world::{Driver, World, own_mounts, until};

/// The node's id for the replaced plugin: the host's address. The new one is the host's id.
const OLD_ID: &str = "10.9.0.11";
const CHANGES: [&str; 5] = ["CreateUDisk", "AttachUDisk", "DetachUDisk", "ResizeAttachedDisk", "DeleteUDisk"];

fn step(text: &str) {
    println!("== rehearsal: {text}");
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn mounts(path: &str) -> usize {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    text.lines().filter(|line| line.split(' ').nth(4) == Some(path)).count()
}

/// The simulated cloud's changes so far.
async fn changes(world: &World) -> Vec<u64> {
    let calls = world.calls().await;
    CHANGES.iter().map(|action| calls.get(*action).copied().unwrap_or_default()).collect()
}

/// What the replaced plugin did on a host, with the tools it calls.
struct OldPlugin<'w> {
    world: &'w World,
    kubelet: PathBuf,
}

impl OldPlugin<'_> {
    /// It knows a disk by the place that the cloud named, and keeps no more of it than a path.
    fn context() -> BTreeMap<String, String> {
        [("devicePath".to_owned(), "/dev/vdb".to_owned())].into()
    }

    fn device(&self, slot: &str) -> String {
        let variable = |wanted: &str| {
            let environment = self.world.environment("node");
            PathBuf::from(environment.into_iter().find(|(name, _)| name == wanted).unwrap().1)
        };
        let serial = format!("UCLOUD_DISK_{}", slot.to_uppercase());
        let disks = fs::read_dir(variable("CSI_UDISK_SYSFS_ROOT").join("block")).unwrap();
        let disk = disks
            .map(|entry| entry.unwrap().path())
            .find(|disk| fs::read_to_string(disk.join("serial")).is_ok_and(|found| found.trim() == serial));
        let name = disk.unwrap_or_else(|| panic!("no disk {serial}")).file_name().unwrap().to_owned();
        variable("CSI_UDISK_DEV_ROOT").join(name).display().to_string()
    }

    /// Where kubelet of that time had its mounts.
    fn at(&self, id: &str, name: &str, kind: &str) -> AtNode {
        let path = |rest: String| self.kubelet.join(rest).display().to_string();
        AtNode {
            id: id.to_owned(),
            kind: kind.to_owned(),
            context: Self::context(),
            staging: path(format!("plugins/kubernetes.io/csi/pv/{name}/globalmount")),
            target: path(format!("pods/first-{name}/volumes/kubernetes.io~csi/{name}/mount")),
        }
    }

    fn make(&self, at: &AtNode, device: &str) {
        run(&format!("mkfs.{}", at.kind), &["-q", device]);
        fs::create_dir_all(&at.staging).unwrap();
        fs::create_dir_all(&at.target).unwrap();
        run("mount", &[device, &at.staging]);
        fs::write(Path::new(&at.staging).join("data"), format!("written under {}", at.id)).unwrap();
    }

    fn publish(&self, at: &AtNode) {
        run("mount", &["--bind", &at.staging, &at.target]);
    }

    fn take_off(&self, at: &AtNode) {
        for path in [&at.target, &at.staging] {
            if mounts(path) > 0 {
                run("umount", &[path]);
            }
        }
    }
}

fn data(at: &AtNode) -> String {
    fs::read_to_string(Path::new(&at.target).join("data")).unwrap()
}

fn sees_its_data(at: &AtNode) {
    assert_eq!(data(at), format!("written under {}", at.id));
}

async fn node(world: &World, name: &str, extra: &[&str]) -> Driver {
    world.driver("node", name, extra, &[("UCLOUD_API_ENDPOINT", world.url())]).await
}

/// Attached by the replaced plugin: the slot, which only the cloud knows afterwards.
async fn attached(driver: &Driver, name: &str, kind: &str) -> (String, String) {
    let mut controller = driver.controller();
    let volume = controller.create_volume(csi::create(name, kind, 10)).await.unwrap().into_inner();
    let id = volume.volume.unwrap().volume_id;
    let answer = controller.controller_publish_volume(csi::attach(&id, OLD_ID, kind)).await.unwrap();
    (id, answer.into_inner().publish_context["device"].clone())
}

#[tokio::test]
async fn the_old_plugin_is_replaced_under_running_pods_and_comes_back() {
    if !own_mounts("rehearsal::the_old_plugin_is_replaced_under_running_pods_and_comes_back")
        || !installed("the rehearsal of the move", "mkfs.xfs")
    {
        return;
    }
    let world = World::start("none").await;
    let kubelet = world.dir.join("kubelet");
    fs::create_dir_all(&kubelet).unwrap();
    let old = OldPlugin { world: &world, kubelet };

    step(
        "before: the old plugin has attached two disks by the host's address and mounted one of them, without a mark",
    );
    let driver = world.controller().await;
    let (running, slot) = attached(&driver, "pvc-running", "xfs").await;
    let running = old.at(&running, "pvc-running", "xfs");
    old.make(&running, &old.device(&slot));
    old.publish(&running);
    let mut pod = fs::File::create(Path::new(&running.target).join("log")).unwrap();
    let (waiting, slot) = attached(&driver, "pvc-waiting", "ext4").await;
    let waiting = old.at(&waiting, "pvc-waiting", "ext4");
    let unmounted = old.device(&slot);
    old.make(&waiting, &unmounted);
    old.take_off(&waiting);
    driver.process.stop();

    step("apply: both roles start, and change nothing in the cloud or on the host");
    let before = changes(&world).await;
    let controllers = world.controller().await;
    let nodes = node(&world, "node.moved", &[]).await;
    let (mut controller, mut on_host) = (controllers.controller(), nodes.node());
    writeln!(pod, "still writing").unwrap();
    let info = on_host.node_get_info(v1::NodeGetInfoRequest {}).await.unwrap().into_inner();
    let new_id = info.node_id;
    assert_eq!(new_id, world.first_host());
    let segments = info.accessible_topology.unwrap().segments;
    for key in ["region", "zone"] {
        assert!(segments.contains_key(&format!("topology.udisk.csi.ucloud.cn/{key}")), "{segments:?}");
    }

    step("check: the attacher's comparison sees the old node id, and attaching again changes nothing");
    let listed = controller.list_volumes(v1::ListVolumesRequest::default()).await.unwrap().into_inner();
    for at in [&running, &waiting] {
        let entry = listed.entries.iter().find(|entry| entry.volume.as_ref().unwrap().volume_id == at.id);
        let nodes = entry.unwrap().status.clone().unwrap().published_node_ids;
        assert!(nodes.iter().any(|node| node == OLD_ID), "{nodes:?}");
        controller.controller_publish_volume(csi::attach(&at.id, OLD_ID, &at.kind)).await.unwrap();
    }

    step("kubelet asks for the old mounts again, adds a second pod, measures: the old mount serves them");
    on_host.node_stage_volume(running.stage()).await.unwrap();
    on_host.node_publish_volume(running.publish()).await.unwrap();
    assert_eq!((mounts(&running.staging), mounts(&running.target)), (1, 1));
    let second = AtNode { target: running.target.replace("first-", "second-"), ..running.clone() };
    fs::create_dir_all(Path::new(&second.target).parent().unwrap()).unwrap();
    on_host.node_publish_volume(second.publish()).await.unwrap();
    sees_its_data(&second);
    let stats = on_host.node_get_volume_stats(running.stats()).await.unwrap().into_inner();
    assert!(stats.usage[0].total > 9 * csi::GIB, "{stats:?}");
    assert_eq!(changes(&world).await, before, "{CHANGES:?}");

    step("the old volume grows while it is mounted");
    controller.controller_expand_volume(csi::grow(&running.id, "xfs", 20)).await.unwrap();
    on_host.node_expand_volume(running.grow(20)).await.unwrap();
    let stats = on_host.node_get_volume_stats(running.stats()).await.unwrap().into_inner();
    assert!(stats.usage[0].total > 19 * csi::GIB, "{stats:?}");

    step(
        "a volume that must be mounted anew has no mark and no slot: refused with the remedy, and left as it is",
    );
    let first_mib = || {
        use std::io::Read as _;
        let mut bytes = vec![0; 1 << 20];
        fs::File::open(&unmounted).unwrap().read_exact(&mut bytes).unwrap();
        bytes
    };
    let content = first_mib();
    let refused = on_host.node_stage_volume(waiting.stage()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    for part in ["--node-cloud-lookup", &waiting.id] {
        assert!(refused.message().contains(part), "{refused:?}");
    }
    assert!(content == first_mib(), "a refused disk was changed");
    nodes.process.stop();
    let nodes = node(&world, "node.asking", &["--node-cloud-lookup"]).await;
    let mut on_host = nodes.node();
    on_host.node_stage_volume(waiting.stage()).await.unwrap();
    on_host.node_publish_volume(waiting.publish()).await.unwrap();
    sees_its_data(&waiting);

    step("the pods end: mounts of both plugins go, and the disks leave by the old node id");
    drop(pod);
    for at in [&running, &second, &waiting] {
        on_host.node_unpublish_volume(at.unpublish()).await.unwrap();
        assert_eq!(mounts(&at.target), 0);
    }
    for at in [&running, &waiting] {
        on_host.node_unstage_volume(at.unstage()).await.unwrap();
        assert_eq!(mounts(&at.staging), 0);
        controller.controller_unpublish_volume(csi::detach(&at.id, OLD_ID)).await.unwrap();
    }

    step("they come back by the new node id, with a slot, and are mounted");
    let mut moved = Vec::new();
    for at in [&running, &waiting] {
        let answer =
            controller.controller_publish_volume(csi::attach(&at.id, &new_id, &at.kind)).await.unwrap();
        let context: BTreeMap<_, _> = answer.into_inner().publish_context.into_iter().collect();
        assert!(context.contains_key("device"), "{context:?}");
        let at = AtNode { context, ..at.clone() };
        on_host.node_stage_volume(at.stage()).await.unwrap();
        on_host.node_publish_volume(at.publish()).await.unwrap();
        sees_its_data(&at);
        moved.push(at);
    }
    assert_eq!(fs::read_to_string(Path::new(&moved[0].target).join("log")).unwrap(), "still writing\n");

    step(
        "roll back: both roles stop, mounts and attachments stay, and the old plugin's tools take them over",
    );
    let before = changes(&world).await;
    let (node_log, controller_log) = (nodes.process.path(), controllers.process.path());
    nodes.process.stop();
    controllers.process.stop();
    for at in &moved {
        sees_its_data(at);
        let device = old.device(&at.context["device"]);
        old.take_off(at);
        run("mount", &[&device, &at.staging]);
        old.publish(at);
        sees_its_data(at);
        old.take_off(at);
        step(&format!("left after it: a VolumeAttachment of {} that names {new_id}", at.id));
    }
    assert_eq!(changes(&world).await, before, "{CHANGES:?}");
    for log in [node_log, controller_log] {
        let log = fs::read_to_string(log).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }

    step("and forward again: what is attached leaves, and the volumes are deleted");
    let controllers = world.controller().await;
    let mut controller = controllers.controller();
    for at in &moved {
        controller.controller_unpublish_volume(csi::detach(&at.id, &new_id)).await.unwrap();
        controller.delete_volume(csi::delete(&at.id)).await.unwrap();
    }
    let listed = controller.list_volumes(v1::ListVolumesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.entries, []);
    controllers.process.stop();
    until("no mount is left", || moved.iter().all(|at| mounts(&at.staging) + mounts(&at.target) == 0)).await;
}
