//! Disks that fail and disks that hang: what a volume on them says, and that others do not suffer.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/faulty.rs"]
mod faulty;
#[path = "common/log.rs"]
mod log;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use common::{SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host, run};
use csi_udisk::csi::node::NodeService;
use csi_udisk::csi::operation::Operations;
use csi_udisk::csi::proto::v1;
use csi_udisk::csi::proto::v1::node_server::Node as _;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{IdentityState, Node, Problem, Reason, Severity, StatsError};
use csi_udisk::volume::FsType;
use faulty::{Faulty, Mode};
use log::Lines;
use tokio::sync::watch;
use tonic::{Code, Request, Status};

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

/// A pod's last writes are still in memory when it is gone.
#[test]
fn writes_that_are_lost_at_the_end_are_in_the_log_and_keep_nobody() {
    if !faulty::is_possible() {
        return;
    }
    let lines = Lines::of_all();
    for fs in file_systems() {
        for fails in [false, true] {
            let lines = lines.clone();
            on_a_host(false, |host| async move {
                let (faulty, volume) = on_a_faulty_disk(&host, fs);
                let node = host.node();
                volume.publish(&node, false).await.unwrap();
                fs::write(volume.target.join("file"), "content").unwrap();
                if fails {
                    faulty.set(Mode::FailWrites);
                }
                volume.unpublish(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
                let path = volume.staging.display().to_string();
                let text = lines.text();
                let told = text.lines().any(|line| line.contains("may be lost") && line.contains(&path));
                assert_eq!(told, fails, "{fs}: {text}");
            });
        }
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

/// A check takes longer than kubelet waits. It goes on, its callers are told how far it is, and the one that comes in
/// time gets its answer.
#[test]
fn a_long_check_outlives_its_callers_and_tells_them_how_far_it_is() {
    if !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let (faulty, volume) = on_a_faulty_disk(&host, FsType::Ext4);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        fs::write(volume.staging.join("file"), "content").unwrap();
        volume.unstage(&node).await.unwrap();
        let device = fs::canonicalize(host.path("dev/vdb")).unwrap();
        run("debugfs", &["-w", "-R", "ssv state 2", device.to_str().unwrap()]);

        faulty.set(Mode::Slow);
        let service = Service::new(node);
        let stage = |timeout| service.stage(&volume, timeout);
        let told = async {
            loop {
                let status = stage(Duration::from_millis(100)).await.unwrap_err();
                assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
                if status.message().contains(" %") {
                    return status;
                }
            }
        };
        let status =
            tokio::time::timeout(Duration::from_secs(60), told).await.expect("it never says how far");
        assert!(status.message().contains("still running after"), "{status}");
        assert!(status.message().contains("checking ext4 of"), "{status}");
        faulty.set(Mode::Good);
        stage(Duration::from_secs(60)).await.unwrap();
        assert_eq!(fs::read_to_string(volume.staging.join("file")).unwrap(), "content");
    });
}

/// The CSI service, asked as kubelet asks it, but less patiently.
struct Service(NodeService);

fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

impl Service {
    fn new(node: Node) -> Self {
        let (_, identity) = watch::channel(IdentityState::Missing("a test".into()));
        Self(NodeService::new(node, Operations::new(), identity, 20))
    }

    async fn stage(&self, volume: &Volume, timeout: Duration) -> Result<(), Status> {
        use v1::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
        let capability = v1::VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Mount(MountVolume::default())),
        };
        let message = v1::NodeStageVolumeRequest {
            volume_id: volume.id.to_string(),
            staging_target_path: volume.staging.display().to_string(),
            volume_capability: Some(capability),
            publish_context: volume.context.to_map(),
            ..Default::default()
        };
        self.0.node_stage_volume(timed(message, timeout)).await.map(drop)
    }

    async fn unstage(&self, volume: &Volume, timeout: Duration) -> Result<(), Status> {
        let message = v1::NodeUnstageVolumeRequest {
            volume_id: volume.id.to_string(),
            staging_target_path: volume.staging.display().to_string(),
        };
        self.0.node_unstage_volume(timed(message, timeout)).await.map(drop)
    }
}

/// A pod can go while its disk hangs. Its disk can be detached when all is written, and not before.
#[test]
fn a_volume_whose_disk_hangs_is_unpublished_at_once_and_unstaged_when_it_answers() {
    if !faulty::is_possible() {
        return;
    }
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (faulty, volume) = on_a_faulty_disk(&host, fs);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            fs::write(volume.target.join("file"), "content").unwrap();
            faulty.set(Mode::Hang);
            volume.unpublish(&node).await.unwrap();
            assert!(!volume.target.exists());

            let service = Service::new(node);
            for _ in 0..3 {
                let status = service.unstage(&volume, Duration::from_millis(400)).await.unwrap_err();
                assert_eq!(status.code(), Code::DeadlineExceeded, "{fs}: {status}");
                assert!(status.message().contains("unmounting"), "{fs}: {status}");
            }
            faulty.set(Mode::Good);
            service.unstage(&volume, Duration::from_secs(60)).await.unwrap();
            let image = host.path("a/image");
            drop(faulty);
            host.unplug("vdb");
            let again = host.disk_of(&image);
            host.plug("vdb", "UCLOUD_DISK_VDC", &again);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            assert_eq!(fs::read_to_string(volume.staging.join("file")).unwrap(), "content", "{fs}");
            volume.unstage(&node).await.unwrap();
        });
    }
}

/// Nothing of the disk can be read. Its volume is told what is waited for, and another one comes and goes.
#[test]
fn a_disk_that_hangs_before_it_is_staged_holds_up_its_own_volume_only() {
    if !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let (faulty, hung) = on_a_faulty_disk(&host, FsType::Ext4);
        let disk = host.disk("b", SMALL);
        host.plug("vdc", "UCLOUD_DISK_VDD", &disk);
        let well = Volume::fs(&host, "bs-2", FsType::Ext4, "vdd", SMALL_GIB);
        faulty.set(Mode::Hang);
        let node = host.node();
        let service = Service::new(node.clone());
        for _ in 0..3 {
            let status = service.stage(&hung, Duration::from_millis(400)).await.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
            assert!(status.message().contains("dev/vdb"), "{status}");
        }
        let status = service.unstage(&hung, Duration::from_millis(400)).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status}");
        well.publish(&node, false).await.unwrap();
        well.unpublish(&node).await.unwrap();
        // A driver that was started anew looks at all disks for the mark of the one that it lets go.
        for node in [&node, &host.node()] {
            well.unstage(node).await.unwrap();
        }
        faulty.set(Mode::Good);
        service.stage(&hung, Duration::from_secs(60)).await.unwrap();
        service.unstage(&hung, Duration::from_secs(60)).await.unwrap();
    });
}

/// Every look at the path answers "transport endpoint is not connected".
#[test]
fn a_mount_that_nobody_serves_any_more_is_taken_away() {
    if !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let disk = host.disk("a", SMALL);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        let mut volume = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB);
        volume.target = volume.staging.clone();
        Faulty::file_system(&host, &disk, &volume.staging).end();
        assert_eq!(fs::metadata(&volume.staging).unwrap_err().raw_os_error(), Some(nix::libc::ENOTCONN));
        let node = host.node();
        assert!(matches!(volume.stats(&node).await, Err(StatsError::Host(_))));
        let problems = volume.health(&node).await.unwrap();
        assert!(has(&problems, Severity::Inaccessible, Reason::IoErrors), "{problems:?}");
        volume.unstage(&node).await.unwrap();
        assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
        volume.unpublish(&node).await.unwrap();
        assert!(!volume.target.exists());
    });
}
