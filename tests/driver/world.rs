//! A simulated cloud and drivers, each in a process of its own, and what a test may do to them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use csi_udisk::csi::proto::v1;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;
use v1::controller_client::ControllerClient;
use v1::identity_client::IdentityClient;
use v1::node_client::NodeClient;

use tonic::transport::{Channel, Endpoint};

const START: Duration = Duration::from_secs(20);

const MARK: &str = "CSI_UDISK_TEST_OWN_MOUNTS";

/// Whether nobody else's mounts are seen here.
pub fn has_own_mounts() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs the calling test again in a process with mounts of its own, so that whatever it mounts is gone when it
/// ends, however it ends. Returns true in that process, false in the outer one, which has nothing left to do.
pub fn own_mounts(test: &str) -> bool {
    if has_own_mounts() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() {
        skip(test, "it mounts file systems, which needs root");
        return false;
    }
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads", "1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    // Shown only when it tells something, for a second count of the same test would confuse.
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{test} failed in its own mount namespace:\n{text}");
    assert!(text.contains("test result: ok. 1 passed"), "there is no test {test}, so none ran:\n{text}");
    let told = ["SKIPPED", "== ", "bad input, ", "secrets, "];
    for line in text.lines().filter(|line| told.iter().any(|word| line.contains(word))) {
        use std::io::Write as _;
        // Not by a macro: what those print of a test that passed is not shown.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    false
}

/// Says that a test was left out, to the person who watches and to the run's list.
pub fn skip(test: &str, reason: &str) {
    eprintln!("SKIPPED {test}: {reason}");
    if let Some(list) = std::env::var_os("CSI_UDISK_TEST_SKIPS") {
        use std::io::Write as _;
        let mut list = fs::OpenOptions::new().append(true).create(true).open(list).unwrap();
        writeln!(list, "{test}: {reason}").unwrap();
    }
}

/// A child that does not outlive the test.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &str, dir: &Path, environment: &[(String, String)], arguments: &[&str]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .envs(environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// `kill -9`, and nothing of it is left.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn stop(self) {
        self.ask_to_stop();
        self.exits_well();
    }

    /// As kubelet does first.
    pub fn ask_to_stop(&self) {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; gives what it logged.
    pub fn exits_well(mut self) -> String {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "ended with {status}:\n{}", self.log());
        self.log()
    }

    /// The file that it logs to.
    pub fn path(&self) -> PathBuf {
        self.log.clone()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The sandbox removes its loop devices when it is asked to stop; killing it would leave them.
        if let Ok(None) = self.child.try_wait() {
            let id = i32::try_from(self.child.id()).unwrap();
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// One role of the driver, running.
#[derive(Debug)]
pub struct Driver {
    pub process: Process,
    pub channel: Channel,
}

impl Driver {
    pub fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }
}

/// The simulated cloud with its hosts. Fields drop in order: the cloud stops before its directory goes.
#[derive(Debug)]
pub struct World {
    cloud: Process,
    control: String,
    pub dir: PathBuf,
    _temporary: TempDir,
}

impl World {
    pub async fn start(latency: &str) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("s");
        let arguments =
            ["sandbox", "--serve", "--cloud-only", "--latency", latency, "--dir", dir.to_str().unwrap()];
        let cloud = Process::start("cloud", temporary.path(), &[], &arguments);
        let url = dir.join("cloud.url");
        until("the simulated cloud serves", || url.exists()).await;
        let control = fs::read_to_string(&url).unwrap().trim().to_owned();
        Self { cloud, control, dir, _temporary: temporary }
    }

    pub async fn controller(&self) -> Driver {
        self.driver("controller", "controller", &[], &[]).await
    }

    /// The node service of the first or second host (1, 2).
    pub async fn node(&self, number: usize) -> Driver {
        let name = if number == 1 { "node".to_owned() } else { format!("node-{number}") };
        self.driver("node", &name, &[], &[]).await
    }

    /// A driver with more arguments and variables than the sandbox gives; a variable that is empty is not set. What
    /// follows a dot in its name only tells it from others.
    pub async fn driver(&self, mode: &str, name: &str, extra: &[&str], variables: &[(&str, &str)]) -> Driver {
        let mut environment = self.environment(name.split('.').next().unwrap());
        environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let socket = self.dir.join(format!("{name}.test.sock"));
        let endpoint = format!("unix://{}", socket.display());
        let arguments = [&["--mode", mode, "--endpoint", &endpoint, "--v", "5"], extra].concat();
        let process = Process::start(name, &self.dir, &environment, &arguments);
        let channel = ready(&endpoint, &process).await;
        Driver { process, channel }
    }

    /// The variables that the sandbox has for a driver: `controller`, `node` or `node-2`.
    pub fn environment(&self, name: &str) -> Vec<(String, String)> {
        fs::read_to_string(self.dir.join(format!("{name}.env")))
            .unwrap()
            .lines()
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The id of the first host, as its node service reports it.
    pub fn first_host(&self) -> String {
        let id = self.environment("node").into_iter().find(|(name, _)| name == "CSI_UDISK_NODE_ID");
        id.expect("node.env names the host").1
    }

    /// The address of the simulated cloud.
    pub fn url(&self) -> &str {
        self.control.trim_end_matches('/')
    }

    /// What the simulated cloud wrote.
    pub fn log(&self) -> String {
        self.cloud.log()
    }

    /// The API calls that the cloud has received, by action.
    pub async fn calls(&self) -> BTreeMap<String, u64> {
        let stats = self.control("GET", "stats", "").await;
        let counts = stats["counts"].as_object().unwrap_or_else(|| panic!("no counts in {stats}"));
        counts.iter().map(|(action, n)| (action.clone(), n.as_u64().unwrap())).collect()
    }

    pub async fn total_calls(&self) -> u64 {
        self.calls().await.values().sum()
    }

    /// Talks to the control side of the simulated cloud, which no client of UCloud has.
    pub async fn control(&self, method: &str, path: &str, body: &str) -> Value {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let address = self.control.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{method} /_sandbox/{path} HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        assert!(head.starts_with("HTTP/1.1 200"), "{method} {path}: {answer}");
        serde_json::from_str(body).unwrap_or(Value::Null)
    }
}

async fn ready(endpoint: &str, process: &Process) -> Channel {
    let deadline = Instant::now() + START;
    loop {
        if let Ok(channel) = Endpoint::try_from(endpoint.to_owned()).unwrap().connect().await {
            let probe = IdentityClient::new(channel.clone()).probe(v1::ProbeRequest {}).await;
            if probe.is_ok_and(|answer| answer.into_inner().ready == Some(true)) {
                return channel;
            }
        }
        assert!(Instant::now() < deadline, "{endpoint} is not ready:\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Likewise, for a condition that has to be asked for.
pub async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + START;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {START:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until a condition holds; fails the test when it does not come true.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + START;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {START:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
