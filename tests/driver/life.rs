//! A volume's whole life on real file systems, with the driver killed after every call.

use std::fs;
use std::path::Path;

use csi_udisk::csi::proto::v1;

use crate::csi::{self, AtNode, GIB};
use crate::world::{Driver, World, own_mounts, skip};

/// The driver as it is now; `kill` replaces every process of it.
struct Drivers<'w> {
    world: &'w World,
    controller: Driver,
    node: Driver,
}

impl<'w> Drivers<'w> {
    async fn start(world: &'w World) -> Self {
        Self { world, controller: world.controller().await, node: world.node(1).await }
    }

    async fn kill(self) -> Self {
        self.controller.process.kill();
        self.node.process.kill();
        Self::start(self.world).await
    }
}

/// Makes a call, kills the driver, and makes the same call again: it must be answered alike.
macro_rules! twice {
    ($drivers:ident, $role:ident, $rpc:ident, $request:expr) => {{
        let first = $drivers.$role.$role().$rpc($request).await.unwrap_or_else(|e| panic!("first: {e:?}"));
        $drivers = $drivers.kill().await;
        let second =
            $drivers.$role.$role().$rpc($request).await.unwrap_or_else(|e| panic!("after kill -9: {e:?}"));
        assert_eq!(first.into_inner(), second.get_ref().clone(), concat!(stringify!($rpc), " after kill -9"));
        second.into_inner()
    }};
}

async fn life_with_kills(kind: &str, grows_online: bool) {
    let world = World::start("none").await;
    let mut drivers = Drivers::start(&world).await;
    let info = drivers.node.node().node_get_info(v1::NodeGetInfoRequest {}).await.unwrap().into_inner();
    let host = info.node_id;

    let name = format!("pvc-life-{kind}");
    let volume = twice!(drivers, controller, create_volume, csi::create(&name, kind, 10)).volume.unwrap();
    let id = volume.volume_id;
    let context =
        twice!(drivers, controller, controller_publish_volume, csi::attach(&id, &host, kind)).publish_context;

    let kubelet = world.dir.join("kubelet");
    let at = AtNode {
        id: id.clone(),
        kind: kind.to_owned(),
        context,
        staging: kubelet.join("staging").display().to_string(),
        target: kubelet.join("pods/target").display().to_string(),
    };
    fs::create_dir_all(&at.staging).unwrap();
    fs::create_dir_all(kubelet.join("pods")).unwrap();
    twice!(drivers, node, node_stage_volume, at.stage());
    twice!(drivers, node, node_publish_volume, at.publish());
    write(&at);

    let grow = csi::grow(&id, kind, 20);
    let grown =
        drivers.controller.controller().controller_expand_volume(grow.clone()).await.unwrap().into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (20 * GIB, kind != "block"));
    // Whether the host sees the new size the cloud said to the driver that is dead now, so the node has to look.
    drivers = drivers.kill().await;
    let grown = drivers.controller.controller().controller_expand_volume(grow).await.unwrap().into_inner();
    assert_eq!((grown.capacity_bytes, grown.node_expansion_required), (20 * GIB, true));
    if grows_online {
        let grown = twice!(drivers, node, node_expand_volume, at.grow(20));
        assert_eq!(grown.capacity_bytes, 20 * GIB);
        let usage = twice!(drivers, node, node_get_volume_stats, at.stats()).usage;
        assert!(usage[0].total > 18 * GIB, "{usage:?}");
    }
    read(&at);
    twice!(drivers, node, node_unpublish_volume, at.unpublish());
    assert!(!Path::new(&at.target).exists(), "the target is removed");
    twice!(drivers, node, node_unstage_volume, at.unstage());
    twice!(drivers, controller, controller_unpublish_volume, csi::detach(&id, &host));

    // Attached again, the data is still there and the file system has the new size.
    let context =
        twice!(drivers, controller, controller_publish_volume, csi::attach(&id, &host, kind)).publish_context;
    let at = AtNode { context, ..at };
    twice!(drivers, node, node_stage_volume, at.stage());
    twice!(drivers, node, node_publish_volume, at.publish());
    read(&at);
    let usage = twice!(drivers, node, node_get_volume_stats, at.stats()).usage;
    assert!(usage[0].total > 18 * GIB, "{usage:?}");
    twice!(drivers, node, node_unpublish_volume, at.unpublish());
    twice!(drivers, node, node_unstage_volume, at.unstage());
    twice!(drivers, controller, controller_unpublish_volume, csi::detach(&id, &host));
    twice!(drivers, controller, delete_volume, csi::delete(&id));

    let calls = world.calls().await;
    for (action, times) in [
        ("CreateUDisk", 1),
        ("AttachUDisk", 2),
        ("ResizeAttachedDisk", 1),
        ("DetachUDisk", 2),
        ("DeleteUDisk", 1),
    ] {
        assert_eq!(calls.get(action), Some(&times), "{action}: nothing is done twice: {calls:?}");
    }
    drivers.controller.process.stop();
    drivers.node.process.stop();
}

const DATA: &[u8] = b"what a database would not like to lose";

fn file(at: &AtNode) -> std::path::PathBuf {
    let target = Path::new(&at.target);
    if at.kind == "block" { target.to_owned() } else { target.join("data") }
}

fn write(at: &AtNode) {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).create(at.kind != "block").open(file(at)).unwrap();
    file.write_all(DATA).unwrap();
    file.sync_all().unwrap();
}

fn read(at: &AtNode) {
    use std::io::Read as _;
    let mut found = vec![0; DATA.len()];
    fs::File::open(file(at)).unwrap().read_exact(&mut found).unwrap();
    assert_eq!(found, DATA);
}

pub fn installed(test: &str, tool: &str) -> bool {
    let found =
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).exists());
    if !found {
        skip(test, &format!("{tool} is not installed"));
    }
    found
}

/// Growing a mounted ext4 asks the kernel for CAP_SYS_RESOURCE, which not every root has.
fn may_grow_ext4() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(effective.trim(), 16).unwrap() & CAP_SYS_RESOURCE != 0
}

#[tokio::test]
async fn ext4_lives_through_kills() {
    if own_mounts("life::ext4_lives_through_kills") {
        if !may_grow_ext4() {
            skip(
                "life::ext4_lives_through_kills (its online growth)",
                "no CAP_SYS_RESOURCE; it grows at stage",
            );
        }
        life_with_kills("ext4", may_grow_ext4()).await;
    }
}

#[tokio::test]
async fn xfs_lives_through_kills() {
    if installed("life::xfs_lives_through_kills", "mkfs.xfs") && own_mounts("life::xfs_lives_through_kills") {
        life_with_kills("xfs", true).await;
    }
}

#[tokio::test]
async fn btrfs_lives_through_kills() {
    if installed("life::btrfs_lives_through_kills", "mkfs.btrfs")
        && own_mounts("life::btrfs_lives_through_kills")
    {
        life_with_kills("btrfs", true).await;
    }
}

#[tokio::test]
async fn block_lives_through_kills() {
    if own_mounts("life::block_lives_through_kills") {
        life_with_kills("block", true).await;
    }
}
