//! What the driver costs when it does nothing: `cargo bench --bench footprint`.
//!
//! Prints, for each mode: time from start to the first answer of Probe, idle memory after 200 Probes on new
//! connections, idle CPU, Probes per second on one connection, and the size of the program. It judges nothing.
//! `CSI_UDISK_BINARY` names another build to measure.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use csi_udisk::csi::proto::v1::ProbeRequest;
use csi_udisk::csi::proto::v1::identity_client::IdentityClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

const CONNECTIONS: usize = 200;
const IDLE: Duration = Duration::from_secs(5);
const CALLS: usize = 20_000;
const STARTS: usize = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let given = std::env::var("CSI_UDISK_BINARY").ok();
    let binary = given.as_deref().unwrap_or(env!("CARGO_BIN_EXE_csi-udisk"));
    println!("program: {:.1} MB", fs::metadata(binary).unwrap().len() as f64 / 1e6);
    for mode in ["node", "controller", "all"] {
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            let (driver, started) = start(binary, mode).await;
            starts.push(started);
            drop(driver);
        }
        starts.sort();
        let (driver, _) = start(binary, mode).await;
        for _ in 0..CONNECTIONS {
            probe(&mut connect(&driver.socket).await.unwrap()).await;
        }
        let cpu = driver.cpu_ticks();
        tokio::time::sleep(IDLE).await;
        let cpu = driver.cpu_ticks() - cpu;
        let (rss, anonymous) = driver.memory();
        let mut client = connect(&driver.socket).await.unwrap();
        let since = Instant::now();
        for _ in 0..CALLS {
            probe(&mut client).await;
        }
        let rate = CALLS as f64 / since.elapsed().as_secs_f64();
        println!(
            "{mode:<10} first Probe after {:.0} ms (median of {STARTS}), idle RSS {rss:.2} MiB ({anonymous:.2} MiB \
             anonymous), idle CPU {cpu} ticks in {IDLE:?}, {rate:.0} Probes/s",
            starts[STARTS / 2].as_secs_f64() * 1e3,
        );
    }
}

struct Driver {
    child: Child,
    socket: String,
    _dir: tempfile::TempDir,
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn start(binary: &str, mode: &str) -> (Driver, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("csi.sock").display().to_string();
    let since = Instant::now();
    let child = Command::new(binary)
        .args(["--mode", mode, "--endpoint", &socket, "--kubelet-dir"])
        .arg(dir.path())
        .env_clear()
        // Nothing listens there and nothing is asked: all that a driver needs to know is given.
        .envs([
            ("UCLOUD_API_ENDPOINT", "http://127.0.0.1:9"),
            ("UCLOUD_ACCESS_PUBKEY", "p"),
            ("UCLOUD_ACCESS_PRIKEY", "k"),
        ])
        .args([
            "--region",
            "cn-bj2",
            "--zone",
            "cn-bj2-05",
            "--node-id",
            "uhost-bench",
            "--machine-type",
            "O",
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let driver = Driver { child, socket, _dir: dir };
    loop {
        if Path::new(&driver.socket).exists()
            && let Some(mut client) = connect(&driver.socket).await
        {
            probe(&mut client).await;
            return (driver, since.elapsed());
        }
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

async fn connect(socket: &str) -> Option<IdentityClient<Channel>> {
    let endpoint = Endpoint::try_from(format!("unix://{socket}")).unwrap();
    endpoint.connect().await.ok().map(IdentityClient::new)
}

async fn probe(client: &mut IdentityClient<Channel>) {
    client.probe(ProbeRequest {}).await.unwrap();
}

impl Driver {
    /// Resident and anonymous memory in MiB.
    fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = |key: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        (value("VmRSS:"), value("RssAnon:"))
    }

    /// User and system time so far, in clock ticks (of 10 ms, usually).
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}
