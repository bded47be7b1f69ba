//! What is checked, repaired and replayed before a mount, and what is said of it.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/log.rs"]
mod log;

use std::fs;
use std::path::Path;

use common::{Disk, SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host, run};
use csi_udisk::node::StageError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::volume::FsType;
use log::Lines;

fn plugged(host: &TestHost, fs: FsType) -> (Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB))
}

/// Takes a picture of a volume in use, as a power cut leaves it, and puts that in its place.
async fn crashed(host: &TestHost, disk: &Disk, volume: &Volume) -> Disk {
    let node = host.node();
    volume.stage(&node).await.unwrap();
    fs::write(volume.staging.join("file"), "content").unwrap();
    fs::File::open(volume.staging.join("file")).unwrap().sync_all().unwrap();
    let picture = host.path("images/crashed");
    disk.copy_to(&picture);
    volume.unstage(&node).await.unwrap();
    host.unplug("vdb");
    let disk = host.disk_of(&picture);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    disk
}

#[test]
fn a_dirty_file_system_that_is_only_read_is_not_replayed_and_the_log_says_so() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs);
            let disk = crashed(&host, &disk, &volume).await;
            let before = disk.content();
            let reader = volume.clone().reader();
            let node = host.node();
            let (lines, guard) = Lines::listen();
            reader.stage(&node).await.unwrap();
            drop(guard);
            let expected = match fs {
                FsType::Xfs => "mounting read-only without replaying the log",
                FsType::Ext3 | FsType::Ext4 | FsType::Btrfs => {
                    "without replaying the journal: what was written last"
                }
            };
            assert!(lines.text().contains(expected), "{fs}: {}", lines.text());
            reader.unstage(&node).await.unwrap();
            assert!(disk.content() == before, "{fs}: a read-only mount wrote");

            // For writing it is replayed, and then there is nothing to say.
            volume.stage(&node).await.unwrap();
            assert_eq!(fs::read_to_string(volume.staging.join("file")).unwrap(), "content");
            volume.unstage(&node).await.unwrap();
            let (lines, guard) = Lines::listen();
            reader.stage(&node).await.unwrap();
            drop(guard);
            assert_eq!(
                lines.text().contains("without replaying"),
                fs == FsType::Xfs,
                "{fs}: {}",
                lines.text()
            );
        });
    }
}

#[test]
fn a_check_of_the_whole_file_system_is_in_the_log_and_that_of_a_clean_one_is_not() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        for errors in [false, true] {
            if errors {
                run("debugfs", &["-w", "-R", "ssv state 2", disk.device().to_str().unwrap()]);
            }
            let (lines, guard) = Lines::listen();
            volume.stage(&node).await.unwrap();
            drop(guard);
            for line in ["the whole file system is being checked", "the check of the file system has ended"] {
                assert_eq!(lines.text().contains(line), errors, "{line}: {}", lines.text());
            }
            volume.unstage(&node).await.unwrap();
        }
    });
}

fn xfs_db(device: &Path, command: &[&str]) -> String {
    let mut arguments = vec!["-x"];
    arguments.extend(command.iter().flat_map(|word| ["-c", word]));
    arguments.push(device.to_str().unwrap());
    run("xfs_db", &arguments)
}

#[test]
fn a_damaged_xfs_is_refused_and_what_helps_is_named() {
    if !file_systems().contains(&FsType::Xfs) {
        return;
    }
    for dirty in [false, true] {
        on_a_host(false, |host| async move {
            let (mut disk, volume) = plugged(&host, FsType::Xfs);
            let node = host.node();
            if dirty {
                disk = crashed(&host, &disk, &volume).await;
            } else {
                volume.stage(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
            }
            // One that the log does not restore, and that every mount reads.
            let inode = xfs_db(disk.device(), &["sb 0", "print rbmino"]);
            let inode = format!("inode {}", inode.trim().rsplit(' ').next().unwrap());
            xfs_db(disk.device(), &[&inode, "write -d core.magic 0"]);
            for _ in 0..2 {
                let error = volume.publish(&node, false).await.unwrap_err().to_string();
                assert!(
                    error.contains("cannot mount") && error.contains("the file system is damaged"),
                    "{error}"
                );
                let mounts = Mounts::read().unwrap();
                assert!(mounts.top(&volume.staging).is_none() && mounts.top(&volume.target).is_none());
            }
        });
    }
}

#[test]
fn an_ext4_in_need_of_a_person_is_refused_with_the_checker_s_words_in_every_answer() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
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
        for _ in 0..2 {
            let error = volume.publish(&node, false).await.unwrap_err();
            assert!(error.to_string().contains("RUN fsck MANUALLY"), "{error}");
            // Its reports of how far it is are not among its words.
            assert!(!error.to_string().contains("; 1 "), "{error}");
            assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
        }
        // What was done about it by hand counts.
        run("sh", &["-c", &format!("e2fsck -fy {device}; test $? -le 2")]);
        volume.publish(&node, false).await.unwrap();
    });
}

#[test]
fn a_mount_that_fails_for_another_reason_is_not_called_damage() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = plugged(&host, FsType::Ext4);
        let error = volume.flags(&["no-such-option"]).stage(&host.node()).await.unwrap_err();
        assert!(matches!(error, StageError::Mount(_)), "{error}");
        assert!(error.to_string().contains("log on this host says more"), "{error}");
    });
}
