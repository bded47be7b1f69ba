//! Every method of the client, against every lie, over HTTP.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi_udisk::cloud::{Attachment, Cloud as _, CloudError, DiskFilter, NewDisk, Outcome};
use csi_udisk::ucloud::{CredentialSource, Credentials, ReqwestTransport, UCloud, UCloudConfig};
use csi_udisk::volume::{ChargeType, DiskId, DiskType, Gib, HostId, Zone};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::lie::{self, Exchange, Kind, Lie, Told};
use crate::report;

/// So many calls are made at a time.
const AT_A_TIME: usize = 256;

/// The time of a call, and of one try of a read.
#[derive(Clone, Copy)]
struct Time {
    call: Duration,
    attempt: Duration,
}

impl Time {
    /// Decides nothing: what is tried again ends by the number of tries, however busy the machine is.
    const AMPLE: Self = Self { call: Duration::from_secs(300), attempt: Duration::from_secs(60) };
    /// What nothing else ends. Only what is never answered well is cut off, so a busy machine changes no result.
    const SHORT: Self = Self { call: Duration::from_secs(15), attempt: Duration::from_secs(4) };

    fn for_lie(told: &Told) -> Self {
        match told {
            Told::Silence | Told::Slow(_) | Told::Answer { status: 429, .. } => Self::SHORT,
            Told::Answer { .. } | Told::Raw(_) | Told::Nothing => Self::AMPLE,
        }
    }
}

/// Characters that forms and JSON escape, as real keys have.
const PUBLIC: &str = "public+hunter2/key==";
const PRIVATE: &str = "private+hunter2/key==";

/// The methods, each as the action that it sends.
const METHODS: [&str; 13] = [
    "disk DescribeUDisk",
    "disks DescribeUDisk",
    "create_disk CreateUDisk",
    "delete_disk DeleteUDisk",
    "attach_disk AttachUDisk",
    "detach_disk DetachUDisk",
    "resize_detached_disk ResizeUDisk",
    "resize_attached_disk ResizeAttachedDisk",
    "resize_attached_disk ResizePHostAttachedDisk",
    "host DescribeUHostInstance",
    "host DescribePHost",
    "virtual_hosts DescribeUHostInstance",
    "bare_metal_hosts DescribePHost",
];

fn is_change(method: &str) -> bool {
    !method.contains("Describe")
}

/// What an honest cloud answers.
fn honest(action: &str) -> Value {
    let mut answer = match action {
        "DescribeUDisk" => json!({"TotalCount": 1, "DataSet": [{
            "UDiskId": "bsm-1", "Zone": "cn-bj2-05", "Name": "pvc-1", "Size": 20, "Status": "InUse", "HostId": "uhost-1",
            "UHostId": "uhost-1", "HostIP": "10.0.0.1", "DeviceName": "vdb", "DiskType": "SSDDataDisk", "IsBoot": "False",
            "CreateTime": 1_700_000_000, "Tag": "Default", "ChargeType": "Dynamic", "RdmaClusterId": "9002"}]}),
        "CreateUDisk" => json!({"UDiskId": ["bsm-1"]}),
        "DescribeUHostInstance" => json!({"TotalCount": 1, "UHostSet": [{
            "UHostId": "uhost-1", "Zone": "cn-bj2-05", "State": "Running", "RdmaClusterId": "9002", "MachineType": "O",
            "IPSet": [{"Type": "Private", "IP": "10.0.0.1", "Default": "true"}]}]}),
        "DescribePHost" => json!({"TotalCount": 1, "PHostSet": [{
            "PHostId": "upm-1", "Zone": "cn-bj2-05", "PMStatus": "Running", "RdmaClusterId": "9002", "PHostType": "Cloud",
            "IPSet": [{"OperatorName": "Private", "IPAddr": "10.0.0.2"}]}]}),
        "ResizeAttachedDisk" => json!({"DiskId": "bsm-1", "NeedRestart": false}),
        _ => json!({"UDiskId": "bsm-1"}),
    };
    // A change names the disk in another way than a creation, and nothing depends on it.
    if !matches!(action, "DescribeUDisk" | "CreateUDisk" | "DescribeUHostInstance" | "DescribePHost") {
        answer.as_object_mut().unwrap().remove("UDiskId");
    }
    answer["RetCode"] = json!(0);
    answer["Action"] = json!(format!("{action}Response"));
    answer
}

async fn call(cloud: &UCloud, method: &str, time: Time) -> Result<String, CloudError> {
    let (disk, zone) = (DiskId::parse("bsm-1").unwrap(), Zone::parse("cn-bj2-05").unwrap());
    let host = HostId::parse(if method.contains("PHost") { "upm-1" } else { "uhost-1" }).unwrap();
    let by = Instant::now() + time.call;
    fn text<T: Debug>(result: Result<T, CloudError>) -> Result<String, CloudError> {
        result.map(|value| format!("{value:?}"))
    }
    match method.split_once(' ').unwrap().0 {
        "disk" => text(cloud.disk(&disk, by).await),
        "disks" => {
            let page = cloud.disks(&DiskFilter::default(), 0, 100, by).await;
            let whole = page.and_then(|page| {
                let disks: Result<Vec<_>, _> = page.disks.into_iter().collect();
                // An error for the one that lies will do; the others stay readable.
                Ok((page.total, disks.map_err(|odd| *odd.source)?))
            });
            text(whole)
        }
        "create_disk" => {
            let new = NewDisk {
                zone,
                name: "pvc-1".into(),
                size: Gib::new(20),
                disk_type: DiskType::Ssd,
                charge_type: ChargeType::Dynamic,
                quantity: None,
                data_ark: false,
                tag: None,
                cmk_id: None,
                rdma_cluster: None,
            };
            text(cloud.create_disk(&new, by).await)
        }
        "delete_disk" => text(cloud.delete_disk(&zone, &disk, by).await),
        "attach_disk" => {
            let attachment = Attachment { disk, host, zone, multi_attach: Some(false), cross_pod: false };
            text(cloud.attach_disk(&attachment, by).await)
        }
        "detach_disk" => text(cloud.detach_disk(&zone, &disk, &host, by).await),
        "resize_detached_disk" => text(cloud.resize_detached_disk(&zone, &disk, Gib::new(30), by).await),
        "resize_attached_disk" => {
            text(cloud.resize_attached_disk(&zone, &disk, &host, Gib::new(30), by).await)
        }
        "host" => text(cloud.host(&host, by).await),
        "virtual_hosts" => text(cloud.virtual_hosts(0, 100, by).await),
        "bare_metal_hosts" => text(cloud.bare_metal_hosts(0, 100, by).await),
        other => unreachable!("{other}"),
    }
}

/// A server that tells one lie below each path, `/3/` for the third cell, and counts what it was asked.
#[derive(Clone, Default)]
struct Liar {
    cells: Arc<Vec<(usize, usize)>>,
    lies: Arc<Vec<Lie>>,
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
    /// The signatures that it was sent.
    signatures: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    async fn serve(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(self.clone().talk(stream));
        }
    }

    async fn talk(self, mut stream: TcpStream) -> Option<()> {
        let (path, form) = request(&mut stream).await?;
        *self.asked.lock().unwrap().entry(path.clone()).or_default() += 1;
        let cell: Option<usize> = path.trim_matches('/').parse().ok();
        let (method, lie) = *self.cells.get(cell?)?;
        let signature = form.rsplit_once("&Signature=")?.1.to_owned();
        self.signatures.lock().unwrap().push(signature);
        let honest = honest(METHODS[method].split_once(' ')?.1);
        // What does not apply is not asked for.
        match (self.lies[lie].tell)(&Exchange { request: &form, answer: &honest })? {
            Told::Answer { status, headers, body } => {
                let mut head = format!("HTTP/1.1 {status} Word\r\nX-UCLOUD-REQUEST-UUID: req-{}\r\n", cell?);
                for (name, value) in headers {
                    head += &format!("{name}: {value}\r\n");
                }
                head += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.into_bytes(), body].concat()).await;
            }
            Told::Raw(bytes) => {
                let _ = stream.write_all(&bytes).await;
            }
            Told::Nothing => {}
            Told::Silence => {
                let _ = stream.read(&mut [0; 1]).await;
            }
            Told::Slow(body) => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).await.ok()?;
                for byte in body {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    stream.write_all(&[byte]).await.ok()?;
                }
            }
        }
        Some(())
    }
}

/// The path and the form of a request.
async fn request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            let path = head.split(['?', ' ']).nth(1)?;
            return Some((path.to_owned(), body.to_owned()));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_method_believes_a_lie() {
    let lies = lie::all();
    let told = |method: usize, lie: &Lie| {
        let action = METHODS[method].split_once(' ').unwrap().1;
        (lie.tell)(&Exchange { request: &request_text(), answer: &honest(action) })
    };
    let all = (0..METHODS.len()).flat_map(|method| (0..lies.len()).map(move |lie| (method, lie)));
    let (cells, times): (Vec<(usize, usize)>, Vec<Time>) = all
        .filter_map(|(method, lie)| Some(((method, lie), Time::for_lie(&told(method, &lies[lie])?))))
        .unzip();
    let liar = Liar { cells: Arc::new(cells), lies: Arc::new(lies), ..Liar::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(liar.clone().serve(listener));

    let mut truths = BTreeMap::new();
    for method in METHODS {
        truths.insert(method, truth(method).await);
    }
    let transport = ReqwestTransport::for_endpoint(&Url::parse(&base).unwrap()).unwrap();
    let turns = Arc::new(tokio::sync::Semaphore::new(AT_A_TIME));
    let calls: Vec<_> = liar
        .cells
        .iter()
        .zip(times)
        .enumerate()
        .map(|(number, (&(method, _), time))| {
            let endpoint = Url::parse(&format!("{base}/{number}/")).unwrap();
            let (cloud, turns) = (client(endpoint, transport.clone(), time), Arc::clone(&turns));
            tokio::spawn(async move {
                let _turn = turns.acquire().await;
                call(&cloud, METHODS[method], time).await
            })
        })
        .collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.expect("no panic"));
    }
    server.abort();

    let mut faults = Vec::new();
    let mut refused = 0;
    for (number, (result, &(method, lie))) in results.into_iter().zip(liar.cells.iter()).enumerate() {
        let (method, lie) = (METHODS[method], &liar.lies[lie]);
        refused += usize::from(result.is_err());
        let sent = liar.asked.lock().unwrap().get(&format!("/{number}/")).copied().unwrap_or(0);
        let signatures = liar.signatures.lock().unwrap().clone();
        let asked = Asked { number, method, lie, sent, signatures: &signatures };
        let wrong = asked.judge(&result, &truths[method]);
        faults.extend(wrong.map(|why| format!("{method}, {} ({:?}): {why}: {result:?}", lie.name, lie.kind)));
    }
    let followed = liar.asked.lock().unwrap().get("/followed").copied();
    assert_eq!(followed, None, "a redirect was followed");
    let (methods, kinds) = (METHODS.len(), liar.lies.len());
    report(&format!(
        "client: {methods} methods, {kinds} lies, {} cells, {refused} of them errors",
        liar.cells.len()
    ));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// One cell.
struct Asked<'a> {
    number: usize,
    method: &'a str,
    lie: &'a Lie,
    sent: u32,
    signatures: &'a [String],
}

impl Asked<'_> {
    fn judge(&self, result: &Result<String, CloudError>, truth: &str) -> Option<String> {
        let Self { number, method, lie, sent, .. } = self;
        if *sent == 0 {
            return Some("was not sent".to_owned());
        }
        if is_change(method) && *sent > 1 && lie.kind != Kind::Refusal {
            return Some(format!("was sent {sent} times"));
        }
        let error = match result {
            Ok(_) if matches!(lie.kind, Kind::Nonsense | Kind::Refusal) => {
                return Some("was believed".to_owned());
            }
            // What a change answers beside its RetCode is not looked at.
            Ok(answer) if answer == truth => return None,
            Ok(answer) if lie.kind == Kind::Part && still_the_same(method, answer) => return None,
            Ok(_) => return Some(format!("is not {truth}")),
            Err(_) if lie.kind == Kind::Odd => return Some("was refused".to_owned()),
            Err(error) => error,
        };
        let action = method.split_once(' ').unwrap().1;
        let text = format!("{error} {error:?}");
        let with_id = (lie.tell)(&Exchange { request: &request_text(), answer: &honest(action) });
        // The last try of several may have had no time left for an answer.
        let with_id = matches!(with_id, Some(Told::Answer { .. })) && !error.message.starts_with("no answer");
        let unknown = is_change(method) && lie.kind != Kind::Refusal;
        if error.action != action || !error.to_string().starts_with(action) {
            Some("does not name the action".to_owned())
        } else if with_id && error.request_id != Some(format!("req-{number}")) {
            Some("does not name the request".to_owned())
        } else if (error.outcome == Outcome::Unknown) != unknown {
            Some("is wrong on what was done".to_owned())
        } else if text.contains("hunter2") || text.contains("hunter%") || self.shows_signature(&text) {
            Some("shows a secret".to_owned())
        } else if text.len() > 1600 || text.chars().any(char::is_control) {
            Some("is not one short line".to_owned())
        } else {
            None
        }
    }

    /// Any eight digits of a signature are too many.
    fn shows_signature(&self, text: &str) -> bool {
        let parts = text.split(|c: char| !c.is_ascii_hexdigit()).filter(|part| part.len() >= 8);
        parts.into_iter().any(|part| self.signatures.iter().any(|signature| signature.contains(part)))
    }
}

/// A lie in a part that informs is passed on: the disk or host is still the one that was asked for. "There is none"
/// would not be.
fn still_the_same(method: &str, answer: &str) -> bool {
    let list = method.starts_with("disks ") || method.contains("hosts ");
    let single = method.starts_with("disk ") || method.starts_with("host ");
    let id = ["bsm-1", "uhost-1", "upm-1"].iter().any(|id| answer.starts_with("Some") && answer.contains(id));
    list || single && id
}

fn request_text() -> String {
    "PublicKey=x&Signature=0123456789012345678901234567890123456789".to_owned()
}

fn client(endpoint: Url, transport: ReqwestTransport, time: Time) -> UCloud {
    let config = UCloudConfig {
        endpoint,
        region: "cn-bj2".into(),
        project_id: None,
        vpc_id: None,
        read_timeout: time.attempt,
    };
    let keys = CredentialSource::keys(Credentials::keys(PUBLIC.into(), PRIVATE.into()));
    UCloud::new(config, transport, keys)
}

/// What the method answers to an honest cloud.
async fn truth(method: &'static str) -> String {
    let action = method.split_once(' ').unwrap().1;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await.unwrap();
        let body = honest(action).to_string();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.unwrap();
    });
    let transport = ReqwestTransport::for_endpoint(&endpoint).unwrap();
    let truth = call(&client(endpoint, transport, Time::AMPLE), method, Time::AMPLE).await.unwrap();
    server.await.unwrap();
    truth
}
