//! The container image as the shipped manifests run it: the controller beside a simulated cloud, the node with real
//! loop devices, and mounts that are seen on the host. `tests/container/run` builds the image and calls this.
#![allow(unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

#[path = "../driver/csi.rs"]
#[allow(dead_code)]
mod csi;
mod image;
mod manifest;
mod podman;
#[path = "../driver/world.rs"]
#[allow(dead_code)]
mod world;

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use csi::{AtNode, GIB, attach, create, delete, detach, grow};
use csi_udisk::csi::proto::registration::registration_client::RegistrationClient;
use csi_udisk::csi::proto::registration::{InfoRequest, RegistrationStatus};
use csi_udisk::csi::proto::v1;
use manifest::{Container, Volume};
use podman::Running;
use tonic::transport::{Channel, Endpoint};
use v1::controller_client::ControllerClient;
use v1::node_client::NodeClient;
use world::{World, own_mounts, until};

const NAME: &str = "udisk.csi.ucloud.cn";
const KUBELET: &str = "/var/lib/kubelet";
const CONTROLLERS_USER: u32 = 65532;

/// The directories of a host that the manifests name, in a place of this test.
struct Host {
    dir: PathBuf,
}

impl Host {
    /// Its kubelet directory is a shared mount, as systemd makes it.
    fn new(dir: PathBuf) -> Self {
        let host = Self { dir };
        let kubelet = host.path(KUBELET);
        fs::create_dir_all(kubelet.join("plugins_registry")).unwrap();
        let kubelet = kubelet.to_str().unwrap();
        for arguments in [["--bind", kubelet, kubelet].as_slice(), &["--make-shared", kubelet]] {
            assert!(std::process::Command::new("mount").args(arguments).status().unwrap().success());
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        match path.strip_prefix(KUBELET) {
            Some(rest) => self.dir.join("kubelet").join(rest.trim_start_matches('/')),
            None => PathBuf::from(path),
        }
    }

    fn volume(&self, container: &str, volume: &Volume) -> PathBuf {
        match volume {
            Volume::HostPath { path, create } => {
                let path = self.path(path);
                if *create {
                    fs::create_dir_all(&path).unwrap();
                }
                path
            }
            Volume::Empty { name, group } => {
                let path = self.dir.join(format!("empty/{container}/{name}"));
                fs::create_dir_all(&path).unwrap();
                chown(&path, None, *group).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o2777)).unwrap();
                path
            }
        }
    }
}

/// One role in its container, with the variables that lead it to the simulated cloud.
fn start(world: &World, host: &Host, container: &Container, role: &str) -> Running {
    let state = world.dir.to_str().unwrap();
    Running::start(
        container,
        &container.podman_arguments(|volume| host.volume(&container.name, volume)),
        &world.environment(role),
        &["--network=host", &format!("--volume={state}:{state}:rslave")],
    )
}

async fn channel(socket: &Path) -> Channel {
    until("the socket", || std::os::unix::net::UnixStream::connect(socket).is_ok()).await;
    Endpoint::try_from(format!("unix://{}", socket.display())).unwrap().connect().await.unwrap()
}

/// Kubelet's part of the registration.
async fn register(host: &Host) {
    let socket = host.path(&format!("{KUBELET}/plugins_registry/{NAME}-reg.sock"));
    let mut driver = RegistrationClient::new(channel(&socket).await);
    let info = driver.get_info(InfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, NAME);
    assert_eq!(info.endpoint, format!("{KUBELET}/csi-plugins/{NAME}/csi.sock"));
    let registered = RegistrationStatus { plugin_registered: true, error: String::new() };
    driver.notify_registration_status(registered).await.unwrap();
}

/// A mount point of this test's own namespace, which is the host of the containers: its type of file system.
fn mounted(path: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|fields| Path::new(fields[4]) == path)
        .map(|fields| {
            let dash = fields.iter().position(|field| *field == "-").unwrap();
            fields[dash + 1].to_owned()
        })
}

/// How often something is mounted on this directory or below it.
fn mounts_at_or_below(dir: &Path) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| Path::new(line.split(' ').nth(4).unwrap()).starts_with(dir)).count()
}

struct Story {
    controller: ControllerClient<Channel>,
    node: NodeClient<Channel>,
    node_id: String,
    host: Host,
}

impl Story {
    async fn bring(&mut self, id: &str, kind: &str) -> AtNode {
        let answer =
            self.controller.controller_publish_volume(attach(id, &self.node_id, kind)).await.unwrap();
        let (plugins, pod) =
            (format!("{KUBELET}/plugins/kubernetes.io/csi"), format!("{KUBELET}/pods/p-{kind}"));
        let (staging, target) = if kind == "block" {
            (
                format!("{plugins}/volumeDevices/staging/{id}"),
                format!("{plugins}/volumeDevices/publish/{id}/p"),
            )
        } else {
            (
                format!("{plugins}/{NAME}/{id}/globalmount"),
                format!("{pod}/volumes/kubernetes.io~csi/{id}/mount"),
            )
        };
        // Kubelet makes the staging directory and the parent of the target.
        fs::create_dir_all(self.host.path(&staging)).unwrap();
        fs::create_dir_all(self.host.path(&target).parent().unwrap()).unwrap();
        let context = answer.into_inner().publish_context.into_iter().collect();
        let at = AtNode { id: id.to_owned(), kind: kind.to_owned(), context, staging, target };
        self.node.node_stage_volume(at.stage()).await.unwrap();
        self.node.node_publish_volume(at.publish()).await.unwrap();
        let seen = mounted(&self.host.path(&at.target)).expect("a mount on the host");
        // A device node bears the type of the file system that it stands on.
        assert!(kind == "block" || seen == kind, "{seen} at {}", at.target);
        at
    }

    async fn take_away(&mut self, at: &AtNode) {
        self.node.node_unpublish_volume(at.unpublish()).await.unwrap();
        self.node.node_unstage_volume(at.unstage()).await.unwrap();
        for path in [&at.staging, &at.target] {
            assert_eq!(mounted(&self.host.path(path)), None, "{path}");
        }
        assert!(!self.host.path(&at.target).exists(), "{}", at.target);
        self.controller.controller_unpublish_volume(detach(&at.id, &self.node_id)).await.unwrap();
    }

    /// The whole life of a volume; between its two uses it grows from 10 to 20 GiB.
    async fn live(&mut self, kind: &str) {
        let volume = self.controller.create_volume(create(&format!("pvc-{kind}"), kind, 10)).await.unwrap();
        let id = volume.into_inner().volume.unwrap().volume_id;
        let at = self.bring(&id, kind).await;
        let target = self.host.path(&at.target);
        let file = target.join("file");
        if kind == "block" {
            assert!(fs::metadata(&target).unwrap().file_type().is_block_device());
        } else {
            fs::write(&file, kind).unwrap();
        }
        self.take_away(&at).await;
        self.controller.controller_expand_volume(grow(&id, kind, 20)).await.unwrap();
        let at = self.bring(&id, kind).await;
        let stats = self.node.node_get_volume_stats(at.stats()).await.unwrap().into_inner();
        assert!(stats.usage[0].total > 19 * GIB, "{kind}: {:?}", stats.usage[0]);
        if kind != "block" {
            assert_eq!(fs::read_to_string(&file).unwrap(), kind);
        }
        self.take_away(&at).await;
        self.controller.delete_volume(delete(&id)).await.unwrap();
        println!("== {kind}: made, used, grown, used and deleted; each mount was seen on the host");
    }
}

#[tokio::test]
async fn both_roles_run_in_the_image_as_the_manifests_say() {
    if !own_mounts("both_roles_run_in_the_image_as_the_manifests_say") {
        return;
    }
    let world = World::start("none").await;
    let host = Host::new(world.dir.parent().unwrap().join("host"));
    fs::create_dir_all(&host.dir).unwrap();
    let kubelet = host.path(KUBELET);
    let before = mounts_at_or_below(&kubelet);
    let rendered = manifest::rendered();
    let controllers = manifest::container(&rendered, "StatefulSet", "csi-udisk-controller", "csi-udisk");
    let nodes = manifest::container(&rendered, "DaemonSet", "csi-udisk", "csi-udisk");

    let controller = start(&world, &host, &controllers, "controller");
    let node = start(&world, &host, &nodes, "node");
    let controllers_socket = host.dir.join(format!("empty/{}/socket-dir/csi.sock", controllers.name));
    let nodes_socket = host.path(&format!("{KUBELET}/csi-plugins/{NAME}/csi.sock"));
    let mut story = Story {
        controller: ControllerClient::new(channel(&controllers_socket).await),
        node: NodeClient::new(channel(&nodes_socket).await),
        node_id: world.first_host(),
        host,
    };
    let waits = node.probe(&nodes.readiness);
    assert!(waits.contains("not ready"), "kubelet has not registered it yet: {waits}");
    register(&story.host).await;
    for (running, container) in [(&controller, &controllers), (&node, &nodes)] {
        running.until_probe(&container.readiness).await;
        running.until_probe(&container.liveness).await;
    }

    // The sidecars run under the same user and group, so the socket is for these.
    let mode = fs::metadata(&controllers_socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660, "{mode:o}");
    assert_eq!(controller.status("Uid"), CONTROLLERS_USER.to_string());
    assert_eq!(controller.status("Gid"), CONTROLLERS_USER.to_string());
    assert_eq!(u64::from_str_radix(&controller.status("CapEff"), 16), Ok(0));
    assert_eq!(controller.status("NoNewPrivs"), "1");
    assert_eq!(node.status("Uid"), "0");

    // With registration, health and metrics in it. When it has grown: benches/order/record.
    for (what, running, limit) in [("node", &node, 8.0), ("controller", &controller, 12.0)] {
        let resident = running.resident() as f64 / (1 << 20) as f64;
        println!(
            "== RSS of the {what} in its container after its first probes: {resident:.1} MiB of {limit} allowed"
        );
        assert!(resident < limit, "{what}: {resident:.1} MiB are resident, of {limit}");
    }
    for kind in ["ext3", "ext4", "xfs", "btrfs", "block"] {
        story.live(kind).await;
    }
    for (what, running) in [("node", &node), ("controller", &controller)] {
        println!("== peak RSS in the container, {what}: {} KiB", running.status("VmHWM"));
    }
    node.stop();
    controller.stop();
    // What it does not leave behind is not there for the next one to trip over.
    assert!(!nodes_socket.exists());
    assert_eq!(mounts_at_or_below(&kubelet), before, "each start would leave the next one more");
}

#[test]
fn the_image_holds_the_driver_and_its_tools_and_nothing_else() {
    let image = image::Image::mount();
    let size = image.size();
    println!("== image: {size} bytes, {:.1} MB", size as f64 / 1e6);
    let files = image.files();
    for (path, length) in &files {
        println!("{length:>10} {path}");
    }
    assert!(size < 60_000_000, "{size}");
    let programs: Vec<_> = image.programs();
    let expected =
        ["csi-udisk", "e2fsck", "mke2fs", "mkfs.btrfs", "mkfs.ext3", "mkfs.ext4", "mkfs.xfs", "resize2fs"];
    assert_eq!(programs, expected);
    assert_eq!(image.setuid(), Vec::<String>::new());
    assert_eq!(image.label("org.opencontainers.image.version"), env!("CARGO_PKG_VERSION"));
    for label in ["title", "description", "licenses", "revision"] {
        assert_ne!(image.label(&format!("org.opencontainers.image.{label}")), "", "{label}");
    }
    // A simulated cloud has no place beside real disks.
    let (status, said) = podman::run_once(&["sandbox", "--help"]);
    assert!(!status && said.contains("sandbox"), "{said}");
    let (status, said) = podman::run_once(&["--version"]);
    assert!(status && said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}
