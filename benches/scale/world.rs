//! A simulated account behind HTTP, and the driver as a process of its own that works in it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use csi_udisk::csi::proto::v1;
use csi_udisk::sandbox::cloud::model::{Lags, Latencies, Limits};
use csi_udisk::sandbox::cloud::{HostSpec, SimCloud, SimConfig};
use csi_udisk::volume::Gib;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use v1::controller_client::ControllerClient;

/// Requests that the account may make in a second.
pub(crate) const QUOTA: u32 = 20;

/// Connections to the driver; a server takes some hundred calls at a time on each.
const CONNECTIONS: usize = 16;

/// A cloud with its address.
pub(crate) struct World {
    pub(crate) cloud: SimCloud,
    /// When its clock began.
    pub(crate) epoch: Instant,
    pub(crate) url: String,
    made: usize,
}

impl World {
    pub(crate) async fn new(hosts: usize) -> Self {
        let spec = |n: usize| HostSpec::new(&host(n), &format!("10.1.{}.{}", n / 200, n % 200 + 1));
        let epoch = Instant::now();
        let cloud = SimCloud::new(SimConfig {
            hosts: (0..hosts).map(spec).collect(),
            latencies: Latencies::realistic(),
            lags: Lags::realistic(),
            limits: Limits {
                disks: 100_000,
                requests_per_second: Some(QUOTA),
                one_change_per_host: true,
                ..Limits::default()
            },
            ..SimConfig::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let server = cloud.clone();
        tokio::spawn(async move { server.serve(listener, CancellationToken::new()).await.unwrap() });
        Self { cloud, epoch, url: format!("http://{address}"), made: 0 }
    }

    /// Makes disks by hand, and waits until they are there and listed.
    pub(crate) async fn make(&mut self, count: usize) -> Vec<String> {
        let mut ids = Vec::new();
        for _ in 0..count {
            self.made += 1;
            let name = format!("pvc-bench-{:05}", self.made);
            ids.push(self.cloud.create_disk(&name, Gib::new(10)).await.unwrap());
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        ids
    }
}

pub(crate) fn host(number: usize) -> String {
    format!("uhost-{number:03}")
}

/// A child whose use of the machine is watched.
pub(crate) struct Watched(pub(crate) Child);

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Watched {
    /// User and system time so far, in seconds.
    pub(crate) fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        // Linux shows user programs a clock of 100 Hz.
        ticks / 100.0
    }

    /// The largest resident set since the last call, in MiB.
    pub(crate) fn peak(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak = line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0;
        // Where this is not allowed, the peak is that of the whole life.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0.id()), "5");
        peak
    }
}

/// Where the driver's log goes.
fn log() -> Stdio {
    std::env::var_os("SCALE_LOG").map_or_else(Stdio::null, |path| fs::File::create(path).unwrap().into())
}

/// The driver.
pub(crate) struct Driver {
    pub(crate) process: Watched,
    clients: Vec<ControllerClient<Channel>>,
    _dir: tempfile::TempDir,
}

impl Driver {
    pub(crate) async fn start(world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("csi.sock").display().to_string();
        let (account, zone) = (SimConfig::default(), SimConfig::default().zones[0].name.clone());
        let child = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
            .args([
                "--mode",
                "controller",
                "--endpoint",
                &socket,
                "--region",
                &account.region,
                "--zone",
                &zone,
            ])
            .env_clear()
            .envs([
                ("UCLOUD_API_ENDPOINT", world.url.as_str()),
                ("UCLOUD_ACCESS_PUBKEY", &account.keys[0].public),
                ("UCLOUD_ACCESS_PRIKEY", &account.keys[0].private),
            ])
            .stderr(log())
            .spawn()
            .unwrap();
        let process = Watched(child);
        while !Path::new(&socket).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let endpoint = Endpoint::try_from(format!("unix://{socket}")).unwrap();
        let mut clients = Vec::new();
        while clients.len() < CONNECTIONS {
            match endpoint.connect().await {
                Ok(channel) => {
                    clients.push(ControllerClient::new(channel).max_decoding_message_size(64 << 20));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        Self { process, clients, _dir: dir }
    }

    /// The client for the n-th call of many.
    pub(crate) fn client(&self, number: usize) -> ControllerClient<Channel> {
        self.clients[number % CONNECTIONS].clone()
    }
}
