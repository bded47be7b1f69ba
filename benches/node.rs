//! What the node's work costs beside the same work done by programs, and beside bare system calls.
//!
//! One round stages, publishes, unpublishes and unstages a volume that has its ext4 already. The rounds of the three take
//! turns, so that whatever else the machine does hits them alike; what counts are the ratios. Needs root for loop devices.
//! It prints and never fails.
#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::{SMALL, Volume, on_a_host, run};
use csi_udisk::node::Node;
use csi_udisk::volume::{FsType, Gib};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

const ROUNDS: usize = 40;
const STATS_FOR: Duration = Duration::from_secs(2);

fn main() {
    on_a_host(false, |host| async move {
        let disk = host.disk("disk", SMALL);
        host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
        let volume = Volume::fs(&host, "bs-bench", FsType::Ext4, "vdc", Gib::new(0));
        let node = host.node();
        // Makes the file system.
        round(&node, &volume).await;

        let device = disk.device().to_str().unwrap().to_owned();
        let mut times = Times::default();
        for _ in 0..ROUNDS {
            times.ours.push(timed(async || round(&node, &volume).await).await);
            times.programs.push(timed(async || with_programs(&device, &volume)).await);
            times.calls.push(timed(async || with_calls(&device, &volume)).await);
            times.fsck.push(timed(async || drop(run("e2fsck", &["-p", &device]))).await);
        }
        times.print();
        stats(&node, &volume).await;
    });
}

async fn round(node: &Node, volume: &Volume) {
    volume.stage(node).await.unwrap();
    volume.publish(node, false).await.unwrap();
    volume.unpublish(node).await.unwrap();
    volume.unstage(node).await.unwrap();
    // As kubelet does before it stages again.
    fs::create_dir_all(&volume.staging).unwrap();
}

/// What drivers on Kubernetes' mount library start for the same, in its order.
fn with_programs(device: &str, volume: &Volume) {
    let (staging, target) = (text(&volume.staging), text(&volume.target));
    run("blkid", &["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device]);
    run("fsck", &["-a", device]);
    run("mount", &["-t", "ext4", "-o", "defaults", device, staging]);
    run("blockdev", &["--getsize64", device]);
    run("blkid", &["-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device]);
    run("dumpe2fs", &["-h", device]);
    fs::create_dir_all(target).unwrap();
    run("mount", &["-t", "ext4", "-o", "bind", staging, target]);
    run("mount", &["-t", "ext4", "-o", "bind,remount", staging, target]);
    run("umount", &[target]);
    fs::remove_dir(target).unwrap();
    run("umount", &[staging]);
}

/// The least that can be done: the check, and four system calls.
fn with_calls(device: &str, volume: &Volume) {
    let none: Option<&str> = None;
    run("e2fsck", &["-p", device]);
    mount(Some(device), &volume.staging, Some("ext4"), MsFlags::empty(), none).unwrap();
    fs::create_dir_all(&volume.target).unwrap();
    mount(Some(&volume.staging), &volume.target, none, MsFlags::MS_BIND, none).unwrap();
    umount2(&volume.target, MntFlags::empty()).unwrap();
    fs::remove_dir(&volume.target).unwrap();
    umount2(&volume.staging, MntFlags::empty()).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn timed(work: impl AsyncFnOnce()) -> Duration {
    let since = Instant::now();
    work().await;
    since.elapsed()
}

#[derive(Default)]
struct Times {
    ours: Vec<Duration>,
    programs: Vec<Duration>,
    calls: Vec<Duration>,
    fsck: Vec<Duration>,
}

impl Times {
    fn print(&self) {
        let [ours, programs, calls, fsck] =
            [&self.ours, &self.programs, &self.calls, &self.fsck].map(|times| median(times));
        let beside = |all: f64| (all - fsck).max(0.000_1);
        println!(
            "stage + publish + unpublish + unstage of a formatted ext4 volume, median of {ROUNDS} rounds in turn:"
        );
        println!("  csi-udisk            {:8.2} ms", ours * 1e3);
        println!("  programs             {:8.2} ms", programs * 1e3);
        println!("  bare calls and fsck  {:8.2} ms", calls * 1e3);
        println!("  fsck alone           {:8.2} ms", fsck * 1e3);
        println!("csi-udisk over bare calls and fsck: {:.2}", ours / calls);
        println!(
            "programs over csi-udisk: {:.2}; beside fsck: {:.2}",
            programs / ours,
            beside(programs) / beside(ours)
        );
    }
}

fn median(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2].as_secs_f64()
}

async fn stats(node: &Node, volume: &Volume) {
    volume.stage(node).await.unwrap();
    volume.publish(node, false).await.unwrap();
    let mut ours = 0_u32;
    let since = Instant::now();
    while since.elapsed() < STATS_FOR {
        volume.stats(node).await.unwrap();
        ours += 1;
    }
    let mut programs = 0_u32;
    let since = Instant::now();
    while since.elapsed() < STATS_FOR {
        run("df", &["-B1", text(&volume.target)]);
        programs += 1;
    }
    let mut bare = 0_u32;
    let since = Instant::now();
    while since.elapsed() < STATS_FOR {
        statvfs(&volume.target).unwrap();
        bare += 1;
    }
    let per_second = |count: u32| f64::from(count) / STATS_FOR.as_secs_f64();
    println!(
        "volume statistics per second: csi-udisk {:.0}, df {:.0}, bare statvfs {:.0}",
        per_second(ours),
        per_second(programs),
        per_second(bare)
    );
    volume.unpublish(node).await.unwrap();
    volume.unstage(node).await.unwrap();
}
