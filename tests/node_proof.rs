//! The proof that a disk is the volume's and nobody else's, layer by layer, from the search to the mount.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Disk, SMALL, TestHost, Volume, on_a_host, run};
use csi_udisk::node::linux::device::UseError;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::{Host, exec};
use csi_udisk::node::plan::ContentRefused;
use csi_udisk::node::{Node, StageError};
use csi_udisk::volume::{Access, Adoption, DiskId, FsType, FsUuid, Gib, Slot};
use nix::libc::O_EXCL;

fn plugged(host: &TestHost) -> (Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", FsType::Ext4, "vdc", Gib::new(0)))
}

fn as_block(volume: &Volume) -> Volume {
    let mut volume = volume.clone();
    volume.capability.access = Access::Block;
    volume
}

fn device(disk: &Disk) -> &str {
    disk.device().to_str().unwrap()
}

/// Would it run, it would not even know the device by its last argument.
const DD: exec::Tool = exec::Tool { name: "dd", package: "coreutils" };

/// Stages, which must be refused, and proves that no byte of the disk changed.
async fn refused(node: &Node, volume: &Volume, disk: &Disk) -> StageError {
    let before = disk.content();
    let error = volume.stage(node).await.unwrap_err();
    assert!(disk.content() == before, "the disk was changed although: {error}");
    let below = |mount: &Path| mount.starts_with(&volume.staging);
    assert!(!Mounts::read().unwrap().iter().any(|mount| below(&mount.mount_point)), "{error}");
    error
}

/// Refused as in use, by both kinds of volume, naming `user`.
async fn refused_as_used(host: &TestHost, volume: &Volume, disk: &Disk, user: &str) {
    for volume in [volume, &as_block(volume)] {
        let error = refused(&host.node(), volume, disk).await;
        assert!(matches!(&error, StageError::Use(UseError::InUse { .. })), "{error}");
        assert!(error.to_string().contains(user), "{error}");
    }
}

/// What is undone also when a test fails.
struct Undo(&'static str, Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        // What is undone already is undone.
        let _ = Command::new(self.0).args(&self.1).output();
    }
}

#[test]
fn a_disk_that_is_swapped_on_is_refused() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        run("mkswap", &[device(&disk)]);
        let swap = Undo("swapoff", vec![device(&disk).to_owned()]);
        run("swapon", &[device(&disk)]);
        // What is on it is the kernel's affair, which may swap to it at any moment.
        for volume in [&volume, &as_block(&volume)] {
            let error = volume.stage(&host.node()).await.unwrap_err();
            assert!(matches!(&error, StageError::Use(UseError::InUse { .. })), "{error}");
            assert!(error.to_string().contains("as swap space"), "{error}");
        }
        drop(swap);
    });
}

/// As the system disk is: the mount is one of a partition.
#[test]
fn a_disk_with_a_mounted_partition_is_refused() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        let partition = Undo("delpart", vec![device(&disk).to_owned(), "1".to_owned()]);
        run("addpart", &[device(&disk), "1", "2048", "65536"]);
        let node = PathBuf::from(format!("{}p1", device(&disk)));
        run("mkfs.ext4", &["-q", node.to_str().unwrap()]);
        let root = host.path("root");
        fs::create_dir(&root).unwrap();
        run("mount", &[node.to_str().unwrap(), root.to_str().unwrap()]);
        let in_sysfs = host.path("sys/block/vdb/vdb1");
        fs::create_dir(&in_sysfs).unwrap();
        fs::write(in_sysfs.join("partition"), "1").unwrap();
        refused_as_used(&host, &volume, &disk, "partition vdb1").await;
        csi_udisk::node::linux::mount::unmount_all(&root).unwrap();
        drop(partition);
    });
}

/// Device mapper, RAID and bcache claim their disks in this way.
#[test]
fn a_disk_that_something_holds_exclusively_is_refused() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        let holder = fs::OpenOptions::new().read(true).custom_flags(O_EXCL).open(disk.device()).unwrap();
        fs::create_dir_all(host.path("sys/block/vdb/holders/dm-0")).unwrap();
        refused_as_used(&host, &volume, &disk, "dm-0").await;
        drop(holder);
        // One that looked for a moment is waited for.
        let holder = fs::OpenOptions::new().read(true).custom_flags(O_EXCL).open(disk.device()).unwrap();
        let moment = std::thread::spawn(move || {
            #[allow(clippy::disallowed_methods, reason = "what is waited for shows only after it")]
            std::thread::sleep(Duration::from_millis(30));
            drop(holder);
        });
        volume.stage(&host.node()).await.unwrap();
        moment.join().unwrap();
    });
}

/// A loop device does not claim what it is made of, so the kernel would mount both.
#[test]
fn a_disk_that_a_loop_device_shows_again_is_refused_for_a_file_system() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        let again = run("losetup", &["-f", "--show", device(&disk)]).trim().to_owned();
        let undo = Undo("losetup", vec!["-d".to_owned(), again.clone()]);
        let name = Path::new(&again).file_name().unwrap().to_str().unwrap().to_owned();
        let in_sysfs = host.path("sys/block").join(&name).join("loop");
        fs::create_dir_all(&in_sysfs).unwrap();
        let real = format!("/sys/block/{name}/loop/backing_file");
        symlink(real, in_sysfs.join("backing_file")).unwrap();
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(error.to_string().contains(&format!("as {name}")), "{error}");
        // Kubelet makes one of a raw block volume, to hold it.
        let block = as_block(&volume);
        block.stage(&host.node()).await.unwrap();
        block.unstage(&host.node()).await.unwrap();
        drop(undo);
        let start = tokio::time::Instant::now();
        while let Err(error) = volume.stage(&host.node()).await {
            assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        }
    });
}

/// The slot gets another disk while the volume waits for the lock.
#[test]
fn a_disk_that_is_exchanged_between_the_search_and_the_mount_is_not_used() {
    for (same_number, blank) in [(false, false), (false, true), (true, false), (true, true)] {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host);
            if !blank {
                // One that a check would write to.
                run("mkfs.ext4", &["-q", "-F", device(&disk)]);
                run("debugfs", &["-w", "-R", "ssv state 0", device(&disk)]);
            }
            let before = disk.content();
            let other = host.disk("b", SMALL);
            let lock = fs::File::open(disk.device()).unwrap();
            lock.lock().unwrap();
            let node = host.node();
            let exchange = async {
                // The volume has found its disk and waits.
                tokio::time::sleep(Duration::from_millis(300)).await;
                if same_number {
                    // The kernel gives a number to another disk, with a new sequence number.
                    let sequence = host.path("sys/block/vdb/diskseq");
                    fs::remove_file(&sequence).unwrap();
                    fs::write(&sequence, "999999999").unwrap();
                } else {
                    host.unplug("vdb");
                    host.plug("vdb", "UCLOUD_DISK_VDC", &other);
                }
                drop(lock);
            };
            let (staged, ()) = tokio::join!(volume.stage(&node), exchange);
            let error = staged.unwrap_err();
            assert!(matches!(&error, StageError::Use(UseError::Exchanged(_))), "{error}");
            assert!(Mounts::read().unwrap().top(&volume.staging).is_none());
            assert!(disk.content() == before);
            assert!(other.content().is_empty(), "the other disk was written to");
        });
    }
}

#[test]
fn an_open_device_tells_when_its_place_is_another_s() {
    on_a_host(false, |host| async move {
        let (disk, _volume) = plugged(&host);
        let linux = Host::new(&host.path("sys"), &host.path("dev"));
        let find = || async { linux.locate(&Slot::parse("vdc").unwrap(), Gib::new(0)).await.unwrap() };
        let device = find().await;
        device.prove_unchanged().unwrap();
        device.prove_unused().unwrap();
        // Another disk under its name.
        let other = host.disk("b", SMALL);
        host.unplug("vdb");
        assert!(matches!(device.prove_unchanged(), Err(UseError::Exchanged(_))));
        host.plug("vdb", "UCLOUD_DISK_VDC", &other);
        assert!(matches!(device.prove_unchanged(), Err(UseError::Exchanged(_))));
        assert!(matches!(device.prove_unused(), Err(UseError::Exchanged(_))));
        let error = exec::run_on(DD, ["if=/dev/urandom", "count=1"], &device).await.unwrap_err();
        assert!(error.to_string().contains("was exchanged for another disk"), "{error}");
        // The same disk in another place is another attachment too.
        host.unplug("vdb");
        host.plug("vdd", "UCLOUD_DISK_VDC", &disk);
        assert!(matches!(device.prove_unchanged(), Err(UseError::Exchanged(_))));
        find().await.prove_unchanged().unwrap();
    });
}

#[test]
fn a_raw_block_volume_is_not_given_the_disk_of_another_volume() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        let block = as_block(&volume);
        let node = host.node();
        let other = DiskId::parse("bs-other").unwrap();
        for (uuid, fits) in [(FsUuid::of_disk(&volume.id), true), (FsUuid::of_disk(&other), false)] {
            run("mkfs.ext4", &["-q", "-F", "-U", &uuid.to_string(), device(&disk)]);
            run("sync", &["-f", disk.image().to_str().unwrap()]);
            if fits {
                block.stage(&node).await.unwrap();
                block.unstage(&node).await.unwrap();
                continue;
            }
            let error = refused(&node, &block, &disk).await;
            let reason =
                matches!(&error, StageError::Content { reason: ContentRefused::OtherDiskAsBlock { .. }, .. });
            assert!(reason && error.to_string().contains(&format!("adoptMarkOf: \"{uuid}\"")), "{error}");
            // A copy on purpose. Nothing of it is changed: it is the pod's.
            let mut copy = block.clone();
            copy.volume_context.adoption = Adoption::parse("bs-other");
            let before = disk.content();
            copy.stage(&node).await.unwrap();
            copy.unstage(&node).await.unwrap();
            assert!(disk.content() == before);
        }
        // What nobody marked is used.
        run("mkfs.ext4", &["-q", "-F", device(&disk)]);
        block.stage(&node).await.unwrap();
    });
}

/// What the log says.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn content_without_a_mark_is_used_and_reported() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host);
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let said = "the file system was not made by this driver";
        let uuid = "11111111-2222-4333-8444-555555555555";
        run("mkfs.ext4", &["-q", "-F", "-U", uuid, device(&disk)]);
        let node = host.node();
        volume.stage(&node).await.unwrap();
        let text = log.text();
        let line = text.lines().find(|line| line.contains(said)).unwrap_or_else(|| panic!("{text}"));
        for part in [volume.id.as_str(), uuid, "dev/vdb"] {
            assert!(line.contains(part), "{line}");
        }
        volume.unstage(&node).await.unwrap();
        // One of its own says nothing.
        let own = host.disk("b", SMALL);
        host.plug("vdd", "UCLOUD_DISK_VDD", &own);
        let mut second = Volume::fs(&host, "bs-2", FsType::Ext4, "vdd", Gib::new(0));
        for _ in 0..2 {
            second.stage(&node).await.unwrap();
            second.unstage(&node).await.unwrap();
        }
        assert_eq!(log.text().matches(said).count(), 1);
        // Nor one that was adopted, beyond that it was.
        host.unplug("vdd");
        host.plug("vdd", "UCLOUD_DISK_VDD", &own);
        let source = second.id.to_string();
        second.id = DiskId::parse(&format!("{source}-copy")).unwrap();
        second.volume_context.adoption = Adoption::parse(&source);
        second.stage(&node).await.unwrap();
        let text = log.text();
        assert_eq!(text.matches(said).count(), 1);
        assert_eq!(text.matches("carries the mark of its own disk now").count(), 1);
    });
}
