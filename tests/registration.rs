//! Registration with kubelet, seen from kubelet: a watcher of its plugin directory, against the real binary.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use csi_udisk::csi::proto::registration::registration_client::RegistrationClient;
use csi_udisk::csi::proto::registration::{InfoRequest, RegistrationStatus};
use csi_udisk::csi::proto::v1::NodeGetInfoRequest;
use csi_udisk::csi::proto::v1::node_client::NodeClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint};

const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "udisk.csi.ucloud.cn";
const HOST_PATH: &str = "/var/lib/kubelet/csi-plugins/udisk.csi.ucloud.cn/csi.sock";

/// The directories of one host, as a DaemonSet mounts them.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir(host.registry()).unwrap();
        host
    }

    fn registry(&self) -> PathBuf {
        self.0.path().join("plugins_registry")
    }

    fn registration_socket(&self) -> PathBuf {
        self.registry().join(format!("{NAME}-reg.sock"))
    }

    /// Which file it is; the number alone is given out again.
    fn registration_file(&self) -> Option<(u64, i64, i64)> {
        let metadata = std::fs::symlink_metadata(self.registration_socket()).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec()))
    }

    fn csi_socket(&self) -> PathBuf {
        self.0.path().join("plugin/csi.sock")
    }

    fn start(&self, facts: &[&str]) -> Driver {
        let log = self.0.path().join("log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = binary()
            .args(["--mode=node", "--hostname=10.9.1.2", "--region=cn-bj2", "--zone=cn-bj2-05"])
            .arg(format!("--plugin-dir={}", self.0.path().join("plugin").display()))
            .arg(format!("--kubelet-dir={}", self.0.path().display()))
            .arg(format!("--plugin-registration-path={}", self.registry().display()))
            .arg(format!("--kubelet-registration-path={HOST_PATH}"))
            .args(facts)
            .stderr(file)
            .spawn()
            .unwrap();
        Driver { child, log }
    }

    async fn probe(&self, arguments: &[&str]) -> Output {
        binary()
            .arg("probe")
            .arg(format!("--endpoint={}", self.csi_socket().display()))
            .args(arguments)
            .output()
            .await
            .unwrap()
    }

    /// Asks until the probe of readiness says this.
    async fn wait_until_ready_says(&self, text: &str) {
        wait_for(text, async || {
            let output = self.probe(&["--ready"]).await;
            output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains(text)
        })
        .await;
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_csi-udisk"));
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

struct Driver {
    child: Child,
    log: PathBuf,
}

impl Driver {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn wait_for_log(&self, text: &str) {
        wait_for(text, async || self.log().contains(text)).await;
    }

    async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.log());
    }
}

async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "still waiting for: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What kubelet does for each socket in its directory, less the objects of Kubernetes.
struct Kubelet(RegistrationClient<Channel>);

impl Kubelet {
    /// Waits for the socket, then asks who is there.
    async fn sees(host: &Host) -> Self {
        Self::sees_another(host, None).await
    }

    /// A kubelet (before 1.36) that failed to register a driver never calls on the same socket again.
    async fn sees_another(host: &Host, before: Option<(u64, i64, i64)>) -> Self {
        let socket = host.registration_socket();
        wait_for("the socket of the registration", async || {
            host.registration_file().is_some_and(|now| Some(now) != before)
                && UnixStream::connect(&socket).await.is_ok()
        })
        .await;
        let kubelet = Self(RegistrationClient::new(channel(&socket).await));
        let info = kubelet.0.clone().get_info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", NAME));
        assert_eq!((info.endpoint.as_str(), info.supported_versions), (HOST_PATH, vec!["1.0.0".to_owned()]));
        kubelet
    }

    async fn says(&mut self, plugin_registered: bool, error: &str) {
        let status = RegistrationStatus { plugin_registered, error: error.to_owned() };
        self.0.notify_registration_status(status).await.unwrap();
    }
}

async fn channel(socket: &Path) -> Channel {
    Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap().connect().await.unwrap()
}

async fn node_id(host: &Host) -> String {
    let mut node = NodeClient::new(channel(&host.csi_socket()).await);
    node.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner().node_id
}

const KNOWN: &[&str] = &["--node-id=uhost-a", "--machine-type=N"];

#[tokio::test]
async fn kubelet_registers_the_node_in_the_place_of_a_dead_registrar() {
    let host = Host::new();
    // Bound and closed: the file of a registrar that was killed.
    drop(std::os::unix::net::UnixListener::bind(host.registration_socket()).unwrap());
    let driver = host.start(KNOWN);
    host.wait_until_ready_says("registration with kubelet (kubelet has not called yet)").await;
    assert!(host.probe(&[]).await.status.success(), "waiting is not being dead");
    let mut kubelet = Kubelet::sees(&host).await;
    assert_eq!(node_id(&host).await, "uhost-a");
    kubelet.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;

    // A kubelet that was restarted asks the same of the same socket.
    Kubelet::sees(&host).await.says(true, "").await;
    driver.stop().await;
    assert!(!host.registration_socket().exists(), "kubelet would keep the driver in CSINode");
    assert_eq!(host.probe(&[]).await.status.code(), Some(1));
}

/// Every kubelet dials this socket by a function of its own, and so its gRPC library takes the escaped path for an
/// authority; Rust's clients cannot be made to send that.
#[tokio::test]
async fn a_kubelet_whose_authority_is_the_sockets_path_is_answered() {
    let host = Host::new();
    let driver = host.start(KNOWN);
    wait_for("the socket", async || host.registration_socket().exists()).await;
    let field =
        |head: &[u8], text: &str| [head, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let frame = |kind: u8, flags: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, u8::from(kind != 4)], payload].concat()
    };
    let authority = "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fudisk.csi.ucloud.cn-reg.sock";
    let fields = [
        vec![0x83, 0x86],
        field(&[0x44], "/pluginregistration.Registration/GetInfo"),
        field(&[0x41], authority),
        field(&[0x5f], "application/grpc"),
        field(&[0x40, 2, b't', b'e'], "trailers"),
    ];
    let request = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, &[]),
        frame(1, 4, &fields.concat()),
        frame(0, 1, &[0; 5]),
    ];
    let mut stream = UnixStream::connect(host.registration_socket()).await.unwrap();
    stream.write_all(&request.concat()).await.unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 4096]);
    while !answer.windows(HOST_PATH.len()).any(|window| window == HOST_PATH.as_bytes()) {
        let read = timeout(PATIENCE, stream.read(&mut chunk)).await.expect("an answer").unwrap();
        assert!(read > 0, "it was cut off after {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&chunk[..read]);
    }
    driver.stop().await;
}

#[tokio::test]
async fn a_refusal_is_told_in_kubelets_words_with_its_cure() {
    let host = Host::new();
    let driver = host.start(KNOWN);
    let mut kubelet = Kubelet::sees(&host).await;
    let words = "error updating Node object with CSI driver node info: error updating node: detected topology value \
                 collision: driver reported \\\"topology.udisk.csi.ucloud.cn/rssd\\\":\\\"false\\\" but existing label \
                 is \\\"topology.udisk.csi.ucloud.cn/rssd\\\":\\\"true\\\"";
    let mut before = host.registration_file();
    kubelet.says(false, words).await;
    driver.wait_for_log("detected topology value collision").await;
    host.wait_until_ready_says("kubectl label node 10.9.1.2 topology.udisk.csi.ucloud.cn/rssd-").await;
    assert!(host.probe(&[]).await.status.success(), "a restart would cure nothing");

    let mut kubelet = Kubelet::sees_another(&host, before).await;
    before = host.registration_file();
    kubelet.says(false, words).await;
    // It waits for the cure, and does not forget what it waits for meanwhile.
    let mut kubelet = Kubelet::sees_another(&host, before).await;
    host.wait_until_ready_says("kubectl label node 10.9.1.2 topology.udisk.csi.ucloud.cn/rssd-").await;
    assert_eq!(driver.log().matches("kubelet refused to register").count(), 1, "{}", driver.log());
    kubelet.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;

    // A kubelet that was restarted may refuse what it took before.
    before = host.registration_file();
    kubelet.says(false, "error updating CSINode object").await;
    host.wait_until_ready_says("kubelet refused: error updating CSINode object").await;
    Kubelet::sees_another(&host, before).await.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;
    driver.stop().await;
    assert!(!host.registration_socket().exists());
}

#[tokio::test]
async fn a_registration_whose_socket_somebody_removed_is_made_anew() {
    let host = Host::new();
    let driver = host.start(KNOWN);
    Kubelet::sees(&host).await.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;
    let before = host.registration_file();
    std::fs::remove_file(host.registration_socket()).unwrap();
    driver.wait_for_log("somebody removed the socket").await;
    let mut kubelet = Kubelet::sees_another(&host, before).await;
    host.wait_until_ready_says("registration with kubelet (kubelet has not called yet)").await;
    kubelet.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;
    driver.stop().await;
    assert!(!host.registration_socket().exists());
}

#[tokio::test]
async fn a_node_that_became_another_says_what_kubelet_will_not_take() {
    let host = Host::new();
    let driver = host.start(KNOWN);
    Kubelet::sees(&host).await.says(true, "").await;
    driver.wait_for_log("kubelet registered this node").await;
    driver.stop().await;
    // The same facts again are no news.
    let driver = host.start(KNOWN);
    Kubelet::sees(&host).await.says(true, "").await;
    assert!(!driver.log().contains("other facts"), "{}", driver.log());
    driver.stop().await;
    let driver = host.start(&["--node-id=uhost-a", "--machine-type=O"]);
    let news = "with other facts before and may refuse it now: topology.udisk.csi.ucloud.cn/rssd was false and is true";
    driver.wait_for_log(news).await;
}

/// Serves what it knows of `uhost-slow`, but not while it is `silent`. The flag that names it.
async fn metadata_service(silent: Arc<AtomicBool>) -> String {
    let metadata = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--metadata-endpoint=http://{}", metadata.local_addr().unwrap());
    tokio::spawn(async move {
        let mut unanswered = Vec::new();
        loop {
            let (mut stream, _) = metadata.accept().await.unwrap();
            if silent.load(Ordering::SeqCst) {
                unanswered.push(stream);
                continue;
            }
            let _ = stream.read(&mut [0; 4096]).await;
            let body = r#"{"instance-id":"uhost-slow","uhost":{"machine-type":"N"},"region":"cn-bj2"}"#;
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes()).await;
        }
    });
    url
}

/// Kubelet unmounts nothing through a driver that is not registered.
#[tokio::test]
async fn a_driver_that_is_restarted_while_metadata_is_away_registers_with_what_kubelet_accepted() {
    let host = Host::new();
    let silent = Arc::new(AtomicBool::new(false));
    let url = metadata_service(Arc::clone(&silent)).await;
    let driver = host.start(&[&url]);
    Kubelet::sees(&host).await.says(true, "").await;
    driver.wait_for_log("kubelet registered this node").await;
    driver.stop().await;

    silent.store(true, Ordering::SeqCst);
    let driver = host.start(&[&url]);
    Kubelet::sees(&host).await.says(true, "").await;
    assert_eq!(node_id(&host).await, "uhost-slow");
    driver.wait_for_log("taken is what kubelet accepted since this host booted").await;
    assert!(!driver.log().contains("other facts"), "{}", driver.log());
    driver.stop().await;

    // Before the host booted it may have been another host, or have moved.
    let file = host.csi_socket().with_file_name("registered.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    std::fs::write(&file, text.replace(boot.trim(), "an-older-one")).unwrap();
    let _driver = host.start(&[&url]);
    host.wait_until_ready_says("registration with kubelet (this node is not known yet)").await;
    host.wait_until_ready_says("neither the metadata service nor --node-id says it").await;
    assert!(!host.registration_socket().exists());
}

/// The metadata service takes its time: kubelet sees no socket before there is an answer to NodeGetInfo, and once it
/// sees one, it is answered from memory.
#[tokio::test]
async fn kubelet_is_not_called_in_before_the_node_is_known() {
    let host = Host::new();
    let slow = Arc::new(AtomicBool::new(true));
    let url = metadata_service(Arc::clone(&slow)).await;
    let _driver = host.start(&["--machine-type=N", &url]);
    host.wait_until_ready_says("registration with kubelet (this node is not known yet)").await;
    host.wait_until_ready_says("identity of this node (").await;
    assert!(!host.registration_socket().exists());
    slow.store(false, Ordering::SeqCst);
    let mut kubelet = Kubelet::sees(&host).await;
    slow.store(true, Ordering::SeqCst);
    kubelet.says(true, "").await;
    assert_eq!(node_id(&host).await, "uhost-slow");
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;
}

#[tokio::test]
async fn a_missing_directory_is_named_until_it_is_there() {
    let host = Host::new();
    std::fs::remove_dir(host.registry()).unwrap();
    let _driver = host.start(KNOWN);
    host.wait_until_ready_says("is kubelet's plugins_registry mounted at").await;
    std::fs::create_dir(host.registry()).unwrap();
    Kubelet::sees(&host).await.says(true, "").await;
    wait_for("readiness", async || host.probe(&["--ready"]).await.status.success()).await;
}

#[tokio::test]
async fn the_probe_names_what_is_wrong_with_its_own_command_line_and_a_missing_driver() {
    let host = Host::new();
    let output = host.probe(&["--timeout=0s"]).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--timeout"));
    let output = host.probe(&[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no driver answers on"));
    // Somebody who accepts and never speaks.
    std::fs::create_dir(host.0.path().join("plugin")).unwrap();
    let _silent = std::os::unix::net::UnixListener::bind(host.csi_socket()).unwrap();
    let output = host.probe(&["--timeout=1s"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did not answer within 1 s"));
}
