//! Disks that leave, drivers that are killed, mounts that others made.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use common::{OtherNamespace, SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host, run};
use csi_udisk::node::linux::device::UseError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::{Host, exec};
use csi_udisk::node::{StageError, StatsError, UnpublishError, UnstageError};
use csi_udisk::volume::{FsType, Slot};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

fn staged_on(host: &TestHost, fs: FsType) -> (common::Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB))
}

/// Polls a call a number of times and then drops it, as a process that is killed drops it between two system calls.
async fn cut_off<T>(call: impl Future<Output = T>, after: usize) -> Option<T> {
    let mut call = pin!(call);
    let mut polls = 0;
    std::future::poll_fn(move |context| {
        if polls == after {
            return Poll::Ready(None);
        }
        polls += 1;
        call.as_mut().poll(context).map(Some)
    })
    .await
}

/// Calls again, as kubelet does, each time with a driver that was started anew.
async fn until_done<T, E: std::fmt::Display, F: Future<Output = Result<T, E>>>(
    mut call: impl FnMut() -> F,
) -> T {
    let start = tokio::time::Instant::now();
    loop {
        match call().await {
            Ok(done) => return done,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "does not converge: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_driver_killed_at_any_step_converges_when_it_is_called_again() {
    for fs in file_systems() {
        for block in [false, true] {
            if block && fs != FsType::Ext4 {
                continue;
            }
            on_a_host(false, |host| async move {
                let (_disk, mut volume) = staged_on(&host, fs);
                if block {
                    volume.capability.access = csi_udisk::volume::Access::Block;
                }
                let mut finished = [false; 4];
                for after in 1.. {
                    // Read-only every other time: its publish has more steps.
                    let read_only = after % 2 == 0;
                    finished[0] |= cut_off(volume.stage(&host.node()), after).await.is_some();
                    until_done(|| async { volume.stage(&host.node()).await }).await;
                    finished[1] |= cut_off(volume.publish(&host.node(), read_only), after).await.is_some();
                    until_done(|| async { volume.publish(&host.node(), read_only).await }).await;
                    let mounts = Mounts::read().unwrap();
                    assert_eq!(mounts.at(&volume.target).count(), 1);
                    assert_eq!(mounts.top(&volume.target).unwrap().read_only(), read_only);
                    finished[2] |= cut_off(volume.unpublish(&host.node()), after).await.is_some();
                    until_done(|| async { volume.unpublish(&host.node()).await }).await;
                    finished[3] |= cut_off(volume.unstage(&host.node()), after).await.is_some();
                    until_done(|| async { volume.unstage(&host.node()).await }).await;
                    assert!(
                        Mounts::read()
                            .unwrap()
                            .iter()
                            .all(|m| !m.mount_point.starts_with(host.path("kubelet")))
                    );
                    if finished == [true; 4] && after > 3 {
                        break;
                    }
                }
            });
        }
    }
}

/// A driver that is killed leaves its mkfs or e2fsck running. The next one must not start a second beside it.
#[test]
fn a_program_that_outlives_its_driver_keeps_the_disk_from_the_next_one() {
    const SH: exec::Tool = exec::Tool { name: "sh", package: "dash" };
    on_a_host(false, |host| async move {
        let (disk, volume) = staged_on(&host, FsType::Ext4);
        let (started, end) = (host.path("started"), host.path("end"));
        let script = format!(
            "touch {0}; while test -e {0} && ! test -e {1}; do sleep 0.01; done",
            started.display(),
            end.display()
        );
        {
            let linux = Host::new(&host.path("sys"), &host.path("dev"));
            let device = Arc::new(linux.locate(&Slot::parse("vdc").unwrap(), SMALL_GIB).await.unwrap());
            linux.hold(&device).await.unwrap();
            let arguments = ["-c", &script];
            let mut call = Box::pin(exec::run_on(SH, arguments, &device));
            while !started.exists() {
                assert!(poll_once(&mut call).await.is_none());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // The driver is gone, and all that it had open.
        let before = disk.content();
        let error = volume.stage(&host.node()).await.unwrap_err();
        let held = matches!(&error, StageError::Use(UseError::Held(_)));
        let ending = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fs::write(&end, "").unwrap();
        };
        assert!(disk.content() == before);
        // A retry that comes while the program ends waits for it.
        let node = host.node();
        let (staged, ()) = tokio::join!(volume.stage(&node), ending);
        staged.unwrap();
        assert!(held, "{error}");
    });
}

/// Polls a call once.
async fn poll_once<T>(call: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *call).poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn volumes_of_a_disk_that_left_are_reported_dead_and_taken_away() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (_disk, volume) = staged_on(&host, fs);
            let node = host.node();
            volume.publish(&node, false).await.unwrap();
            host.unplug("vdb");
            assert!(matches!(volume.stats(&node).await, Err(StatsError::Gone(_))), "{fs}");
            volume.unpublish(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
        });
    }
}

#[test]
fn a_disk_that_left_and_came_back_as_another_device_is_mounted_anew() {
    on_a_host(false, |host| async move {
        let (disk, volume) = staged_on(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        fs::write(volume.target.join("file"), "content").unwrap();
        run("sync", &["-f", volume.target.to_str().unwrap()]);
        let image = host.path("images/again");
        disk.copy_to(&image);
        host.unplug("vdb");
        let again = host.disk_of(&image);
        host.plug("vdd", "UCLOUD_DISK_VDC", &again);
        volume.publish(&node, false).await.unwrap();
        assert_eq!(fs::read_to_string(volume.target.join("file")).unwrap(), "content");
        assert_eq!(Mounts::read().unwrap().at(&volume.staging).count(), 1);
        let source = fs::canonicalize(&Mounts::read().unwrap().top(&volume.target).unwrap().source).unwrap();
        assert_eq!(source, again.device());
    });
}

#[test]
fn a_published_volume_is_not_unstaged_under_its_pods() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = staged_on(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        for _ in 0..2 {
            let error = volume.unstage(&node).await.unwrap_err();
            assert!(matches!(error, UnstageError::Published(_)));
            assert!(error.to_string().contains(volume.target.to_str().unwrap()), "{error}");
        }
        assert!(Mounts::read().unwrap().top(&volume.staging).is_some());
    });
}

#[test]
fn a_volume_in_use_by_a_process_is_not_taken_away_by_force() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = staged_on(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        let open = fs::File::create(volume.target.join("open")).unwrap();
        let error = volume.unpublish(&node).await.unwrap_err();
        assert!(matches!(error, UnpublishError::Unmount(_)), "{error}");
        drop(open);
        volume.unpublish(&node).await.unwrap();
    });
}

/// The staging mount is gone here, but a copy of it lives in another namespace: the disk must not be detached.
#[test]
fn a_disk_that_another_namespace_holds_is_not_free() {
    on_a_host(true, |host| async move {
        let (_disk, volume) = staged_on(&host, FsType::Ext4);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        let other = OtherNamespace::new();
        // The second driver was started after the unmount.
        for node in [host.node(), host.node()] {
            let error = volume.unstage(&node).await.unwrap_err();
            assert!(matches!(error, UnstageError::InUse(_)), "{error}");
        }
        drop(other);
        let start = std::time::SystemTime::now();
        while let Err(error) = volume.unstage(&node).await {
            assert!(start.elapsed().unwrap() < Duration::from_secs(20), "{error}");
        }
    });
}

#[test]
fn stacked_mounts_and_files_left_behind_are_taken_away() {
    on_a_host(false, |host| async move {
        let (_disk, volume) = staged_on(&host, FsType::Ext4);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        for path in [&volume.target, &volume.staging] {
            for _ in 0..3 {
                mount(Some(path), path, NONE, MsFlags::MS_BIND, NONE).unwrap();
            }
        }
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        assert!(!volume.target.exists() && Mounts::read().unwrap().top(&volume.staging).is_none());
    });
}

/// By kubelet's calls after a reboot, or by a person's hand.
#[test]
fn what_is_not_there_is_taken_away_at_once() {
    on_a_host(true, |host| async move {
        // Formatted before, for that takes its time.
        let (_disk, formatted) = staged_on(&host, FsType::Ext4);
        formatted.stage(&host.node()).await.unwrap();
        formatted.unstage(&host.node()).await.unwrap();
        let start = tokio::time::Instant::now();
        let gone = |volume: &Volume| assert!(!volume.target.exists() && !volume.staging.exists());
        let volumes = [
            Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", SMALL_GIB),
            Volume::block(&host, "bs-2", "vdd", SMALL_GIB),
        ];
        for volume in &volumes {
            // Made by kubelet, and never mounted on.
            fs::create_dir_all(&volume.target).unwrap();
            // The second driver was started after it.
            for node in [host.node(), host.node()] {
                volume.unpublish(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
            }
            fs::remove_dir_all(host.path("kubelet")).unwrap();
            volume.unpublish(&host.node()).await.unwrap();
            volume.unstage(&host.node()).await.unwrap();
            gone(volume);
        }
        // Mounted once, and unmounted by a person; the disk is there.
        let mut volume = formatted;
        volume.publish(&host.node(), false).await.unwrap();
        for path in [&volume.target, &volume.staging] {
            run("umount", &[path.to_str().unwrap()]);
        }
        let node = host.node();
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        assert!(!volume.target.exists());
        // At paths that never were.
        volume.target = host.path("never/was");
        volume.staging = host.path("never/there");
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        gone(&volume);
        assert!(start.elapsed() < Duration::from_secs(1), "something was waited for");
    });
}

/// Kubelet and the container runtime see the volume through mount propagation, in the host's namespace.
#[test]
fn a_read_only_publish_is_read_only_for_the_host_too() {
    on_a_host(false, |host| async move {
        let kubelet = host.path("kubelet");
        mount(Some(&kubelet), &kubelet, NONE, MsFlags::MS_BIND, NONE).unwrap();
        mount(NONE, &kubelet, NONE, MsFlags::MS_SHARED, NONE).unwrap();
        let (_disk, volume) = staged_on(&host, FsType::Ext4);
        let (publish, published) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let target = volume.target.clone();
        let seen = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            ready.send(()).unwrap();
            published.recv().unwrap();
            let write = fs::write(target.join("file"), "x").map_err(|error| error.kind());
            (Mounts::read().unwrap().top(&target).map(|mount| mount.options.clone()), write)
        });
        is_ready.recv().unwrap();
        let node = host.node();
        for _ in 0..2 {
            volume.publish(&node, true).await.unwrap();
        }
        assert!(fs::write(volume.target.join("file"), "x").is_err());
        publish.send(()).unwrap();
        let (options, write) = seen.join().unwrap();
        assert!(options.unwrap().starts_with("ro"));
        assert_eq!(write, Err(std::io::ErrorKind::ReadOnlyFilesystem));
        // The staged file system itself stays writable.
        fs::write(volume.staging.join("file"), "x").unwrap();
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
    });
}

/// UK8S links kubelet's directory; the kernel lists mounts by their real path.
#[test]
fn a_linked_kubelet_directory_is_the_same_directory() {
    on_a_host(false, |host| async move {
        let (_disk, mut volume) = staged_on(&host, FsType::Ext4);
        let link = host.path("linked");
        std::os::unix::fs::symlink(host.path("kubelet"), &link).unwrap();
        let through = |path: &Path| link.join(path.strip_prefix(host.path("kubelet")).unwrap());
        let real = volume.clone();
        volume.staging = through(&volume.staging);
        volume.target = through(&volume.target);
        let node = host.node();
        for _ in 0..2 {
            volume.stage(&node).await.unwrap();
            volume.publish(&node, false).await.unwrap();
        }
        assert_eq!(Mounts::read().unwrap().at(&real.staging).count(), 1);
        assert_eq!(Mounts::read().unwrap().at(&real.target).count(), 1);
        volume.stats(&node).await.unwrap();
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        assert!(!real.target.exists() && Mounts::read().unwrap().top(&real.staging).is_none());
    });
}
