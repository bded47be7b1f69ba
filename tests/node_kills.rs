//! Restart safety: the real node plugin is killed by SIGKILL at random moments, with a change under way for each of four
//! volumes, and started again. Kubelet's retries, or its giving up, must bring every volume to where it is wanted, with
//! all that was ever written to it. Now and then the host reboots: no mounts, and the kernel's names dealt anew.
//!
//! `CSI_UDISK_KILLS=1000` plays as many rounds, `CSI_UDISK_KILLS_SEED=7` begins with that seed.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "driver/csi.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole driver")]
mod csi;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::{Disk, SMALL, TestHost, file_systems, on_a_host, report, skip};
use csi::AtNode;
use csi_udisk::csi::proto::v1::NodeGetInfoRequest;
use csi_udisk::csi::proto::v1::node_client::NodeClient;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::privilege::has_sys_resource;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// In every run of the tests; a long run is asked for by the variable.
const SHORT: u64 = 24;
/// For one answer, and for all that kubelet would retry: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
const BLOCK: u64 = 4096;

#[allow(clippy::disallowed_methods, reason = "the settings of this test")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The real node plugin on the host of the test.
struct Plugin {
    child: Child,
    node: NodeClient<Channel>,
}

impl Plugin {
    async fn start(host: &TestHost) -> Self {
        let socket = host.path("csi.sock");
        let log = OpenOptions::new().create(true).append(true).open(host.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
            .args([
                "--mode=node",
                "--node-id=uhost-a",
                "--region=r",
                "--zone=r-01",
                "--machine-type=N",
                "--v=5",
            ])
            .arg(format!("--endpoint={}", socket.display()))
            .arg(format!("--sysfs-root={}", host.path("sys").display()))
            .arg(format!("--dev-root={}", host.path("dev").display()))
            .arg(format!("--kubelet-dir={}", host.path("kubelet").display()))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        let start = Instant::now();
        loop {
            // The socket of the one before is there until it is replaced.
            if let Ok(channel) = endpoint.connect().await {
                let mut node = NodeClient::new(channel);
                if node.node_get_info(NodeGetInfoRequest {}).await.is_ok() {
                    return Self { child, node };
                }
            }
            assert!(start.elapsed() < PATIENCE, "the plugin does not serve");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unstaged,
    Staged,
    Published,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Stage,
    Publish,
    Grow,
    Unpublish,
    Unstage,
}

impl Call {
    /// What is true when it has succeeded.
    fn leads_to(self) -> State {
        match self {
            Self::Stage | Self::Unpublish => State::Staged,
            Self::Publish | Self::Grow => State::Published,
            Self::Unstage => State::Unstaged,
        }
    }

    async fn send(self, mut node: NodeClient<Channel>, at: AtNode, bytes: u64) -> Result<(), Status> {
        let call = async {
            match self {
                Self::Stage => node.node_stage_volume(at.stage()).await.map(drop),
                Self::Publish => node.node_publish_volume(at.publish()).await.map(drop),
                Self::Grow => {
                    let mut request = at.grow(0);
                    request.capacity_range.as_mut().unwrap().required_bytes = bytes.try_into().unwrap();
                    node.node_expand_volume(request).await.map(drop)
                }
                Self::Unpublish => node.node_unpublish_volume(at.unpublish()).await.map(drop),
                Self::Unstage => node.node_unstage_volume(at.unstage()).await.map(drop),
            }
        };
        timeout(PATIENCE, call).await.expect("every call is answered")
    }
}

struct Volume {
    at: AtNode,
    slot: &'static str,
    kernel_name: String,
    disk: Disk,
    size: u64,
    state: State,
    /// How many pieces were written to it.
    written: u64,
    /// Whether its file system must fill its disk: it was staged since the disk grew, or grown by a call that succeeded.
    fills: bool,
}

impl Volume {
    fn is_block(&self) -> bool {
        self.at.kind == "block"
    }

    fn piece(&self, number: u64) -> Vec<u8> {
        let text = format!("{} {number} ", self.at.id);
        text.bytes().cycle().take(usize::try_from(BLOCK).unwrap()).collect()
    }

    fn path_of(&self, number: u64) -> (PathBuf, u64) {
        let target = PathBuf::from(&self.at.target);
        if self.is_block() { (target, number * BLOCK) } else { (target.join(format!("piece-{number}")), 0) }
    }

    /// As a database would: it counts as written when it is synced.
    fn write(&mut self) {
        let (path, offset) = self.path_of(self.written);
        let file =
            OpenOptions::new().write(true).create(!self.is_block()).truncate(false).open(path).unwrap();
        file.write_all_at(&self.piece(self.written), offset).unwrap();
        file.sync_all().unwrap();
        self.written += 1;
    }

    fn read(&self) {
        for number in 0..self.written {
            let (path, offset) = self.path_of(number);
            let mut found = vec![0; usize::try_from(BLOCK).unwrap()];
            fs::File::open(&path).unwrap().read_exact_at(&mut found, offset).unwrap();
            assert!(found == self.piece(number), "{}: piece {number} is another", self.at.id);
        }
    }

    /// Where the volume is mounted when it is staged.
    fn staged_at(&self) -> PathBuf {
        let staging = PathBuf::from(&self.at.staging);
        if self.is_block() { staging.join(&self.at.id) } else { staging }
    }

    async fn verify(&mut self, node: &NodeClient<Channel>) {
        let mounts = Mounts::read().unwrap();
        let (staged, published) = match self.state {
            State::Unstaged => (0, 0),
            State::Staged => (1, 0),
            State::Published => (1, 1),
        };
        let target = Path::new(&self.at.target);
        let (id, state) = (self.at.id.clone(), self.state);
        assert_eq!(mounts.at(&self.staged_at()).count(), staged, "{id} {state:?}: staged");
        assert_eq!(mounts.at(target).count(), published, "{id} {state:?}: published");
        assert_eq!(target.exists(), published == 1, "{id} {state:?}: the target");
        if staged == 0 {
            assert_eq!(fs::read_dir(&self.at.staging).unwrap().count(), 0, "{id}: leftovers");
            let exclusive =
                OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(self.disk.device());
            exclusive.unwrap_or_else(|error| panic!("{id}: unstaged, but its disk is in use: {error}"));
        }
        if published == 1 {
            self.read();
            self.write();
            let stats = node.clone().node_get_volume_stats(self.at.stats()).await.unwrap().into_inner();
            let total = u64::try_from(stats.usage[0].total).unwrap();
            if self.fills || self.is_block() {
                assert!(total > self.size / 10 * 8, "{id}: {total} of {} bytes", self.size);
            }
        }
    }
}

struct Rounds {
    host: TestHost,
    rng: fastrand::Rng,
    volumes: Vec<Volume>,
    made: u32,
    tally: Tally,
}

#[derive(Debug, Default)]
struct Tally {
    kills: u64,
    reboots: u64,
    formats: u64,
    given_up: u64,
    /// Calls that were killed before their answer, and all that were under way when the kill was planned.
    cut: BTreeMap<Call, (u64, u64)>,
}

const SLOTS: [&str; 4] = ["vdb", "vdc", "vdd", "vde"];
const NAMES: [&str; 6] = ["vdb", "vdc", "vdd", "vde", "vdf", "vdg"];

impl Rounds {
    fn new(host: TestHost, seed: u64, kinds: &[String]) -> Self {
        let mut rounds = Self {
            host,
            rng: fastrand::Rng::with_seed(seed),
            volumes: Vec::new(),
            made: 0,
            tally: Tally::default(),
        };
        for (slot, kind) in SLOTS.into_iter().zip(kinds.iter().cycle()) {
            let volume = rounds.blank(slot, kind);
            rounds.volumes.push(volume);
        }
        rounds
    }

    /// A new volume on a blank disk in `slot`, under any free name of the kernel's.
    fn blank(&mut self, slot: &'static str, kind: &str) -> Volume {
        self.made += 1;
        let unique = self.host.dir().file_name().unwrap().display().to_string().replace('.', "-");
        let id = format!("bs-{}{unique}", self.made);
        let disk = self.host.disk(&id, SMALL);
        let kernel_name = self.free_name();
        self.host.plug(&kernel_name, &format!("UCLOUD_DISK_{}", slot.to_uppercase()), &disk);
        let context = [("device".to_owned(), slot.to_owned()), ("size".to_owned(), "1".to_owned())];
        let at = AtNode {
            kind: kind.to_owned(),
            context: context.into(),
            staging: self.host.staging(&id).display().to_string(),
            target: self.host.target(&id).display().to_string(),
            id,
        };
        self.tally.formats += u64::from(kind != "block");
        Volume { at, slot, kernel_name, disk, size: SMALL, state: State::Unstaged, written: 0, fills: true }
    }

    fn free_name(&mut self) -> String {
        let taken = |name: &&str| self.volumes.iter().any(|volume| volume.kernel_name == **name);
        let free: Vec<&str> = NAMES.into_iter().filter(|name| !taken(name)).collect();
        (*self.rng.choice(&free).unwrap()).to_owned()
    }

    /// What kubelet wants next of a volume.
    fn next(&mut self, index: usize) -> Call {
        let volume = &mut self.volumes[index];
        match volume.state {
            State::Unstaged => Call::Stage,
            State::Staged if self.rng.u8(..4) == 0 => Call::Unstage,
            State::Staged => Call::Publish,
            State::Published if self.rng.u8(..3) == 0 && volume.size < 4 * SMALL => {
                volume.size += SMALL / 2;
                volume.disk.grow(volume.size);
                volume.fills = false;
                Call::Grow
            }
            State::Published => Call::Unpublish,
        }
    }

    /// A change for every volume, and the kill somewhere in them.
    async fn round(&mut self, plugin: Plugin) -> Plugin {
        let calls: Vec<Call> = (0..self.volumes.len()).map(|index| self.next(index)).collect();
        let sent: Vec<_> = self
            .volumes
            .iter()
            .zip(&calls)
            .map(|(volume, call)| {
                tokio::spawn(call.send(plugin.node.clone(), volume.at.clone(), volume.size))
            })
            .collect();
        // From less than a millisecond to longer than most calls take, each order of magnitude as likely.
        let millis = 1000f64.powf(self.rng.f64());
        sleep(Duration::from_secs_f64(millis / 1000.0)).await;
        plugin.kill().await;
        self.tally.kills += 1;
        for (call, sent) in calls.iter().zip(sent) {
            let (cut, all) = self.tally.cut.entry(*call).or_default();
            *cut += u64::from(sent.await.unwrap().is_err());
            *all += 1;
        }
        let plugin = Plugin::start(&self.host).await;
        for (index, call) in calls.into_iter().enumerate() {
            let gives_up = call != Call::Unpublish && call != Call::Unstage && self.rng.u8(..5) == 0;
            if gives_up {
                // The pod was deleted meanwhile.
                self.tally.given_up += 1;
                self.converge(&plugin, index, Call::Unpublish).await;
                self.converge(&plugin, index, Call::Unstage).await;
            } else {
                self.converge(&plugin, index, call).await;
            }
            self.volumes[index].verify(&plugin.node).await;
        }
        self.nothing_else_is_mounted();
        plugin
    }

    /// Kubelet's retries.
    async fn converge(&mut self, plugin: &Plugin, index: usize, call: Call) {
        let volume = &mut self.volumes[index];
        let start = Instant::now();
        loop {
            let error = match call.send(plugin.node.clone(), volume.at.clone(), volume.size).await {
                Ok(()) => break,
                Err(error) => error,
            };
            if error.message().contains("CAP_SYS_RESOURCE") && !has_sys_resource() {
                // It grows when it is staged next.
                volume.state = State::Published;
                return;
            }
            // Nothing that a kill leaves behind needs a person.
            let passes = matches!(error.code(), Code::Aborted | Code::Unavailable);
            assert!(passes && start.elapsed() < PATIENCE, "{call:?} of {}: {error:?}", volume.at.id);
            sleep(Duration::from_millis(50)).await;
        }
        volume.fills |= call == Call::Grow || (call == Call::Stage && volume.state == State::Unstaged);
        volume.state = call.leads_to();
    }

    /// The plugin was killed, and then the host: no mount is left, and the kernel finds the disks in another order.
    async fn reboot(&mut self, plugin: Plugin) -> Plugin {
        plugin.kill().await;
        self.tally.reboots += 1;
        let kubelet = self.host.path("kubelet");
        let below: Vec<PathBuf> = Mounts::read()
            .unwrap()
            .iter()
            .map(|mount| mount.mount_point.clone())
            .filter(|path| path.starts_with(&kubelet))
            .collect();
        for path in below.iter().rev() {
            nix::mount::umount(path).unwrap();
        }
        for volume in &self.volumes {
            self.host.unplug(&volume.kernel_name);
        }
        let mut names = NAMES;
        self.rng.shuffle(&mut names);
        for (volume, name) in self.volumes.iter_mut().zip(names) {
            self.host.plug(name, &format!("UCLOUD_DISK_{}", volume.slot.to_uppercase()), &volume.disk);
            name.clone_into(&mut volume.kernel_name);
        }
        let plugin = Plugin::start(&self.host).await;
        for index in 0..self.volumes.len() {
            // Kubelet knows from its own files what it had mounted, and asks for all of it again.
            let wanted = self.volumes[index].state;
            self.volumes[index].state = State::Unstaged;
            if wanted != State::Unstaged {
                self.converge(&plugin, index, Call::Stage).await;
            }
            if wanted == State::Published {
                self.converge(&plugin, index, Call::Publish).await;
            }
            self.volumes[index].verify(&plugin.node).await;
        }
        self.nothing_else_is_mounted();
        plugin
    }

    /// Takes away volumes that are not in use, so that there is something to format.
    fn renew(&mut self) {
        for index in 0..self.volumes.len() {
            if self.volumes[index].state == State::Unstaged && self.rng.bool() {
                let (slot, kind) = (self.volumes[index].slot, self.volumes[index].at.kind.clone());
                self.host.unplug(&self.volumes[index].kernel_name);
                let new = self.blank(slot, &kind);
                self.volumes[index] = new;
            }
        }
    }

    fn nothing_else_is_mounted(&self) {
        let kubelet = self.host.path("kubelet");
        let known: Vec<PathBuf> = self
            .volumes
            .iter()
            .flat_map(|volume| [volume.staged_at(), PathBuf::from(&volume.at.target)])
            .collect();
        for mount in Mounts::read().unwrap().iter() {
            let path = &mount.mount_point;
            assert!(!path.starts_with(&kubelet) || known.contains(path), "{} is mounted", path.display());
        }
    }
}

#[test]
fn a_plugin_killed_at_any_moment_and_a_host_that_reboots_lose_nothing() {
    let (rounds, seed) = (setting("CSI_UDISK_KILLS", SHORT), setting("CSI_UDISK_KILLS_SEED", 1));
    let mut kinds: Vec<String> =
        file_systems().iter().map(|fs| fs.word().to_owned()).filter(|fs| fs != "ext3").collect();
    kinds.push("block".to_owned());
    if !has_sys_resource() {
        skip(
            "growing a mounted ext4 under kills: this machine lacks CAP_SYS_RESOURCE; it grows when it is staged",
        );
    }
    on_a_host(false, move |host| async move {
        let log = host.path("log");
        let mut history = Rounds::new(host, seed, &kinds);
        // Made last, because the log goes with the host.
        let _shown = Shown(log);
        let mut plugin = Plugin::start(&history.host).await;
        for _ in 0..rounds {
            plugin = history.round(plugin).await;
            if history.rng.u8(..6) == 0 {
                plugin = history.reboot(plugin).await;
            }
            history.renew();
        }
        // Everything ends well, too.
        for index in 0..history.volumes.len() {
            for call in [Call::Unpublish, Call::Unstage] {
                history.converge(&plugin, index, call).await;
            }
            history.volumes[index].verify(&plugin.node).await;
        }
        plugin.kill().await;
        report(&format!("kills of the node plugin, {rounds} rounds from seed {seed}: {:?}", history.tally));
        let cut: u64 = history.tally.cut.values().map(|(cut, _)| cut).sum();
        assert!(cut > rounds / 4, "the kills come too late to cut anything: {:?}", history.tally);
    });
}

/// Shows the plugin's log when the test fails.
struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.0).unwrap_or_default());
        }
    }
}
