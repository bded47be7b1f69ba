//! An account with two hosts, a cluster whose volumes are there, and the binary between them.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use csi_udisk::sandbox::cloud::{Event, SimCloud, SimConfig};
use csi_udisk::volume::Gib;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::api::{ATTACHMENTS, Api, CLAIMS, CSI_NODES, NODES, PATIENCE, VOLUMES};

/// How old everything in the account seems.
const AGE: Duration = Duration::from_secs(10 * 86_400);

pub struct World {
    pub cloud: SimCloud,
    pub api: Api,
    pub dir: TempDir,
    cloud_url: String,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The binary's answer.
#[derive(Debug)]
pub struct Answer {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().expect("it ended by itself"),
            out: String::from_utf8(output.stdout.clone()).unwrap(),
            err: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Each finding as `handle kind`.
    pub fn findings(&self) -> Vec<String> {
        let json = self.json();
        let of = |volume: &Value| {
            let handle = volume["volumeHandle"].as_str().unwrap_or("-").to_owned();
            let kinds: Vec<String> = volume["findings"]
                .as_array()
                .unwrap()
                .iter()
                .map(|finding| format!("{handle} {}", finding["kind"].as_str().unwrap()))
                .collect();
            kinds
        };
        json["volumes"].as_array().unwrap().iter().flat_map(of).collect()
    }

    /// The ids of the orphans, with a star on those of this cluster.
    pub fn orphans(&self) -> Vec<String> {
        let json = self.json();
        let of = |orphan: &Value| {
            let star = if orphan["belongsTo"] == "this cluster" { "*" } else { "" };
            format!("{}{star}", orphan["id"].as_str().unwrap())
        };
        json["orphans"].as_array().unwrap().iter().map(of).collect()
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(Api::start().await).await
    }

    pub async fn with(api: Api) -> Self {
        let cloud = SimCloud::new(SimConfig { existed: AGE, ..SimConfig::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cloud_url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let (serving, end) = (cloud.clone(), stop.clone());
        tokio::spawn(async move { serving.serve(listener, end).await });
        for (name, host) in [("10.9.0.11", "uhost-a"), ("10.9.0.12", "uhost-b")] {
            api.add(NODES, node(name, host));
            api.add(CSI_NODES, csi_node(name, host));
        }
        Self { cloud, api, dir: tempfile::tempdir().unwrap(), cloud_url, stop }
    }

    /// A disk of 20 GiB.
    pub async fn disk(&self, name: &str) -> String {
        self.cloud.create_disk(name, Gib::new(20)).await.unwrap()
    }

    pub async fn happen(&self, event: Event) {
        self.cloud.happen(event).await.unwrap();
    }

    pub async fn attach(&self, disk: &str, host: &str) {
        self.happen(Event::Attach { disk: disk.to_owned(), host: host.to_owned() }).await;
    }

    pub async fn detach(&self, disk: &str) {
        self.happen(Event::Detach { disk: disk.to_owned() }).await;
    }

    /// A claim with its volume and its disk, attached to the first node, all in agreement. The number tells it apart.
    pub async fn volume(&self, number: usize) -> String {
        self.named_volume("pvc", number).await
    }

    pub async fn named_volume(&self, prefix: &str, number: usize) -> String {
        let disk = self.free_volume(prefix, number).await;
        self.attach(&disk, "uhost-a").await;
        self.api.add(ATTACHMENTS, attachment(&name(prefix, number), "10.9.0.11", "uhost-a"));
        disk
    }

    pub async fn free_volume(&self, prefix: &str, number: usize) -> String {
        let disk = self.disk(&name(prefix, number)).await;
        self.api.add(CLAIMS, claim(prefix, number));
        self.api.add(VOLUMES, volume(prefix, number, &disk));
        disk
    }

    /// A kubeconfig without credentials, for the double without TLS.
    pub fn kubeconfig(&self) -> PathBuf {
        let cluster = json!({ "server": self.api.url });
        self.write_kubeconfig("kubeconfig", &cluster, &json!({}))
    }

    pub fn write_kubeconfig(&self, file: &str, cluster: &Value, user: &Value) -> PathBuf {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": user }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x"
        });
        let path = self.dir.path().join(file);
        // YAML takes JSON.
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// The binary with a kubeconfig and the account's keys.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.bare_command(line);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// The same, which finds its cluster itself.
    pub fn bare_command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_csi-udisk"));
        command
            .args(line.split_whitespace())
            .env_clear()
            .envs([
                ("UCLOUD_API_ENDPOINT", self.cloud_url.as_str()),
                ("UCLOUD_REGION_ID", "cn-sh2"),
                ("UCLOUD_ACCESS_PUBKEY", "sandbox-public-key"),
                ("UCLOUD_ACCESS_PRIKEY", "sandbox-private-key"),
                ("RUST_BACKTRACE", "0"),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, line: &str) -> Answer {
        end(self.command(line)).await
    }

    /// Names of disks that are in the account, beside system disks.
    pub fn disks(&self) -> Vec<String> {
        let mut ids: Vec<String> =
            self.cloud.disks().into_iter().filter(|disk| !disk.boot).map(|disk| disk.id).collect();
        ids.sort();
        ids
    }
}

pub async fn end(mut command: Command) -> Answer {
    Answer::of(&timeout(PATIENCE, command.output()).await.expect("it ends").unwrap())
}

pub fn uid(number: usize) -> String {
    format!("{number:08x}-7f4e-4d6a-9d7a-0c5c2f1e3b4d")
}

pub fn name(prefix: &str, number: usize) -> String {
    format!("{prefix}-{}", uid(number))
}

fn shape(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

pub fn volume(prefix: &str, number: usize, disk: &str) -> Value {
    let mut volume = shape(include_str!("shapes/persistentvolume.json"));
    volume["metadata"]["name"] = json!(name(prefix, number));
    volume["spec"]["csi"]["volumeHandle"] = json!(disk);
    volume["spec"]["claimRef"]["name"] = json!(format!("data-mysql-{number}"));
    volume["spec"]["claimRef"]["uid"] = json!(uid(number));
    volume
}

pub fn claim(prefix: &str, number: usize) -> Value {
    let mut claim = shape(include_str!("shapes/persistentvolumeclaim.json"));
    claim["metadata"]["name"] = json!(format!("data-mysql-{number}"));
    claim["metadata"]["uid"] = json!(uid(number));
    claim["spec"]["volumeName"] = json!(name(prefix, number));
    claim
}

pub fn attachment(volume: &str, node: &str, id: &str) -> Value {
    let mut attachment = shape(include_str!("shapes/volumeattachment.json"));
    attachment["metadata"]["name"] = json!(format!("csi-of-{volume}"));
    attachment["metadata"]["annotations"]["csi.alpha.kubernetes.io/node-id"] = json!(id);
    attachment["spec"]["source"]["persistentVolumeName"] = json!(volume);
    attachment["spec"]["nodeName"] = json!(node);
    attachment
}

pub fn snapshot_content(disk: &str) -> Value {
    let mut content = shape(include_str!("shapes/volumesnapshotcontent.json"));
    content["spec"]["source"]["volumeHandle"] = json!(disk);
    content
}

fn node(name: &str, host: &str) -> Value {
    let mut node = shape(include_str!("shapes/node.json"));
    node["metadata"]["name"] = json!(name);
    node["metadata"]["labels"]["UhostID"] = json!(host);
    node["metadata"]["labels"]["node.uk8s.ucloud.cn/resource_id"] = json!(host);
    node["status"]["addresses"][0]["address"] = json!(name);
    node
}

fn csi_node(name: &str, host: &str) -> Value {
    let mut node = shape(include_str!("shapes/csinode.json"));
    node["metadata"]["name"] = json!(name);
    node["spec"]["drivers"][1]["nodeID"] = json!(host);
    node
}

/// A time before now, as the API writes it.
pub fn ago(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let then = i64::try_from(now - seconds).unwrap();
    k8s_openapi::jiff::Timestamp::from_second(then).unwrap().to_string()
}
