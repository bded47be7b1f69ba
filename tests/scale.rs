//! Many volumes at once, against the simulated cloud in virtual time: what they cost in calls.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

#[allow(dead_code, reason = "the benchmark uses more of it")]
#[path = "../benches/scale/measure.rs"]
mod measure;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use csi_udisk::controller::{AttachRequest, Controller, ControllerConfig, CreateRequest};
use csi_udisk::progress::Progress;
use csi_udisk::sandbox::cloud::model::{Lags, Latencies, Limits};
use csi_udisk::sandbox::cloud::{Answer, HostSpec, Request, SimCloud, SimConfig};
use csi_udisk::ucloud::{
    CredentialSource, Credentials, HttpRequest, HttpResponse, REQUEST_ID_HEADER, Transport, TransportError,
    TransportErrorKind, UCloud, UCloudConfig,
};
use csi_udisk::volume::{
    BlankSectors, ChargeType, DiskId, DiskType, Gib, HostId, NodeRef, Parameters, SizeRequest, Zone,
};
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
    /// Each with the host that is to have it. In the order in which they were made, which is that of the listing.
    disks: Vec<(String, HostId)>,
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
            let id = cloud.create_disk(&format!("pvc-{number:04}"), Gib::new(10)).await.unwrap();
            made.push((id, HostId::parse(&format!("uhost-{:03}", number % hosts)).unwrap()));
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
        let zone = Zone::parse(&SimConfig::default().zones[0].name).ok();
        let config = ControllerConfig { zone, ..ControllerConfig::new(SimConfig::default().region) };
        let controller = Controller::new(Arc::new(client), config);
        let first = cloud.create_disk("pvc-first", Gib::new(10)).await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let world = Self { cloud, epoch, controller, disks: made };
        // The first moments of a process, in which it confirms what it sees, begin with its first change.
        let (first, deadline) = (DiskId::parse(&first).unwrap(), Instant::now() + Duration::from_secs(600));
        world.controller.delete(&first, deadline, &Progress::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(60)).await;
        world
    }

    /// Attaches or detaches disks all at once.
    async fn change(&self, kind: Kind, disks: &[(String, HostId)]) -> Verdict {
        self.cloud.reset_counts();
        let begun = Instant::now();
        let tasks: Vec<_> = disks
            .iter()
            .map(|(id, host)| {
                let (controller, disk) = (self.controller.clone(), DiskId::parse(id).unwrap());
                let node = NodeRef::Host(host.clone());
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
        for ((id, _), task) in disks.iter().zip(tasks) {
            answers.insert(id.clone(), task.await.unwrap());
        }
        self.verdict(kind, begun, answers)
    }

    /// Creates volumes all at once.
    async fn create(&self, count: usize) -> Verdict {
        self.cloud.reset_counts();
        let begun = Instant::now();
        let tasks: Vec<_> = (0..count)
            .map(|number| {
                let controller = self.controller.clone();
                let request = request(&format!("pvc-new-{number:04}"));
                tokio::spawn(async move {
                    let deadline = begun + Duration::from_secs(600);
                    let volume = controller.create(request, deadline, &Progress::default()).await.unwrap();
                    (volume.id.to_string(), Instant::now())
                })
            })
            .collect();
        let mut answers = HashMap::new();
        for task in tasks {
            answers.extend([task.await.unwrap()]);
        }
        self.verdict(Kind::Create, begun, answers)
    }

    fn verdict(&self, kind: Kind, begun: Instant, answers: HashMap<String, Instant>) -> Verdict {
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

fn request(name: &str) -> CreateRequest {
    let size = Gib::new(10);
    CreateRequest {
        name: name.to_owned(),
        size: SizeRequest { wanted: size, required_bytes: size.bytes(), limit_bytes: None },
        parameters: Parameters {
            disk_type: DiskType::Ssd,
            fs: None,
            data_ark: false,
            charge_type: ChargeType::Dynamic,
            quantity: None,
            cmk_id: None,
            blank: BlankSectors::Zero,
            tag: None,
        },
        fs: None,
        topology: None,
    }
}

#[tokio::test(start_paused = true)]
async fn one_volume_costs_few_reads() {
    let world = World::new(2, 20).await;
    for kind in [Kind::Attach, Kind::Detach] {
        let (mut reads, mut added) = (0.0, 0.0);
        for disk in &world.disks {
            let verdict = world.change(kind, std::slice::from_ref(disk)).await;
            reads += verdict.reads / 20.0;
            added += verdict.added_mean() / 20.0;
        }
        assert!(reads <= 14.0, "{reads} reads per {}", kind.word());
        assert!(added <= 0.5, "{added} s added per {}", kind.word());
    }
}

#[tokio::test(start_paused = true)]
async fn many_volumes_cost_hardly_more_calls_than_few() {
    let mut rng = fastrand::Rng::with_seed(1);
    // Each host has disks from everywhere in the listing; or any disks, so that hosts are at different places of it.
    let both = [Kind::Attach, Kind::Detach];
    for (any, kinds, reads) in [(false, &both[..], 0.35), (true, &both[..1], 0.6)] {
        let mut world = World::new(50, 1000).await;
        if any {
            let mut hosts: Vec<HostId> = world.disks.iter().map(|(_, host)| host.clone()).collect();
            rng.shuffle(&mut hosts);
            world.disks.iter_mut().zip(hosts).for_each(|((_, host), any)| *host = any);
        }
        // Calls come in an order that has nothing to do with that of the listing.
        rng.shuffle(&mut world.disks);
        for kind in kinds.iter().copied() {
            let verdict = world.change(kind, &world.disks).await;
            assert!(verdict.reads <= reads, "{} reads per {}", verdict.reads, kind.word());
            assert!(verdict.over_ideal() <= 1.15, "{} of the ideal", verdict.over_ideal());
            assert!(verdict.added_at(0.99) <= 1.5, "{} s added", verdict.added_at(0.99));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_creations_share_their_reads() {
    let verdict = World::new(1, 0).await.create(1000).await;
    // Each looks for its name, which no other can do for it, and most are done before they are listed.
    assert!(verdict.reads <= 2.25, "{} reads per create", verdict.reads);
    assert!(verdict.added_at(0.99) <= 5.0, "{} s added", verdict.added_at(0.99));
    assert!(verdict.sent <= 1.05, "{} sent per create", verdict.sent);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_volumes_are_listed_in_one_reading() {
    let world = World::new(1, 10_000).await;
    for page in [None, Some(500)] {
        world.cloud.reset_counts();
        let (mut seen, mut start) = (HashSet::new(), None);
        loop {
            let deadline = Instant::now() + Duration::from_secs(600);
            let answer = world.controller.list(start.as_ref(), page, deadline).await.unwrap();
            seen.extend(answer.volumes.into_iter().map(|listed| listed.id().clone()));
            start = answer.next;
            if start.is_none() {
                break;
            }
        }
        let calls: u64 = world.cloud.counts().values().sum();
        // The first and the second time together: one page was refused, until the driver knew the account's rate.
        assert_eq!(seen.len(), 10_000);
        assert!((100..=101).contains(&calls), "{page:?}: {calls} calls");
    }
}
