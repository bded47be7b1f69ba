//! Raw block volumes: a device that nothing claims, and on which only the driver can say whose it is.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::future::Future as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use common::{OtherNamespace, SMALL, SMALL_GIB, Volume, mounts_at, on_a_host, run};
use csi_udisk::node::linux::device::UseError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{PublishError, StageError, UnstageError};
use csi_udisk::progress::Progress;
use csi_udisk::volume::{Adoption, FsType, Gib};

fn write(path: &Path) -> std::io::Result<()> {
    let device = fs::OpenOptions::new().read(true).write(true).open(path)?;
    device.write_all_at(b"written", 4096)?;
    device.sync_all()
}

#[test]
fn a_read_only_raw_block_volume_takes_no_writes_and_is_writable_again_later() {
    on_a_host(false, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let node = host.node();
        for _ in 0..2 {
            volume.publish(&node, true).await.unwrap();
        }
        assert_eq!(write(&volume.target).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
        let second = Volume { target: host.target("second"), ..volume.clone() };
        second.publish(&node, true).await.unwrap();
        assert_eq!(volume.health(&node).await.unwrap(), []);

        // As long as a pod has it read-only, it is; a driver that was started anew knows, too.
        volume.unpublish(&node).await.unwrap();
        let error = volume.publish(&host.node(), false).await.unwrap_err();
        let PublishError::OtherwiseElsewhere { read_only: false, elsewhere } = &error else {
            panic!("{error}")
        };
        assert_eq!(elsewhere, std::slice::from_ref(&second.target));
        assert!(write(&second.target).is_err());
        second.unpublish(&node).await.unwrap();

        volume.publish(&node, false).await.unwrap();
        write(&volume.target).unwrap();
        let error = second.publish(&node, true).await.unwrap_err();
        assert!(error.to_string().contains("published writable at"), "{error}");
        assert!(!second.target.exists() || mounts_at(&second.target) == 0);
        write(&volume.target).unwrap();
        volume.unpublish(&node).await.unwrap();

        // Whoever gets the disk next finds it as it came.
        volume.publish(&node, true).await.unwrap();
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        write(disk.device()).unwrap();
    });
}

#[test]
fn a_disk_that_is_read_only_by_itself_is_not_published_writable() {
    on_a_host(false, |host| async move {
        let image = host.path("images/a");
        fs::File::create_new(&image).unwrap().set_len(SMALL).unwrap();
        let device = run("losetup", &["-f", "--show", "-r", image.to_str().unwrap()]);
        let device = Path::new(device.trim()).to_owned();
        let disk = host.disk_at(&device, &image);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let node = host.node();
        let error = volume.publish(&node, false).await.unwrap_err();
        assert!(matches!(error, PublishError::WriteProtected(_)), "{error}");
        assert_eq!(mounts_at(&volume.target), 0);
        volume.publish(&node, true).await.unwrap();
    });
}

#[test]
fn a_raw_disk_is_staged_once_for_one_volume() {
    on_a_host(false, |host| async move {
        let _disk = host.plugged("vdb", "vdc");
        let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        let used = |error: &StageError| {
            let in_use = matches!(error, StageError::Use(UseError::InUse { .. }));
            in_use && error.to_string().contains(&format!("as volume {}", volume.id))
        };
        // Another staging path, another volume, and another volume with a file system.
        let elsewhere = Volume { staging: host.staging("elsewhere"), ..volume.clone() };
        let other = Volume::block(&host, "bs-2", "vdc", SMALL_GIB);
        let formatted = Volume::fs(&host, "bs-3", FsType::Ext4, "vdc", SMALL_GIB);
        for wrong in [elsewhere, other, formatted] {
            for node in [&node, &host.node()] {
                let error = wrong.stage(node).await.unwrap_err();
                assert!(used(&error), "{error}");
                wrong.publish(node, false).await.unwrap_err();
                assert_eq!(mounts_at(&wrong.staging) + mounts_at(&wrong.target), 0);
            }
            wrong.unstage(&node).await.unwrap();
        }
        volume.publish(&node, false).await.unwrap();
        volume.unpublish(&node).await.unwrap();
        volume.unstage(&node).await.unwrap();
        let formatted = Volume::fs(&host, "bs-3", FsType::Ext4, "vdc", SMALL_GIB);
        formatted.publish(&node, false).await.unwrap();
    });
}

/// A bound device node holds nothing: the disk may leave, and another one get its number. A pod that was left behind
/// would write to that one.
#[test]
fn what_a_raw_disk_left_behind_keeps_the_next_one_with_its_number_from_being_staged() {
    on_a_host(false, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        host.own_node("vdb", &disk);
        let left = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let node = host.node();
        left.publish(&node, false).await.unwrap();
        host.unplug("vdb");
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        host.own_node("vdb", &disk);
        for next in [
            Volume::block(&host, "bs-2", "vdc", SMALL_GIB),
            Volume::fs(&host, "bs-2", FsType::Ext4, "vdc", SMALL_GIB),
        ] {
            let error = next.publish(&node, false).await.unwrap_err();
            assert!(error.to_string().contains(left.target.to_str().unwrap()), "{error}");
        }
        left.unpublish(&node).await.unwrap();
        left.unstage(&node).await.unwrap();
        Volume::block(&host, "bs-2", "vdc", SMALL_GIB).publish(&node, false).await.unwrap();
    });
}

/// It was detached by hand, and came back under its old number.
#[test]
fn a_raw_disk_that_left_and_came_back_is_bound_anew() {
    on_a_host(false, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        host.own_node("vdb", &disk);
        let volume = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let node = host.node();
        volume.publish(&node, false).await.unwrap();
        host.unplug("vdb");
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        host.own_node("vdb", &disk);
        volume.publish(&node, false).await.unwrap();
        for path in [&volume.target, &volume.staging.join(volume.id.as_str())] {
            let mounts = Mounts::read().unwrap();
            let mount = mounts.top(path).unwrap();
            assert!(!mount.root.to_str().unwrap().contains("deleted"), "{mount:?}");
            assert_eq!(mounts.at(path).count(), 1);
        }
        write(&volume.target).unwrap();
    });
}

/// Kubelet asks again to unstage what was not let go the first time, and another volume may have the disk raw by then.
/// Nothing claims a raw device, so it looks free.
#[test]
fn an_unstage_that_is_asked_again_makes_no_raw_device_writable() {
    on_a_host(true, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        let formatted = Volume::fs(&host, "bs-1", FsType::Ext4, "vdc", Gib::new(1));
        let node = host.node();
        formatted.stage(&node).await.unwrap();
        let other = OtherNamespace::new();
        let error = formatted.unstage(&node).await.unwrap_err();
        assert!(matches!(error, UnstageError::InUse(_)), "{error}");
        drop(other);
        let mut raw = Volume::block(&host, "bs-2", "vdc", Gib::new(1));
        raw.volume_context.adoption = Adoption::parse(formatted.id.as_str());
        let start = std::time::SystemTime::now();
        while let Err(error) = raw.publish(&node, true).await {
            assert!(start.elapsed().unwrap() < Duration::from_secs(20), "{error}");
        }
        formatted.unstage(&node).await.unwrap();
        assert_eq!(run("blockdev", &["--getro", disk.device().to_str().unwrap()]).trim(), "1");
        raw.unpublish(&node).await.unwrap();
        raw.unstage(&node).await.unwrap();
    });
}

/// Two attachments may name one slot, when one of them is old. A bound device node holds nothing, so the lock must keep
/// the two apart until the list of mounts can tell.
#[test]
fn two_volumes_that_are_staged_on_one_disk_at_once_do_not_both_get_it() {
    on_a_host(false, |host| async move {
        let disk = host.plugged("vdb", "vdc");
        let raw = Volume::block(&host, "bs-1", "vdc", SMALL_GIB);
        let formatted = Volume::fs(&host, "bs-2", FsType::Ext4, "vdc", SMALL_GIB);
        let node = host.node();
        let holder = fs::File::open(disk.device()).unwrap();
        holder.lock().unwrap();
        let before = disk.content();
        let error = raw.stage(&node).await.unwrap_err();
        assert!(matches!(error, StageError::Use(UseError::Held(_))), "{error}");
        assert_eq!(mounts_at(&raw.staging), 0);
        // Raw for somebody while a file system waits to be prepared.
        let (other, progress) = (host.path("kubelet/bs-other"), Progress::default());
        let mut staging = Box::pin(formatted.stage_telling(&node, &progress));
        std::future::poll_fn(|context| {
            assert!(staging.as_mut().poll(context).is_pending());
            if progress.get().starts_with("waiting for the lock") { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        fs::write(&other, "").unwrap();
        host.own_node("vdb", &disk);
        run("mount", &["--bind", host.path("dev/vdb").to_str().unwrap(), other.to_str().unwrap()]);
        drop(holder);
        let error = staging.await.unwrap_err();
        assert!(matches!(error, StageError::Use(UseError::InUse { .. })), "{error}");
        assert!(error.to_string().contains(other.to_str().unwrap()), "{error}");
        assert!(disk.content() == before);
    });
}
