//! One controller process: the whole driver from the RPC to the wire, and a switch that kills it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use csi_udisk::controller::{Controller, ControllerConfig};
use csi_udisk::csi::controller::ControllerService;
use csi_udisk::csi::operation::Operations;
use csi_udisk::csi::server::STOP_WITHIN;
use csi_udisk::sandbox::cloud::{self, Answer, SimCloud, SimConfig};
use csi_udisk::ucloud::{
    CredentialSource, Credentials, HttpRequest, HttpResponse, Transport, TransportError, TransportErrorKind,
    UCloud, UCloudConfig,
};
use csi_udisk::volume::Zone;
use reqwest::Url;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// What happens to requests on the way, which is not the cloud's doing. Requests are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snag {
    /// No connection; certainly not received.
    Unreachable(usize),
    /// The answer shows disks in another state than they are in.
    Word(usize, &'static str),
    /// The process dies with its answer on the way.
    DieUnanswered(usize),
    /// The process dies before it sends.
    DieUnsent(usize),
    /// The process is asked to stop when it sends.
    Stop(usize),
}

/// One request as it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub action: String,
    /// What tells one request of an action from another.
    pub about: String,
    /// A state of the disk in the answer.
    pub shows: String,
}

#[derive(Debug, Default)]
struct Traffic {
    snags: Vec<Snag>,
    sent: Vec<Sent>,
    /// Whether a [`Snag::Word`] found something to falsify.
    twisted: bool,
}

/// The way to the cloud. Clones are the same way.
#[derive(Debug, Clone)]
pub struct Wire {
    cloud: SimCloud,
    traffic: Arc<Mutex<Traffic>>,
    dead: CancellationToken,
    stop: CancellationToken,
}

impl Wire {
    fn take(&self, about: &str, action: &str) -> (usize, Vec<Snag>) {
        let mut traffic = self.traffic.lock().unwrap();
        let (action, about) = (action.to_owned(), about.to_owned());
        traffic.sent.push(Sent { action, about, shows: String::new() });
        (traffic.sent.len(), traffic.snags.clone())
    }

    /// A dead process sends and hears nothing.
    async fn never(&self) -> ! {
        std::future::pending::<()>().await;
        unreachable!("nothing comes after never")
    }
}

impl Transport for Wire {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        if self.dead.is_cancelled() {
            self.never().await;
        }
        let broken = |kind| TransportError { kind, message: "connection reset".into(), request_id: None };
        let action = request.url.query().unwrap_or_default().trim_start_matches("Action=").to_owned();
        let (number, snags) = self.take(&about(&request.body), &action);
        if snags.contains(&Snag::DieUnsent(number)) {
            self.dead.cancel();
            self.never().await;
        }
        if snags.contains(&Snag::Stop(number)) {
            self.stop.cancel();
        }
        if snags.contains(&Snag::Unreachable(number)) {
            return Err(broken(TransportErrorKind::NotSent));
        }
        let call = cloud::Request {
            method: "POST".into(),
            path: "/".into(),
            headers: vec![("content-type".into(), "application/x-www-form-urlencoded".into())],
            body: request.body.into_bytes(),
            ..cloud::Request::default()
        };
        let answer = self.cloud.handle(call).await;
        if snags.contains(&Snag::DieUnanswered(number)) {
            self.dead.cancel();
        }
        if self.dead.is_cancelled() {
            self.never().await;
        }
        let Answer::Response(answer) = answer else { return Err(broken(TransportErrorKind::MayBeSent)) };
        let mut body = answer.body.clone();
        {
            let mut traffic = self.traffic.lock().unwrap();
            traffic.sent[number - 1].shows = state(&body).unwrap_or_default();
            for snag in snags {
                if let Snag::Word(at, word) = snag
                    && at == number
                    && let Some(told) = with_state(&body, word)
                {
                    body = told;
                    traffic.twisted = true;
                }
            }
        }
        let request_id = answer.header("x-ucloud-request-uuid").map(str::to_owned);
        Ok(HttpResponse { status: answer.status, request_id, body })
    }
}

/// The parameters that tell one request from another.
fn about(body: &str) -> String {
    const KEYS: [&str; 6] = ["UDiskId", "UDiskName", "HostId", "UHostIds.0", "Offset", "Size"];
    let telling = |pair: &&str| KEYS.iter().any(|key| pair.split('=').next() == Some(key));
    body.split('&').filter(telling).collect::<Vec<_>>().join("&")
}

fn state(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let set = answer.get("DataSet")?.as_array()?;
    Some(set.iter().filter_map(|disk| disk["Status"].as_str()).collect::<Vec<_>>().join(","))
}

/// The answer with all its disks in another state; `None` without disks.
fn with_state(body: &[u8], word: &str) -> Option<Vec<u8>> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    let set = answer.get_mut("DataSet")?.as_array_mut().filter(|set| !set.is_empty())?;
    set.iter_mut().for_each(|disk| disk["Status"] = word.into());
    Some(answer.to_string().into_bytes())
}

/// A controller on a cloud. A second one on the same cloud is another pod, or the next life of this one.
#[derive(Debug)]
pub struct Process {
    pub service: ControllerService<UCloud<Wire>>,
    pub operations: Operations,
    wire: Wire,
    alone: CancellationToken,
}

impl Process {
    pub fn start(cloud: &SimCloud) -> Self {
        Self::with(cloud, |_| {})
    }

    pub fn with(cloud: &SimCloud, change: impl FnOnce(&mut ControllerConfig)) -> Self {
        let SimConfig { region, zones, keys, .. } = SimConfig::default();
        let access = UCloudConfig {
            endpoint: Url::parse("http://api.test/").unwrap(),
            region: region.clone(),
            project_id: None,
            vpc_id: None,
            read_timeout: Duration::from_secs(30),
        };
        let (dead, stop) = (CancellationToken::new(), CancellationToken::new());
        let wire = Wire { cloud: cloud.clone(), traffic: Arc::default(), dead, stop: stop.clone() };
        let keys = Credentials::keys(keys[0].public.clone().into(), keys[0].private.clone().into());
        let keys = CredentialSource::keys(keys);
        // Its delays are the same in every run, so that the n-th request of a call is too.
        let rng = fastrand::Rng::with_seed(7);
        let client = UCloud::with(access, wire.clone(), keys, Arc::new(()), rng).stopped_by(stop);
        let zone = Zone::parse(&zones[0].name).unwrap();
        let mut config = ControllerConfig { zone: Some(zone), ..ControllerConfig::new(region.clone()) };
        change(&mut config);
        let operations = Operations::new();
        let controller = Controller::new(Arc::new(client), config);
        let service = ControllerService::new(controller, operations.clone(), region);
        Self { service, operations, wire, alone: CancellationToken::new() }
    }

    /// Starts counting requests anew, and says what shall happen to them.
    pub fn arm(&self, snags: Vec<Snag>) {
        *self.wire.traffic.lock().unwrap() = Traffic { snags, ..Traffic::default() };
    }

    /// What was sent since it was armed.
    pub fn sent(&self) -> Vec<Sent> {
        self.wire.traffic.lock().unwrap().sent.clone()
    }

    pub fn twisted(&self) -> bool {
        self.wire.traffic.lock().unwrap().twisted
    }

    pub fn kill(&self) {
        self.wire.dead.cancel();
    }

    pub fn is_dead(&self) -> bool {
        self.wire.dead.is_cancelled()
    }

    /// Asks it to stop, as kubelet does.
    pub fn stop(&self) {
        self.wire.stop.cancel();
    }

    pub fn is_stopped(&self) -> bool {
        self.wire.stop.is_cancelled()
    }

    /// Goes on with what it does for as long as a process may that was asked to stop.
    pub fn leave(self: Arc<Self>) {
        tokio::spawn(async move {
            self.operations.drain(STOP_WITHIN).await;
            self.kill();
        });
    }

    /// Ends when the process does.
    pub async fn death(&self) {
        self.wire.dead.cancelled().await;
    }

    /// Its sidecars let go of it; it is not told.
    pub fn lose_callers(&self) {
        self.alone.cancel();
    }

    /// Ends when nobody is left to answer a call: the process ends, is asked to, or its sidecars are gone.
    pub async fn end(&self) {
        tokio::select! {
            biased;
            () = self.death() => {}
            () = self.wire.stop.cancelled() => {}
            () = self.alone.cancelled() => {}
        }
    }
}
