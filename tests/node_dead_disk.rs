//! Disks that fail and disks that hang: what a volume on them says, and that others do not suffer.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use common::{SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host};
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{Node, Problem, Reason, Severity, StatsError};
use csi_udisk::volume::FsType;
use faulty::{Faulty, Mode};

fn on_a_faulty_disk(host: &TestHost, fs: FsType) -> (Faulty, Volume) {
    let (faulty, disk) = Faulty::disk(host, "a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (faulty, Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB))
}

fn has(problems: &[Problem], severity: Severity, reason: Reason) -> bool {
    problems.iter().any(|problem| (problem.severity, problem.reason) == (severity, reason))
}

fn stuck(node: &Node) -> usize {
    node.stuck_calls().iter().map(|of_volume| of_volume.count).sum()
}

#[test]
fn a_faulty_disk_does_what_it_is_told() {
    if faulty::serve_if_asked() || !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let (faulty, disk) = Faulty::disk(&host, "a", SMALL);
        let open = fs::OpenOptions::new().read(true).write(true).open(disk.device()).unwrap();
        let mut bytes = [0; 4];
        open.write_all_at(b"good", 8192).unwrap();
        open.sync_all().unwrap();
        faulty.set(Mode::Fail);
        assert!(open.read_exact_at(&mut bytes, 1 << 20).is_err());
        faulty.set(Mode::FailWrites);
        open.read_exact_at(&mut bytes, 1 << 20).unwrap();
        open.write_all_at(b"lost", 8192).unwrap();
        assert!(open.sync_all().is_err());
        faulty.set(Mode::Hang);
        let hung = std::thread::spawn(move || open.read_exact_at(&mut [0; 4], 2 << 20));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert!(!hung.is_finished());
        faulty.set(Mode::Good);
        hung.join().unwrap().unwrap();
        assert_eq!(&fs::read(host.path("a/image")).unwrap()[8192..8196], b"good");
        faulty.end();
        assert!(fs::read(disk.device()).is_err());
    });
}

#[test]
fn a_disk_that_fails_says_so_and_its_volume_can_still_be_taken_away() {
    if !faulty::is_possible() {
        return;
    }
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (faulty, volume) = on_a_faulty_disk(&host, fs);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            assert_eq!(volume.health(&node).await.unwrap(), []);
            faulty.set(Mode::Fail);
            let problems = volume.health(&node).await.unwrap();
            assert!(has(&problems, Severity::Inaccessible, Reason::IoErrors), "{fs}: {problems:?}");
            assert!(problems[0].words.contains("the disk vdb"), "{problems:?}");
            // What a pod writes now is lost, and the file system learns of it.
            let _ = fs::write(volume.target.join("file"), "content");
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            assert!(Mounts::read().unwrap().top(&volume.staging).is_none(), "{fs}");
        });
    }
}

/// The disk is read well, but what was written did not arrive.
#[test]
fn lost_writes_are_counted_or_shut_the_file_system_down() {
    if !faulty::is_possible() {
        return;
    }
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (faulty, volume) = on_a_faulty_disk(&host, fs);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            faulty.set(Mode::FailWrites);
            // The first failure may be of data alone; a journal that cannot be written is what stops a file system.
            for name in ["file", "second", "third"] {
                let synced = fs::File::create(volume.target.join(name)).and_then(|file| file.sync_all());
                let directory = fs::File::open(&volume.target).and_then(|open| open.sync_all());
                assert!(synced.is_err() || directory.is_err(), "{fs} lost writes and does not know");
            }
            let problems = volume.health(&node).await.unwrap();
            let told = match fs {
                FsType::Xfs => has(&problems, Severity::Inaccessible, Reason::FileSystemShutDown),
                FsType::Ext3 | FsType::Ext4 | FsType::Btrfs => {
                    has(&problems, Severity::Degraded, Reason::FileSystemReadOnly)
                        && has(&problems, Severity::Degraded, Reason::FileSystemErrors)
                }
            };
            assert!(told, "{fs}: {problems:?}");
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
        });
    }
}

#[test]
fn a_disk_that_hangs_is_told_at_once_the_second_time_and_costs_one_volume() {
    if !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let (faulty, hung) = on_a_faulty_disk(&host, FsType::Ext4);
        let disk = host.disk("b", SMALL);
        host.plug("vdc", "UCLOUD_DISK_VDD", &disk);
        let well = Volume::fs(&host, "bs-2", FsType::Ext4, "vdd", SMALL_GIB);
        let node = host.node();
        hung.publish(&node, false).await.unwrap();

        faulty.set(Mode::Hang);
        for _ in 0..5 {
            let problems = hung.health(&node).await.unwrap();
            assert!(has(&problems, Severity::Inaccessible, Reason::Hung), "{problems:?}");
            assert!(problems[0].words.contains("NodeGetVolumeHealth has not come back for"), "{problems:?}");
            // One thread, however often it is asked.
            assert_eq!(stuck(&node), 1);
        }
        let error = hung.stats(&node).await.unwrap_err();
        assert!(matches!(error, StatsError::Hung { .. }), "{error}");
        well.publish(&node, false).await.unwrap();
        assert_eq!(well.health(&node).await.unwrap(), []);
        well.stats(&node).await.unwrap();
        well.unpublish(&node).await.unwrap();
        well.unstage(&node).await.unwrap();

        faulty.set(Mode::Good);
        while stuck(&node) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(hung.health(&node).await.unwrap(), []);
        hung.stats(&node).await.unwrap();
        hung.unpublish(&node).await.unwrap();
        hung.unstage(&node).await.unwrap();
    });
}

/// Statistics come from memory, as a rule. Here is a file system that has to ask.
#[test]
fn statistics_that_hang_cost_one_thread_whatever_they_are_asked_for() {
    if !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let disk = host.disk("a", SMALL);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        let volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB);
        fs::create_dir(&volume.target).unwrap();
        let faulty = Faulty::file_system(&host, &disk, &volume.target);
        let node = host.node();
        volume.stats(&node).await.unwrap();

        faulty.set(Mode::Hang);
        let (first, of_first) = (volume.clone(), node.clone());
        let first = tokio::spawn(async move { first.stats(&of_first).await });
        while stuck(&node) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..5 {
            let error = volume.stats(&node).await.unwrap_err();
            assert!(error.to_string().contains("NodeGetVolumeStats has not come back for 1"), "{error}");
            assert_eq!(stuck(&node), 1);
        }
        let problems = volume.health(&node).await.unwrap();
        assert!(has(&problems, Severity::Inaccessible, Reason::Hung), "{problems:?}");
        faulty.set(Mode::Good);
        first.await.unwrap().unwrap();
        assert_eq!(stuck(&node), 0);
        volume.stats(&node).await.unwrap();
    });
}
