//! The controller's calls while every answer to one action lies, against a simulated cloud whose truth is known.
//! Time is virtual, so each call has all the time that it would have.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi_udisk::controller::{Controller, ControllerConfig};
use csi_udisk::csi::controller::ControllerService;
use csi_udisk::csi::operation::Operations;
use csi_udisk::csi::proto::v1;
use csi_udisk::sandbox::cloud::{self, Disk, HostSpec, SimCloud, SimConfig, Status};
use csi_udisk::ucloud::{
    CredentialSource, Credentials, HttpRequest, HttpResponse, MAX_RESPONSE, Transport, TransportError,
    TransportErrorKind, UCloud, UCloudConfig,
};
use csi_udisk::volume::Gib;
use reqwest::Url;
use serde_json::{Value, json};
use tonic::{Code, Request, Response};
use v1::controller_server::Controller as _;
use v1::volume_capability::access_mode::Mode;
use v1::volume_capability::{AccessMode, AccessType, BlockVolume};

use crate::lie::{self, Exchange, Kind, Lie, Told};
use crate::report;

const NAME: &str = "pvc-lied-about";
const HOST: &str = "uhost-a";
const METAL: &str = "upm-c";

/// What is called, and the action whose answers lie meanwhile.
const CALLS: [(Call, &str); 22] = [
    (Call::Create("ssd"), "DescribeUDisk"),
    (Call::Create("ssd"), "CreateUDisk"),
    (Call::Create("rssd"), "DescribeUHostInstance"),
    (Call::CreateAgain, "DescribeUDisk"),
    (Call::Delete, "DescribeUDisk"),
    (Call::Delete, "DeleteUDisk"),
    (Call::Attach(HOST), "DescribeUDisk"),
    (Call::Attach(HOST), "AttachUDisk"),
    (Call::Attach("10.9.0.11"), "DescribeUDisk"),
    (Call::Attach("10.9.0.11"), "DescribeUHostInstance"),
    (Call::Attach("10.9.0.13"), "DescribePHost"),
    (Call::Detach(HOST), "DescribeUDisk"),
    (Call::Detach(HOST), "DetachUDisk"),
    (Call::Detach("10.9.0.11"), "DescribeUDisk"),
    (Call::Detach(""), "DescribeUDisk"),
    (Call::Grow(None), "DescribeUDisk"),
    (Call::Grow(None), "ResizeUDisk"),
    (Call::Grow(Some(HOST)), "ResizeAttachedDisk"),
    (Call::Grow(Some(METAL)), "ResizePHostAttachedDisk"),
    (Call::Get, "DescribeUDisk"),
    (Call::Validate, "DescribeUDisk"),
    (Call::List, "DescribeUDisk"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Create(&'static str),
    /// The disk is there already.
    CreateAgain,
    Delete,
    /// To a node, by id or address.
    Attach(&'static str),
    Detach(&'static str),
    /// Of a disk that is attached there.
    Grow(Option<&'static str>),
    Get,
    Validate,
    List,
}

/// The way to the cloud.
#[derive(Debug, Clone)]
struct Wire {
    cloud: SimCloud,
    falsified: Arc<Mutex<Option<Falsified>>>,
}

#[derive(Clone)]
struct Falsified {
    action: &'static str,
    lies: Arc<Vec<Lie>>,
    lie: usize,
    /// Whether the cloud gets the call at all.
    done: bool,
    told: bool,
}

impl std::fmt::Debug for Falsified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.lies[self.lie].name, self.done)
    }
}

impl Transport for Wire {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let broken = |kind| TransportError { kind, message: "it broke".into(), request_id: None };
        let action = request.url.query().unwrap_or_default().trim_start_matches("Action=").to_owned();
        let rule = self.falsified.lock().unwrap().clone().filter(|rule| rule.action == action);
        let call = cloud::Request {
            method: "POST".into(),
            path: "/".into(),
            headers: vec![("content-type".into(), "application/x-www-form-urlencoded".into())],
            body: request.body.clone().into_bytes(),
            ..cloud::Request::default()
        };
        let honest = match &rule {
            Some(rule) if !rule.done => made_up(&action),
            _ => {
                let answer = self.cloud.handle(call).await.response().unwrap();
                serde_json::from_slice(&answer.body).unwrap()
            }
        };
        let fine =
            |body: &[u8]| HttpResponse { status: 200, request_id: Some("req-1".into()), body: body.to_vec() };
        let Some(rule) = rule else { return Ok(fine(honest.to_string().as_bytes())) };
        let exchange = Exchange { request: &request.body, answer: &honest };
        let Some(told) = (rule.lies[rule.lie].tell)(&exchange) else {
            return Ok(fine(honest.to_string().as_bytes()));
        };
        self.falsified.lock().unwrap().as_mut().unwrap().told = true;
        match told {
            Told::Answer { body, .. } if body.len() > MAX_RESPONSE => {
                Err(broken(TransportErrorKind::TooLarge))
            }
            Told::Answer { status, body, .. } => Ok(HttpResponse { status, ..fine(&body) }),
            Told::Raw(_) | Told::Nothing => Err(broken(TransportErrorKind::MayBeSent)),
            Told::Silence | Told::Slow(_) => std::future::pending().await,
        }
    }
}

/// The answer of a cloud that did nothing and says that it did.
fn made_up(action: &str) -> Value {
    let mut answer = json!({"RetCode": 0, "Action": format!("{action}Response")});
    if action == "CreateUDisk" {
        answer["UDiskId"] = json!(["bsm-made-up"]);
    }
    answer
}

fn is_change(action: &str) -> bool {
    !action.starts_with("Describe")
}

struct Cell {
    cloud: SimCloud,
    wire: Wire,
    service: ControllerService<UCloud<Wire>>,
    call: Call,
    /// The volume, where there is one.
    id: String,
}

type Answer = Result<Value, tonic::Status>;

impl Cell {
    async fn new(call: Call) -> Self {
        let mut config = SimConfig::default();
        let metal = HostSpec::new(METAL, "10.9.0.13");
        config.hosts.push(HostSpec { max_disks: 20, ..metal.in_rdma_cluster(&config.hosts[0].rdma_cluster) });
        let cloud = SimCloud::new(config);
        let wire = Wire { cloud: cloud.clone(), falsified: Arc::default() };
        let mut cell = Self { service: service(&wire), cloud, wire, call, id: String::new() };
        // Somebody else's disk, that must stay what it is.
        cell.cloud.create_disk("somebody-else", Gib::new(10)).await.unwrap();
        if !matches!(call, Call::Create(_)) {
            let metal = matches!(call, Call::Attach("10.9.0.13") | Call::Grow(Some(METAL)));
            cell.id = text(&cell.create(if metal { "rssd" } else { "ssd" }).await.unwrap());
        }
        let host = match call {
            Call::Grow(Some(host)) => host,
            Call::Detach(_) => HOST,
            Call::Create(_)
            | Call::CreateAgain
            | Call::Delete
            | Call::Attach(_)
            | Call::Grow(None)
            | Call::Get
            | Call::Validate
            | Call::List => return cell.settled().await,
        };
        cell.attach(host).await.unwrap();
        cell.settled().await
    }

    /// With a controller that knows of nothing that was just done.
    async fn settled(self) -> Self {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let cell = Self { service: service(&self.wire), ..self };
        // A process is careful from the first change on that it is asked for.
        let nothing = v1::DeleteVolumeRequest { volume_id: "bsm-of-nobody".into(), ..Default::default() };
        cell.service.delete_volume(Request::new(nothing)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        cell
    }

    fn disk(&self) -> Option<Disk> {
        self.cloud.disk(&self.id)
    }

    fn named(&self) -> Vec<Disk> {
        self.cloud.disks().into_iter().filter(|disk| disk.name == NAME).collect()
    }

    async fn run(&self) -> Answer {
        match self.call {
            Call::Create(kind) => self.create(kind).await,
            Call::CreateAgain => self.create("ssd").await,
            Call::Delete => {
                let request = v1::DeleteVolumeRequest { volume_id: self.id.clone(), ..Default::default() };
                self.service.delete_volume(Request::new(request)).await.map(|_| Value::Null)
            }
            Call::Attach(node) => self.attach(node).await,
            Call::Detach(node) => {
                let (volume_id, node_id) = (self.id.clone(), node.to_owned());
                let request =
                    v1::ControllerUnpublishVolumeRequest { volume_id, node_id, ..Default::default() };
                self.service.controller_unpublish_volume(Request::new(request)).await.map(|_| Value::Null)
            }
            Call::Grow(_) => {
                let request = v1::ControllerExpandVolumeRequest {
                    volume_id: self.id.clone(),
                    capacity_range: Some(v1::CapacityRange { required_bytes: 30 << 30, limit_bytes: 0 }),
                    ..Default::default()
                };
                let grown = self.service.controller_expand_volume(Request::new(request)).await;
                grown.map(|answer| json!(answer.into_inner().capacity_bytes))
            }
            Call::Get => {
                let request = v1::ControllerGetVolumeRequest { volume_id: self.id.clone() };
                let found = self.service.controller_get_volume(Request::new(request)).await;
                found.map(|answer| json!(answer.into_inner().volume.unwrap().volume_id))
            }
            Call::Validate => {
                let request = v1::ValidateVolumeCapabilitiesRequest {
                    volume_id: self.id.clone(),
                    volume_capabilities: vec![capability()],
                    ..Default::default()
                };
                let answer = self.service.validate_volume_capabilities(Request::new(request)).await;
                answer.map(|answer| json!(answer.into_inner().confirmed.is_some()))
            }
            Call::List => {
                let listed = self.service.list_volumes(Request::new(Default::default())).await;
                listed.map(|answer| json!(answer.into_inner().entries.len()))
            }
        }
    }

    async fn create(&self, kind: &str) -> Answer {
        let key = |name: &str| format!("topology.udisk.csi.ucloud.cn/{name}");
        let host = [(key("zone"), "cn-sh2-02".to_owned()), (key("host"), HOST.to_owned())];
        let requisite = vec![v1::Topology { segments: host.into() }];
        let request = v1::CreateVolumeRequest {
            name: NAME.into(),
            capacity_range: Some(v1::CapacityRange { required_bytes: 20 << 30, limit_bytes: 0 }),
            volume_capabilities: vec![capability()],
            parameters: [("type".to_owned(), kind.to_owned())].into(),
            accessibility_requirements: Some(v1::TopologyRequirement { requisite, preferred: vec![] }),
            ..Default::default()
        };
        let made: Result<Response<_>, _> = self.service.create_volume(Request::new(request)).await;
        made.map(|answer| json!(answer.into_inner().volume.unwrap().volume_id))
    }

    async fn attach(&self, node: &str) -> Answer {
        let request = v1::ControllerPublishVolumeRequest {
            volume_id: self.id.clone(),
            node_id: node.to_owned(),
            volume_capability: Some(capability()),
            ..Default::default()
        };
        let attached = self.service.controller_publish_volume(Request::new(request)).await;
        attached.map(|answer| json!(answer.into_inner().publish_context["device"]))
    }

    /// Why an answer that says yes is not true.
    fn doubt(&self, answer: &Value) -> Option<String> {
        let disk = self.disk();
        let host = disk.as_ref().and_then(|disk| disk.host().map(str::to_owned));
        let in_use = disk.as_ref().is_some_and(|disk| disk.status == Status::InUse);
        let right = match self.call {
            Call::Create(_) | Call::CreateAgain => {
                let [disk] = &self.named()[..] else { return Some(format!("{} disks", self.named().len())) };
                disk.id == text(answer)
            }
            Call::Delete => disk.is_none(),
            Call::Attach(node) => {
                let wanted = if node == "10.9.0.13" { METAL } else { HOST };
                in_use && host.as_deref() == Some(wanted)
            }
            Call::Detach(_) => disk.is_some() && host.is_none(),
            Call::Grow(_) => disk.is_some_and(|disk| disk.size.get() >= 30),
            Call::Get => text(answer) == self.id,
            Call::Validate => answer == &json!(true),
            Call::List => answer == &json!(2),
        };
        (!right).then(|| format!("answered {answer}, which is not true"))
    }

    /// Why a refusal says more than can be known. A lie in a part of an answer may be a good reason to refuse, but none
    /// to call the disk gone.
    fn presumption(&self, status: &tonic::Status, kind: Kind) -> Option<String> {
        let presumes = match (status.code(), kind) {
            (Code::Aborted | Code::Unavailable | Code::DeadlineExceeded, _) => false,
            (Code::PermissionDenied, Kind::Refusal) => false,
            (Code::NotFound, Kind::Part) => {
                status.message().contains(&format!("UDisk {} does not exist", self.id))
            }
            (Code::Internal | Code::Unknown | Code::DataLoss, _) => true,
            (_, Kind::Part) => false,
            (_, Kind::Nonsense | Kind::Refusal | Kind::Odd) => true,
        };
        presumes.then(|| format!("answered {:?}", status.code()))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn capability() -> v1::VolumeCapability {
    v1::VolumeCapability {
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        access_type: Some(AccessType::Block(BlockVolume {})),
    }
}

fn service(wire: &Wire) -> ControllerService<UCloud<Wire>> {
    let SimConfig { region, zones, keys, .. } = SimConfig::default();
    let config = UCloudConfig {
        endpoint: Url::parse("http://api.test/").unwrap(),
        region: region.clone(),
        project_id: None,
        vpc_id: None,
        read_timeout: Duration::from_secs(30),
    };
    let keys = Credentials::keys(keys[0].public.clone().into(), keys[0].private.clone().into());
    let cloud = UCloud::new(config, wire.clone(), CredentialSource::keys(keys));
    let zone = csi_udisk::volume::Zone::parse(&zones[0].name).unwrap();
    let config = ControllerConfig { zone: Some(zone), ..ControllerConfig::new(region.clone()) };
    ControllerService::new(Controller::new(Arc::new(cloud), config), Operations::new(), region)
}

/// Whether a lie differs from all others for the calls: the client makes one error of most, and is judged by all.
fn matters(action: &str, lie: &Lie) -> bool {
    const ALIKE: [&str; 14] = [
        "HTTP ",
        "secrets after",
        "the request",
        "a megabyte",
        "more than a",
        "five megabytes",
        "deep",
        "a head",
        "chunks",
        "a length",
        "half a head",
        "another protocol",
        "\"unknown host",
        "XML",
    ];
    const KEPT: [&str; 5] = ["HTTP 302", "HTTP 404", "HTTP 429", "HTTP 502", "the request as a message"];
    // A change that got no answer is followed for minutes, so of these there are few.
    const CHANGES: [&str; 15] = [
        "a page",
        "half of it",
        "no answer",
        "silence",
        "blanks around it",
        "the answer to",
        "nothing but",
        "more members",
        "RetCode null",
        "RetCode \"0\"",
        "new disk",
        "restart",
        "HTTP 302",
        "HTTP 429",
        "the request as a message",
    ];
    let starts = |words: &[&str]| words.iter().any(|word| lie.name.starts_with(word));
    if is_change(action) { starts(&CHANGES) } else { !starts(&ALIKE) || starts(&KEPT) }
}

/// Lies of which nobody can tell: another name is what a filter that is no filter answers, and what a rename leaves; an
/// id that does not exist is what a listing shows for a while after a delete; one more than counted is what it shows
/// while a disk is made.
fn cannot_be_told(call: Call, lie: &Lie) -> bool {
    let lie = lie.name.as_str();
    (call == Call::CreateAgain && ["Name \"other\"", "entry of somebody else"].contains(&lie))
        || (call == Call::List && lie == "somebody else's entry first")
}

/// Judges one cell. `None`: the lie is not about anything that this call reads.
async fn judge(
    call: Call,
    action: &'static str,
    lies: &Arc<Vec<Lie>>,
    lie: usize,
    done: bool,
) -> Option<Vec<String>> {
    let told = &lies[lie];
    let cell = Cell::new(call).await;
    let others = cell.cloud.disks().into_iter().find(|disk| disk.name == "somebody-else");
    let rule = Falsified { action, lies: Arc::clone(lies), lie, done, told: false };
    *cell.wire.falsified.lock().unwrap() = Some(rule);
    let first = cell.run().await;
    let lied = cell.wire.falsified.lock().unwrap().take().unwrap().told;
    if !lied {
        return None;
    }
    let mut faults = Vec::new();
    match &first {
        Ok(answer) => faults.extend(cell.doubt(answer)),
        Err(_) if told.kind == Kind::Odd && done => faults.push("was refused".to_owned()),
        Err(status) => {
            faults.extend(cell.presumption(status, told.kind));
            let message = status.message();
            let named = message.contains(action)
                && (!message.contains("req-") || message.contains("[request req-1]"));
            if told.kind == Kind::Nonsense && !named {
                faults.push("does not name the action".to_owned());
            }
        }
    }
    // The cloud is honest again: the same call comes to its end.
    let mut last = first.map_err(|status| status.to_string());
    for _ in 0..8 {
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        last = cell.run().await.map_err(|status| status.to_string());
    }
    match &last {
        Ok(answer) => faults.extend(cell.doubt(answer).map(|why| format!("in the end {why}"))),
        Err(status) => faults.push(format!("does not come to an end: {status}")),
    }
    let disks = cell.cloud.disks();
    if disks.iter().filter(|disk| disk.name == NAME).count() > 1 {
        faults.push("made two disks".to_owned());
    }
    if !disks.iter().any(|disk| Some(disk) == others.as_ref()) {
        faults.push("changed somebody else's disk".to_owned());
    }
    let what = format!("{call:?}, {action} {} ({:?}, done: {done})", told.name, told.kind);
    Some(faults.into_iter().map(|fault| format!("{what}: {fault} [{last:?}]")).collect())
}

/// One cell to judge: a call, the action that lies, the lie, and whether the cloud gets the call.
type Question = (Call, &'static str, usize, bool);

fn questions(lies: &[Lie]) -> Vec<Question> {
    let mut questions = Vec::new();
    for (call, action) in CALLS {
        for (number, lie) in lies.iter().enumerate() {
            if !matters(action, lie) || cannot_be_told(call, lie) {
                continue;
            }
            // Who refuses has not done it.
            if !(is_change(action) && lie.kind == Kind::Refusal) {
                questions.push((call, action, number, true));
            }
            // Deleted or not, "done" is all that the cloud says.
            let believable = action == "DeleteUDisk" && matches!(lie.kind, Kind::Odd | Kind::Part);
            if is_change(action) && !believable {
                questions.push((call, action, number, false));
            }
        }
    }
    questions
}

#[test]
fn no_call_believes_a_lie() {
    let lies = Arc::new(lie::all());
    let questions = questions(&lies);
    let next = AtomicUsize::new(0);
    // Each thread has a clock of its own, which nothing else moves.
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.unwrap();
        let mut judged = Vec::new();
        while let Some(&(call, action, lie, done)) = questions.get(next.fetch_add(1, Ordering::Relaxed)) {
            judged.extend(runtime.block_on(judge(call, action, &lies, lie, done)));
        }
        judged
    };
    let judged: Vec<_> = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let faults: Vec<_> = judged.iter().flatten().cloned().collect();
    report(&format!("driver: {} calls under lies, {} cells", CALLS.len(), judged.len()));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
