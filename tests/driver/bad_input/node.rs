//! The Node service, with one volume staged and published and another attached and blank.

use std::os::unix::fs::symlink;
use std::path::Path;

use csi_udisk::csi::proto::v1;
use nix::mount::{MsFlags, mount as mount_fs};
use tonic::Code::{Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Ok as Fine};

use super::{Judge, NO_DISKS, Place, Row, capacity, huge, mode, mount, send, shown};
use crate::csi::{self, AtNode, GIB};
use crate::world::{World, own_mounts};

type Stage = v1::NodeStageVolumeRequest;
type Publish = v1::NodePublishVolumeRequest;
type Unstage = v1::NodeUnstageVolumeRequest;
type Unpublish = v1::NodeUnpublishVolumeRequest;
type Expand = v1::NodeExpandVolumeRequest;
type Stats = v1::NodeGetVolumeStatsRequest;
type Health = v1::NodeGetVolumeHealthRequest;

fn long_path() -> String {
    format!("/{}", "directory/".repeat(500))
}

fn set(context: &mut std::collections::BTreeMap<String, String>, key: &str, value: &str) {
    context.insert(key.to_owned(), value.to_owned());
}

/// Spoils the blank volume's request.
#[rustfmt::skip]
const STAGE: &[Row<Stage>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("odd id", |r, _| r.volume_id = "a/b".into(), NotFound, "volume \"a/b\" does not exist: the id holds '/'"),
    ("id that leads upwards", |r, _| r.volume_id = "../../x".into(), NotFound, "the id holds '/'"),
    ("huge id", |r, _| r.volume_id = huge(), NotFound, "the id is longer than 128 bytes"),
    ("no path", |r, _| r.staging_target_path.clear(), InvalidArgument, "staging_target_path is required"),
    ("relative path", |r, _| r.staging_target_path = "some/path".into(), InvalidArgument, "staging_target_path is \"some/path\"; it must be an absolute path"),
    ("path upwards", |r, p| r.staging_target_path = p.path("../outside"), InvalidArgument, "it must not lead upwards by \"..\""),
    ("the root", |r, _| r.staging_target_path = "/".into(), InvalidArgument, "nothing can be mounted there"),
    ("path with NUL", |r, p| r.staging_target_path = p.path("a\0b"), InvalidArgument, "staging_target_path"),
    ("long path", |r, _| r.staging_target_path = long_path(), InvalidArgument, "longer than the 4095 bytes"),
    ("long name in a path", |r, p| r.staging_target_path = p.path(&"n".repeat(256)), InvalidArgument, "longer than the 255 bytes"),
    ("path to a file", |r, p| r.staging_target_path = p.path("file"), FailedPrecondition, "is a file, and a directory is needed there"),
    ("path to a link", |r, p| r.staging_target_path = p.path("link"), FailedPrecondition, "is a symbolic link, and a directory is needed there"),
    ("path to a link to nothing", |r, p| r.staging_target_path = p.path("dangling"), FailedPrecondition, "is a symbolic link"),
    ("path below a file", |r, p| r.staging_target_path = p.path("file/below"), FailedPrecondition, "is not a directory"),
    ("path to a socket", |r, p| r.staging_target_path = p.world.dir.join("node.test.sock").display().to_string(), FailedPrecondition, "is neither file nor directory"),
    ("path of somebody's mount", |r, p| r.staging_target_path = p.path("foreign"), FailedPrecondition, "has tmpfs somebody's mounted on it"),
    ("path of another volume", |r, p| r.staging_target_path = p.path("staged"), FailedPrecondition, "which is not this volume"),
    ("no capability", |r, _| r.volume_capability = None, InvalidArgument, "volume_capability is required"),
    ("empty capability", |r, _| r.volume_capability = Some(Default::default()), InvalidArgument, "access_mode is required"),
    ("no access type", |r, _| r.volume_capability.as_mut().unwrap().access_type = None, InvalidArgument, "access_type is required; allowed: block, mount"),
    ("mode many writers", |r, _| r.volume_capability = Some(mode(5)), InvalidArgument, "access_mode is MULTI_NODE_MULTI_WRITER"),
    ("file system ntfs", |r, _| r.volume_capability = Some(mount("ntfs", &[], "")), InvalidArgument, "fs_type is \"ntfs\"; allowed: ext3, ext4, xfs, btrfs"),
    ("mount group", |r, _| r.volume_capability = Some(mount("ext4", &[], "1000")), InvalidArgument, "volume_mount_group"),
    ("empty mount flag", |r, _| r.volume_capability = Some(mount("ext4", &[""], "")), InvalidArgument, "mount_flags entry 0 (counted from 0) is empty"),
    ("mount flag with line break", |r, _| r.volume_capability = Some(mount("ext4", &["a\nb"], "")), InvalidArgument, "holds a control character"),
    ("mount flag bind", |r, _| r.volume_capability = Some(mount("ext4", &["bind"], "")), InvalidArgument, "mount option \"bind\" is not for a volume"),
    ("mount flag remount", |r, _| r.volume_capability = Some(mount("ext4", &["noatime,remount"], "")), InvalidArgument, "mount option \"remount\""),
    ("mount flags without end", |r, _| r.volume_capability = Some(mount("ext4", &[&"x".repeat(5000)], "")), InvalidArgument, "longer than the 4095 bytes"),
    ("no context", |r, _| r.publish_context.clear(), FailedPrecondition, "publish_context has no \"device\""),
    ("no size", |r, _| { r.publish_context.remove("size"); }, FailedPrecondition, "publish_context has no \"size\""),
    ("empty device", |r, _| set(&mut r.publish_context, "device", ""), FailedPrecondition, "publish_context has no \"device\""),
    ("device that leads upwards", |r, _| set(&mut r.publish_context, "device", "../vdb"), InvalidArgument, "publish_context key \"device\" is \"../vdb\"; it must be a device name such as vdc"),
    ("device of a path", |r, _| set(&mut r.publish_context, "device", "/dev/disk/by-id/x"), InvalidArgument, "publish_context key \"device\""),
    ("huge device", |r, _| set(&mut r.publish_context, "device", &huge()), InvalidArgument, "publish_context key \"device\""),
    ("device of another bus", |r, _| set(&mut r.publish_context, "device", "sda"), FailedPrecondition, "\"sda\" is not a slot such as vdc"),
    ("system disk", |r, _| set(&mut r.publish_context, "device", "vda"), FailedPrecondition, "the slot of the system disk"),
    ("partition", |r, _| set(&mut r.publish_context, "device", "vdb1"), FailedPrecondition, "\"vdb1\" is not a slot"),
    ("size 0", |r, _| set(&mut r.publish_context, "size", "0"), InvalidArgument, "publish_context key \"size\" is \"0\"; it must be a number of GiB such as 20"),
    ("negative size", |r, _| set(&mut r.publish_context, "size", "-20"), InvalidArgument, "\"-20\""),
    ("size with unit", |r, _| set(&mut r.publish_context, "size", "20Gi"), InvalidArgument, "\"20Gi\""),
    ("size that overflows", |r, _| set(&mut r.publish_context, "size", "4294967296"), InvalidArgument, "\"4294967296\""),
    ("device of another volume", |r, p| r.publish_context.clone_from(&p.context), Aborted, "volume"),
];

/// Spoils the request of the published volume, at another target.
#[rustfmt::skip]
const PUBLISH: &[Row<Publish>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("odd id", |r, _| r.volume_id = "a b".into(), NotFound, "the id holds ' '"),
    ("no target", |r, _| r.target_path.clear(), InvalidArgument, "target_path is required"),
    ("relative target", |r, _| r.target_path = "pods/x".into(), InvalidArgument, "target_path is \"pods/x\"; it must be an absolute path"),
    ("target upwards", |r, p| r.target_path = p.path("pods/../../x"), InvalidArgument, "must not lead upwards"),
    ("target of the root", |r, _| r.target_path = "//".into(), InvalidArgument, "nothing can be mounted there"),
    ("target with NUL", |r, p| r.target_path = p.path("pods/\0"), InvalidArgument, "target_path"),
    ("long target", |r, _| r.target_path = long_path(), InvalidArgument, "longer than the 4095 bytes"),
    ("target that is a file", |r, p| r.target_path = p.path("file"), FailedPrecondition, "is a file, and a directory is needed there"),
    ("target that is a link", |r, p| r.target_path = p.path("link"), FailedPrecondition, "is a symbolic link"),
    ("target below a file", |r, p| r.target_path = p.path("file/x/y"), FailedPrecondition, "is not a directory"),
    ("no staging path", |r, _| r.staging_target_path.clear(), InvalidArgument, "staging_target_path is required"),
    ("relative staging path", |r, _| r.staging_target_path = "staged".into(), InvalidArgument, "staging_target_path is \"staged\""),
    ("staging path of the root", |r, _| r.staging_target_path = "/".into(), InvalidArgument, "nothing can be mounted there"),
    ("staging path that is a file", |r, p| r.staging_target_path = p.path("file"), Aborted, "not"),
    ("target that is the staging path", |r, p| r.target_path = p.path("staged"), InvalidArgument, "neither can be in the other"),
    ("target that is the staging path by a link", |r, p| r.target_path = p.path("home/staged"), InvalidArgument, "neither can be in the other"),
    ("target in the volume", |r, p| r.target_path = p.path("staged/inside"), InvalidArgument, "neither can be in the other"),
    ("target above the staging path", |r, p| r.target_path = p.path(""), InvalidArgument, "neither can be in the other"),
    ("target that is somebody's mount", |r, p| r.target_path = p.path("foreign"), FailedPrecondition, "has tmpfs somebody's mounted on it, which is not this volume"),
    ("staging path that is somebody's mount", |r, p| r.staging_target_path = p.path("foreign"), FailedPrecondition, "has tmpfs somebody's mounted on it"),
    ("no capability", |r, _| r.volume_capability = None, InvalidArgument, "volume_capability is required"),
    ("mode unknown", |r, _| r.volume_capability = Some(mode(0)), InvalidArgument, "access_mode is UNKNOWN"),
    ("file system ntfs", |r, _| r.volume_capability = Some(mount("ntfs", &[], "")), InvalidArgument, "fs_type is \"ntfs\""),
    ("other file system than is staged", |r, _| r.volume_capability = Some(mount("xfs", &[], "")), AlreadyExists, "unstage it first"),
    ("block, and staged with a file system", |r, _| r.volume_capability = Some(csi::capability("block")), Aborted, "volume"),
    ("no context, and not staged", |r, p| { r.publish_context.clear(); r.staging_target_path = p.path("nothing") }, Aborted, "publish_context has no \"device\""),
    ("odd device", |r, _| set(&mut r.publish_context, "device", "vd/b"), InvalidArgument, "publish_context key \"device\""),
];

#[rustfmt::skip]
const UNSTAGE: &[Row<Unstage>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no path", |r, _| r.staging_target_path.clear(), InvalidArgument, "staging_target_path is required"),
    ("relative path", |r, _| r.staging_target_path = "x".into(), InvalidArgument, "must be an absolute path"),
    ("path upwards", |r, p| r.staging_target_path = p.path("../x"), InvalidArgument, "must not lead upwards"),
    ("the root", |r, _| r.staging_target_path = "/".into(), InvalidArgument, "nothing can be mounted there"),
    ("long path", |r, _| r.staging_target_path = long_path(), InvalidArgument, "longer than the 4095 bytes"),
    ("path with line break", |r, p| r.staging_target_path = p.path("a\nb"), InvalidArgument, "\\nb\"; it must not hold control characters"),
    ("published volume", |r, p| { r.volume_id.clone_from(&p.attached); r.staging_target_path = p.path("staged") }, FailedPrecondition, "is still mounted on"),
    ("somebody's mount", |r, p| r.staging_target_path = p.path("foreign"), FailedPrecondition, "has tmpfs somebody's mounted on it, which is no volume of this driver; it was left as it is"),
    ("the host's own mount", |r, _| r.staging_target_path = "/proc".into(), FailedPrecondition, "/proc has proc "),
    ("published volume at another path", |r, p| { r.volume_id.clone_from(&p.attached); r.staging_target_path = p.path("nothing") }, FailedPrecondition, "pods/target; unpublish it (or unstage it) there first"),
    ("nothing there", |r, p| r.staging_target_path = p.path("nothing"), Fine, ""),
    ("path to a file", |r, p| r.staging_target_path = p.path("file"), Fine, ""),
    ("path to a link", |r, p| r.staging_target_path = p.path("link"), Fine, ""),
];

#[rustfmt::skip]
const UNPUBLISH: &[Row<Unpublish>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no target", |r, _| r.target_path.clear(), InvalidArgument, "target_path is required"),
    ("relative target", |r, _| r.target_path = "x".into(), InvalidArgument, "must be an absolute path"),
    ("target upwards", |r, p| r.target_path = p.path("../x"), InvalidArgument, "must not lead upwards"),
    ("target of the root", |r, _| r.target_path = "/".into(), InvalidArgument, "nothing can be mounted there"),
    ("long target", |r, _| r.target_path = long_path(), InvalidArgument, "longer than the 4095 bytes"),
    ("somebody's mount", |r, p| r.target_path = p.path("foreign"), FailedPrecondition, "has tmpfs somebody's mounted on it, which is no volume of this driver; it was left as it is"),
    ("the host's own mount", |r, _| r.target_path = "/proc".into(), FailedPrecondition, "/proc has proc "),
    ("nothing there", |r, p| r.target_path = p.path("nothing"), Fine, ""),
    ("below nothing", |r, p| r.target_path = p.path("nothing/at/all"), Fine, ""),
    ("below a file", |r, p| r.target_path = p.path("file/x"), Fine, ""),
    ("a file with data", |r, p| r.target_path = p.path("file"), FailedPrecondition, "is not empty; it was left as it is"),
    ("a directory with data", |r, p| r.target_path = p.path("pods"), FailedPrecondition, "is not empty"),
    ("a link", |r, p| r.target_path = p.path("link"), FailedPrecondition, "is a symbolic link, which no volume leaves behind; it was left as it is"),
    ("a device of the host", |r, _| r.target_path = "/dev/null".into(), FailedPrecondition, "/dev/null is neither file nor directory, which no volume leaves behind"),
];

#[rustfmt::skip]
const EXPAND: &[Row<Expand>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("odd id", |r, _| r.volume_id = "a/b".into(), NotFound, "the id holds '/'"),
    ("no path", |r, _| r.volume_path.clear(), InvalidArgument, "volume_path is required"),
    ("relative path", |r, _| { r.volume_path = "x".into(); r.staging_target_path.clear() }, NotFound, "no volume is mounted at \"x\""),
    ("long path", |r, _| { r.volume_path = long_path(); r.staging_target_path.clear() }, NotFound, "no volume is mounted at"),
    ("nothing mounted", |r, p| { r.volume_path = p.path("nothing"); r.staging_target_path.clear() }, NotFound, "no volume is mounted at"),
    ("a link", |r, p| { r.volume_path = p.path("link"); r.staging_target_path.clear() }, NotFound, "no volume is mounted at"),
    ("negative size", |r, _| r.capacity_range = capacity(-1, 0), InvalidArgument, "required_bytes is -1; it must not be negative"),
    ("negative limit", |r, _| r.capacity_range = capacity(0, i64::MIN), InvalidArgument, "limit_bytes is -9223372036854775808"),
    ("limit below required", |r, _| r.capacity_range = capacity(20 * GIB, 10 * GIB), InvalidArgument, "is below capacity_range.required_bytes"),
];

#[rustfmt::skip]
const STATS: &[Row<Stats>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("odd id", |r, _| r.volume_id = "a/b".into(), NotFound, "the id holds '/'"),
    ("no path", |r, _| r.volume_path.clear(), InvalidArgument, "volume_path is required"),
    ("relative path", |r, _| r.volume_path = "x".into(), NotFound, "no volume is mounted at \"x\""),
    ("long path", |r, _| r.volume_path = long_path(), NotFound, "no volume is mounted at"),
    ("path with NUL", |r, p| r.volume_path = p.path("a\0b"), NotFound, "no volume is mounted at"),
    ("nothing there", |r, p| r.volume_path = p.path("nothing"), NotFound, "no volume is mounted at"),
    ("a file", |r, p| r.volume_path = p.path("file"), NotFound, "no volume is mounted at"),
    ("the host's own file system", |r, _| r.volume_path = "/proc".into(), NotFound, "no volume is mounted at"),
];

/// A path at which nothing is mounted is an answer, and not an error.
#[rustfmt::skip]
const HEALTH: &[Row<Health>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("odd id", |r, _| r.volume_id = "a/b".into(), NotFound, "the id holds '/'"),
    ("unknown id", |r, _| { r.volume_id = "bs-unknown".into(); r.volume_publish_path.clear() }, NotFound, "it is not known on this host"),
    ("relative path", |r, _| r.volume_publish_path = "x".into(), Fine, ""),
    ("long path", |r, _| r.volume_publish_path = long_path(), Fine, ""),
    ("path with NUL", |r, p| r.staging_target_path = p.path("a\0b"), Fine, ""),
    ("a link", |r, p| r.staging_target_path = p.path("link"), Fine, ""),
    ("the host's own file system", |r, _| r.volume_publish_path = "/proc".into(), Fine, ""),
];

const TEST: &str = "bad_input::node::the_node_refuses_bad_input_and_leaves_nothing";

#[tokio::test]
async fn the_node_refuses_bad_input_and_leaves_nothing() {
    if !own_mounts(TEST) {
        return;
    }
    let world = World::start("none").await;
    let (driver, serving) = (world.controller().await, world.node(1).await);
    let (mut controller, mut node) = (driver.controller(), serving.node());
    let mut place = Place::new(&mut controller, world).await;
    let at = |id: &str, context: &std::collections::BTreeMap<String, String>| AtNode {
        id: id.to_owned(),
        kind: "ext4".to_owned(),
        context: context.clone(),
        staging: place.path("staged"),
        target: place.path("pods/target"),
    };
    let staged = at(&place.attached, &place.context);
    for dir in ["staged", "pods", "elsewhere", "foreign"] {
        std::fs::create_dir(place.path(dir)).unwrap();
    }
    std::fs::write(place.path("file"), "data").unwrap();
    symlink("elsewhere", place.path("link")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    symlink(".", place.path("home")).unwrap();
    let foreign = place.path("foreign");
    mount_fs(Some("somebody's"), foreign.as_str(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    node.node_stage_volume(staged.stage()).await.unwrap();
    node.node_publish_volume(staged.publish()).await.unwrap();
    std::fs::write(Path::new(&staged.target).join("data"), "what must stay").unwrap();

    let context = controller.controller_publish_volume(csi::attach(&place.free, &place.host, "ext4")).await;
    let blank = AtNode {
        staging: place.path("new"),
        ..at(&place.free, &context.unwrap().into_inner().publish_context)
    };
    place.blank = Some(backing_file(&place));
    let mut judge = Judge::new(&place).await;
    assert_eq!(judge.before.blank_blocks, 0);

    send!(judge, place, node, node_stage_volume, blank.stage(), STAGE);
    let publish = || Publish { target_path: place.path("pods/other"), ..staged.publish() };
    send!(judge, place, node, node_publish_volume, publish(), PUBLISH);
    send!(judge, place, node, node_unstage_volume, blank.unstage(), UNSTAGE);
    send!(judge, place, node, node_unpublish_volume, blank.unpublish(), UNPUBLISH);
    send!(judge, place, node, node_expand_volume, staged.grow(20), EXPAND);
    send!(judge, place, node, node_get_volume_stats, staged.stats(), STATS);
    let health = Health {
        volume_id: staged.id.clone(),
        volume_publish_path: staged.target.clone(),
        staging_target_path: String::new(),
    };
    send!(judge, place, node, node_get_volume_health, health.clone(), HEALTH);
    for id in NO_DISKS {
        let (id, shown) = (id(), shown(&id()));
        let nothing =
            AtNode { id, staging: place.path("nothing"), target: place.path("nothing"), ..blank.clone() };
        let answer = super::answer(node.node_unpublish_volume(nothing.unpublish()).await);
        judge.row(&place, &format!("node_unpublish_volume of {shown}"), answer, (Fine, "")).await;
        let answer = super::answer(node.node_unstage_volume(nothing.unstage()).await);
        judge.row(&place, &format!("node_unstage_volume of {shown}"), answer, (Fine, "")).await;
    }
    assert_eq!(std::fs::read(Path::new(&staged.target).join("data")).unwrap(), b"what must stay");
    judge.finish("node");
}

/// The file of the blank disk: the sandbox names it after the disk.
fn backing_file(place: &Place) -> std::path::PathBuf {
    let mut files = vec![place.world.dir.join("data")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().contains(&place.free)) {
            return path;
        }
    }
    panic!("no file of {} below {}", place.free, place.world.dir.display());
}
