//! Hosts on real loop devices. They need root and say so where they cannot run.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::loop_device::LoopDevice;
use super::*;

/// True, with a word on the terminal, where loop devices cannot be had.
fn skipped(test: &str) -> bool {
    match LoopHosts::supported() {
        Ok(()) => false,
        Err(why) => {
            eprintln!("SKIPPED {test}: {why}");
            true
        }
    }
}

fn slot(host: &str, device: &str) -> Slot {
    Slot {
        host: host.to_owned(),
        device: device.to_owned(),
        serial: format!("UCLOUD_DISK_{}", device.to_ascii_uppercase()),
    }
}

/// The guest's name and its device, found as a guest finds it: by the serial.
fn find(root: &Path, serial: &str) -> Option<(PathBuf, PathBuf)> {
    fs::read_dir(root.join("sys/block")).unwrap().map(|entry| entry.unwrap()).find_map(|entry| {
        let own = fs::read_to_string(entry.path().join("serial")).unwrap();
        (own == serial).then(|| (entry.path(), root.join("dev").join(entry.file_name())))
    })
}

/// Waits until the kernel has ended every loop device over a file below `dir`. It does so at the last close, and for a
/// moment a device can be open elsewhere: in a program that another test is just starting, which has copies of all open
/// files until it runs, or in somebody else's search for a free number.
async fn gone(dir: &Path) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let left = LoopDevice::below(dir).unwrap();
        if left.is_empty() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "left behind: {left:?}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_disk_keeps_its_content_from_host_to_host() {
    if skipped("a_disk_keeps_its_content_from_host_to_host") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hosts = LoopHosts::open(&dir.path().join("cloud"), LoopOptions::default()).unwrap();
    hosts.add_host("uhost-a").await.unwrap();
    hosts.add_host("uhost-b").await.unwrap();
    hosts.create("bsm-1", Gib::new(1)).await.unwrap();

    let on_a = slot("uhost-a", "vdb");
    hosts.plug(&on_a, "bsm-1", Gib::new(1)).await.unwrap();
    hosts.plug(&on_a, "bsm-1", Gib::new(1)).await.unwrap();
    let root = hosts.root_of("uhost-a");
    assert!(find(&root, "UCLOUD_DISK_VDA").is_some());
    let (sys, dev) = find(&root, &on_a.serial).unwrap();
    let attribute = |name: &str| fs::read_to_string(sys.join(name)).unwrap();
    assert_eq!(attribute("size"), format!("{}\n", (1u64 << 30) / 512));
    assert!(attribute("dev").starts_with("7:"));
    let first_seq: u64 = attribute("diskseq").trim().parse().unwrap();
    let device = OpenOptions::new().write(true).open(&dev).unwrap();
    device.write_all_at(b"precious", 4096).unwrap();
    device.sync_all().unwrap();
    drop(device);

    hosts.resize("bsm-1", Gib::new(2), Some(&on_a)).await.unwrap();
    assert_eq!(attribute("size"), format!("{}\n", (2u64 << 30) / 512));

    hosts.unplug(&on_a, "bsm-1").await.unwrap();
    hosts.unplug(&on_a, "bsm-1").await.unwrap();
    assert!(find(&root, &on_a.serial).is_none() && !dev.exists());

    hosts.copy("bsm-1", "bsSnap-1", Gib::new(2)).await.unwrap();
    let on_b = slot("uhost-b", "vdb");
    hosts.plug(&on_b, "bsm-1", Gib::new(2)).await.unwrap();
    let (sys, dev) = find(&hosts.root_of("uhost-b"), &on_b.serial).unwrap();
    let seq: u64 = fs::read_to_string(sys.join("diskseq")).unwrap().trim().parse().unwrap();
    assert!(seq > first_seq);
    for file in [dev, hosts.backing_file("bsSnap-1")] {
        let mut bytes = [0; 8];
        File::open(file).unwrap().read_exact_at(&mut bytes, 4096).unwrap();
        assert_eq!(&bytes, b"precious");
    }

    assert!(!LoopDevice::below(dir.path()).unwrap().is_empty());
    hosts.shutdown().await;
    gone(dir.path()).await;
    assert!(!dir.path().join("cloud").exists());
}

#[tokio::test]
async fn a_disk_in_use_goes_away_all_the_same() {
    if skipped("a_disk_in_use_goes_away_all_the_same") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let options = LoopOptions { shuffled_letters: false, ..LoopOptions::default() };
    let hosts = LoopHosts::open(&dir.path().join("cloud"), options).unwrap();
    hosts.add_host("uhost-a").await.unwrap();
    hosts.create("bsm-1", Gib::new(1)).await.unwrap();
    let slot = slot("uhost-a", "vdb");
    hosts.plug(&slot, "bsm-1", Gib::new(1)).await.unwrap();
    let in_use = File::open(hosts.root_of("uhost-a").join("dev/vdb")).unwrap();
    hosts.unplug(&slot, "bsm-1").await.unwrap();
    assert!(find(&hosts.root_of("uhost-a"), &slot.serial).is_none());
    hosts.shutdown().await;
    assert!(hosts.create("bsm-2", Gib::new(1)).await.is_err(), "nothing begins after the end");
    drop(in_use);
    gone(dir.path()).await;
}

#[tokio::test]
async fn remains_of_a_killed_run_are_cleaned_and_nothing_else() {
    if skipped("remains_of_a_killed_run_are_cleaned_and_nothing_else") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("cloud");
    fs::create_dir_all(own.join("disks")).unwrap();
    fs::write(own.join(".udisk-sandbox"), "").unwrap();
    let image = |path: PathBuf| {
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        fs::canonicalize(path).unwrap()
    };
    LoopDevice::over(&image(own.join("disks/bsm-old.img"))).unwrap();
    let foreign = LoopDevice::over(&image(dir.path().join("foreign.img"))).unwrap();
    let opened = LoopHosts::open(&own, LoopOptions::default());
    let still_there = foreign.is_ours();
    foreign.clear().unwrap();
    let hosts = opened.unwrap();
    gone(&own).await;
    assert!(still_there, "a foreign loop device was ended");
    assert!(!own.join("disks/bsm-old.img").exists());
    assert!(LoopHosts::open(&own, LoopOptions::default()).is_err(), "the directory is in use");
    drop(hosts);
    assert!(own.exists(), "a directory that was there before stays");

    fs::write(dir.path().join("somebody's"), "").unwrap();
    assert!(LoopHosts::open(dir.path(), LoopOptions::default()).is_err(), "not ours");
}

#[tokio::test]
async fn the_cloud_moves_devices_as_it_moves_disks() {
    if skipped("the_cloud_moves_devices_as_it_moves_disks") {
        return;
    }
    use crate::sandbox::cloud::{Event, SimCloud, SimConfig};
    let dir = tempfile::tempdir().unwrap();
    let hosts = Arc::new(LoopHosts::open(&dir.path().join("cloud"), LoopOptions::default()).unwrap());
    let cloud = SimCloud::with_hosts(SimConfig::default(), Arc::<LoopHosts>::clone(&hosts)).await.unwrap();
    let shown = |host: &str| find(&hosts.root_of(host), "UCLOUD_DISK_VDB").is_some();
    let disk = cloud.create_disk("x", Gib::new(1)).await.unwrap();
    for host in ["uhost-a", "uhost-b"] {
        cloud.happen(Event::Attach { disk: disk.clone(), host: host.to_owned() }).await.unwrap();
    }
    assert_eq!((shown("uhost-a"), shown("uhost-b")), (false, true));
    cloud.happen(Event::DeleteHost { host: "uhost-b".to_owned() }).await.unwrap();
    assert!(!hosts.root_of("uhost-b").exists());
    cloud.happen(Event::Attach { disk: disk.clone(), host: "uhost-a".to_owned() }).await.unwrap();
    assert!(shown("uhost-a"));
    cloud.shutdown().await;
    gone(dir.path()).await;
}

/// The kernel keeps the flag with the number of a loop device, past its end.
#[test]
fn a_new_disk_takes_writes_whatever_its_number_was_used_for() {
    if skipped("a_new_disk_takes_writes_whatever_its_number_was_used_for") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let image = fs::canonicalize(image).unwrap();
    // Others on this machine may take the number in between.
    for _ in 0..100 {
        let before = LoopDevice::over(&image).unwrap();
        let node = before.node();
        let flagged = std::process::Command::new("blockdev").arg("--setro").arg(&node).status().unwrap();
        before.clear().unwrap();
        assert!(flagged.success());
        let after = LoopDevice::over(&image).unwrap();
        let (number, flag) = (after.number, after.attribute("ro"));
        after.clear().unwrap();
        if number == before.number {
            assert_eq!(flag.unwrap().trim(), "0");
            return;
        }
    }
    panic!("no loop device came back under its number");
}
