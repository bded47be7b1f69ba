//! Many volumes at once, against the simulated cloud in virtual time: what they cost in calls.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[allow(dead_code, reason = "the benchmark uses more of it")]
#[path = "../benches/scale/measure.rs"]
mod measure;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use csi_udisk::controller::{AttachRequest, Controller, ControllerConfig};
use csi_udisk::progress::Progress;
use csi_udisk::sandbox::cloud::model::{Lags, Latencies, Limits};
use csi_udisk::sandbox::cloud::{Answer, HostSpec, Request, SimCloud, SimConfig};
use csi_udisk::ucloud::{
    CredentialSource, Credentials, HttpRequest, HttpResponse, REQUEST_ID_HEADER, Transport, TransportError,
    TransportErrorKind, UCloud, UCloudConfig,
};
use csi_udisk::volume::{DiskId, Gib, HostId, NodeRef};
use measure::{Kind, Round, Verdict};
use tokio::time::Instant;

const QUOTA: u32 = 20;

/// Straight into the simulated cloud.
#[derive(Debug, Clone)]
struct Direct(SimCloud);

impl Transport for Direct {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let headers = request.headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let request = Request {
            headers,
            body: request.body.into_bytes(),
            method: "POST".to_owned(),
            ..Request::get("/")
        };
        match self.0.handle(request).await {
            Answer::Response(response) => Ok(HttpResponse {
                status: response.status,
                request_id: response.header(REQUEST_ID_HEADER).map(str::to_owned),
                body: response.body,
            }),
            Answer::Reset => {
                let (kind, message) = (TransportErrorKind::MayBeSent, "reset".to_owned());
                Err(TransportError { kind, message, request_id: None })
            }
        }
    }
}

struct World {
    cloud: SimCloud,
    epoch: Instant,
    controller: Controller<UCloud<Direct>>,
    disks: Vec<String>,
    hosts: usize,
}

impl World {
    async fn new(hosts: usize, disks: usize) -> Self {
        let spec =
            |n: usize| HostSpec::new(&format!("uhost-{n:03}"), &format!("10.1.{}.{}", n / 200, n % 200 + 1));
        let epoch = Instant::now();
        let cloud = SimCloud::new(SimConfig {
            hosts: (0..hosts).map(spec).collect(),
            latencies: Latencies::realistic(),
            lags: Lags::realistic(),
            limits: Limits {
                disks: 100_000,
                requests_per_second: Some(QUOTA),
                one_change_per_host: true,
                ..Limits::default()
            },
            ..SimConfig::default()
        });
        let mut made = Vec::new();
        for number in 0..disks {
            made.push(cloud.create_disk(&format!("pvc-{number:04}"), Gib::new(10)).await.unwrap());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        let keys = SimConfig::default().keys.remove(0);
        let keys = CredentialSource::keys(Credentials::keys(keys.public.into(), keys.private.into()));
        let config = UCloudConfig {
            endpoint: "http://127.0.0.1:9".parse().unwrap(),
            region: SimConfig::default().region,
            project_id: None,
            vpc_id: None,
            read_timeout: Duration::from_secs(30),
        };
        let client =
            UCloud::with(config, Direct(cloud.clone()), keys, Arc::new(()), fastrand::Rng::with_seed(1));
        let controller =
            Controller::new(Arc::new(client), ControllerConfig::new(SimConfig::default().region));
        tokio::time::advance(Duration::from_secs(60)).await;
        Self { cloud, epoch, controller, disks: made, hosts }
    }

    /// Attaches or detaches disks all at once; they are spread over the hosts in their order.
    async fn change(&self, kind: Kind, disks: &[String]) -> Verdict {
        self.cloud.reset_counts();
        let begun = Instant::now();
        let tasks: Vec<_> = disks
            .iter()
            .enumerate()
            .map(|(number, id)| {
                let (controller, disk) = (self.controller.clone(), DiskId::parse(id).unwrap());
                let node =
                    NodeRef::Host(HostId::parse(&format!("uhost-{:03}", number % self.hosts)).unwrap());
                let deadline = begun + Duration::from_secs(600);
                tokio::spawn(async move {
                    let progress = Progress::default();
                    match kind {
                        Kind::Attach => {
                            let request = AttachRequest { disk, node };
                            drop(controller.attach(request, deadline, &progress).await.unwrap());
                        }
                        Kind::Detach => {
                            controller.detach(&disk, Some(&node), deadline, &progress).await.unwrap()
                        }
                        Kind::Create => unreachable!(),
                    }
                    Instant::now()
                })
            })
            .collect();
        let mut answers = HashMap::new();
        for (id, task) in disks.iter().zip(tasks) {
            answers.insert(id.clone(), task.await.unwrap());
        }
        let calls = self.cloud.counts();
        let verdict = Round { kind, begun, answers, calls }.verdict(&self.cloud, self.epoch, QUOTA);
        println!(
            "{} {}s: {:.2} reads and {:.2} changes each, {:.1?} = {:.2} x ideal, added {:.2} s, p50 {:.2}, p99 {:.2}",
            verdict.changes,
            kind.word(),
            verdict.reads,
            verdict.sent,
            verdict.wall,
            verdict.over_ideal(),
            verdict.added_mean(),
            verdict.added_at(0.5),
            verdict.added_at(0.99),
        );
        verdict
    }
}

#[tokio::test(start_paused = true)]
async fn one_volume_costs_few_reads() {
    let world = World::new(2, 20).await;
    for kind in [Kind::Attach, Kind::Detach] {
        let (mut reads, mut added) = (0.0, 0.0);
        for id in &world.disks {
            let verdict = world.change(kind, std::slice::from_ref(id)).await;
            reads += verdict.reads / 20.0;
            added += verdict.added_mean() / 20.0;
        }
        assert!(reads <= 14.0, "{reads} reads per {}", kind.word());
        assert!(added <= 0.5, "{added} s added per {}", kind.word());
    }
}

#[tokio::test(start_paused = true)]
async fn many_volumes_cost_hardly_more_calls_than_few() {
    let world = World::new(50, 1000).await;
    for kind in [Kind::Attach, Kind::Detach] {
        let verdict = world.change(kind, &world.disks).await;
        assert!(verdict.reads <= 0.35, "{} reads per {}", verdict.reads, kind.word());
        assert!(verdict.over_ideal() <= 1.15, "{} of the ideal", verdict.over_ideal());
        assert!(verdict.added_at(0.99) <= 1.5, "{} s added", verdict.added_at(0.99));
    }
}
