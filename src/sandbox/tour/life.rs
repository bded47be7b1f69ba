//! One volume's whole life, step by step, as kubelet and the sidecars would drive it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};
use tonic::{Code, Status};

use super::super::Means;
use super::client::{Controller, Kind, Mounting, Node};
use super::report::{Report, StepFailed};
use crate::csi::proto::v1;

const GIB: i64 = 1 << 30;
const FIRST_SIZE: i64 = 10 * GIB;
const GROWN_SIZE: i64 = 20 * GIB;
/// Written at the start of the volume and read back on the other host.
const PAYLOAD: usize = 4 << 20;

/// A host of the simulated cloud with the driver's node service on it.
#[derive(Debug, Clone)]
pub(super) struct TourHost {
    pub(super) node: Node,
    pub(super) info: v1::NodeGetInfoResponse,
    /// Where this host's kubelet keeps its mounts.
    pub(super) kubelet: PathBuf,
}

impl TourHost {
    fn mounting<'a>(
        &self,
        volume: &'a v1::Volume,
        kind: Kind,
        publish_context: std::collections::BTreeMap<String, String>,
    ) -> Mounting<'a> {
        let pv = &volume.volume_id;
        Mounting {
            volume,
            kind,
            publish_context,
            staging: path(&self.kubelet.join("plugins/kubernetes.io/csi").join(pv).join("globalmount")),
            target: path(&self.kubelet.join("pods/tour/volumes/kubernetes.io~csi").join(pv).join("mount")),
        }
    }

    fn id(&self) -> &str {
        &self.info.node_id
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// The state of a disk in the simulated cloud, for the progress line.
pub(super) type DiskState<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// Walks one volume through its life on two hosts.
#[derive(Debug)]
pub(super) struct Life<'a> {
    pub(super) report: &'a mut Report,
    pub(super) controller: &'a mut Controller,
    pub(super) hosts: &'a mut [TourHost; 2],
    pub(super) means: Means,
    pub(super) kind: Kind,
}

impl Life<'_> {
    pub(super) async fn walk(&mut self, state: DiskState<'_>) -> Result<(), StepFailed> {
        let Self { report, controller, hosts: [first, second], means, kind } = self;
        let (means, kind) = (*means, *kind);
        let name = format!("pvc-tour-{}", kind.word());
        let volume = report
            .step(
                "create, 10 GiB ssd",
                controller.create(&name, kind, FIRST_SIZE, &topology(first)),
                || "the cloud makes the disk".to_owned(),
                |v| v.volume_id.clone(),
            )
            .await?;
        let id = volume.volume_id.as_str();
        let disk = || state(id);

        let at_first = attach(report, controller, &volume, kind, first, &disk).await?;
        if means.devices {
            mount(report, first, &at_first).await?;
        }
        let written = if means.devices {
            let target = at_first.target.clone();
            let digest = report
                .step("write 4 MiB and sync", blocking(move || write(&target, kind)), disk, |d| short(d))
                .await?;
            Some(digest)
        } else {
            None
        };

        refuse_second(report, controller, &volume, kind, first, second).await?;
        let grown = report
            .step("grow to 20 GiB, attached", controller.grow(id, kind, GROWN_SIZE), disk, |_| String::new())
            .await?;
        if means.devices {
            grow_on_node(report, first, &at_first, means, grown.node_expansion_required).await?;
            report.step("stats", first.node.stats(&at_first), disk, |usage| describe_usage(usage)).await?;
            unmount(report, first, &at_first).await?;
        }
        report
            .step(&format!("detach from {}", first.id()), controller.detach(id, first.id()), disk, |()| {
                String::new()
            })
            .await?;

        let at_second = attach(report, controller, &volume, kind, second, &disk).await?;
        if let Some(written) = written {
            mount(report, second, &at_second).await?;
            let target = at_second.target.clone();
            let compare = async {
                let found = blocking(move || read(&target, kind)).await?;
                if found == written {
                    Ok(found)
                } else {
                    Err(format!("wrote {} and read {}", short(&written), short(&found)))
                }
            };
            report.step("read back", compare, disk, |d| format!("{}, as written", short(d))).await?;
            let usage = report
                .step("stats", second.node.stats(&at_second), disk, |usage| describe_usage(usage))
                .await?;
            proven_grown(&usage)?;
            unmount(report, second, &at_second).await?;
        }
        report
            .step(&format!("detach from {}", second.id()), controller.detach(id, second.id()), disk, |()| {
                String::new()
            })
            .await?;
        report.step("delete", controller.delete(id), disk, |()| String::new()).await?;
        Ok(())
    }
}

fn topology(host: &TourHost) -> std::collections::BTreeMap<String, String> {
    host.info.accessible_topology.as_ref().map(|t| t.segments.clone()).unwrap_or_default()
}

async fn attach<'a>(
    report: &mut Report,
    controller: &mut Controller,
    volume: &'a v1::Volume,
    kind: Kind,
    host: &TourHost,
    state: impl Fn() -> String,
) -> Result<Mounting<'a>, StepFailed> {
    let context = report
        .step(
            &format!("attach to {}", host.id()),
            controller.attach(volume, kind, host.id()),
            state,
            |context| format!("slot {}", context.get("device").map_or("unknown", String::as_str)),
        )
        .await?;
    Ok(host.mounting(volume, kind, context))
}

async fn mount(report: &mut Report, host: &mut TourHost, at: &Mounting<'_>) -> Result<(), StepFailed> {
    let what = match at.kind {
        Kind::Block => "find the device (stage)".to_owned(),
        Kind::Mount(fs) => format!("find, check, format if blank, mount {fs} (stage)"),
    };
    let waiting = || "the node looks for the device, checks or formats it".to_owned();
    // kubelet makes both directories' parents, and the staging directory itself.
    let made = prepare(at).map_err(|e| StepFailed::new(what.clone(), e));
    made?;
    report.step(&what, host.node.stage(at), waiting, |()| String::new()).await?;
    report.step("bind into the pod (publish)", host.node.publish(at), waiting, |()| String::new()).await
}

fn prepare(at: &Mounting<'_>) -> std::io::Result<()> {
    std::fs::create_dir_all(&at.staging)?;
    match Path::new(&at.target).parent() {
        Some(parent) => std::fs::create_dir_all(parent),
        None => Ok(()),
    }
}

async fn unmount(report: &mut Report, host: &mut TourHost, at: &Mounting<'_>) -> Result<(), StepFailed> {
    let waiting = || "the node syncs and unmounts".to_owned();
    report
        .step("unbind from the pod (unpublish)", host.node.unpublish(at), waiting, |()| String::new())
        .await?;
    report.step("unmount and let go (unstage)", host.node.unstage(at), waiting, |()| String::new()).await
}

/// The cloud would let two hosts fight over one disk if it were asked; the driver must not ask.
async fn refuse_second(
    report: &mut Report,
    controller: &mut Controller,
    volume: &v1::Volume,
    kind: Kind,
    first: &TourHost,
    second: &TourHost,
) -> Result<(), StepFailed> {
    let refused = async {
        match controller.attach(volume, kind, second.id()).await {
            Ok(_) => Err(format!("{} got a disk that {} uses", second.id(), first.id())),
            Err(status)
                if status.code() == Code::FailedPrecondition && status.message().contains(first.id()) =>
            {
                Ok(status)
            }
            Err(other) => Err(format!("refused, but not as it should be: {other}")),
        }
    };
    report
        .step(
            &format!("attach to {} as well: refused", second.id()),
            refused,
            String::new,
            |status: &Status| format!("\n      \"{}\"", status.message()),
        )
        .await?;
    Ok(())
}

async fn grow_on_node(
    report: &mut Report,
    host: &mut TourHost,
    at: &Mounting<'_>,
    means: Means,
    needed: bool,
) -> Result<(), StepFailed> {
    match (at.kind, needed) {
        (Kind::Block, false) => Ok(()),
        (Kind::Block, true) => {
            Err(StepFailed::new("grow", "the controller asks for a node step that a block volume has not"))
        }
        (Kind::Mount(_), false) => {
            Err(StepFailed::new("grow", "the controller does not ask the node to grow the file system"))
        }
        (Kind::Mount("ext4"), true) if !means.grows_mounted_ext4 => {
            report.leave_out(
                "growing ext4 while it is mounted: the kernel asks for CAP_SYS_RESOURCE, which this process \
                 has not; it grows when it is staged next, below",
            );
            Ok(())
        }
        (Kind::Mount(fs), true) => {
            let waiting = || "the node grows the file system".to_owned();
            report
                .step(&format!("grow {fs}, mounted"), host.node.grow(at, GROWN_SIZE), waiting, |()| {
                    String::new()
                })
                .await
        }
    }
}

/// The file system must be of the new size wherever it was grown; some of it is the file system's own.
fn proven_grown(usage: &[v1::VolumeUsage]) -> Result<(), StepFailed> {
    let bytes = usage.iter().find(|u| u.unit() == v1::volume_usage::Unit::Bytes).map_or(0, |u| u.total);
    if bytes > GROWN_SIZE / 10 * 9 {
        return Ok(());
    }
    Err(StepFailed::new("stats", format!("after growing to 20 GiB the volume holds {bytes} bytes")))
}

fn describe_usage(usage: &[v1::VolumeUsage]) -> String {
    let mut parts = Vec::new();
    for entry in usage {
        match entry.unit() {
            v1::volume_usage::Unit::Bytes if entry.available > 0 || entry.used > 0 => {
                parts.push(format!("{} of {} MiB used", entry.used >> 20, entry.total >> 20))
            }
            v1::volume_usage::Unit::Bytes => parts.push(format!("{} MiB", entry.total >> 20)),
            v1::volume_usage::Unit::Inodes => parts.push(format!("{} of {} inodes", entry.used, entry.total)),
            v1::volume_usage::Unit::Unknown => {}
        }
    }
    parts.join(", ")
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panicked) => Err(panicked.to_string()),
    }
}

fn payload_file(target: &str, kind: Kind) -> PathBuf {
    match kind {
        Kind::Block => PathBuf::from(target),
        Kind::Mount(_) => Path::new(target).join("tour.dat"),
    }
}

/// Writes random bytes through the pod's path and returns their digest.
fn write(target: &str, kind: Kind) -> std::io::Result<Vec<u8>> {
    let mut payload = vec![0; PAYLOAD];
    fastrand::fill(&mut payload);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(kind != Kind::Block);
    let mut file = options.open(payload_file(target, kind))?;
    file.write_all(&payload)?;
    file.sync_all()?;
    Ok(Sha1::digest(&payload).to_vec())
}

fn read(target: &str, kind: Kind) -> std::io::Result<Vec<u8>> {
    let mut payload = vec![0; PAYLOAD];
    std::fs::File::open(payload_file(target, kind))?.read_exact(&mut payload)?;
    Ok(Sha1::digest(&payload).to_vec())
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
}

/// Create, attach, detach, delete.
pub(super) async fn bare(
    report: &mut Report,
    controller: &mut Controller,
    host: &TourHost,
) -> Result<(), StepFailed> {
    let kind = Kind::Block;
    let volume = report
        .step(
            "create",
            controller.create("pvc-tour-bare", kind, FIRST_SIZE, &topology(host)),
            String::new,
            |v| v.volume_id.clone(),
        )
        .await?;
    let id = volume.volume_id.as_str();
    attach(report, controller, &volume, kind, host, String::new).await?;
    report
        .step(&format!("detach from {}", host.id()), controller.detach(id, host.id()), String::new, |()| {
            String::new()
        })
        .await?;
    report.step("delete", controller.delete(id), String::new, |()| String::new()).await
}
