//! What a volume says of its health.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::Write as _;

use common::{Disk, SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host, run, skip};
use csi_udisk::node::{HealthError, HealthRequest, Node, Problem, Reason, RunningChange, Severity};
use csi_udisk::volume::FsType;

fn plugged(host: &TestHost, fs: FsType) -> (Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB))
}

fn reasons(problems: &[Problem]) -> Vec<(Severity, Reason)> {
    problems.iter().map(|problem| (problem.severity, problem.reason)).collect()
}

/// By its id alone.
async fn by_id(node: &Node, volume: &Volume) -> Result<Vec<Problem>, HealthError> {
    let (staging_path, publish_path, running) = (None, None, None);
    node.health(HealthRequest { volume: volume.id.clone(), staging_path, publish_path, running }).await
}

#[test]
fn a_volume_that_works_is_well_and_one_whose_disk_left_is_not() {
    for fs in file_systems().into_iter().map(Some).chain([None]) {
        on_a_host(false, |host| async move {
            let (_disk, mut volume) = plugged(&host, fs.unwrap_or(FsType::Ext4));
            if fs.is_none() {
                volume.capability.access = csi_udisk::volume::Access::Block;
            }
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            assert_eq!(volume.health(&node).await.unwrap(), []);
            assert_eq!(by_id(&host.node(), &volume).await.unwrap(), []);
            host.unplug("vdb");
            let problems = volume.health(&node).await.unwrap();
            assert_eq!(reasons(&problems), [(Severity::Inaccessible, Reason::DeviceGone)]);
            assert!(problems[0].words.contains(volume.staging.to_str().unwrap()), "{problems:?}");
        });
    }
}

#[test]
fn a_volume_that_failed_to_mount_says_what_it_failed_on_until_it_works() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
        run("mkswap", &[disk.device().to_str().unwrap()]);
        let node = host.node();
        volume.publish(&node, false).await.unwrap_err();
        for problems in [volume.health(&node).await, by_id(&node, &volume).await] {
            let problems = problems.unwrap();
            assert_eq!(reasons(&problems), [(Severity::Inaccessible, Reason::MountFailed)]);
            let words = &problems[0].words;
            assert!(
                words.contains("NodePublishVolume failed 0 s ago") && words.contains("swap space"),
                "{words}"
            );
        }
        fs::OpenOptions::new().write(true).open(disk.device()).unwrap().write_all(&[0; 65536]).unwrap();
        volume.stage(&node).await.unwrap();
        // Nothing has failed since, but the pod does not have it.
        let problems = volume.health(&node).await.unwrap();
        assert_eq!(reasons(&problems), [(Severity::Inaccessible, Reason::NotMounted)]);
        assert!(problems[0].words.contains(volume.target.to_str().unwrap()), "{problems:?}");
        volume.publish(&node, false).await.unwrap();
        assert_eq!(volume.health(&node).await.unwrap(), []);
    });
}

#[test]
fn a_volume_on_its_way_is_not_called_missing_unless_it_takes_long() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = plugged(&host, FsType::Ext4);
        let node = host.node();
        let health = |is_long| {
            let words = "NodeStageVolume of bs-1 has been running for 300 s: checking ext4".to_owned();
            let request = HealthRequest {
                volume: volume.id.clone(),
                staging_path: Some(volume.staging.clone()),
                publish_path: None,
                running: Some(RunningChange { words, is_long }),
            };
            node.health(request)
        };
        assert_eq!(health(false).await.unwrap(), []);
        let problems = health(true).await.unwrap();
        assert_eq!(reasons(&problems), [(Severity::Inaccessible, Reason::NotMounted)]);
        assert!(problems[0].words.ends_with("running for 300 s: checking ext4"), "{problems:?}");
        assert!(matches!(by_id(&node, &volume).await, Err(HealthError::Unknown)));
    });
}

#[test]
fn a_file_system_that_went_read_only_says_so_until_it_was_repaired() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
        let volume = volume.flags(&["errors=remount-ro"]);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        let trigger = format!("/sys/fs/ext4/{}/trigger_fs_error", disk.name());
        if fs::write(&trigger, "1").is_err() {
            return skip("an error of a mounted ext4: this kernel has no trigger_fs_error");
        }
        let problems = volume.health(&node).await.unwrap();
        let expected = [
            (Severity::Degraded, Reason::FileSystemReadOnly),
            (Severity::Degraded, Reason::FileSystemErrors),
        ];
        assert_eq!(reasons(&problems), expected);
        assert!(problems[1].words.contains("has recorded 1 errors of the disk vdb"), "{problems:?}");
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        volume.publish(&node, false).await.unwrap();
        assert_eq!(volume.health(&node).await.unwrap(), []);
    });
}

/// Made so on purpose, it is nothing to be told.
#[test]
fn a_read_only_volume_is_well() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = plugged(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, true).await.unwrap();
        assert_eq!(volume.health(&node).await.unwrap(), []);
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        let reader = volume.reader();
        reader.publish(&node, true).await.unwrap();
        assert_eq!(reader.health(&node).await.unwrap(), []);
    });
}

#[test]
fn a_disk_that_refuses_writes_says_so() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        run("blockdev", &["--setro", disk.device().to_str().unwrap()]);
        let problems = volume.health(&node).await.unwrap();
        run("blockdev", &["--setrw", disk.device().to_str().unwrap()]);
        assert_eq!(reasons(&problems), [(Severity::Degraded, Reason::DeviceReadOnly)]);
        assert_eq!(volume.health(&node).await.unwrap(), []);
    });
}

#[test]
fn a_file_system_that_has_shut_down_says_so_and_can_be_taken_away() {
    for fs in file_systems().into_iter().filter(|fs| matches!(fs, FsType::Ext4 | FsType::Xfs)) {
        on_a_host(false, |host| async move {
            let (_disk, volume) = plugged(&host, fs);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            run("xfs_io", &["-x", "-c", "shutdown", volume.target.to_str().unwrap()]);
            let problems = volume.health(&node).await.unwrap();
            if problems.is_empty() && fs == FsType::Ext4 {
                skip("an ext4 that has shut down: this kernel does not show it");
            } else {
                assert_eq!(
                    reasons(&problems),
                    [(Severity::Inaccessible, Reason::FileSystemShutDown)],
                    "{fs}"
                );
            }
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            volume.publish(&node, false).await.unwrap();
            assert_eq!(volume.health(&node).await.unwrap(), []);
        });
    }
}
