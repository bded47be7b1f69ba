//! Attachments that another driver made: nothing says where their disks are.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{Disk, TestHost, Volume, file_systems, mounts_at, on_a_host, run, skip};
use csi_udisk::csi::status::Code;
use csi_udisk::csi::status::node::NodeError as _;
use csi_udisk::node::linux::format;
use csi_udisk::node::linux::grow::GrowError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::lookup::{Answer, Lookup, LookupError, Sighting, State};
use csi_udisk::node::plan::ContentRefused;
use csi_udisk::node::unplaced::UnplacedReason;
use csi_udisk::node::{ExpandError, Node, PublishError, StageError, Usage};
use csi_udisk::volume::{Access, DiskId, FsType, FsUuid, Gib, HostId, PublishContext};

const MIB: u64 = 1 << 20;
const SMALL: u64 = 64 * MIB;

/// Disks are read whole again and again, so they are as small as their file systems can be.
fn smallest(fs: FsType) -> u64 {
    match fs {
        FsType::Ext3 | FsType::Ext4 => SMALL,
        FsType::Xfs => 320 * MIB,
        FsType::Btrfs => 128 * MIB,
    }
}

/// A volume whose attachment says nothing.
fn unplaced(host: &TestHost, id: &str, fs: FsType) -> Volume {
    let mut volume = Volume::fs(host, id, fs, "-", Gib::new(1));
    volume.context = PublishContext::default();
    volume
}

/// As the other driver, or somebody, would make it.
fn make(fs: FsType, disk: &Disk, uuid: Option<FsUuid>) {
    let device = disk.device().to_str().unwrap();
    let uuid = uuid.map(|uuid| uuid.to_string());
    let marked;
    let mut arguments = vec!["-q"];
    match (fs, &uuid) {
        (_, None) => {}
        (FsType::Xfs, Some(uuid)) => {
            marked = format!("uuid={uuid}");
            arguments.extend(["-m", &marked]);
        }
        (_, Some(uuid)) => arguments.extend(["-U", uuid]),
    }
    arguments.push(device);
    let output = Command::new(format::mkfs(fs).name).args(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn plugged(host: &TestHost, kernel_name: &str, serial: &str, size: u64) -> Disk {
    let disk = host.disk(kernel_name, size);
    host.plug(kernel_name, serial, &disk);
    disk
}

fn mount(disk: &Disk, path: &Path) {
    fs::create_dir_all(path).unwrap();
    run("mount", &["-o", "noatime", disk.device().to_str().unwrap(), path.to_str().unwrap()]);
}

/// What the other driver left: the volume staged, and bound into a pod.
fn mounted_by_the_other_driver(volume: &Volume, disk: &Disk) {
    mount(disk, &volume.staging);
    fs::create_dir_all(&volume.target).unwrap();
    run("mount", &["--bind", volume.staging.to_str().unwrap(), volume.target.to_str().unwrap()]);
    fs::write(volume.target.join("file"), "content").unwrap();
}

/// The device that a directory is on, as the kernel says it.
fn device_of(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}

/// Stages, which must be refused, and proves that no byte of the disks changed.
async fn refused(node: &Node, volume: &Volume, disks: &[&Disk]) -> StageError {
    let before: Vec<_> = disks.iter().map(|disk| disk.content()).collect();
    let error = volume.stage(node).await.unwrap_err();
    for (disk, before) in disks.iter().zip(before) {
        assert!(disk.content() == before, "{} was changed although: {error}", disk.name());
    }
    assert_eq!(mounts_at(&volume.staging), 0);
    error
}

fn reason(error: StageError) -> (UnplacedReason, String) {
    let text = error.to_string();
    let StageError::Unplaced(unplaced) = error else { panic!("{text}") };
    (unplaced.reason, text)
}

#[test]
fn the_one_disk_with_the_volume_s_mark_is_found_among_all_others() {
    for (fs, kernel_name) in file_systems().into_iter().zip(["vdc", "nvme1n1", "vdaa", "vdc"]) {
        on_a_host(false, |host| async move {
            let (volume, size) = (unplaced(&host, "bs-1", fs), smallest(fs));
            let ours = plugged(&host, kernel_name, "UCLOUD_DISK_VDX", size);
            make(fs, &ours, Some(FsUuid::of_disk(&volume.id)));
            let system = plugged(&host, "vda", "UCLOUD_DISK_VDA", size);
            let blank = plugged(&host, "vdb", "UCLOUD_DISK_VDB", size);
            let another = plugged(&host, "vdd", "UCLOUD_DISK_VDD", size);
            make(fs, &another, Some(FsUuid::of_disk(&unplaced(&host, "bs-another", fs).id)));
            let unmarked = plugged(&host, "vde", "UCLOUD_DISK_VDE", size);
            make(fs, &unmarked, None);
            // Not a disk that the cloud attaches, whatever is on it.
            let other_kind = plugged(&host, "sda", "", size);
            make(FsType::Ext4, &other_kind, Some(FsUuid::of_disk(&volume.id)));
            let others = [&system, &blank, &another, &unmarked, &other_kind];
            let before: Vec<_> = others.iter().map(|disk| disk.content()).collect();

            for node in [host.node(), host.node()] {
                volume.publish(&node, false).await.unwrap();
            }
            fs::write(volume.target.join("file"), "content").unwrap();
            let source = Mounts::read().unwrap().top(&volume.staging).unwrap().source.clone();
            assert_eq!(source.file_name().unwrap(), kernel_name);
            assert_eq!(mounts_at(&volume.staging), 1);
            volume.unpublish(&host.node()).await.unwrap();
            volume.unstage(&host.node()).await.unwrap();
            for (disk, before) in others.iter().zip(before) {
                assert!(disk.content() == before, "{} was changed", disk.name());
            }
        });
    }
}

#[test]
fn without_a_mark_nothing_is_chosen_and_the_refusal_says_what_was_seen_and_what_to_do() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let blank = plugged(&host, "vdb", "UCLOUD_DISK_VDC", SMALL);
        // The only disk, blank: what is left over is no proof.
        let (found, text) = reason(refused(&host.node(), &volume, &[&blank]).await);
        assert!(matches!(found, UnplacedReason::None { .. }), "{text}");

        let system = plugged(&host, "vda", "UCLOUD_DISK_VDA", SMALL);
        make(FsType::Ext4, &system, Some(FsUuid::of_disk(&volume.id)));
        let unmarked = plugged(&host, "vdc", "UCLOUD_DISK_VDD", SMALL);
        make(FsType::Ext4, &unmarked, None);
        let used = plugged(&host, "vdd", "UCLOUD_DISK_VDE", SMALL);
        make(FsType::Ext4, &used, None);
        mount(&used, &host.path("elsewhere"));
        let (found, text) = reason(refused(&host.node(), &volume, &[&blank, &system, &unmarked]).await);
        assert!(matches!(found, UnplacedReason::None { .. }), "{text}");
        for part in [
            "publish_context has no \"device\"",
            "vda (UCLOUD_DISK_VDA) is the system disk",
            "vdb (UCLOUD_DISK_VDC) holds no file system",
            "vdc (UCLOUD_DISK_VDD) holds ext4 without a mark",
            "vdd (UCLOUD_DISK_VDE) is in use: mounted on ",
            "Delete the pod and its VolumeAttachment",
            "--node-cloud-lookup",
        ] {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
    });
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let (_, text) = reason(volume.stage(&host.node()).await.unwrap_err());
        assert!(text.contains("this host has no virtio or NVMe disk"), "{text}");
    });
}

#[test]
fn two_disks_with_the_volume_s_mark_are_both_refused() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let one = plugged(&host, "vdb", "UCLOUD_DISK_VDB", SMALL);
        make(FsType::Ext4, &one, Some(FsUuid::of_disk(&volume.id)));
        let copy = host.path("images/copy");
        one.copy_to(&copy);
        let two = host.disk_of(&copy);
        host.plug("vdc", "UCLOUD_DISK_VDC", &two);
        let (found, text) = reason(refused(&host.node(), &volume, &[&one, &two]).await);
        assert!(matches!(found, UnplacedReason::Several { .. }), "{text}");
        assert!(text.contains("dev/vdb and ") && text.contains("dev/vdc all carry"), "{text}");
        host.unplug("vdb");
        volume.stage(&host.node()).await.unwrap();
    });
}

/// The volume's own disk may be the one that a pod still uses, and the free one a copy of it.
#[test]
fn a_free_copy_is_not_taken_for_the_volume_while_another_disk_with_its_mark_is_in_use() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let used = plugged(&host, "vdb", "UCLOUD_DISK_VDB", SMALL);
        make(FsType::Ext4, &used, Some(FsUuid::of_disk(&volume.id)));
        let image = host.path("images/copy");
        used.copy_to(&image);
        let copy = host.disk_of(&image);
        host.plug("vdc", "UCLOUD_DISK_VDC", &copy);
        let pod = host.path("kubelet/pods/left/mount");
        mount(&used, &pod);
        let error = refused(&host.node(), &volume, &[&copy]).await;
        // After a final code kubelet asks for no unstage, and what is mounted may be this volume.
        assert_eq!(error.code(), Code::Aborted, "{error}");
        let (found, text) = reason(error);
        assert!(matches!(found, UnplacedReason::Several { .. }), "{text}");
        let named = format!("dev/vdb, which is in use (mounted on {}),", pod.display());
        assert!(text.contains(&format!("{named} all carry")) && text.contains("dev/vdc and "), "{text}");
        // Nor while it does not say whose it is.
        let node_path = host.path("dev/vdb");
        fs::remove_file(&node_path).unwrap();
        nix::unistd::mkfifo(&node_path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let outcome = volume.stage(&host.node()).await;
        // Lets the hung thread end, and is a disk again.
        drop(fs::OpenOptions::new().read(true).write(true).open(&node_path).unwrap());
        fs::remove_file(&node_path).unwrap();
        std::os::unix::fs::symlink(used.device(), &node_path).unwrap();
        let (found, text) = reason(outcome.unwrap_err());
        assert!(matches!(found, UnplacedReason::Silent { .. }), "{text}");
        assert!(text.contains("vdb did not answer"), "{text}");
        host.unplug("vdc");
        let error = refused(&host.node(), &volume, &[]).await;
        assert_eq!(error.code(), Code::Aborted, "{error}");
        let (found, text) = reason(error);
        assert!(matches!(found, UnplacedReason::InUse { .. }), "{text}");
        assert!(text.contains(&format!("{named} and nowhere else")), "{text}");
        run("umount", &[pod.to_str().unwrap()]);
        volume.stage(&host.node()).await.unwrap();
    });
}

#[test]
fn a_size_in_the_context_rules_out_what_is_smaller_and_raw_use_is_refused() {
    on_a_host(false, |host| async move {
        let mut volume = unplaced(&host, "bs-1", FsType::Ext4);
        let disk = plugged(&host, "vdb", "UCLOUD_DISK_VDB", SMALL);
        make(FsType::Ext4, &disk, Some(FsUuid::of_disk(&volume.id)));
        volume.context.size = Some(Gib::new(1));
        let (_, text) = reason(refused(&host.node(), &volume, &[&disk]).await);
        assert!(text.contains(&format!("vdb (UCLOUD_DISK_VDB) has only {SMALL} bytes")), "{text}");
        // A slot alone is not one of ours either.
        volume.context = PublishContext { device: Some("vdb".into()), size: None };
        volume.stage(&host.node()).await.unwrap();
        volume.unstage(&host.node()).await.unwrap();
        volume.capability.access = Access::Block;
        let (found, text) = reason(refused(&host.node(), &volume, &[&disk]).await);
        assert_eq!(found, UnplacedReason::Block);
        assert!(text.contains("publish_context has no \"size\""), "{text}");
    });
}

/// A FIFO in place of a disk's node: opening it does not return, as with a disk that died.
#[test]
fn a_disk_that_does_not_answer_is_waited_for_in_limited_time() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let disk = plugged(&host, "vdb", "UCLOUD_DISK_VDB", SMALL);
        make(FsType::Ext4, &disk, Some(FsUuid::of_disk(&volume.id)));
        let hung = plugged(&host, "vdc", "UCLOUD_DISK_VDC", SMALL);
        let node_path = host.path("dev/vdc");
        fs::remove_file(&node_path).unwrap();
        nix::unistd::mkfifo(&node_path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let node = host.node();
        for _ in 0..2 {
            let staging = tokio::time::timeout(Duration::from_secs(60), volume.stage(&node)).await;
            let (found, text) = reason(staging.expect("an answer").unwrap_err());
            assert!(matches!(found, UnplacedReason::Silent { .. }), "{text}");
            assert!(text.contains("vdc did not answer and could be the volume's too"), "{text}");
        }
        // Volumes whose place is known do not depend on it.
        let mut placed = volume.clone();
        placed.context = PublishContext { device: Some("vdb".into()), size: Some(Gib::new(0)) };
        placed.stage(&node).await.unwrap();
        placed.unstage(&node).await.unwrap();
        // Lets the hung thread end, and is a disk again.
        drop(fs::OpenOptions::new().read(true).write(true).open(&node_path).unwrap());
        fs::remove_file(&node_path).unwrap();
        std::os::unix::fs::symlink(hung.device(), &node_path).unwrap();
        volume.stage(&node).await.unwrap();
    });
}

#[test]
fn what_the_other_driver_mounted_is_taken_over_for_all_calls() {
    for fs in file_systems() {
        on_a_host(true, |host| async move {
            let (mut volume, size) = (unplaced(&host, "bs-1", fs), smallest(fs));
            let disk = plugged(&host, "vdb", "UCLOUD_DISK_VDC", size);
            make(fs, &disk, None);
            // Beside it a disk that it could be mistaken for.
            let blank = plugged(&host, "vdc", "UCLOUD_DISK_VDD", size);
            mounted_by_the_other_driver(&volume, &disk);
            let device = device_of(&volume.staging);

            // After a start of this driver kubelet may ask for everything again.
            for node in [host.node(), host.node()] {
                volume.stage(&node).await.unwrap();
                volume.publish(&node, false).await.unwrap();
            }
            assert_eq!((mounts_at(&volume.staging), mounts_at(&volume.target)), (1, 1));
            // Another pod of the same volume.
            let first = volume.target.clone();
            volume.target = host.target("second");
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
            assert_eq!(device_of(&volume.target), device);

            let Usage::Fs(usage) = volume.stats(&node).await.unwrap() else { panic!("no file system") };
            assert!(usage.bytes.total > size / 2);
            disk.grow(2 * size);
            match volume.expand(&node, 2 * size).await {
                Ok(grown) => assert_eq!(grown, 2 * size),
                Err(ExpandError::Grow(GrowError::NoCapability(_))) if fs != FsType::Xfs => {
                    skip(&format!("growing a mounted {fs}: this machine lacks CAP_SYS_RESOURCE"));
                }
                Err(error) => panic!("{fs}: {error}"),
            }
            assert!(volume.unstage(&node).await.unwrap_err().to_string().contains("still mounted"));
            volume.unpublish(&node).await.unwrap();
            volume.target = first;
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            assert_eq!((mounts_at(&volume.staging), volume.target.exists()), (0, false));

            // Once it is unmounted nothing says which disk it was.
            let (found, text) = reason(refused(&host.node(), &volume, &[&disk, &blank]).await);
            assert!(matches!(found, UnplacedReason::None { .. }), "{text}");
        });
    }
}

#[test]
fn what_is_mounted_and_cannot_be_the_volume_is_not_taken_over() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let disk = plugged(&host, "vdb", "UCLOUD_DISK_VDC", SMALL);
        make(FsType::Ext4, &disk, Some(FsUuid::of_disk(&DiskId::parse("bs-another").unwrap())));
        mounted_by_the_other_driver(&volume, &disk);
        let still_mounted = |count| assert_eq!(mounts_at(&volume.staging), count);
        for error in [
            volume.stage(&host.node()).await.unwrap_err(),
            match volume.publish(&host.node(), false).await {
                Err(PublishError::Stage(error)) => error,
                other => panic!("{other:?}"),
            },
        ] {
            let other =
                matches!(&error, StageError::Content { reason: ContentRefused::OtherDisk { .. }, .. });
            assert!(other, "{error}");
        }
        still_mounted(1);
        run("umount", &[volume.target.to_str().unwrap()]);
        run("umount", &[volume.staging.to_str().unwrap()]);

        // A part of a disk, which the volume never is.
        let elsewhere = host.path("elsewhere");
        let unmarked = plugged(&host, "vdc", "UCLOUD_DISK_VDD", SMALL);
        make(FsType::Ext4, &unmarked, None);
        mount(&unmarked, &elsewhere);
        fs::create_dir(elsewhere.join("part")).unwrap();
        run("mount", &["--bind", elsewhere.join("part").to_str().unwrap(), volume.staging.to_str().unwrap()]);
        let error = volume.stage(&host.node()).await.unwrap_err();
        assert!(error.to_string().contains("/part of the ext4 on vdc"), "{error}");
        still_mounted(1);
        run("umount", &[volume.staging.to_str().unwrap()]);
        run("umount", &[elsewhere.to_str().unwrap()]);

        // The system disk, and what is no disk of the cloud.
        for (name, serial) in [("vda", "UCLOUD_DISK_VDA"), ("sda", "")] {
            let disk = plugged(&host, name, serial, SMALL);
            make(FsType::Ext4, &disk, None);
            mount(&disk, &volume.staging);
            let error = volume.stage(&host.node()).await.unwrap_err();
            assert!(error.to_string().contains("which is no disk that volumes are on"), "{name}: {error}");
            still_mounted(1);
            run("umount", &[volume.staging.to_str().unwrap()]);
            host.unplug(name);
        }
    });
}

/// A cloud that gives one answer and counts how often it is asked.
#[derive(Debug)]
struct Told {
    answer: Result<Option<Sighting>, String>,
    asked: AtomicUsize,
}

impl Told {
    fn new(host: &str, device: &str, gib: u32) -> Arc<Self> {
        Arc::new(Self {
            answer: Ok(Some(Sighting {
                host: Some(HostId::parse(host).unwrap()),
                state: State::Attached,
                device: Some(device.to_owned()),
                size: Gib::new(gib),
                is_boot: false,
            })),
            asked: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Told {
    fn this_host(&self) -> Result<HostId, String> {
        Ok(HostId::parse("uhost-here").unwrap())
    }

    fn disk<'a>(&'a self, _: &'a DiskId) -> Answer<'a, Result<Option<Sighting>, String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::ready(self.answer.clone()))
    }
}

fn asking(host: &TestHost, told: &Arc<Told>) -> Node {
    let told: Arc<Told> = Arc::clone(told);
    host.node().asking(told)
}

#[test]
fn where_the_cloud_may_be_asked_its_word_gives_the_slot() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let other = plugged(&host, "vdb", "UCLOUD_DISK_VDB", SMALL);
        let disk = plugged(&host, "vdx", "UCLOUD_DISK_VDC", common::SMALL);
        let before = other.content();
        let told = Told::new("uhost-here", "vdc", 0);
        volume.publish(&asking(&host, &told), false).await.unwrap();
        assert_eq!(told.asked(), 1);
        let source = Mounts::read().unwrap().top(&volume.staging).unwrap().source.clone();
        assert_eq!(source.file_name().unwrap(), "vdx");
        // What carries the volume's mark and is mounted proves itself.
        volume.stage(&asking(&host, &told)).await.unwrap();
        assert_eq!(told.asked(), 1);
        assert!(other.content() == before);
        volume.unpublish(&host.node()).await.unwrap();
        volume.unstage(&host.node()).await.unwrap();

        let mut raw = unplaced(&host, "bs-2", FsType::Ext4);
        raw.capability.access = Access::Block;
        let told = Told::new("uhost-here", "/dev/VDB", 0);
        raw.stage(&asking(&host, &told)).await.unwrap();
        raw.stage(&asking(&host, &told)).await.unwrap();
        assert_eq!(told.asked(), 2);
        // Without the cloud nothing tells its disk; but it is there, and a final code would make kubelet forget it.
        let error = raw.stage(&host.node()).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted, "{error}");
        assert!(matches!(error, StageError::StillMounted { .. }), "{error}");
        raw.unstage(&host.node()).await.unwrap();
        // A smaller disk than the cloud says is not it.
        let told = Told::new("uhost-here", "vdb", 1);
        let error = refused(&asking(&host, &told), &raw, &[&other, &disk]).await;
        assert!(matches!(error, StageError::Locate(_)), "{error}");
    });
}

#[test]
fn a_disk_that_the_cloud_sees_elsewhere_is_refused() {
    on_a_host(false, |host| async move {
        let volume = unplaced(&host, "bs-1", FsType::Ext4);
        let disk = plugged(&host, "vdc", "UCLOUD_DISK_VDC", SMALL);
        make(FsType::Ext4, &disk, None);
        let elsewhere = Told::new("uhost-there", "vdc", 0);
        let error = refused(&asking(&host, &elsewhere), &volume, &[&disk]).await;
        assert!(matches!(error, StageError::Lookup(LookupError::Elsewhere { .. })), "{error}");
        for part in ["uhost-there", "this is host uhost-here", "VolumeAttachment"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        let silent = Arc::new(Told { answer: Err("no route".into()), asked: AtomicUsize::new(0) });
        let error = refused(&asking(&host, &silent), &volume, &[&disk]).await;
        assert!(error.to_string().contains("no route"), "{error}");

        // What the other driver mounted counts only as far as the cloud agrees.
        mounted_by_the_other_driver(&volume, &disk);
        let error = volume.stage(&asking(&host, &elsewhere)).await.unwrap_err();
        // A final code would make kubelet forget the mount.
        assert_eq!(error.code(), Code::Aborted, "{error}");
        let StageError::StillMounted { path, error } = error else { panic!("{error}") };
        assert_eq!(path, volume.staging);
        assert!(matches!(*error, StageError::Lookup(LookupError::Elsewhere { .. })), "{error}");
        let error = volume.publish(&asking(&host, &elsewhere), false).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted, "{error}");
        let unbound = Volume { target: host.target("unbound"), ..volume.clone() };
        let error = unbound.publish(&asking(&host, &elsewhere), false).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        let _other = plugged(&host, "vdd", "UCLOUD_DISK_VDD", SMALL);
        let error = volume.stage(&asking(&host, &Told::new("uhost-here", "vdd", 0))).await.unwrap_err();
        assert_eq!(error.code(), Code::Aborted, "{error}");
        let StageError::StillMounted { error, .. } = error else { panic!("{error}") };
        assert!(matches!(*error, StageError::Occupied { .. }), "{error}");
        volume.publish(&asking(&host, &Told::new("uhost-here", "vdc", 0)), false).await.unwrap();
        assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
    });
}
