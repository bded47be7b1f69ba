//! What many volumes cost: `cargo bench --bench scale`.
//!
//! Prints, for 1, 100 and 1,000 attachments over 50 hosts and the same detachments, for 1,000 creations, and for
//! ListVolumes over 10,000 disks: API calls per operation, wall time over the ideal, the delay that the driver adds, its
//! CPU time and its peak memory. Beside the attachments and detachments, at the same time and in an account of its own,
//! runs a naive driver that polls for each waiter. It judges nothing and takes about a quarter of an hour;
//! `cargo bench --bench scale -- 100` leaves out what is larger than 100, and SCALE_LOG=FILE keeps the driver's log.
//!
//! The ideal is the larger of all changes over the quota and the longest queue of one host, plus one change.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark")]

#[allow(dead_code, reason = "the test in virtual time uses more of it")]
mod measure;
mod naive;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use csi_udisk::csi::proto::v1;
use measure::{Kind, Round, Verdict};
use naive::Naive;
use tokio::task::JoinSet;
use tokio::time::Instant;
use v1::volume_capability::access_mode::Mode;
use v1::volume_capability::{AccessMode, AccessType, MountVolume};
use world::{Driver, QUOTA, Watched, World, host};

const HOSTS: usize = 50;
const SIZES: [usize; 3] = [1, 100, 1000];
/// One change alone is measured so often.
const ALONE: usize = 15;
const CREATES: usize = 1000;
const LISTED: usize = 10_000;
const PATIENCE: Duration = Duration::from_secs(1800);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, url] = arguments.as_slice()
        && word == naive::WORD
    {
        naive::serve(url).await;
        return;
    }
    let most = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(usize::MAX);
    header();
    let (mut ours, mut theirs) = (World::new(HOSTS).await, World::new(HOSTS).await);
    let disks = SIZES.iter().filter(|size| **size <= most).map(|size| if *size == 1 { ALONE } else { *size });
    let counts: Vec<usize> = disks.collect();
    let all = counts.iter().sum();
    let (mut our_disks, mut their_disks) = (ours.make(all).await, theirs.make(all).await);
    let (driver, mut naive) = (Driver::start(&ours).await, Naive::start(&theirs));
    // A new driver makes sure for a while that what it reads is not what its predecessor changed.
    tokio::time::sleep(Duration::from_secs(12)).await;
    for count in counts {
        // In the order in which they were made, spread over the hosts.
        let spread = |disks: &mut Vec<String>| -> Vec<(String, String)> {
            disks.drain(..count).enumerate().map(|(number, disk)| (disk, host(number % HOSTS))).collect()
        };
        let (our_disks, their_disks) = (spread(&mut our_disks), spread(&mut their_disks));
        for kind in [Kind::Attach, Kind::Detach] {
            let at_once = if count == ALONE { 1 } else { count };
            let (mut us, mut them) = (Row::new("csi-udisk", kind), Row::new("naive", kind));
            us.begin(&driver.process);
            them.begin(&naive.process);
            for (our_part, their_part) in our_disks.chunks(at_once).zip(their_disks.chunks(at_once)) {
                let (our_round, their_round) = tokio::join!(
                    round(&ours, kind, change(&driver, kind, our_part)),
                    round(&theirs, kind, naive.run(kind.word(), their_part)),
                );
                us.verdicts.push(our_round);
                them.verdicts.push(their_round);
            }
            let (us, them) = (us.end(&driver.process), them.end(&naive.process));
            println!(
                "{:>24}: {:.1} times the reads, {:.1} times the wall time",
                "naive over csi-udisk",
                them.reads / us.reads,
                them.wall / us.wall
            );
        }
    }
    if CREATES <= most {
        let mut row = Row::new("csi-udisk", Kind::Create);
        row.begin(&driver.process);
        row.verdicts.push(round(&ours, Kind::Create, create(&driver)).await);
        row.end(&driver.process);
    }
    if LISTED <= most {
        let there = ours.cloud.disks().len();
        ours.make(LISTED.saturating_sub(there)).await;
        list(&ours, &driver, 0).await;
        list(&ours, &driver, 500).await;
    }
}

fn header() {
    println!(
        "{HOSTS} hosts that take one change of 3 to 8 s at a time; API calls of 30 to 80 ms, {QUOTA} a second; a new disk is \
         listed after 2 s"
    );
    println!(
        "{:>5} {:<7} {:<10} {:>9} {:>11} {:>8} {:>7} {:>7} {:>10} {:>10} {:>7} {:>9}",
        "n",
        "change",
        "driver",
        "reads/op",
        "changes/op",
        "wall",
        "ideal",
        "ratio",
        "added p50",
        "added p99",
        "CPU",
        "peak RSS"
    );
}

/// A line of the table.
struct Row {
    driver: &'static str,
    kind: Kind,
    cpu: f64,
    verdicts: Vec<Verdict>,
}

/// What is compared.
struct Cost {
    reads: f64,
    wall: f64,
}

impl Row {
    fn new(driver: &'static str, kind: Kind) -> Self {
        Self { driver, kind, cpu: 0.0, verdicts: Vec::new() }
    }

    fn begin(&mut self, process: &Watched) {
        self.cpu = process.cpu();
        process.peak();
    }

    fn end(mut self, process: &Watched) -> Cost {
        let (cpu, peak) = (process.cpu() - self.cpu, process.peak());
        // Rounds of one change alone are shown as their mean.
        let rounds = self.verdicts.len() as f64;
        let mean = |of: &dyn Fn(&Verdict) -> f64| self.verdicts.iter().map(of).sum::<f64>() / rounds;
        let (reads, sent) = (mean(&|verdict| verdict.reads), mean(&|verdict| verdict.sent));
        let (wall, ideal) =
            (mean(&|verdict| verdict.wall.as_secs_f64()), mean(&|verdict| verdict.ideal.as_secs_f64()));
        let alone = (rounds > 1.0).then(|| mean(&|verdict| verdict.added_mean()));
        let mut all = self.verdicts.remove(0);
        self.verdicts.into_iter().for_each(|verdict| all.add(verdict));
        println!(
            "{:>5} {:<7} {:<10} {reads:>9.2} {sent:>11.2} {wall:>6.1} s {ideal:>5.0} s {:>7.2} {:>8.2} s {:>8.2} s {cpu:>5.2} s \
             {peak:>5.1} MiB{}",
            all.changes,
            self.kind.word(),
            self.driver,
            wall / ideal,
            all.added_at(0.5),
            all.added_at(0.99),
            alone
                .map(|mean| format!("  (one after the other; {mean:.2} s added on average)"))
                .unwrap_or_default(),
        );
        Cost { reads, wall }
    }
}

async fn round(world: &World, kind: Kind, work: impl Future<Output = HashMap<String, Instant>>) -> Verdict {
    world.cloud.reset_counts();
    let begun = Instant::now();
    let answers = work.await;
    let calls = world.cloud.counts();
    Round { kind, begun, answers, calls }.verdict(&world.cloud, world.epoch, QUOTA)
}

fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn capability() -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Mount(MountVolume {
            fs_type: "ext4".to_owned(),
            ..MountVolume::default()
        })),
    }
}

async fn change(driver: &Driver, kind: Kind, disks: &[(String, String)]) -> HashMap<String, Instant> {
    let mut tasks = JoinSet::new();
    for (number, (disk, host)) in disks.iter().cloned().enumerate() {
        let mut client = driver.client(number);
        tasks.spawn(async move {
            let (volume_id, node_id) = (disk.clone(), host);
            if kind == Kind::Attach {
                let volume_capability = Some(capability());
                let publish = v1::ControllerPublishVolumeRequest {
                    volume_id,
                    node_id,
                    volume_capability,
                    ..v1::ControllerPublishVolumeRequest::default()
                };
                client.controller_publish_volume(request(publish)).await.unwrap();
            } else {
                let unpublish = v1::ControllerUnpublishVolumeRequest {
                    volume_id,
                    node_id,
                    ..v1::ControllerUnpublishVolumeRequest::default()
                };
                client.controller_unpublish_volume(request(unpublish)).await.unwrap();
            }
            (disk, Instant::now())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn create(driver: &Driver) -> HashMap<String, Instant> {
    let mut tasks = JoinSet::new();
    for number in 0..CREATES {
        let mut client = driver.client(number);
        tasks.spawn(async move {
            let create = v1::CreateVolumeRequest {
                name: format!("pvc-created-{number:04}"),
                capacity_range: Some(v1::CapacityRange { required_bytes: 10 << 30, limit_bytes: 0 }),
                volume_capabilities: vec![capability()],
                parameters: [("type".to_owned(), "sata".to_owned())].into(),
                ..v1::CreateVolumeRequest::default()
            };
            let answer = client.create_volume(request(create)).await.unwrap().into_inner();
            (answer.volume.unwrap().volume_id, Instant::now())
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn list(world: &World, driver: &Driver, max_entries: i32) {
    let (cpu, mut client) = (driver.process.cpu(), driver.client(0));
    driver.process.peak();
    world.cloud.reset_counts();
    let begun = Instant::now();
    let (mut entries, mut pages, mut starting_token) = (0, 0, String::new());
    loop {
        let list = v1::ListVolumesRequest { max_entries, starting_token };
        let answer = client.list_volumes(request(list)).await.unwrap().into_inner();
        entries += answer.entries.len();
        pages += 1;
        starting_token = answer.next_token;
        if starting_token.is_empty() {
            break;
        }
    }
    let calls: u64 = world.cloud.counts().values().sum();
    println!(
        "ListVolumes of {entries} volumes in {pages} page(s): {calls} API calls, {:.1} s, CPU {:.2} s, peak RSS {:.1} MiB",
        begun.elapsed().as_secs_f64(),
        driver.process.cpu() - cpu,
        driver.process.peak(),
    );
}
