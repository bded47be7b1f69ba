//! What must never happen: a wrong disk mounted, data overwritten, the host's own disk given to a pod.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{Disk, SMALL, TestHost, Volume, check, file_systems, make, on_a_host, refused, run};
use csi_udisk::node::StageError;
use csi_udisk::node::linux::blank::NotBlank;
use csi_udisk::node::linux::device::{LocateError, Mismatch, UseError};
use csi_udisk::node::linux::format::is_installed;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::plan::ContentRefused;
use csi_udisk::volume::{FsType, FsUuid, Gib};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const MIB: u64 = 1 << 20;

fn small(host: &TestHost, fs: FsType) -> (Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", Gib::new(0)))
}

#[test]
fn one_byte_anywhere_in_the_regions_keeps_a_disk_from_being_formatted() {
    for offset in [0, 5000, MIB - 1, 64 * MIB, 128 * MIB + 1, 3 * 8 * MIB + 1030, 2046 * MIB, SMALL - 1] {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, FsType::Ext4);
            disk.write(offset, &[1]);
            let error = refused(&host.node(), &volume, &disk).await;
            let found = matches!(&error, StageError::NotBlank { reason: NotBlank::Data { offset: o }, .. } if *o == offset);
            assert!(found, "{offset}: {error}");
        });
    }
}

#[test]
fn other_content_is_named_and_left_alone() {
    on_a_host(false, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        run("mkswap", &[disk.device().to_str().unwrap()]);
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains("swap space"), "{error}");
    });
    on_a_host(false, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        disk.write(0, b"LUKS\xba\xbe");
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains("LUKS"), "{error}");
    });
}

/// A pod may keep images of other disks in its files, and where those end up on the disk is nobody's choice.
#[test]
fn what_a_pod_stores_does_not_make_its_volume_something_else() {
    on_a_host(false, |host| async move {
        let disk = host.disk("a", 64 * MIB);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", Gib::new(0));
        make(FsType::Ext4, disk.device(), Some(&FsUuid::of_disk(&volume.id).to_string()));
        let node = host.node();
        volume.stage(&node).await.unwrap();
        // In each KiB what begins a block of a ZFS label, and in each block what a RAID member has near its end.
        let mut block = [0; 4096];
        for part in block.chunks_mut(1024) {
            part[..8].copy_from_slice(&0x00ba_b10c_u64.to_le_bytes());
        }
        block[..4].copy_from_slice(&0xa92b_4efc_u32.to_le_bytes());
        // As many as there is room for.
        let mut file = fs::File::create(volume.staging.join("images")).unwrap();
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        drop(file);
        volume.unstage(&node).await.unwrap();
        volume.stage(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
    });
}

#[test]
fn a_file_system_other_than_the_wanted_one_is_named_and_left_alone() {
    let here = file_systems();
    for made in here.clone() {
        let wanted = *here.iter().find(|fs| **fs != made).unwrap();
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, made);
            let uuid = FsUuid::of_disk(&volume.id).to_string();
            make(made, disk.device(), Some(&uuid));
            let volume = volume.with_fs(wanted);
            let error = refused(&host.node(), &volume, &disk).await;
            let StageError::Content { reason: ContentRefused::WrongFs { found, .. }, .. } = &error else {
                panic!("{error}")
            };
            assert!(found.is(made));
        });
    }
}

#[test]
fn the_marked_content_of_another_disk_is_refused_and_unmarked_content_is_taken() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            let other = Volume::fs(&host, "bs-other", fs, "vdc", Gib::new(0));
            make(fs, disk.device(), Some(&FsUuid::of_disk(&other.id).to_string()));
            let error = refused(&host.node(), &volume, &disk).await;
            assert!(
                matches!(error, StageError::Content { reason: ContentRefused::OtherDisk { .. }, .. }),
                "{error}"
            );
        });
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            make(fs, disk.device(), None);
            volume.stage(&host.node()).await.unwrap();
        });
    }
}

#[test]
fn a_disk_that_is_smaller_than_the_cloud_said_is_not_used() {
    on_a_host(true, |host| async move {
        let (disk, mut volume) = small(&host, FsType::Ext4);
        volume.context.size = Some(Gib::new(4));
        let start = tokio::time::Instant::now();
        let error = refused(&host.node(), &volume, &disk).await;
        let small =
            matches!(error, StageError::Locate(LocateError::Wrong { reason: Mismatch::TooSmall { .. }, .. }));
        assert!(small, "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn two_disks_with_one_serial_are_both_not_used() {
    on_a_host(true, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        let other = host.disk("b", SMALL);
        host.plug("vdd", "UCLOUD_DISK_VDC", &other);
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains("2 devices") && error.to_string().contains("vdd"), "{error}");
    });
}

#[test]
fn a_node_of_another_device_is_not_used() {
    on_a_host(true, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        let other = host.disk("b", SMALL);
        let link = host.path("dev/vdb");
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(other.device(), &link).unwrap();
        let error = refused(&host.node(), &volume, &disk).await;
        let number =
            matches!(error, StageError::Locate(LocateError::Wrong { reason: Mismatch::Number { .. }, .. }));
        assert!(number, "{error}");
        fs::remove_file(&link).unwrap();
        fs::write(&link, "no device").unwrap();
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains("is no block device"), "{error}");
    });
}

#[test]
fn the_system_disk_and_attachments_of_others_are_refused() {
    on_a_host(true, |host| async move {
        let disk = host.disk("a", SMALL);
        host.plug("vda", "UCLOUD_DISK_VDA", &disk);
        let mut volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vda", Gib::new(0));
        assert!(matches!(refused(&host.node(), &volume, &disk).await, StageError::Slot { .. }));
        volume.context.device = None;
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains("publish_context has no \"device\""), "{error}");
    });
}

#[test]
fn a_disk_in_use_on_the_host_is_not_touched() {
    on_a_host(false, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        make(FsType::Ext4, disk.device(), None);
        let elsewhere = host.path("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        run("mount", &[disk.device().to_str().unwrap(), elsewhere.to_str().unwrap()]);
        let error = volume.stage(&host.node()).await.unwrap_err();
        assert!(matches!(&error, StageError::Use(UseError::InUse { .. })), "{error}");
        assert!(error.to_string().contains(elsewhere.to_str().unwrap()), "{error}");
        assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
    });
}

#[test]
fn a_device_that_shows_up_late_is_waited_for_and_one_that_never_does_is_reported() {
    on_a_host(true, |host| async move {
        let disk = host.disk("a", SMALL);
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", Gib::new(0));
        let node = host.node();
        let start = tokio::time::Instant::now();
        host.plug("vdd", "UCLOUD_DISK_VDD", &disk);
        let error = volume.stage(&node).await.unwrap_err();
        assert!(matches!(&error, StageError::Locate(LocateError::Absent { .. })), "{error}");
        assert!(error.to_string().contains("this host has UCLOUD_DISK_VDD"), "{error}");
        assert!((60..62).contains(&start.elapsed().as_secs()));
        host.unplug("vdd");

        let late = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        };
        let (staged, ()) = tokio::join!(volume.stage(&node), late);
        staged.unwrap();
    });
}

#[test]
fn publish_never_binds_an_empty_directory_of_the_host() {
    if !is_installed(FsType::Ext4) {
        return;
    }
    on_a_host(true, |host| async move {
        let (_disk, volume) = small(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        fs::write(volume.target.join("file"), "content").unwrap();
        volume.unpublish(&node).await.unwrap();
        // The staging mount is lost, and kubelet does not know.
        run("umount", &[volume.staging.to_str().unwrap()]);
        volume.publish(&node, false).await.unwrap();
        assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        // Nor when the disk is gone as well.
        host.unplug("vdb");
        volume.publish(&node, false).await.unwrap_err();
        assert!(Mounts::read().unwrap().top(&volume.target).is_none());
    });
}

#[test]
fn a_read_only_volume_is_never_written_not_even_its_journal() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            let reader = volume.clone().reader();
            let node = host.node();
            // Not formatted either.
            let error = refused(&node, &reader, &disk).await;
            assert!(
                matches!(error, StageError::Content { reason: ContentRefused::NothingToRead, .. }),
                "{error}"
            );

            // A disk as a crash leaves it: with a journal to replay.
            make(fs, disk.device(), None);
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            volume.unstage(&node).await.unwrap();
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("more"), "content").unwrap();
            fs::File::open(volume.staging.join("more")).unwrap().sync_all().unwrap();
            let crashed = host.path("images/crashed");
            disk.copy_to(&crashed);
            volume.unstage(&node).await.unwrap();
            host.unplug("vdb");

            let disk = host.disk_of(&crashed);
            host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
            let before = disk.content();
            reader.publish(&node, false).await.unwrap();
            assert_eq!(fs::read_to_string(reader.target.join("file")).unwrap(), "content");
            assert!(fs::write(reader.target.join("file"), "x").is_err());
            reader.unpublish(&node).await.unwrap();
            reader.unstage(&node).await.unwrap();
            assert!(disk.content() == before, "{fs}: a read-only mount wrote");

            // For writing it is repaired, and all is there.
            volume.stage(&node).await.unwrap();
            assert_eq!(fs::read_to_string(volume.staging.join("more")).unwrap(), "content");
        });
    }
}

/// Ext4 finishes their removal when it is mounted, also read-only and without its journal, unless the disk refuses writes.
#[test]
fn a_read_only_mount_does_not_finish_the_removal_of_deleted_files() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            let (path, staging) = (volume.staging.join("deleted"), volume.staging.to_str().unwrap());
            fs::write(&path, vec![7; 8 << 20]).unwrap();
            let open = fs::File::open(&path).unwrap();
            open.sync_all().unwrap();
            fs::remove_file(&path).unwrap();
            // As a snapshot of a quiet moment, and as a crash soon after it.
            let copies = [host.path("images/snapshot"), host.path("images/crashed")];
            run("fsfreeze", &["-f", staging]);
            disk.copy_to(&copies[0]);
            run("fsfreeze", &["-u", staging]);
            fs::write(volume.staging.join("kept"), "content").unwrap();
            fs::File::open(volume.staging.join("kept")).unwrap().sync_all().unwrap();
            disk.copy_to(&copies[1]);
            drop(open);
            volume.unstage(&node).await.unwrap();
            host.unplug("vdb");

            let reader = volume.clone().reader();
            for copy in &copies {
                let disk = host.disk_of(copy);
                host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
                let before = disk.content();
                reader.publish(&node, false).await.unwrap();
                // Kubelet's retry, and a driver that was started anew.
                reader.publish(&host.node(), false).await.unwrap();
                reader.unpublish(&node).await.unwrap();
                reader.unstage(&node).await.unwrap();
                assert!(disk.content() == before, "{fs}: a read-only mount wrote");
                volume.stage(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
                check(fs, &disk);
                host.unplug("vdb");
            }
        });
    }
}

#[test]
fn a_disk_that_refuses_writes_is_not_used_for_writing_and_the_refusal_says_so() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            let (node, device) = (host.node(), disk.device().to_str().unwrap());
            for formatted in [false, true] {
                run("blockdev", &["--setro", device]);
                let error = refused(&node, &volume, &disk).await;
                assert!(matches!(error, StageError::WriteProtected(_)), "{fs} {formatted}: {error}");
                run("blockdev", &["--setrw", device]);
                volume.stage(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
            }
            // A read-only use leaves it as it came.
            volume.clone().reader().stage(&node).await.unwrap();
            assert_eq!(run("blockdev", &["--getro", device]).trim(), "1");
            volume.unstage(&node).await.unwrap();
            assert_eq!(run("blockdev", &["--getro", device]).trim(), "0");
        });
    }
}

/// As a driver leaves it that was killed between the refusal and the read-only mount: nothing but the mark tells.
#[test]
fn a_disk_that_a_cut_off_read_only_use_left_refusing_writes_takes_them_again_once_unstaged() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = small(&host, fs);
            let (node, device) = (host.node(), disk.device().to_str().unwrap());
            let refuses = || run("blockdev", &["--getro", device]).trim() == "1";
            volume.stage(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            run("blockdev", &["--setro", device]);
            // Whoever prepares it right now may need the refusal.
            let other = fs::File::open(disk.device()).unwrap();
            other.lock().unwrap();
            volume.unstage(&host.node()).await.unwrap();
            assert!(refuses(), "{fs}");
            drop(other);
            volume.unstage(&host.node()).await.unwrap();
            assert!(!refuses(), "{fs}");
            volume.stage(&node).await.unwrap();
        });
    }
}

#[test]
fn errors_that_need_a_person_refuse_the_mount_with_the_checker_s_words() {
    on_a_host(false, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        make(FsType::Ext4, disk.device(), None);
        // Two files that share their blocks: not for preening.
        let node = host.node();
        volume.stage(&node).await.unwrap();
        for name in ["one", "two"] {
            fs::write(volume.staging.join(name), vec![1u8; 100_000]).unwrap();
        }
        volume.unstage(&node).await.unwrap();
        let device = disk.device().to_str().unwrap();
        run("debugfs", &["-w", "-R", "sif /two block[0] 0", device]);
        run("debugfs", &["-w", "-R", "clri /one", device]);
        run("debugfs", &["-w", "-R", "ssv state 2", device]);
        let error = volume.stage(&node).await.unwrap_err();
        let StageError::Check(error) = error else { panic!("{error}") };
        assert!(error.to_string().contains("UNEXPECTED INCONSISTENCY"), "{error}");
        assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
    });
}

#[test]
fn odd_paths_are_refused() {
    on_a_host(false, |host| async move {
        let (_disk, mut volume) = small(&host, FsType::Ext4);
        let node = host.node();
        let target = volume.target.clone();
        std::os::unix::fs::symlink("/etc", &target).unwrap();
        assert!(volume.publish(&node, false).await.unwrap_err().to_string().contains("a symbolic link"));
        assert!(volume.unpublish(&node).await.unwrap_err().to_string().contains("a symbolic link"));
        assert!(Path::new("/etc/hostname").exists());
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("left"), "by a pod that ran without its volume").unwrap();
        let error = volume.unpublish(&node).await.unwrap_err().to_string();
        assert!(error.contains(target.to_str().unwrap()) && error.contains("not empty"), "{error}");
        assert!(target.join("left").exists());
        // A link to the volume, where the directories below it would be made.
        let link = host.path("kubelet/link");
        std::os::unix::fs::symlink(&volume.staging, &link).unwrap();
        volume.stage(&node).await.unwrap();
        for below in ["pod", "made/for/pod"] {
            volume.target = link.join(below);
            let error = volume.publish(&node, false).await.unwrap_err().to_string();
            assert!(error.contains("neither can be in the other"), "{error}");
        }
        let found: Vec<_> =
            fs::read_dir(&volume.staging).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(found, ["lost+found"]);
        volume.unstage(&node).await.unwrap();
        volume.staging = host.path("kubelet/../kubelet");
        assert!(volume.stage(&node).await.unwrap_err().to_string().contains("upwards"));
    });
}

/// Its user has it open by its node, which claims nothing; so a slot that is another volume's must not be believed.
#[test]
fn a_raw_block_volume_is_not_formatted_for_another_volume() {
    on_a_host(false, |host| async move {
        let (disk, volume) = small(&host, FsType::Ext4);
        let node = host.node();
        let raw = Volume::block(&host, "bs-2", "vdc", Gib::new(0));
        raw.publish(&node, false).await.unwrap();
        let error = refused(&node, &volume, &disk).await;
        let StageError::Use(UseError::InUse { users, .. }) = &error else { panic!("{error}") };
        assert!(
            users.contains(&format!("as volume {}", raw.id)) && users.contains(raw.target.to_str().unwrap()),
            "{users}"
        );
        raw.unpublish(&node).await.unwrap();
        refused(&node, &volume, &disk).await;
        raw.unstage(&node).await.unwrap();
        volume.stage(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
    });
}

#[test]
fn what_is_no_volume_is_not_unmounted() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = small(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        let none: Option<&str> = None;
        let kept = |path: &Path, count: usize| assert_eq!(Mounts::read().unwrap().at(path).count(), count);
        // Above the volume's own mount.
        for path in [&volume.target, &volume.staging] {
            mount(Some("other"), path, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        }
        let error = volume.unpublish(&node).await.unwrap_err().to_string();
        assert!(error.contains("tmpfs other mounted on it, which is no volume"), "{error}");
        kept(&volume.target, 2);
        let error = volume.unstage(&node).await.unwrap_err().to_string();
        assert!(error.contains("tmpfs other mounted on it, which is no volume"), "{error}");
        kept(&volume.staging, 2);
        for path in [&volume.target, &volume.staging] {
            umount2(path, MntFlags::empty()).unwrap();
        }
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();

        // A partition of a disk of the host's own.
        let disk = host.disk("own", 64 * MIB);
        run("mkfs.ext4", &["-q", disk.device().to_str().unwrap()]);
        let partition = host.path("sys/block/vda/vda1");
        fs::create_dir_all(&partition).unwrap();
        fs::write(partition.join("partition"), "1\n").unwrap();
        fs::copy(Path::new("/sys/block").join(disk.name()).join("dev"), partition.join("dev")).unwrap();
        fs::create_dir(&volume.target).unwrap();
        mount(Some(disk.device()), &volume.target, Some("ext4"), MsFlags::empty(), none).unwrap();
        let error = volume.unpublish(&node).await.unwrap_err().to_string();
        assert!(error.contains("ext4 ") && error.contains("which is no volume"), "{error}");
        kept(&volume.target, 1);
    });
}
