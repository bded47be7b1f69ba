//! What publish binds and refuses to bind, and what hides a volume or passes for it.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use common::{SMALL, SMALL_GIB, Volume, file_systems, make, mounts_at, on_a_host, run};
use csi_udisk::node::linux::format::is_installed;
use csi_udisk::node::linux::mount::{UnmountError, binds_read_only_at_once};
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{PublishError, UnstageError};
use csi_udisk::volume::{Adoption, FsType, Gib};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

#[test]
fn another_kind_of_publish_at_the_same_target_is_refused_and_changes_nothing() {
    for block in [false, true] {
        on_a_host(false, |host| async move {
            let _disk = host.plugged("vdb", "vdc");
            let volume = match block {
                true => Volume::block(&host, "bs-1", "vdc", SMALL_GIB),
                false => Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB),
            };
            let node = host.node();
            for read_only in [false, true] {
                volume.publish(&node, read_only).await.unwrap();
                let before = Mounts::read().unwrap().top(&volume.target).cloned();
                let error = volume.publish(&node, !read_only).await.unwrap_err();
                if binds_read_only_at_once() || read_only {
                    assert!(matches!(error, PublishError::Incompatible { .. }), "{error}");
                }
                let how = if read_only { "read-only and not writable" } else { "writable and not read-only" };
                assert!(error.to_string().contains(how), "{error}");
                // The very same mount, with the same rights.
                assert_eq!(Mounts::read().unwrap().top(&volume.target).cloned(), before);
                volume.publish(&node, read_only).await.unwrap();
                volume.unpublish(&node).await.unwrap();
            }
        });
    }
}

/// Kubelet stages once; what became of that is looked at before every bind.
#[test]
fn a_staging_path_that_lost_its_volume_gets_it_again_and_one_that_shows_another_is_refused() {
    for block in [false, true] {
        on_a_host(false, |host| async move {
            let (disk, _other) = (host.plugged("vdb", "vdc"), host.plugged("vdc", "vdd"));
            let volume = |id: &str, slot: &str| match block {
                true => Volume::block(&host, id, slot, SMALL_GIB),
                false => Volume::fs(&host, id, FsType::Ext4, slot, SMALL_GIB),
            };
            let (volume, other) = (volume("bs-1", "vdc"), volume("bs-2", "vdd"));
            let staged = |volume: &Volume| match block {
                true => volume.staging.join(volume.id.as_str()),
                false => volume.staging.clone(),
            };
            let node = host.node();
            volume.stage(&node).await.unwrap();
            other.stage(&node).await.unwrap();

            umount2(&staged(&volume), MntFlags::empty()).unwrap();
            volume.publish(&node, false).await.unwrap();
            let shown = match block {
                true => fs::metadata(&volume.target).unwrap().rdev(),
                false => fs::metadata(&volume.target).unwrap().dev(),
            };
            assert_eq!(shown, fs::metadata(disk.device()).unwrap().rdev());
            assert_eq!(mounts_at(&staged(&volume)), 1);
            volume.unpublish(&node).await.unwrap();

            // Something of the host's that is empty, and another volume.
            let none: Option<&str> = None;
            let memory = host.path("memory");
            fs::create_dir(&memory).unwrap();
            mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            let empty = memory.join("empty");
            match block {
                true => drop(fs::File::create(&empty).unwrap()),
                false => fs::create_dir(&empty).unwrap(),
            }
            for source in [empty, staged(&other)] {
                mount(Some(&source), &staged(&volume), none, MsFlags::MS_BIND, none).unwrap();
                let error = volume.publish(&node, false).await.unwrap_err().to_string();
                assert!(error.contains("which is not this volume; unmount it"), "{error}");
                assert!(error.contains(volume.staging.to_str().unwrap()), "{error}");
                assert!(!volume.target.exists() && mounts_at(&volume.target) == 0);
                umount2(&staged(&volume), MntFlags::empty()).unwrap();
            }
            volume.publish(&node, false).await.unwrap();
        });
    }
}

/// The disk is the right one, and yet a pod would find another tree than its own.
#[test]
fn a_directory_of_the_volume_is_not_taken_for_the_volume() {
    for fs in [FsType::Ext4, FsType::Xfs, FsType::Btrfs].into_iter().filter(|fs| is_installed(*fs)) {
        on_a_host(false, |host| async move {
            host.plugged("vdb", "vdc");
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::create_dir(volume.target.join("part")).unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            let none: Option<&str> = None;
            let elsewhere = host.staging("elsewhere");
            mount(Some(&volume.target), &elsewhere, none, MsFlags::MS_BIND, none).unwrap();
            let part = elsewhere.join("part");
            for (wanted, other) in [(&volume.staging, &volume.target), (&volume.target, &volume.staging)] {
                umount2(wanted, MntFlags::empty()).unwrap();
                mount(Some(&part), wanted, none, MsFlags::MS_BIND, none).unwrap();
                let error = volume.publish(&node, false).await.unwrap_err().to_string();
                assert!(
                    error.contains("/part of the ") && error.contains(wanted.to_str().unwrap()),
                    "{error}"
                );
                assert_eq!((mounts_at(wanted), mounts_at(other)), (1, 1));
                umount2(wanted, MntFlags::empty()).unwrap();
                mount(Some(&elsewhere), wanted, none, MsFlags::MS_BIND, none).unwrap();
                volume.publish(&node, false).await.unwrap();
                assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
            }
        });
    }
}

/// As somebody has it who made one.
#[test]
fn a_subvolume_is_a_volume() {
    if !is_installed(FsType::Btrfs) {
        return;
    }
    for by_option in [false, true] {
        on_a_host(false, |host| async move {
            host.plugged("vdb", "vdc");
            let mut volume = Volume::fs(&host, "bs-1", FsType::Btrfs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            let (root, sub) = (volume.staging.clone(), volume.staging.join("sub"));
            run("btrfs", &["subvolume", "create", sub.to_str().unwrap()]);
            fs::write(sub.join("file"), "content").unwrap();
            if by_option {
                volume = volume.clone().flags(&["subvol=sub"]);
            } else {
                run("btrfs", &["subvolume", "set-default", sub.to_str().unwrap()]);
            }
            volume.unstage(&node).await.unwrap();
            for _ in 0..2 {
                volume.publish(&node, false).await.unwrap();
                assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
            }
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            assert_eq!(mounts_at(&root), 0);
        });
    }
}

/// Kubelet's directory was moved to another disk while the volume was staged: where it should be is an empty directory.
#[test]
fn a_staged_volume_that_is_hidden_is_not_published_and_the_way_out_is_named() {
    on_a_host(false, |host| async move {
        host.plugged("vdb", "vdc");
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        fs::write(volume.staging.join("file"), "content").unwrap();
        let (kubelet, none) = (host.path("kubelet"), None::<&str>);
        mount(Some("tmpfs"), &kubelet, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        for empty in [false, true] {
            if empty {
                fs::create_dir_all(&volume.staging).unwrap();
            }
            volume.publish(&node, false).await.unwrap_err();
            assert_eq!(mounts_at(&volume.target), 0);
            volume.unpublish(&node).await.unwrap();
            let error = volume.unstage(&node).await.unwrap_err();
            assert!(matches!(error, UnstageError::Unmount(UnmountError::Hidden { .. })), "{error}");
        }
        umount2(&kubelet, MntFlags::empty()).unwrap();
        volume.publish(&node, false).await.unwrap();
        assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
    });
}

/// The path then leads to another file system, with another disk.
#[test]
fn what_hides_a_staged_volume_is_not_grown_in_its_place() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, above) = (host.plugged("vdb", "vdc"), host.disk("above", SMALL));
            let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            make(fs, above.device(), None);
            disk.grow(2 * SMALL);
            above.grow(2 * SMALL);
            let (kubelet, none) = (host.path("kubelet"), None::<&str>);
            mount(Some(above.device()), &kubelet, Some(fs.word()), MsFlags::empty(), none).unwrap();
            let blocks = || nix::sys::statvfs::statvfs(&kubelet).unwrap().blocks();
            let before = blocks();
            for empty in [false, true] {
                if empty {
                    fs::create_dir_all(&volume.staging).unwrap();
                }
                let staged = Volume { target: volume.staging.clone(), ..volume.clone() };
                let (stage, expand) = (volume.stage(&node).await, staged.expand(&node, 2 * SMALL).await);
                assert_eq!(blocks(), before, "{fs}");
                for error in [stage.unwrap_err().to_string(), expand.unwrap_err().to_string()] {
                    assert!(error.contains("was mounted over it later"), "{fs}: {error}");
                }
            }
            umount2(&kubelet, MntFlags::empty()).unwrap();
            volume.publish(&node, false).await.unwrap();
        });
    }
}

/// A disk that left, mounted over the volume by whoever confused them.
#[test]
fn what_a_dead_mount_hides_is_not_unmounted_with_it() {
    on_a_host(false, |host| async move {
        let (disk, _dead) = (host.plugged("vdb", "vdc"), host.plugged("vdc", "vdd"));
        // Without a mark: nothing but the mounts tells whose the disk is.
        make(FsType::Ext4, disk.device(), None);
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB);
        let dead = Volume::fs(&host, "bs-2", FsType::Ext4, "vdd", SMALL_GIB);
        let node = host.node();
        dead.stage(&node).await.unwrap();
        volume.publish(&node, false).await.unwrap();
        fs::write(volume.target.join("file"), "content").unwrap();
        let none: Option<&str> = None;
        mount(Some(&dead.staging), &volume.staging, none, MsFlags::MS_BIND, none).unwrap();
        host.unplug("vdc");
        // Not detached under its pod.
        let error = volume.unstage(&node).await.unwrap_err();
        assert!(
            matches!(&error, UnstageError::Published(paths) if paths == std::slice::from_ref(&volume.target)),
            "{error}"
        );
        assert_eq!(mounts_at(&volume.staging), 2);
        let second = Volume { target: host.target("second"), ..volume.clone() };
        second.publish(&node, false).await.unwrap();
        assert_eq!(mounts_at(&volume.staging), 1);
        assert_eq!(fs::read_to_string(second.target.join("file")).unwrap(), "content");
    });
}

/// A caller that confuses its volumes must not take a pod's disk away.
#[test]
fn what_is_certainly_another_volume_is_not_unmounted() {
    for block in [false, true] {
        on_a_host(false, |host| async move {
            let _disks = (host.plugged("vdb", "vdc"), host.plugged("vdc", "vdd"));
            let volume = |id: &str, slot: &str| match block {
                true => Volume::block(&host, id, slot, Gib::new(1)),
                false => Volume::fs(&host, id, FsType::Ext4, slot, Gib::new(1)),
            };
            let (one, two) = (volume("bs-1", "vdc"), volume("bs-2", "vdd"));
            let node = host.node();
            one.publish(&node, false).await.unwrap();
            two.publish(&node, true).await.unwrap();
            let wrong = Volume { staging: one.staging.clone(), target: one.target.clone(), ..two.clone() };
            let error = wrong.unpublish(&host.node()).await.unwrap_err().to_string();
            assert!(
                error.contains(one.target.to_str().unwrap()) && error.contains("not this volume"),
                "{error}"
            );
            assert_eq!(mounts_at(&one.target), 1);
            one.unpublish(&node).await.unwrap();
            if !block {
                // The staging path of a raw block volume is a directory with a file that is named after it.
                wrong.unstage(&host.node()).await.unwrap_err();
                assert_eq!(mounts_at(&one.staging), 1);
            }
            one.unstage(&node).await.unwrap();
            // A disk that has left is cleaned up by whatever name.
            host.unplug("vdc");
            Volume { target: two.target.clone(), ..one.clone() }.unpublish(&node).await.unwrap();
            assert!(!two.target.exists());
            two.unstage(&node).await.unwrap();
        });
    }
}

/// A driver that was stopped between the unmount and its answer is asked to unstage again, and goes by the mark. A copy
/// that another volume uses carries it too.
#[test]
fn a_copy_that_another_volume_uses_keeps_no_volume_from_being_unstaged() {
    for block in [false, true] {
        on_a_host(true, |host| async move {
            let disk = host.plugged("vdb", "vdc");
            let original = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", Gib::new(1));
            let node = host.node();
            original.stage(&node).await.unwrap();
            original.unstage(&node).await.unwrap();
            let image = host.path("images/copy");
            disk.copy_to(&image);
            host.plug("vdc", "UCLOUD_DISK_VDD", &host.disk_of(&image));
            let mut copy = match block {
                true => Volume::block(&host, "bs-2", "vdd", Gib::new(1)),
                false => Volume::fs(&host, "bs-2", FsType::Ext4, "vdd", Gib::new(1)).reader(),
            };
            copy.volume_context.adoption = Adoption::parse(original.id.as_str());
            copy.publish(&node, true).await.unwrap();
            original.unstage(&host.node()).await.unwrap();
            // The volume itself, mounted elsewhere, is not about to be let go.
            let elsewhere = Volume { staging: host.staging("elsewhere"), ..original.clone() };
            elsewhere.stage(&node).await.unwrap();
            let error = original.unstage(&host.node()).await.unwrap_err().to_string();
            assert!(error.contains("mounted on") && error.contains("elsewhere"), "{error}");
            assert!(!error.contains("bs-2"), "{error}");
            elsewhere.unstage(&node).await.unwrap();
            // What keeps the copy from being written is still there.
            assert_eq!(run("blockdev", &["--getro", host.path("dev/vdc").to_str().unwrap()]).trim(), "1");
            copy.unpublish(&node).await.unwrap();
            copy.unstage(&node).await.unwrap();
        });
    }
}

/// A copy that is only read keeps the mark of the disk that it was copied from.
#[test]
fn a_copy_that_is_read_is_unmounted_under_its_own_name() {
    on_a_host(false, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        let original = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", Gib::new(1));
        let node = host.node();
        original.stage(&node).await.unwrap();
        original.unstage(&node).await.unwrap();
        drop(disk);
        let mut copy = Volume::fs(&host, "bs-2", FsType::Ext4, "vdc", Gib::new(1)).reader();
        copy.volume_context.adoption = Adoption::parse(original.id.as_str());
        copy.publish(&node, true).await.unwrap();
        copy.unpublish(&node).await.unwrap();
        copy.unstage(&node).await.unwrap();
        assert_eq!(mounts_at(&copy.staging), 0);
    });
}
