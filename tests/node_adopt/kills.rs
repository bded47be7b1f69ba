//! A driver that is killed while it adopts a copy.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use csi_udisk::csi::proto::v1;
use csi_udisk::csi::proto::v1::node_client::NodeClient;
use csi_udisk::csi::proto::v1::volume_capability::access_mode::Mode;
use csi_udisk::csi::proto::v1::volume_capability::{AccessMode, AccessType, MountVolume};
use csi_udisk::node::linux::mount::unmount_all;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::volume::{FsType, FsUuid};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use crate::common::{GIB, TestHost, Volume, file_systems, on_a_host, report};
use crate::source::{Image, Source, content, judge};

/// Enough for a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of kills on one host; it keeps the loop device of each.
const BATCH: usize = 6;

/// How often a driver is killed, for each file system.
fn rounds() -> usize {
    #[allow(clippy::disallowed_methods, reason = "the test runner's own variable")]
    let asked = std::env::var("CSI_UDISK_KILL_ROUNDS").ok();
    asked.and_then(|word| word.parse().ok()).unwrap_or(BATCH)
}

/// The real driver, in this thread's mount namespace.
async fn driver(host: &TestHost, number: usize) -> (Child, NodeClient<Channel>) {
    let dir = host.path(&format!("driver-{number}"));
    let socket = dir.join("csi.sock");
    let with = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let child = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
        .args(["--mode=node", "--node-id=uhost-1", "--region=r", "--zone=r-01", "--machine-type=N"])
        .arg("--metadata-endpoint=http://127.0.0.1:1")
        .args([
            with("endpoint", &socket),
            with("plugin-dir", &dir),
            with("kubelet-dir", &host.path("kubelet")),
        ])
        .args([with("sysfs-root", &host.path("sys")), with("dev-root", &host.path("dev"))])
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return (child, NodeClient::new(channel)),
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn request(volume: &Volume, fs: FsType) -> v1::NodeStageVolumeRequest {
    v1::NodeStageVolumeRequest {
        volume_id: volume.id.to_string(),
        staging_target_path: volume.staging.display().to_string(),
        volume_capability: Some(v1::VolumeCapability {
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs.word().to_owned(),
                ..MountVolume::default()
            })),
        }),
        publish_context: [("device", volume.context.device.clone().unwrap()), ("size", "1".to_owned())]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        volume_context: volume.volume_context.to_map(),
        ..v1::NodeStageVolumeRequest::default()
    }
}

/// What a killed driver had come to.
#[derive(Debug, Default)]
struct Seen {
    copies: usize,
    adopted: usize,
    mounted: usize,
}

async fn batch(host: TestHost, fs: FsType, kills: usize, seed: u64) -> Seen {
    let source = Source::make(&host, fs).await;
    // The longest that it took so far; a kill falls anywhere in that.
    let mut takes = Duration::ZERO;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut seen = Seen::default();
    // The first one is left alone.
    for number in 0..=kills {
        let (image, expected) =
            if number % 2 == 0 { (&source.crashed, &source.after) } else { (&source.clean, &source.before) };
        let (disk, volume) = source.copied(&host, image, &format!("copy-{number}"), 'c');
        // The wire counts in GiB, and a clone may be larger than its source.
        disk.grow(GIB);
        let mut volume = source.adopted(volume);
        let (mut child, mut client) = driver(&host, number).await;
        let start = Instant::now();
        let call = tokio::spawn({
            let request = request(&volume, fs);
            async move { client.node_stage_volume(request).await }
        });
        if number == 0 {
            call.await.unwrap().unwrap();
            takes = start.elapsed();
        } else {
            sleep(takes.mul_f64(1.3 * random.f64())).await;
        }
        child.kill().await.unwrap();

        let (from, to) = (source.mark(), FsUuid::of_disk(&volume.id));
        let uuid = Image::open(disk.image()).uuid();
        let mounted = Mounts::read().unwrap().top(&volume.staging).is_some();
        assert!(uuid == to || uuid == from && !mounted, "{fs}, seed {seed}, kill {number}: {uuid}");
        if number > 0 {
            let what = if mounted {
                &mut seen.mounted
            } else if uuid == to {
                &mut seen.adopted
            } else {
                &mut seen.copies
            };
            *what += 1;
        }
        if random.bool() {
            // The rest happens on another host.
            unmount_all(&volume.staging).unwrap();
            host.unplug("vdc");
            host.plug("vdq", "UCLOUD_DISK_VDF", &disk);
            volume.context.device = Some("vdf".to_owned());
        }
        let node = host.node();
        // A program that outlived its driver keeps the lock until it ends.
        let end = Instant::now() + PATIENCE;
        while let Err(error) = volume.stage(&node).await {
            assert!(Instant::now() < end, "{fs}, seed {seed}, kill {number}: {error}");
        }
        assert!(content(&volume.staging) == *expected, "{fs}, seed {seed}, kill {number}");
        volume.unstage(&node).await.unwrap();
        assert_eq!(Image::open(disk.image()).uuid(), to, "{fs}, seed {seed}, kill {number}");
        judge(fs, disk.image());
        let name = if volume.context.device.as_deref() == Some("vdf") { "vdq" } else { "vdc" };
        host.unplug(name);
        std::fs::remove_file(disk.image()).unwrap();
    }
    seen
}

#[test]
fn a_driver_that_is_killed_at_random_moments_leaves_nothing_half_way() {
    for fs in file_systems() {
        let mut left = rounds();
        while left > 0 {
            let kills = left.min(BATCH);
            let seed = fastrand::u64(..);
            on_a_host(false, |host| async move {
                let seen = batch(host, fs, kills, seed).await;
                report(&format!("kills in a re-stamp of {fs}, {kills} from seed {seed}: {seen:?}"));
            });
            left -= kills;
        }
    }
}
