//! Noisy runs of the real binary at the most verbose level, after which every log line, every error and every `Debug`
//! print is searched for keys, tokens, signatures and the secrets of CSI requests.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use csi_udisk::config;
use csi_udisk::csi::proto::v1;
use csi_udisk::ucloud::{CredentialSource, Credentials, HttpRequest, HttpResponse, Method, ReqwestTransport};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::{Response, Status};

use crate::csi::{self, AtNode};
use crate::world::{Driver, World, own_mounts};

/// In requests of CSI, and in nothing else.
const OF_REQUESTS: [&str; 3] = ["Hunter2-of-the-claim", "Hunter2/of+the=pod", "Hunter2-of-the-mount"];
/// Keys that the cloud does not know.
const FOREIGN: [&str; 2] = ["Hunter2+public/key==", "Hunter2+private/key=="];

/// So many characters in a row of a secret are a leak of it.
const WINDOW: usize = 10;

/// What must not be seen, and what was.
#[derive(Clone, Default)]
struct Search {
    secrets: Arc<Mutex<Vec<String>>>,
    /// Texts, each with where it is from.
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Search {
    fn hide(&self, secrets: impl IntoIterator<Item = impl Into<String>>) {
        self.secrets.lock().unwrap().extend(secrets.into_iter().map(Into::into));
    }

    fn look(&self, place: &str, text: impl Into<String>) {
        self.seen.lock().unwrap().push((place.to_owned(), text.into()));
    }

    /// Notes the text of an answer in every form in which it is printed.
    fn answer<T: std::fmt::Debug>(&self, place: &str, answer: Result<Response<T>, Status>) -> Option<T> {
        match answer {
            Ok(response) => {
                self.look(place, format!("{:?}", response.get_ref()));
                Some(response.into_inner())
            }
            Err(status) => {
                self.look(place, format!("{status} {status:?} {}", status.message()));
                None
            }
        }
    }

    fn judge(&self, run: &str) {
        let secrets = self.secrets.lock().unwrap();
        let seen = self.seen.lock().unwrap();
        let forms: Vec<String> = secrets.iter().flat_map(|secret| [secret.clone(), form(secret)]).collect();
        let mut windows: Vec<&str> = forms
            .iter()
            .flat_map(|secret| {
                (0..=secret.len().saturating_sub(WINDOW)).filter_map(|at| secret.get(at..at + WINDOW))
            })
            .collect();
        windows.sort_unstable();
        windows.dedup();
        let lines: Vec<_> = seen
            .iter()
            .flat_map(|(place, text)| text.lines().map(move |line| (place, line)))
            .filter(|(_, line)| !line.is_empty())
            .collect();
        let leaks: Vec<_> = lines
            .iter()
            .filter_map(|(place, line)| {
                let secret = windows.iter().find(|window| line.contains(**window))?;
                Some(format!("{place}: {secret:?} in {line}"))
            })
            .collect();
        let _ = writeln!(
            std::io::stderr(),
            "secrets, {run}: {} lines searched for {} secrets",
            lines.len(),
            secrets.len()
        );
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
    }
}

fn form(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://x").unwrap();
    url.query_pairs_mut().append_pair("k", text);
    url.query().unwrap().trim_start_matches("k=").to_owned()
}

/// Stands between driver and cloud: whatever secret passes is searched for. It can also quote requests, as some
/// gateways do in their errors. The answer is its address.
async fn tap(cloud: &str, search: &Search, quotes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (cloud, search) = (cloud.trim_start_matches("http://").to_owned(), search.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass(stream, cloud.clone(), search.clone(), quotes));
        }
    });
    url
}

async fn pass(mut stream: TcpStream, cloud: String, search: Search, quotes: bool) -> Option<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let url = reqwest::Url::parse(&format!("http://x/?{body}")).unwrap();
    let secret = |name: &str| ["Signature", "SecurityToken", "PublicKey"].contains(&name);
    search.hide(url.query_pairs().filter(|(name, _)| secret(name)).map(|(_, value)| value.into_owned()));
    let quoted: String = url.query_pairs().map(|(name, value)| format!("{name}={value}&")).collect();
    let answer = if quotes && !body.is_empty() {
        let body = match body.len() % 3 {
            0 => format!("<html>cannot read {body}</html>"),
            1 => format!("cannot read {quoted}"),
            _ => {
                serde_json::json!({"RetCode": 171, "Message": format!("Signature VerifyAC Error: {quoted}")})
                    .to_string()
            }
        };
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
            .into_bytes()
    } else {
        let mut upstream = TcpStream::connect(cloud).await.ok()?;
        let head = head.replace("\r\n", "\r\nConnection: close\r\n");
        upstream.write_all(format!("{head}\r\nConnection: close\r\n\r\n{body}").as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        upstream.read_to_end(&mut answer).await.ok()?;
        answer
    };
    let text = String::from_utf8_lossy(&answer);
    if let Some(Value::Object(body)) =
        text.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok())
    {
        let keys = ["PublicKey", "PrivateKey", "SecurityToken", "AccessKeyId", "AccessKeySecret"];
        let data = body.get("Data").and_then(Value::as_object);
        search.hide(keys.iter().filter_map(|key| data?.get(*key)?.as_str()));
    }
    stream.write_all(&answer).await.ok()
}

fn secrets() -> BTreeMap<String, String> {
    OF_REQUESTS.iter().enumerate().map(|(i, secret)| (format!("password{i}"), (*secret).to_owned())).collect()
}

/// The calls of a volume's life and some that fail, all with secrets in them.
async fn noise(search: &Search, place: &str, driver: &Driver, host: &str, name: &str) {
    let mut controller = driver.controller();
    let create = |change: fn(&mut v1::CreateVolumeRequest)| {
        let mut request = v1::CreateVolumeRequest { secrets: secrets(), ..csi::create(name, "ext4", 10) };
        change(&mut request);
        limited(request)
    };
    let bad: [fn(&mut v1::CreateVolumeRequest); 3] =
        [|r| r.parameters.clear(), |r| r.volume_capabilities.clear(), |r| r.name.clear()];
    for bad in bad {
        search.answer(place, controller.create_volume(create(bad)).await);
    }
    let made = search.answer(place, controller.create_volume(create(|_| {})).await);
    let id =
        made.and_then(|made| made.volume).map_or_else(|| "bsm-none".to_owned(), |volume| volume.volume_id);
    for node in [host, "10.99.99.99", "uhost-none", "a node"] {
        let attach =
            v1::ControllerPublishVolumeRequest { secrets: secrets(), ..csi::attach(&id, node, "ext4") };
        search.answer(place, controller.controller_publish_volume(limited(attach)).await);
    }
    for gib in [10, 20, -5] {
        let grow = v1::ControllerExpandVolumeRequest { secrets: secrets(), ..csi::grow(&id, "ext4", gib) };
        search.answer(place, controller.controller_expand_volume(limited(grow)).await);
    }
    let validate = v1::ValidateVolumeCapabilitiesRequest {
        volume_id: id.clone(),
        volume_capabilities: vec![csi::capability("ext4")],
        secrets: secrets(),
        ..v1::ValidateVolumeCapabilitiesRequest::default()
    };
    search.look(place, format!("{validate:?}"));
    search.answer(place, controller.validate_volume_capabilities(limited(validate)).await);
    search.answer(place, controller.list_volumes(limited(v1::ListVolumesRequest::default())).await);
    let delete = || v1::DeleteVolumeRequest { secrets: secrets(), ..csi::delete(&id) };
    search.answer(place, controller.delete_volume(limited(delete())).await);
    let detach = || v1::ControllerUnpublishVolumeRequest { secrets: secrets(), ..csi::detach(&id, host) };
    search.answer(place, controller.controller_unpublish_volume(limited(detach())).await);
    search.answer(place, controller.delete_volume(limited(delete())).await);
    search.look(place, format!("{:?} {:?}", create(|_| {}), (delete(), detach())));
}

fn limited<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(std::time::Duration::from_millis(800));
    request
}

/// For what must succeed: the machine may be busy.
fn patient<T>(request: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    request.set_timeout(std::time::Duration::from_secs(60));
    request
}

/// What the driver is told, and how it logs.
struct Run {
    name: &'static str,
    arguments: &'static [&'static str],
    variables: Vec<(&'static str, String)>,
    quotes: bool,
}

fn run(name: &'static str, arguments: &'static [&'static str], variables: &[(&'static str, &str)]) -> Run {
    let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    Run { name, arguments, variables, quotes: false }
}

const NO_KEYS: [(&str, &str); 2] = [("UCLOUD_ACCESS_PUBKEY", ""), ("UCLOUD_ACCESS_PRIKEY", "")];

fn runs(dir: &Path) -> Vec<Run> {
    let directory = |name: &str, files: &[(&str, &str)]| {
        let dir = dir.join(name);
        std::fs::create_dir(&dir).unwrap();
        files.iter().for_each(|(file, text)| std::fs::write(dir.join(file), text).unwrap());
        ("CSI_UDISK_CREDENTIALS_DIR", dir.display().to_string())
    };
    let (good, foreign) = (
        directory(
            "good",
            &[
                ("UCLOUD_ACCESS_PUBKEY", "sandbox-public-key\n"),
                ("UCLOUD_ACCESS_PRIKEY", "sandbox-private-key\n"),
            ],
        ),
        directory("foreign", &[("UCLOUD_PUBLIC_KEY", FOREIGN[0]), ("UCLOUD_PRIVATE_KEY", FOREIGN[1])]),
    );
    let keys = |own: &(&'static str, String)| {
        [NO_KEYS[0], NO_KEYS[1], (own.0, own.1.as_str())].map(|(k, v)| (k, v.to_owned()))
    };
    let run_with = |name, arguments, own: &(&'static str, String)| Run {
        name,
        arguments,
        variables: keys(own).to_vec(),
        quotes: false,
    };
    let mut all = vec![
        run("json", &["--v=10"], &[]),
        run("text", &["--v=10", "--log-format=text"], &[]),
        run("everything", &["--log=trace"], &[]),
        run("everything-text", &["--log=trace", "--log-format=text"], &[]),
        run(
            "foreign-key",
            &["--v=10"],
            &[("UCLOUD_ACCESS_PUBKEY", FOREIGN[0]), ("UCLOUD_ACCESS_PRIKEY", FOREIGN[1])],
        ),
        run("wrong-key", &["--v=10", "--log-format=text"], &[("UCLOUD_ACCESS_PRIKEY", FOREIGN[1])]),
        run("refused", &["--v=10", "--api-endpoint=http://127.0.0.1:1"], &[]),
        run("sts", &["--v=10"], &NO_KEYS),
        run("sts-2", &["--log=trace", "--sts-role=NoSuchRole"], &NO_KEYS),
        run_with("directory", &["--v=10"], &good),
        run_with("foreign-directory", &["--v=10"], &foreign),
    ];
    for (name, arguments, variables) in [
        ("quoted", &["--v=10"][..], &[][..]),
        (
            "quoted-foreign",
            &["--log=trace", "--log-format=text"],
            &[("UCLOUD_ACCESS_PUBKEY", FOREIGN[0]), ("UCLOUD_ACCESS_PRIKEY", FOREIGN[1])],
        ),
        ("quoted-sts", &["--v=10"], &NO_KEYS),
    ] {
        all.push(Run { quotes: true, ..run(name, arguments, variables) });
    }
    all
}

async fn make_noise(run: Run, world: Arc<World>, tap: String, search: Search) {
    let host = world.first_host();
    // The metadata service is not spoilt by quoting: it is asked without a body.
    let metadata = format!("{tap}/_metadata/{host}");
    let mut variables =
        vec![("UCLOUD_API_ENDPOINT", tap.as_str()), ("CSI_UDISK_METADATA_ENDPOINT", &metadata)];
    variables.extend(run.variables.iter().map(|(name, value)| (*name, value.as_str())));
    let driver =
        world.driver("controller", &format!("controller.{}", run.name), run.arguments, &variables).await;
    noise(&search, run.name, &driver, &host, &format!("pvc-{}", run.name)).await;
    // Asked to stop, it would first end what it has begun, which takes as long as the cloud lies.
    let log = driver.process.log();
    driver.process.kill();
    assert!(log.lines().count() > 20, "{}: the run is not noisy:\n{log}", run.name);
    search.look(run.name, log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_the_controller() {
    let world = Arc::new(World::start("none").await);
    let search = Search::default();
    search.hide(OF_REQUESTS);
    search.hide(FOREIGN);
    search.hide(["sandbox-public-key", "sandbox-private-key"]);
    let honest = tap(world.url(), &search, false).await;
    let quoting = tap(world.url(), &search, true).await;
    let dir = tempfile::tempdir().unwrap();
    let mut noisy = tokio::task::JoinSet::new();
    for run in runs(dir.path()) {
        let tap = if run.quotes { &quoting } else { &honest };
        noisy.spawn(make_noise(run, Arc::clone(&world), tap.clone(), search.clone()));
    }
    noisy.join_all().await;
    assert!(search.secrets.lock().unwrap().iter().any(|secret| secret.len() == 40), "no signature passed");
    search.look("cloud", world.log());
    faults_of_configuration(&search, dir.path());
    prints(&search);
    search.judge("controller");
}

/// Starts that fail while keys are given.
fn faults_of_configuration(search: &Search, dir: &Path) {
    let half = dir.join("half");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("UCLOUD_ACCESS_PUBKEY"), FOREIGN[0]).unwrap();
    let endpoint = format!("--api-endpoint=http://{}:{}@127.0.0.1", FOREIGN[0], FOREIGN[1]);
    let query = format!("--api-endpoint=http://127.0.0.1/?SecurityToken={}", FOREIGN[1]);
    for (arguments, public) in [
        (vec!["--nonsense"], FOREIGN[0]),
        (vec!["--mode=x", "--zone=a/b", "--v=x"], FOREIGN[0]),
        (vec!["--mode=controller"], ""),
        (vec![endpoint.as_str()], FOREIGN[0]),
        (vec![query.as_str()], FOREIGN[0]),
        (vec!["--prikey", FOREIGN[1]], FOREIGN[0]),
        (vec!["--prikey=Hunter2+private/key=="], FOREIGN[0]),
        (vec!["--help"], FOREIGN[0]),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_csi-udisk"))
            .args(&arguments)
            .env_clear()
            .envs([("UCLOUD_ACCESS_PUBKEY", public), ("UCLOUD_ACCESS_PRIKEY", FOREIGN[1])])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        search.look("configuration", String::from_utf8_lossy(&output.stderr));
        search.look("configuration", String::from_utf8_lossy(&output.stdout));
    }
}

/// `Debug` prints of what holds secrets.
fn prints(search: &Search) {
    let variables = |name: &str| match name {
        "UCLOUD_ACCESS_PUBKEY" => Some(FOREIGN[0].into()),
        "UCLOUD_ACCESS_PRIKEY" => Some(FOREIGN[1].into()),
        _ => None,
    };
    let config = config::parse(["--mode=controller".into()], &variables).unwrap();
    let keys = Credentials::keys(FOREIGN[0].into(), FOREIGN[1].into());
    let source = CredentialSource::<ReqwestTransport>::keys(keys.clone());
    let request = HttpRequest {
        method: Method::Post,
        url: reqwest::Url::parse("http://x/?Action=X").unwrap(),
        headers: vec![("cookie", FOREIGN[0].to_owned())],
        body: format!("PublicKey={}", FOREIGN[0]),
        answered_by: std::sync::Arc::default(),
    };
    let response = HttpResponse { status: 200, request_id: None, body: FOREIGN[1].into() };
    search.look("debug", format!("{config:?} {keys:?} {source:?} {request:?} {response:?}"));
    let stage = v1::NodeStageVolumeRequest { secrets: secrets(), ..v1::NodeStageVolumeRequest::default() };
    let publish =
        v1::NodePublishVolumeRequest { secrets: secrets(), ..v1::NodePublishVolumeRequest::default() };
    let expand = v1::NodeExpandVolumeRequest { secrets: secrets(), ..v1::NodeExpandVolumeRequest::default() };
    search.look("debug", format!("{stage:?} {publish:?} {expand:?} {stage:#?}"));
}

#[tokio::test]
async fn no_secret_leaves_the_node() {
    if !own_mounts("secrets::no_secret_leaves_the_node") {
        return;
    }
    let world = World::start("none").await;
    let search = Search::default();
    search.hide(OF_REQUESTS);
    search.hide(FOREIGN);
    let host = world.first_host();
    let driver = world.controller().await;
    let mut controller = driver.controller();
    for (number, arguments) in
        [&["--v=10"][..], &["--log=trace", "--log-format=text"]].into_iter().enumerate()
    {
        let name = format!("pvc-secret-{number}");
        let volume =
            controller.create_volume(csi::create(&name, "ext4", 10)).await.unwrap().into_inner().volume;
        let id = volume.unwrap().volume_id;
        let context = controller.controller_publish_volume(csi::attach(&id, &host, "ext4")).await.unwrap();
        let at = AtNode {
            id: id.clone(),
            kind: "ext4".to_owned(),
            context: context.into_inner().publish_context,
            staging: world.dir.join("staged").display().to_string(),
            target: world.dir.join("target").display().to_string(),
        };
        // A node has the cluster's keys in its environment, and uses none.
        let keys = [("UCLOUD_ACCESS_PUBKEY", FOREIGN[0]), ("UCLOUD_ACCESS_PRIKEY", FOREIGN[1])];
        let serving = world.driver("node", "node", arguments, &keys).await;
        let mut node = serving.node();
        let stage = |flags: &[&str]| {
            let mut request = v1::NodeStageVolumeRequest { secrets: secrets(), ..at.stage() };
            let access = request.volume_capability.as_mut().unwrap().access_type.as_mut().unwrap();
            if let v1::volume_capability::AccessType::Mount(mount) = access {
                mount.mount_flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
            }
            patient(request)
        };
        // Mount options may hold credentials.
        for flags in [
            &["password=Hunter2-of-the-mount"][..],
            &["bind", "pass=Hunter2-of-the-mount"],
            &["pass=Hunter2-of-the-mount\n"],
        ] {
            search.answer("stage", node.node_stage_volume(stage(flags)).await);
        }
        search.answer("stage", node.node_stage_volume(stage(&["noatime"])).await).unwrap();
        let publish = |target: &str| {
            let target_path = target.to_owned();
            patient(v1::NodePublishVolumeRequest { secrets: secrets(), target_path, ..at.publish() })
        };
        search.answer("publish", node.node_publish_volume(publish("relative")).await);
        search.answer("publish", node.node_publish_volume(publish(&at.target)).await).unwrap();
        let grow = v1::NodeExpandVolumeRequest { secrets: secrets(), ..at.grow(10) };
        search.answer("expand", node.node_expand_volume(limited(grow)).await);
        search.answer("unpublish", node.node_unpublish_volume(at.unpublish()).await).unwrap();
        search.answer("unstage", node.node_unstage_volume(at.unstage()).await).unwrap();
        controller.controller_unpublish_volume(csi::detach(&id, &host)).await.unwrap();
        controller.delete_volume(csi::delete(&id)).await.unwrap();
        search.look("node", serving.process.log());
        serving.process.stop();
    }
    search.judge("node");
}
