//! A running sandbox: the simulated cloud on loopback, its hosts, and the driver's processes as tasks of this one.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cloud::model::ZoneSpec;
use super::cloud::{SANDBOX_MAX_DISKS, SimCloud, SimConfig};
use super::hosts::{BackendError, HostBackend, LoopHosts, LoopOptions};
use super::place::Place;
use crate::config::{self, Command, Latency, SandboxArgs};
use crate::run::{RunError, run};
use crate::telemetry::level::LogLevel;

/// Beside the first zone, where the hosts are.
const SECOND_ZONE: &str = "cn-sh2-01";

/// A write that was under way when the sandbox was told to stop may have a mount in use for a moment.
const FREE_WITHIN: Duration = Duration::from_secs(5);
const FREE_PAUSE: Duration = Duration::from_millis(20);

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot use the directory: {0}")]
    Directory(#[source] io::Error),
    #[error("cannot set up the hosts: {0}")]
    Hosts(#[from] BackendError),
    #[error("cannot listen on loopback: {0}")]
    Listen(#[source] io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("the sandbox gives its own driver a wrong configuration: {0}")]
    Configuration(String),
    #[error("the driver of {role} failed: {cause}")]
    Driver { role: String, cause: RunError },
    #[error("{0}")]
    Tour(String),
    #[error("not everything could be cleaned up: {0}")]
    Leftover(String),
    #[error("{0}")]
    Several(String),
}

/// The driver's processes of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Controller,
    /// The node service of the host of that number.
    Node(usize),
}

impl Role {
    /// The stem of its files: `controller.sock`, `node.env`, `node-2.sock`.
    pub(super) fn stem(self) -> String {
        match self {
            Self::Controller => "controller".to_owned(),
            Self::Node(0) => "node".to_owned(),
            Self::Node(index) => format!("node-{}", index + 1),
        }
    }

    fn mode(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Node(_) => "node",
        }
    }
}

pub(super) const ROLES: [Role; 3] = [Role::Controller, Role::Node(0), Role::Node(1)];

/// A driver that runs, and its name for messages.
type Driver = (String, JoinHandle<Result<(), RunError>>);

/// Ends what sandboxes that were killed left behind: loop devices, and directories that nobody else would remove.
fn clean_up_abandoned(devices: bool) {
    for place in Place::abandoned() {
        // The hosts take their leftovers away when they open, and all the rest when they are dropped.
        let hosts = devices.then(|| LoopHosts::open(&place.data(), LoopOptions::default()));
        let hosts = hosts.transpose().map(drop).map_err(|error| error.to_string());
        let cleaned = hosts.and_then(|()| place.remove().map_err(|error| error.to_string()));
        let dir = place.path().display();
        match cleaned {
            Ok(()) => tracing::info!(%dir, "removed what a sandbox that was killed left behind"),
            Err(error) => tracing::warn!(%dir, error, "a sandbox that was killed left something behind"),
        }
    }
}

/// The running sandbox.
#[derive(Debug)]
pub(super) struct World {
    pub(super) cloud: SimCloud,
    pub(super) place: Place,
    /// The address of the API.
    pub(super) url: String,
    config: SimConfig,
    stop: CancellationToken,
    /// Ends the cloud, after the drivers: what they still do needs it.
    close: CancellationToken,
    http: JoinHandle<io::Result<()>>,
    drivers: Vec<Driver>,
}

impl World {
    /// Starts the cloud and its hosts; with `devices` their disks are loop devices of this machine.
    pub(super) async fn start(args: &SandboxArgs, devices: bool) -> Result<Self, SandboxError> {
        if args.dir.is_none() {
            clean_up_abandoned(devices);
        }
        let place = Place::new(args.dir.clone()).map_err(SandboxError::Directory)?;
        match Self::start_in(args, devices, &place).await {
            Ok(parts) => Ok(parts(place)),
            Err(error) => {
                // The error says more than what the clean-up could.
                let _ = place.remove();
                Err(error)
            }
        }
    }

    async fn start_in(
        args: &SandboxArgs,
        devices: bool,
        place: &Place,
    ) -> Result<impl FnOnce(Place) -> Self + use<>, SandboxError> {
        let mut config = SimConfig { latencies: latencies(args.latency), ..SimConfig::default() };
        // No host is there, but disks can be: in the wrong zone.
        config.zones.push(ZoneSpec::new(SECOND_ZONE, &[]));
        let cloud = if devices {
            let hosts: Arc<dyn HostBackend> =
                Arc::new(LoopHosts::open(&place.data(), LoopOptions::default())?);
            SimCloud::with_hosts(config.clone(), hosts).await?
        } else {
            SimCloud::new(config.clone())
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(SandboxError::Listen)?;
        let address = listener.local_addr().map_err(SandboxError::Listen)?;
        let (stop, close) = (CancellationToken::new(), CancellationToken::new());
        let (serving, end) = (cloud.clone(), close.clone());
        let http = tokio::spawn(async move { serving.serve(listener, end).await });
        let url = format!("http://{address}");
        Ok(move |place| Self { cloud, place, url, config, stop, close, http, drivers: Vec::new() })
    }

    pub(super) fn socket(&self, role: Role) -> PathBuf {
        self.place.path().join(format!("{}.sock", role.stem()))
    }

    pub(super) fn host_id(&self, index: usize) -> &str {
        self.config.hosts.get(index).map_or("", |host| host.id.as_str())
    }

    /// The variables of a driver of this sandbox, as a ConfigMap would hold them.
    pub(super) fn environment(&self, role: Role) -> Vec<(&'static str, String)> {
        let zone = self.config.zones.first().map(|zone| zone.name.clone()).unwrap_or_default();
        let metadata = |host: &str| format!("{}/_metadata/{host}", self.url);
        match role {
            Role::Controller => {
                let key = self.config.keys.first();
                vec![
                    ("UCLOUD_API_ENDPOINT", self.url.clone()),
                    ("UCLOUD_ACCESS_PUBKEY", key.map(|key| key.public.clone()).unwrap_or_default()),
                    ("UCLOUD_ACCESS_PRIKEY", key.map(|key| key.private.clone()).unwrap_or_default()),
                    ("UCLOUD_PROJECT_ID", self.config.projects.first().cloned().unwrap_or_default()),
                    ("UCLOUD_REGION_ID", self.config.region.clone()),
                    ("UCLOUD_ZONE_ID", zone),
                    ("CSI_UDISK_METADATA_ENDPOINT", metadata(self.host_id(0))),
                    // This cloud's reads tell the truth at once unless a test makes them lag.
                    ("CSI_UDISK_READ_LAG", "0s".to_owned()),
                ]
            }
            Role::Node(index) => {
                let id = self.host_id(index);
                let tree = self.place.host(id);
                vec![
                    ("CSI_UDISK_NODE_ID", id.to_owned()),
                    ("CSI_UDISK_METADATA_ENDPOINT", metadata(id)),
                    ("CSI_UDISK_SYSFS_ROOT", tree.join("sys").display().to_string()),
                    ("CSI_UDISK_DEV_ROOT", tree.join("dev").display().to_string()),
                    ("CSI_UDISK_KUBELET_DIR", self.place.kubelet(id).display().to_string()),
                    // The cloud's hosts take exactly so many, so that what the node reports is true.
                    ("CSI_UDISK_MAXVOLUME", SANDBOX_MAX_DISKS.to_string()),
                ]
            }
        }
    }

    /// Writes what processes outside need to know: the URL last, as the sign that all is there.
    pub(super) fn publish(&self) -> io::Result<()> {
        for role in ROLES {
            let lines: String =
                self.environment(role).iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            std::fs::write(self.place.path().join(format!("{}.env", role.stem())), lines)?;
        }
        let unfinished = self.place.path().join("cloud.url.new");
        std::fs::write(&unfinished, format!("{}\n", self.url))?;
        std::fs::rename(unfinished, self.place.path().join("cloud.url"))
    }

    /// Starts a driver in this process; it serves soon on its socket.
    pub(super) fn drive(&mut self, role: Role) -> Result<(), SandboxError> {
        let environment = self.environment(role);
        let variable =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone().into());
        let endpoint = format!("unix://{}", self.socket(role).display());
        let arguments = ["--mode", role.mode(), "--endpoint", &endpoint].map(Into::into);
        let config = match config::parse(arguments, &variable) {
            Ok(Command::Run(config)) => *config,
            Ok(other) => return Err(SandboxError::Configuration(format!("{other:?}"))),
            Err(faults) => return Err(SandboxError::Configuration(faults.to_string())),
        };
        let level = LogLevel::fixed(config.log.filter.clone());
        let task = tokio::spawn(run(config, level, self.stop.child_token()));
        self.drivers.push((role.stem(), task));
        Ok(())
    }

    /// Returns when a driver ends by itself, which it should not.
    pub(super) async fn failure(&mut self) -> SandboxError {
        loop {
            for (role, task) in &mut self.drivers {
                if task.is_finished() {
                    let role = role.clone();
                    return match task.await {
                        Ok(Err(cause)) => SandboxError::Driver { role, cause },
                        Ok(Ok(())) | Err(_) => SandboxError::Tour(format!("the driver of {role} ended")),
                    };
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops everything after `outcome`, leaves nothing behind, and tells all that went wrong.
    pub(super) async fn end(self, outcome: Result<(), SandboxError>) -> Result<(), SandboxError> {
        match (outcome, self.stop().await) {
            (Err(first), Err(then)) => Err(SandboxError::Several(format!("{first}; {then}"))),
            (outcome, stopped) => outcome.and(stopped),
        }
    }

    async fn stop(self) -> Result<(), SandboxError> {
        self.stop.cancel();
        for (role, task) in self.drivers {
            if let Ok(Err(error)) = task.await {
                tracing::warn!("the driver of {role} stopped badly: {error}");
            }
        }
        self.close.cancel();
        let _ = self.http.await;
        let place = Arc::new(self.place);
        let start = Instant::now();
        let left = loop {
            // Unmounting writes to disks; the runtime's own threads must not wait for them.
            let here = Arc::clone(&place);
            let left = tokio::task::spawn_blocking(move || here.unmount()).await;
            let left = left.map_err(|e| SandboxError::Leftover(e.to_string()))?;
            if left.is_empty() || start.elapsed() >= FREE_WITHIN {
                break left;
            }
            tokio::time::sleep(FREE_PAUSE).await;
        };
        self.cloud.shutdown().await;
        if !left.is_empty() {
            return Err(SandboxError::Leftover(left.join("; ")));
        }
        place.remove().map_err(|e| SandboxError::Leftover(e.to_string()))
    }
}

/// How long changes take.
pub(super) fn latencies(latency: Latency) -> super::cloud::model::Latencies {
    use super::cloud::model::{Latencies, Span};
    match latency {
        Latency::None => Latencies::none(),
        Latency::Realistic => Latencies::realistic(),
        Latency::Short => Latencies {
            api: Span::millis(2, 8),
            create: Span::millis(300, 600),
            attach: Span::millis(700, 1_500),
            detach: Span::millis(700, 1_500),
            resize: Span::millis(300, 600),
            ..Latencies::none()
        },
    }
}
