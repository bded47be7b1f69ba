//! The HTTP port and the signals of the real binary.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use csi_udisk::csi::proto::v1::identity_client::IdentityClient;
use csi_udisk::csi::proto::v1::node_client::NodeClient;
use csi_udisk::csi::proto::v1::{NodeUnpublishVolumeRequest, ProbeRequest};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(30);

struct Driver {
    child: Child,
    dir: TempDir,
    address: String,
}

impl Driver {
    /// A node that is told everything but its machine type, for which it waits.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Free a moment ago; nobody else on this machine is told of it.
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
            .args(["--mode=node", "--node-id=uhost-a", "--region=r", "--zone=r-01"])
            .args(["--metadata-endpoint=http://127.0.0.1:1", &format!("--http-endpoint={address}")])
            .arg(format!("--plugin-dir={}", dir.path().display()))
            .env_clear()
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let driver = Self { child, dir, address };
        driver.wait("the port", async || TcpStream::connect(&driver.address).await.is_ok()).await;
        driver.wait("the socket", async || driver.socket().exists()).await;
        driver
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("csi.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    async fn wait(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "still waiting for {what}:\n{}", self.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("unix://{}", self.socket().display())).unwrap().connect().await.unwrap()
    }

    /// The status and the rest of the answer.
    async fn http(&self, request: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }
}

#[tokio::test]
async fn metrics_count_what_was_answered() {
    let driver = Driver::start().await;
    let channel = driver.channel().await;
    IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await.unwrap();
    NodeClient::new(channel.clone())
        .node_unpublish_volume(NodeUnpublishVolumeRequest::default())
        .await
        .unwrap_err();
    let (status, text) = driver.http("GET /metrics", "").await;
    assert_eq!(status, 200);
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0"), "{text}");
    for line in [
        "csi_udisk_rpcs_total{method=\"Probe\",code=\"Ok\"} 1",
        "csi_udisk_rpcs_total{method=\"NodeUnpublishVolume\",code=\"InvalidArgument\"} 1",
        "csi_udisk_ready 0.0",
        "csi_udisk_stuck_host_calls 0.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|one| one == line), "no {line:?} in\n{text}");
    }
}

#[tokio::test]
async fn health_is_not_readiness() {
    let driver = Driver::start().await;
    assert_eq!(driver.http("GET /healthz", "").await.0, 200);
    let (status, text) = driver.http("GET /readyz", "").await;
    assert_eq!(status, 503);
    assert!(text.contains("identity of this node"), "{text}");
    assert_eq!(driver.http("GET /anything", "").await.0, 404);
}

#[tokio::test]
async fn callers_who_stay_and_say_nothing_do_not_take_the_drivers_files() {
    let driver = Driver::start().await;
    let mut callers = Vec::new();
    for _ in 0..90 {
        callers.push(TcpStream::connect(&driver.address).await.unwrap());
    }
    let pid = driver.child.id().unwrap();
    let open = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    // Those before it in the queue are waited for until they are sent away.
    assert_eq!(driver.http("GET /healthz", "").await.0, 200);
    assert!(open() < 70, "{}", open());
    let (status, text) = driver.http("GET /log", "").await;
    assert!(status == 200 && text.ends_with("warn,csi_udisk=info\n"), "{text}");
    drop(callers);
}

#[tokio::test]
async fn the_log_changes_by_request_and_by_signal_without_a_restart() {
    let driver = Driver::start().await;
    let chatter = async || {
        let before = driver.log().matches("\"method\":\"Probe\"").count();
        IdentityClient::new(driver.channel().await).probe(ProbeRequest {}).await.unwrap();
        // The line is written before the answer leaves.
        driver.log().matches("\"method\":\"Probe\"").count() > before
    };
    assert!(!chatter().await, "a probe is no news");
    let (status, text) = driver.http("PUT /log", "info,csi_udisk=debug").await;
    assert!(status == 200 && text.ends_with("info,csi_udisk=debug\n"), "{text}");
    assert!(chatter().await, "{}", driver.log());
    let (status, text) = driver.http("PUT /log", "csi_udisk=loud").await;
    assert!(status == 400 && text.contains("allowed: levels"), "{text}");
    let (status, text) = driver.http("DELETE /log", "").await;
    assert!(status == 200 && text.ends_with("warn,csi_udisk=info\n"), "{text}");
    assert!(!chatter().await, "{}", driver.log());

    driver.signal(Signal::SIGUSR1);
    driver.wait("more", async || driver.log().contains("\"filter\":\"warn,csi_udisk=debug\"")).await;
    assert!(chatter().await, "{}", driver.log());
    driver.signal(Signal::SIGUSR2);
    driver
        .wait("less", async || driver.http("GET /log", "").await.1.ends_with("warn,csi_udisk=info\n"))
        .await;
    assert!(!chatter().await, "{}", driver.log());
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start_and_is_named() {
    let driver = Driver::start().await;
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
        .args(["--mode=node", &format!("--http-endpoint={}", driver.address)])
        .arg(format!("--plugin-dir={}", dir.path().display()))
        .env_clear()
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("of --http-endpoint") && text.contains(&driver.address), "{text}");
}
