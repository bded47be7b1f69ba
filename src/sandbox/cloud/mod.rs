//! The simulated cloud: an account with its API, its metadata service and its faults.
//!
//! ```text
//! http ──▶ SimCloud::handle ──▶ call (signature, faults, envelope) ──▶ api (tables, actions) ──▶ model (pure)
//!                 ├───────────▶ metadata                                                          │ Work
//!                 └───────────▶ control                              hosts::HostBackend ◀── labour ┘
//! ```
//!
//! All time comes from tokio's clock, so a paused clock drives the whole cloud.

pub mod api;
mod call;
mod config;
mod control;
mod faults;
mod http;
mod labour;
mod metadata;
pub mod model;
mod request;
mod signature;
mod sts;
mod throttle;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{DeviceNameStyle, Key, NameFilter, Quirks, Role, SANDBOX_MAX_DISKS, SimConfig};
pub use faults::{Effect, Rule};
pub use metadata::MetadataMode;
pub use model::{Disk, Event, Happening, HostSpec, HostState, Record, Refusal, Status};
pub use request::{Answer, Drip, Request, Response};

use faults::FaultBook;
use model::{Host, NewDisk, Rules, World};
use sts::Sessions;
use throttle::Throttle;

use super::hosts::{BackendError, HostBackend};
use crate::volume::{DiskType, Gib};

/// A simulated UCloud account. Clones are the same account.
#[derive(Debug, Clone)]
pub struct SimCloud {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    region: String,
    projects: Vec<String>,
    keys: Vec<Key>,
    /// Unix time at the start, in seconds.
    epoch: u64,
    /// The time that the account's things count from: earlier, if the account is older.
    born: u64,
    started: Instant,
    backend: Option<Arc<dyn HostBackend>>,
    state: Mutex<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    world: World,
    quirks: Quirks,
    faults: FaultBook,
    throttle: Throttle,
    sessions: Sessions,
    metadata: MetadataMode,
    counts: BTreeMap<String, u64>,
    /// When somebody will next look after what is due.
    wake: Option<Duration>,
}

impl SimCloud {
    /// A cloud whose disks are imaginary.
    pub fn new(config: SimConfig) -> Self {
        Self::build(config, None)
    }

    /// A cloud whose disks a backend makes real.
    pub async fn with_hosts(config: SimConfig, backend: Arc<dyn HostBackend>) -> Result<Self, BackendError> {
        let cloud = Self::build(config, Some(backend));
        cloud.set_to_work().await?;
        Ok(cloud)
    }

    fn build(config: SimConfig, backend: Option<Arc<dyn HostBackend>>) -> Self {
        let first_zone = config.zones.first().map(|zone| zone.name.clone()).unwrap_or_default();
        let first_project = config.projects.first().cloned().unwrap_or_default();
        let rules = Rules {
            zones: config.zones,
            limits: config.limits,
            latencies: config.latencies,
            lags: config.lags,
            device_timing: config.device_timing,
        };
        let mut world = World::new(rules, config.seed, backend.is_some());
        for mut host in config.hosts {
            if host.zone.is_empty() {
                host.zone.clone_from(&first_zone);
            }
            if host.project.is_empty() {
                host.project.clone_from(&first_project);
            }
            world.add_host(host);
        }
        let state = State {
            world,
            quirks: config.quirks,
            faults: FaultBook::new(config.seed),
            throttle: Throttle::default(),
            sessions: Sessions::new(config.roles, config.seed),
            metadata: MetadataMode::default(),
            counts: BTreeMap::new(),
            wake: None,
        };
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let inner = Inner {
            region: config.region,
            projects: config.projects,
            keys: config.keys,
            epoch,
            born: epoch.saturating_sub(config.existed.as_secs()),
            started: Instant::now(),
            backend,
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a request in, as the HTTP server does.
    ///
    /// The work goes on when the caller stops waiting: a cloud does not undo a call because the client hung up.
    pub async fn handle(&self, request: Request) -> Answer {
        let cloud = self.clone();
        let task = self.inner.tasks.spawn(async move {
            let stop = cloud.inner.stop.clone();
            stop.run_until_cancelled(cloud.route(request)).await
        });
        task.await.ok().flatten().unwrap_or(Answer::Reset)
    }

    async fn route(&self, request: Request) -> Answer {
        match request.path.as_str() {
            "/" | "" => self.call(&request).await,
            path if path.starts_with("/_metadata/") => self.metadata(&request).await,
            path if path.starts_with("/_sandbox/") => Answer::Response(self.control(&request).await),
            _ => Answer::Response(Response::new(404, "text/plain", "not found")),
        }
    }

    /// Stops all that goes on by itself and takes the disks off this machine.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if let Some(backend) = &self.inner.backend {
            backend.shutdown().await;
        }
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    /// The state as of now. Never held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        let now = self.now();
        // A panic in a test must not hide the state from its clean-up.
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.world.advance(now);
        state
    }
}

/// The truth, and levers, for tests.
impl SimCloud {
    /// A data disk or system disk as it truly is.
    pub fn disk(&self, id: &str) -> Option<Disk> {
        self.state().world.disk(id).cloned()
    }

    /// All data disks as they truly are, by id.
    pub fn disks(&self) -> Vec<Disk> {
        self.state().world.disks().filter(|disk| !disk.boot).cloned().collect()
    }

    pub fn host(&self, id: &str) -> Option<Host> {
        self.state().world.host(id).cloned()
    }

    pub fn hosts(&self) -> Vec<Host> {
        self.state().world.hosts().cloned().collect()
    }

    /// Calls by action since the start or the last reset, whether or not they were any good.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state().counts.clone()
    }

    pub fn reset_counts(&self) {
        self.state().counts.clear();
    }

    /// All accepted and finished changes.
    pub fn journal(&self) -> Vec<Record> {
        self.state().world.journal().to_vec()
    }

    /// Makes calls go wrong; the answer is the rule's number.
    pub fn add_fault(&self, rule: Rule) -> u64 {
        self.state().faults.add(rule)
    }

    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How often each rule has struck, by its number.
    pub fn struck(&self) -> BTreeMap<u64, u64> {
        self.state().faults.struck().collect()
    }

    /// Lets something happen that no API call asks for.
    pub async fn happen(&self, event: Event) -> Result<(), Refusal> {
        let outcome = self.state().world.happen(event);
        self.work().await;
        outcome
    }

    /// Makes a SATA disk as the console would, in the first zone and project; the answer is its id.
    pub async fn create_disk(&self, name: &str, size: Gib) -> Result<String, Refusal> {
        let created = {
            let mut state = self.state();
            let new = NewDisk {
                project: self.inner.projects.first().cloned().unwrap_or_default(),
                zone: state.world.rules().zones.first().map(|zone| zone.name.clone()).unwrap_or_default(),
                name: name.to_owned(),
                size,
                kind: DiskType::Sata,
                charge_type: "Dynamic".to_owned(),
                tag: "Default".to_owned(),
                ark: false,
                key: None,
                snapshot_service: false,
                rdma: None,
                paid_for: None,
            };
            state.world.create(new)
        };
        self.work().await;
        created
    }

    /// Adds a host. Without a zone or a project it gets the account's first.
    pub async fn add_host(&self, mut spec: HostSpec) {
        {
            let mut state = self.state();
            if spec.zone.is_empty() {
                spec.zone =
                    state.world.rules().zones.first().map(|zone| zone.name.clone()).unwrap_or_default();
            }
            if spec.project.is_empty() {
                spec.project = self.inner.projects.first().cloned().unwrap_or_default();
            }
            state.world.add_host(spec);
        }
        self.work().await;
    }

    /// Changes rules (latencies, lags, limits, zones…) from now on.
    pub fn change_rules(&self, change: impl FnOnce(&mut Rules)) {
        change(self.state().world.rules_mut());
    }

    pub fn set_metadata(&self, mode: MetadataMode) {
        self.state().metadata = mode;
    }

    /// Makes all credentials of hosts' roles worthless at once.
    pub fn revoke_sessions(&self) {
        self.state().sessions.revoke();
    }

    pub fn change_quirks(&self, change: impl FnOnce(&mut Quirks)) {
        change(&mut self.state().quirks);
    }
}
