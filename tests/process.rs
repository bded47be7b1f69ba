//! The real binary: exit codes, help, the life of its socket, signals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use csi_udisk::csi::proto::v1::controller_client::ControllerClient;
use csi_udisk::csi::proto::v1::identity_client::IdentityClient;
use csi_udisk::csi::proto::v1::node_client::NodeClient;
use csi_udisk::csi::proto::v1::{
    ControllerGetCapabilitiesRequest, DeleteVolumeRequest, NodeGetInfoRequest, NodeUnpublishVolumeRequest,
    ProbeRequest,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

/// Enough for a machine under load; a run takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The binary with nothing but the given environment.
fn binary(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_csi-udisk"));
    command.args(args).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn output(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let output = binary(args).envs(variables.iter().copied()).output();
    timeout(PATIENCE, output).await.expect("it ends").expect("it runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

struct Driver {
    child: Child,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

/// A driver that needs no metadata service.
async fn start() -> Driver {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("plugin/csi.sock");
    let plugin_dir = dir.path().join("plugin");
    let child =
        binary(&["--mode=controller", "--region=r", "--zone=r-01", "--metadata-endpoint=http://127.0.0.1:1"])
            .args(["--api-endpoint=http://127.0.0.1:1", "--plugin-dir"])
            .arg(plugin_dir)
            .envs([("UCLOUD_ACCESS_PUBKEY", "publicword"), ("UCLOUD_ACCESS_PRIKEY", "privateword")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
    wait_for(&socket).await;
    Driver { child, socket, _dir: dir }
}

async fn wait_for(socket: &Path) {
    let end = Instant::now() + PATIENCE;
    while UnixStream::connect(socket).await.is_err() {
        assert!(Instant::now() < end, "no socket at {}", socket.display());
        sleep(Duration::from_millis(5)).await;
    }
}

fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it can be signalled");
}

#[tokio::test]
async fn wrong_configuration_ends_with_64_and_a_list() {
    let output = output(&["--maxvolume=0", "--nonsense"], &[("CSI_UDISK_MODE", "half")]).await;
    assert_eq!(output.status.code(), Some(64));
    let text = stderr(&output);
    for part in ["3 faults", "--nonsense", "--maxvolume (CSI_UDISK_MAXVOLUME)", "\"half\" in CSI_UDISK_MODE"]
    {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(output.stdout.is_empty());
}

#[tokio::test]
async fn help_and_version_go_to_standard_output() {
    let help = output(&["--help"], &[]).await;
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--endpoint SOCKET   [CSI_UDISK_ENDPOINT]"));
    let version = output(&["--version"], &[]).await;
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&version.stdout),
        concat!("csi-udisk ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[tokio::test]
async fn a_start_that_fails_ends_with_1_and_a_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("a file");
    let text = file.display().to_string();
    // Whatever is logged: also with a level that is misspelt, which is the name of a module then.
    for log in ["--log=info", "--log=off", "--log=debgu", "--log-format=text"] {
        let output = output(&["--mode=node", "--endpoint", &text, log], &[]).await;
        assert_eq!(output.status.code(), Some(1));
        let said = stderr(&output);
        assert_eq!(said.matches("is not a socket").count(), 1, "{log}: {said}");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), "precious");
}

#[tokio::test]
async fn sigterm_sigint_and_sighup_stop_in_order() {
    use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
    // What is handled here has its default in a child; under nohup it would be ignored there, as the driver wants it.
    let _handled = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).expect("a handler");
    for name in [SIGTERM, SIGINT, SIGHUP] {
        let driver = start().await;
        // A peer that never speaks must not hold it up.
        let _silent = UnixStream::connect(&driver.socket).await.expect("a connection");
        signal(&driver.child, name);
        let output =
            timeout(PATIENCE, driver.child.wait_with_output()).await.expect("it ends").expect("it ran");
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert!(!driver.socket.exists());
        let text = stderr(&output);
        assert!(text.contains("stopped serving"), "{text}");
        assert!(!text.contains("publicword") && !text.contains("privateword"), "{text}");
        for line in text.lines() {
            assert!(line.starts_with('{') && line.ends_with('}'), "not JSON: {line}");
        }
    }
}

#[tokio::test]
async fn a_killed_driver_is_replaced_and_a_living_one_is_not() {
    let mut driver = start().await;
    let socket = driver.socket.display().to_string();
    let second = output(&["--mode=node", "--endpoint", &socket], &[]).await;
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("another process serves"), "{}", stderr(&second));

    driver.child.kill().await.expect("it can be killed");
    assert!(driver.socket.exists());
    let mut third =
        binary(&["--mode=node", "--endpoint", &socket]).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for(&driver.socket).await;
    signal(&third, nix::sys::signal::Signal::SIGTERM);
    let status = timeout(PATIENCE, third.wait()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(0));
}

/// Out of file descriptors, connections wait instead of making the driver spin or die.
#[tokio::test]
async fn too_many_connections_are_survived() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("csi.sock");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 24 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_csi-udisk")]);
    let child = command
        .args(["--mode=node", "--endpoint"])
        .arg(&socket)
        .env("CSI_UDISK_METADATA_ENDPOINT", "http://127.0.0.1:1")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    wait_for(&socket).await;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(UnixStream::connect(&socket).await.expect("a place in the queue"));
    }
    // The last in the queue is not served before others leave.
    let address = format!("unix://{}", socket.display());
    let endpoint = Endpoint::from_shared(address).expect("an address");
    let late = tokio::spawn(async move {
        let mut client = IdentityClient::new(endpoint.connect().await?);
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(client.probe(ProbeRequest {}).await?.into_inner())
    });
    sleep(Duration::from_millis(200)).await;
    assert!(!late.is_finished());
    drop(crowd);
    let answer =
        timeout(PATIENCE, late).await.expect("it is answered").expect("no panic").expect("an answer");
    assert!(answer.ready.is_some());

    signal(&child, nix::sys::signal::Signal::SIGTERM);
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").expect("it ran");
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    // Not a line for each try. The crowd leaves one by one, so the limit may be met once or twice more meanwhile.
    let refused = text.matches("a connection cannot be accepted").count();
    assert!((1..=3).contains(&refused), "{refused} times: {text}");
    assert_eq!(text.matches("connections are accepted again").count(), refused, "{text}");
}

/// A metadata service that answers every question with one document, and counts the questions.
struct MetadataService {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl MetadataService {
    async fn start(document: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let length = document.len();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{document}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, asked }
    }
}

async fn serve(dir: &Path, args: &[&str]) -> (Child, Channel) {
    let socket = dir.join("csi.sock");
    let child = binary(args).arg("--endpoint").arg(&socket).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for(&socket).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("an address");
    (child, endpoint.connect().await.expect("a connection"))
}

async fn is_ready(channel: &Channel) -> bool {
    let probe = IdentityClient::new(channel.clone()).probe(ProbeRequest {}).await;
    probe.expect("probe is never an error").into_inner().ready == Some(true)
}

async fn until_ready(channel: &Channel) {
    let end = Instant::now() + PATIENCE;
    while !is_ready(channel).await {
        assert!(Instant::now() < end, "not ready");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_metadata_a_node_serves_and_says_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = [
        "--mode=node",
        "--metadata-endpoint=http://127.0.0.1:1",
        "--region=r",
        "--zone=r-01",
        "--node-id=uhost-1",
    ];
    let (_child, channel) = serve(dir.path(), &args).await;
    assert!(!is_ready(&channel).await);
    let mut node = NodeClient::new(channel.clone());
    let status = node.node_get_info(NodeGetInfoRequest {}).await.expect_err("nobody knows the machine type");
    assert_eq!(status.code(), Code::Unavailable);
    // Volumes can be unmounted all the same.
    let request = NodeUnpublishVolumeRequest {
        volume_id: "bs-1".to_owned(),
        target_path: dir.path().join("not-mounted").display().to_string(),
    };
    node.node_unpublish_volume(request).await.expect("nothing is mounted there");
    // The socket of a node has no Controller service.
    let status = ControllerClient::new(channel)
        .controller_get_capabilities(ControllerGetCapabilitiesRequest {})
        .await
        .expect_err("a node is no controller");
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_node_is_what_metadata_says_and_not_what_the_clusters_variables_say() {
    let metadata = MetadataService::start(
        r#"{"instance-id": "uhost-m", "region": "cn-bj2", "availability-zone": "cn-bj2-05",
            "uhost": {"machine-type": "OS"}}"#,
    )
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("csi.sock");
    let _child = binary(&[
        "--mode=node",
        "--maxvolume=7",
        "--hostname=10.0.0.9",
        "--metadata-endpoint",
        &metadata.url,
    ])
    .arg("--endpoint")
    .arg(&socket)
    .envs([("UCLOUD_ZONE_ID", "cn-bj2-02"), ("UCLOUD_REGION_ID", "cn-bj2")])
    .stderr(Stdio::null())
    .spawn()
    .expect("it starts");
    wait_for(&socket).await;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("an address");
    let channel = endpoint.connect().await.expect("a connection");
    until_ready(&channel).await;
    let info = NodeClient::new(channel)
        .node_get_info(NodeGetInfoRequest {})
        .await
        .expect("it is known")
        .into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), ("uhost-m", 7));
    let segments = info.accessible_topology.expect("a topology").segments;
    let expected = [("region", "cn-bj2"), ("zone", "cn-bj2-05"), ("rssd", "true"), ("host", "uhost-m")]
        .map(|(key, value)| (format!("topology.udisk.csi.ucloud.cn/{key}"), value.to_owned()));
    assert_eq!(segments, BTreeMap::from(expected));
    assert_eq!(metadata.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_controller_without_zone_or_keys_answers_and_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let args = ["--mode=controller", "--metadata-endpoint=http://127.0.0.1:1", "--region=r"];
    let (_child, channel) = serve(dir.path(), &args).await;
    assert!(!is_ready(&channel).await);
    let mut controller = ControllerClient::new(channel);
    let request = DeleteVolumeRequest { volume_id: "bs-1".to_owned(), ..Default::default() };
    let status = controller.delete_volume(request).await.expect_err("it has no zone yet");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("region and zone of the controller"), "{status}");

    // Keys that are mounted later are found.
    let dir = tempfile::tempdir().expect("a directory");
    let keys = dir.path().join("keys");
    let keys_flag = format!("--credentials-dir={}", keys.display());
    let args = ["--mode=controller", "--region=r", "--zone=r-01", &keys_flag];
    let (_child, channel) = serve(dir.path(), &args).await;
    assert!(!is_ready(&channel).await);
    std::fs::create_dir(&keys).expect("a directory");
    for name in ["UCLOUD_ACCESS_PUBKEY", "UCLOUD_ACCESS_PRIKEY"] {
        std::fs::write(keys.join(name), "word\n").expect("a file");
    }
    until_ready(&channel).await;
}
