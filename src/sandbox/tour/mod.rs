//! The guided tour: volumes live their whole lives on the sandbox while a person watches.

mod client;
mod life;
mod report;

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::Means;
use super::cloud::SimCloud;
use super::hosts::LoopHosts;
use super::world::{ROLES, Role, SandboxError, World, latencies};
use crate::config::{Latency, SandboxArgs};
use crate::node::linux::format;
use crate::shutdown::Signals;
use crate::volume::FsType;
use client::{Controller, Kind, Node};
use life::{Life, TourHost};
use report::{Report, StepFailed};

/// The calls that a life without latency may take: one read before and one after each change, none twice.
const LIFE_CALLS: u64 = 11;

impl From<StepFailed> for SandboxError {
    fn from(failed: StepFailed) -> Self {
        Self::Tour(failed.to_string())
    }
}

impl From<tonic::transport::Error> for SandboxError {
    fn from(error: tonic::transport::Error) -> Self {
        Self::Tour(format!("cannot reach the driver: {error}"))
    }
}

/// Waits until the driver behind a socket is ready. The socket may not be there yet.
pub(super) async fn ready(socket: &Path) -> Result<(), SandboxError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match client::ready(socket).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(SandboxError::Tour(format!("{}: {error}", socket.display())));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

pub(super) async fn tour(args: &SandboxArgs, means: Means) -> Result<(), SandboxError> {
    let mut signals = Signals::listen().map_err(SandboxError::Signals)?;
    let mut world = World::start(args, means.devices).await?;
    let outcome = tokio::select! {
        outcome = walk(args, means, &mut world) => outcome,
        signal = signals.next() => Err(SandboxError::Tour(format!("{signal}: the tour ends early"))),
    };
    world.end(outcome).await
}

async fn walk(args: &SandboxArgs, means: Means, world: &mut World) -> Result<(), SandboxError> {
    let start = Instant::now();
    for role in ROLES {
        world.drive(role)?;
    }
    for role in ROLES {
        ready(&world.socket(role)).await?;
    }
    let cloud = world.cloud.clone();
    let counted = cloud.clone();
    let mut report = Report::new(Box::new(move || counted.counts().values().sum()));
    report.say(format_args!(
        "csi-udisk {}: a simulated UCloud at {} with the hosts {} and {}, and the driver on each",
        env!("CARGO_PKG_VERSION"),
        world.url,
        world.host_id(0),
        world.host_id(1),
    ));
    if let Err(why) = LoopHosts::supported() {
        report.say("");
        report.leave_out(format!("everything on the hosts (format, mount, write, read): {why}"));
    }

    let mut controller = Controller::connect(&world.socket(Role::Controller)).await?;
    let mut hosts = [host(world, 0).await?, host(world, 1).await?];
    let mut volumes = 0;
    for kind in kinds(means, &mut report) {
        report.say(format_args!("\n{}", chapter(kind)));
        let state = |id: &str| state(&cloud, id);
        let mut life =
            Life { report: &mut report, controller: &mut controller, hosts: &mut hosts, means, kind };
        life.walk(&state).await?;
        volumes += 1;
    }
    let calls = without_latency(args, &cloud, &mut report, &mut controller, &hosts).await?;

    let disks = cloud.disks().len();
    if disks > 0 {
        return Err(SandboxError::Tour(format!("{disks} disks are left in the cloud")));
    }
    report.say(format_args!(
        "\n{} volumes, {} steps, {} API calls in all, {:.1} s; a life without latency takes {calls} calls; no disk is left",
        volumes + 1,
        report.steps,
        cloud.counts().values().sum::<u64>(),
        start.elapsed().as_secs_f64(),
    ));
    for what in &report.left_out {
        report.say(format_args!("left out: {what}"));
    }
    Ok(())
}

async fn host(world: &World, index: usize) -> Result<TourHost, SandboxError> {
    let mut node = Node::connect(&world.socket(Role::Node(index))).await?;
    let info = node.info().await.map_err(|status| SandboxError::Tour(format!("NodeGetInfo: {status}")))?;
    Ok(TourHost { node, kubelet: world.place.kubelet(&info.node_id), info })
}

/// The volumes that this machine can show.
fn kinds(means: Means, report: &mut Report) -> Vec<Kind> {
    if !means.devices {
        return vec![Kind::Mount("ext4")];
    }
    let mut kinds = Vec::new();
    for fs in [FsType::Ext4, FsType::Xfs] {
        if format::is_installed(fs) {
            kinds.push(Kind::Mount(fs.word()));
        } else {
            report.leave_out(format!("{}: {} is not installed", fs.word(), format::mkfs(fs).name));
        }
    }
    kinds.push(Kind::Block);
    kinds
}

fn chapter(kind: Kind) -> &'static str {
    match kind {
        Kind::Block => "a raw block volume",
        Kind::Mount("xfs") => "a volume with xfs",
        Kind::Mount(_) => "a volume with ext4",
    }
}

fn state(cloud: &SimCloud, id: &str) -> String {
    match cloud.disk(id) {
        Some(disk) => format!("the cloud says {id} is {:?}", disk.status),
        None => format!("the cloud has no {id}"),
    }
}

/// The least that a volume costs: nothing to wait for, so every call beyond the budget is waste.
async fn without_latency(
    args: &SandboxArgs,
    cloud: &SimCloud,
    report: &mut Report,
    controller: &mut Controller,
    hosts: &[TourHost; 2],
) -> Result<u64, SandboxError> {
    cloud.change_rules(|rules| rules.latencies = latencies(Latency::None));
    report.say("\na volume in a cloud without latency");
    let before: u64 = cloud.counts().values().sum();
    life::bare(report, controller, &hosts[0]).await?;
    let calls = cloud.counts().values().sum::<u64>() - before;
    cloud.change_rules(|rules| rules.latencies = latencies(args.latency));
    if calls > LIFE_CALLS {
        let text = format!("create, attach, detach and delete took {calls} calls; {LIFE_CALLS} are enough");
        return Err(SandboxError::Tour(text));
    }
    Ok(calls)
}
