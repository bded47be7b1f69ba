//! Volumes on real loop devices: the whole life, again and again, and growing.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _};
use std::path::Path;

use common::{SMALL, SMALL_GIB, Volume, check, file_systems, on_a_host, run, skip};
use csi_udisk::node::linux::format::is_installed;
use csi_udisk::node::linux::grow::GrowError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::privilege::has_sys_resource;
use csi_udisk::node::{ExpandError, ExpandRequest, PublishError, StageError, StatsError, Usage};
use csi_udisk::progress::Progress;
use csi_udisk::volume::{FsType, FsUuid};

fn blkid_uuid(device: &Path) -> String {
    run("blkid", &["-p", "-s", "UUID", "-o", "value", &device.display().to_string()]).trim().to_owned()
}

fn mounted(path: &Path) -> bool {
    Mounts::read().unwrap().top(path).is_some()
}

fn life_of(fs: FsType) {
    on_a_host(false, |host| async move {
        let disk = host.disk("a", SMALL);
        host.plug("vdx", "UCLOUD_DISK_VDC", &disk);
        let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB).flags(&["noatime"]);
        let node = host.node();

        volume.stage(&node).await.unwrap();
        assert_eq!(blkid_uuid(disk.device()), FsUuid::of_disk(&volume.id).to_string());
        let staged = Mounts::read().unwrap().top(&volume.staging).unwrap().clone();
        assert!(staged.options.contains("noatime") && !staged.read_only());
        assert_eq!(staged.fs_type, fs.word());

        volume.publish(&node, false).await.unwrap();
        fs::write(volume.target.join("file"), "content").unwrap();
        let Usage::Fs(usage) = volume.stats(&node).await.unwrap() else { panic!("no file system") };
        assert!(usage.bytes.total > SMALL / 2 && usage.bytes.used > 0 && usage.bytes.available > 0);
        assert_eq!(usage.inodes.is_some(), fs != FsType::Btrfs);

        // Retries, and a driver that was started anew, change nothing.
        for node in [node, host.node()] {
            volume.stage(&node).await.unwrap();
            volume.publish(&node, false).await.unwrap();
        }
        assert_eq!(Mounts::read().unwrap().at(&volume.staging).count(), 1);
        assert_eq!(Mounts::read().unwrap().at(&volume.target).count(), 1);

        let node = host.node();
        for _ in 0..2 {
            volume.unpublish(&node).await.unwrap();
            assert!(!volume.target.exists());
        }
        for _ in 0..2 {
            volume.unstage(&node).await.unwrap();
            assert!(!mounted(&volume.staging) && volume.staging.exists());
        }

        // In another slot, under another name.
        host.unplug("vdx");
        host.plug("vdb", "UCLOUD_DISK_VDF", &disk);
        let mut volume = volume;
        volume.context.device = Some("vdf".to_owned());
        volume.publish(&node, false).await.unwrap();
        assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
    });
}

#[test]
fn every_file_system_lives_and_keeps_its_data() {
    for fs in file_systems() {
        life_of(fs);
    }
}

fn life_of_a_block_volume(own_node: bool) {
    on_a_host(false, |host| async move {
        let disk = host.disk("a", SMALL);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        if own_node {
            host.own_node("vdb", &disk);
        }
        let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        for node in [host.node(), host.node()] {
            volume.stage(&node).await.unwrap();
            volume.publish(&node, false).await.unwrap();
        }
        let node = host.node();
        assert!(fs::metadata(&volume.target).unwrap().file_type().is_block_device());
        assert_eq!(Mounts::read().unwrap().at(&volume.target).count(), 1);
        let device = fs::OpenOptions::new().read(true).write(true).open(&volume.target).unwrap();
        device.write_all_at(b"raw", 4096).unwrap();
        drop(device);
        assert_eq!(volume.stats(&node).await.unwrap(), Usage::Block { total: SMALL });

        disk.grow(2 * SMALL);
        assert_eq!(volume.expand(&node, 2 * SMALL).await.unwrap(), 2 * SMALL);
        assert_eq!(volume.stats(&node).await.unwrap(), Usage::Block { total: 2 * SMALL });

        assert!(
            volume.unstage(&node).await.unwrap_err().to_string().contains(volume.target.to_str().unwrap())
        );
        for _ in 0..2 {
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
        }
        assert_eq!(fs::read_dir(&volume.staging).unwrap().count(), 0);
        assert_eq!(&disk.content()[&4096][..3], b"raw");
    });
}

#[test]
fn a_raw_block_volume_lives_and_keeps_its_data() {
    life_of_a_block_volume(false);
    // With a device directory that is not a devtmpfs.
    life_of_a_block_volume(true);
}

#[test]
fn a_raw_block_volume_of_a_disk_that_left_is_reported_dead_and_taken_away() {
    for own_node in [false, true] {
        on_a_host(false, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            if own_node {
                host.own_node("vdb", &disk);
            }
            let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            host.unplug("vdb");
            assert!(matches!(volume.stats(&node).await, Err(StatsError::Gone(_))));
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            assert!(!volume.target.exists());
            assert_eq!(fs::read_dir(&volume.staging).unwrap().count(), 0);
        });
    }
}

#[test]
fn a_mounted_file_system_grows_with_its_disk() {
    for fs in file_systems() {
        on_a_host(true, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            let total = async |node| match volume.stats(node).await.unwrap() {
                Usage::Fs(usage) => usage.bytes.total,
                Usage::Block { .. } => panic!("no file system"),
            };
            let before = total(&node).await;
            // Asked too early: the disk must be large enough first.
            let error = volume.expand(&node, 2 * SMALL).await.unwrap_err();
            assert!(matches!(error, ExpandError::DiskSmall { found: SMALL, .. }), "{error}");
            assert_eq!(total(&node).await, before);

            disk.grow(2 * SMALL);
            for _ in 0..2 {
                match volume.expand(&node, 2 * SMALL).await {
                    Ok(size) => {
                        assert_eq!(size, 2 * SMALL);
                        assert!(total(&node).await > before + SMALL / 2);
                    }
                    Err(ExpandError::Grow(GrowError::NoCapability(_)))
                        if matches!(fs, FsType::Ext3 | FsType::Ext4) =>
                    {
                        skip(&format!("growing a mounted {fs}: this machine lacks CAP_SYS_RESOURCE"));
                    }
                    Err(error) => panic!("{fs}: {error}"),
                }
            }
        });
    }
}

/// Kubelet names the pod's path, and a pod may have the volume read-only.
#[test]
fn a_volume_published_read_only_grows_through_its_staging_path() {
    for fs in file_systems() {
        on_a_host(true, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.publish(&node, true).await.unwrap();
            disk.grow(2 * SMALL);
            let request = ExpandRequest {
                volume: volume.id.clone(),
                path: volume.target.clone(),
                staging_path: Some(volume.staging.clone()),
                required: Some(2 * SMALL),
            };
            match node.expand(request, &Progress::default()).await {
                Ok(size) => assert_eq!(size, 2 * SMALL),
                Err(ExpandError::Grow(GrowError::NoCapability(_)))
                    if matches!(fs, FsType::Ext3 | FsType::Ext4) =>
                {
                    skip(&format!("growing a mounted {fs}: this machine lacks CAP_SYS_RESOURCE"));
                }
                Err(error) => panic!("{fs}: {error}"),
            }
            assert!(fs::write(volume.target.join("file"), "x").is_err());
        });
    }
}

#[test]
fn a_file_system_smaller_than_its_disk_is_grown_when_it_is_staged() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            disk.grow(3 * SMALL);
            // The attachment is older than the growth, which is fine.
            volume.publish(&node, false).await.unwrap();
            let Usage::Fs(usage) = volume.stats(&node).await.unwrap() else { panic!("no file system") };
            assert!(usage.bytes.total > 2 * SMALL + SMALL / 2, "{fs}: {usage:?}");
            assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
            // And NodeExpandVolume finds nothing left to do.
            assert_eq!(volume.expand(&node, 3 * SMALL).await.unwrap(), 3 * SMALL);
        });
    }
}

/// As when the driver was killed between the mount and the growth, or the disk was grown in between.
#[test]
fn a_staged_file_system_smaller_than_its_disk_is_grown_unless_that_needs_its_pods_to_go() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            let total = |path: &Path| {
                let found = nix::sys::statvfs::statvfs(path).unwrap();
                found.blocks() * found.fragment_size()
            };
            disk.grow(2 * SMALL);
            volume.publish(&host.node(), false).await.unwrap();
            assert!(total(&volume.target) > SMALL + SMALL / 2, "{fs}");
            assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");

            disk.grow(3 * SMALL);
            let open = fs::File::open(volume.target.join("file")).unwrap();
            let mut second = volume.clone();
            second.target = host.target("second");
            second.publish(&node, false).await.unwrap();
            assert_eq!(fs::read_to_string(second.target.join("file")).unwrap(), "content");
            let needs_pods_to_go = matches!(fs, FsType::Ext3 | FsType::Ext4) && !has_sys_resource();
            assert_eq!(total(&volume.target) > 2 * SMALL + SMALL / 2, !needs_pods_to_go, "{fs}");
            drop(open);
            second.unpublish(&node).await.unwrap();
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            volume.stage(&node).await.unwrap();
            assert!(total(&volume.staging) > 2 * SMALL + SMALL / 2, "{fs}");
            volume.unstage(&node).await.unwrap();
            check(fs, &disk);
        });
    }
}

/// It is not unmounted to be grown, for nobody knows whether it could be mounted again.
#[test]
fn a_staged_file_system_whose_size_is_not_known_is_reported_and_stays_mounted() {
    const MAGIC: u64 = 1024 + 0x38;
    for fs in file_systems().into_iter().filter(|fs| matches!(fs, FsType::Ext3 | FsType::Ext4)) {
        on_a_host(false, |host| async move {
            let disk = host.disk("a", SMALL);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            disk.grow(2 * SMALL);
            disk.write(MAGIC, &[0, 0]);
            let error = volume.stage(&node).await.unwrap_err();
            assert!(matches!(error, StageError::GrowMounted(GrowError::NoSuperblock(_))), "{fs}: {error}");
            assert!(mounted(&volume.staging), "{fs}");
            disk.write(MAGIC, &[0x53, 0xef]);
            volume.stage(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            check(fs, &disk);
        });
    }
}

/// One that stores all data twice, and one that was moved here from another disk.
#[test]
fn a_btrfs_that_somebody_made_in_another_way_is_used_and_grows() {
    if !is_installed(FsType::Btrfs) {
        return skip("btrfs that somebody made: btrfs-progs is not installed");
    }
    for moved in [false, true] {
        on_a_host(false, |host| async move {
            let disk = host.disk("a", SMALL);
            let device = disk.device().to_str().unwrap();
            let volume = Volume::fs(&host, "bs-1", FsType::Btrfs, "vdc", SMALL_GIB);
            if moved {
                let before = host.passing_disk(SMALL);
                let (first, place) = (before.device().to_str().unwrap(), volume.staging.to_str().unwrap());
                run("mkfs.btrfs", &["-q", "-m", "single", first]);
                run("mount", &[first, place]);
                run("btrfs", &["device", "add", device, place]);
                run("btrfs", &["device", "remove", first, place]);
                run("umount", &[place]);
            } else {
                run("mkfs.btrfs", &["-q", "-d", "dup", device]);
            }
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            let Usage::Fs(before) = volume.stats(&node).await.unwrap() else { panic!("no file system") };
            disk.grow(2 * SMALL);
            assert_eq!(volume.expand(&node, 2 * SMALL).await.unwrap(), 2 * SMALL);
            let Usage::Fs(after) = volume.stats(&node).await.unwrap() else { panic!("no file system") };
            assert!(after.bytes.total > before.bytes.total * 3 / 2, "{before:?} {after:?}");
            assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
        });
    }
}

#[test]
fn what_is_not_mounted_has_no_statistics_and_cannot_grow() {
    on_a_host(false, |host| async move {
        let node = host.node();
        let mut volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB);
        for target in [volume.target.clone(), "some/path".into(), host.path("kubelet")] {
            volume.target = target;
            assert!(matches!(volume.stats(&node).await, Err(StatsError::NotMounted(_))));
            assert!(matches!(volume.expand(&node, SMALL).await, Err(ExpandError::NotMounted(_))));
        }
        // Taking away what is not there succeeds.
        volume.target = host.target("none");
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        volume.target = "some/path".into();
        assert!(volume.unpublish(&node).await.unwrap_err().to_string().contains("absolute"));
    });
}

#[test]
fn another_use_of_the_same_paths_is_refused() {
    on_a_host(false, |host| async move {
        let (disk, other) = (host.disk("a", SMALL), host.disk("b", SMALL));
        host.plug("vdb", "UCLOUD_DISK_VDB", &disk);
        host.plug("vdc", "UCLOUD_DISK_VDC", &other);
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdb", SMALL_GIB);
        let mut second = Volume::fs(&host, "bs-2", FsType::Ext4, "vdc", SMALL_GIB);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        assert!(matches!(volume.clone().reader().stage(&node).await, Err(StageError::Incompatible { .. })));

        let staging = second.staging.clone();
        second.staging.clone_from(&volume.staging);
        assert!(matches!(second.stage(&node).await, Err(StageError::Occupied { .. })));
        second.staging = staging;
        second.target.clone_from(&volume.target);
        assert!(matches!(second.publish(&node, false).await, Err(PublishError::Occupied { .. })));
    });
}
