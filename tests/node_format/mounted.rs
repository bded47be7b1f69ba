//! Beneath a note, what was mounted since: whoever did it, with a driver that knows no notes or by hand, what was written
//! then is kept.

use std::fs;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;

use csi_udisk::node::StageError;
use csi_udisk::node::linux::blank::NotBlank;
use csi_udisk::node::linux::mount::unmount_all;
use csi_udisk::node::linux::remains::Foreign;
use csi_udisk::progress::Progress;
use csi_udisk::volume::FsType;

use super::common::{Disk, GIB, SMALL, SMALL_GIB, TestHost, Volume, file_systems, on_a_host, refused, run};
use super::{has_note, make_parts, note_of, plugged, put, staged_holds};

#[test]
fn a_mounted_file_system_beneath_its_note_loses_only_the_note() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, SMALL);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            fs::File::open(volume.staging.join("file")).unwrap().sync_all().unwrap();
            let crashed = host.path("images/crashed");
            disk.copy_to(&crashed);
            volume.unstage(&node).await.unwrap();
            put(&disk, &note_of(&volume, fs));
            staged_holds(&node, &volume, "file").await;
            assert!(!has_note(&disk), "{fs}");
            host.unplug("vdb");

            // The host died while it was mounted.
            let crashed = host.disk_of(&crashed);
            host.plug("vdb", "UCLOUD_DISK_VDC", &crashed);
            put(&crashed, &note_of(&volume, fs));
            staged_holds(&node, &volume, "file").await;
            assert!(!has_note(&crashed), "{fs}");

            // And when it loses its start later, nothing allows to make it again.
            crashed.write(0, &vec![0; 1 << 20]);
            let error = refused(&node, &volume, &crashed).await;
            assert!(
                matches!(error, StageError::NotBlank { reason: NotBlank::Backup { .. }, .. }),
                "{fs}: {error}"
            );
        });
    }
}

/// And lost its start, with all that a mount writes there: the copies still tell.
#[test]
fn a_mounted_file_system_that_lost_its_start_is_refused_beneath_its_note_too() {
    // On the larger one the journal's map does not fit into its inode.
    let large = (FsType::Ext4, 200 * GIB);
    for (fs, size) in file_systems().into_iter().map(|fs| (fs, SMALL)).chain([large]) {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, size);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            // A btrfs writes only the first of its superblocks before that.
            run("sync", &["-f", volume.staging.to_str().unwrap()]);
            let crashed = host.path("images/crashed");
            disk.copy_to(&crashed);
            volume.unstage(&node).await.unwrap();
            host.unplug("vdb");
            for disk in [disk, host.disk_of(&crashed)] {
                host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
                put(&disk, &note_of(&volume, fs));
                disk.write(0, &vec![0; 1 << 20]);
                let error = refused(&node, &volume, &disk).await;
                let mounted = matches!(error, StageError::NotRemains { reason: Foreign::Mounted { .. }, .. });
                assert!(mounted, "{fs}: {error}");
                host.unplug("vdb");
            }
        });
    }
}

fn by_hand(host: &TestHost, disk: &Disk) {
    let path = host.path("kubelet/by hand");
    fs::create_dir_all(&path).unwrap();
    run("mount", &[disk.device().to_str().unwrap(), path.to_str().unwrap()]);
    fs::write(path.join("file"), "content").unwrap();
    unmount_all(&path).unwrap();
}

/// Larger ones are flagged by the kernel, which is then the trace.
#[test]
fn a_mounted_btrfs_with_nodes_of_a_page_is_kept() {
    if !file_systems().contains(&FsType::Btrfs) {
        return;
    }
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Btrfs, SMALL);
        let note = note_of(&volume, FsType::Btrfs);
        let device = disk.device().to_str().unwrap();
        run("mkfs.btrfs", &["-q", "-n", "4096", "-U", &note.uuid().to_string(), device]);
        by_hand(&host, &disk);
        put(&disk, &note);
        staged_holds(&host.node(), &volume, "file").await;
        assert!(!has_note(&disk));
    });
}

/// Polls a call until it says that it is at `phase`, and then no more.
async fn until<T>(mut call: Pin<&mut impl Future<Output = T>>, progress: &Progress, phase: &str) {
    std::future::poll_fn(|context| {
        assert!(call.as_mut().poll(context).is_pending(), "ended before {phase:?}");
        if progress.get().starts_with(phase) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// The lock on a device's node keeps nobody from mounting it by hand while it waits behind other disks.
#[test]
fn a_file_system_that_is_mounted_while_it_waits_to_be_made_again_is_kept() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, SMALL);
            make_parts(&host, &disk, &volume, fs, |_| true);
            put(&disk, &note_of(&volume, fs));
            let node = host.node();
            let other = |name: &str, slot: &str| {
                host.plug(name, &format!("UCLOUD_DISK_{}", slot.to_uppercase()), &host.disk(slot, SMALL));
                Volume::fs(&host, slot, FsType::Ext4, slot, SMALL_GIB)
            };
            let (first, second) = (other("vdd", "vdd"), other("vde", "vde"));
            let told: [Progress; 3] = Default::default();
            let mut first = pin!(first.stage_telling(&node, &told[0]));
            let mut second = pin!(second.stage_telling(&node, &told[1]));
            let mut waiting = pin!(volume.stage_telling(&node, &told[2]));
            until(first.as_mut(), &told[0], "making ext4").await;
            until(second.as_mut(), &told[1], "making ext4").await;
            until(waiting.as_mut(), &told[2], "waiting for a turn").await;
            by_hand(&host, &disk);
            let before = disk.content();
            first.await.unwrap();
            second.await.unwrap();
            let error = waiting.await.unwrap_err();
            assert!(matches!(&error, StageError::Changed { .. }), "{fs}: {error}");
            assert!(disk.content() == before, "{fs}: the disk was changed although: {error}");
            staged_holds(&node, &volume, "file").await;
        });
    }
}
