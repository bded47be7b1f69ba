//! What the driver counts and times, in one table.
//!
//! There is no global registry: whoever counts is given a handle. `deploy/METRICS.md` shows [`TABLE`] to operators, and
//! a test compares the two with what is really exposed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::node::observe::{Observer as HostObserver, Step};
use crate::ucloud::{Attempt, Observer as ApiObserver};

/// One metric as it is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Def {
    /// With unit and suffix.
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

macro_rules! table {
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(pub const $constant: Def =
            Def { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every metric, in the order of the exposition.
        pub const TABLE: &[Def] = &[$($constant),*];
    };
}

table! {
    BUILD_INFO = "csi_udisk_build_info", Gauge, ["version", "mode"], "Always 1";
    RPCS = "csi_udisk_rpcs_total", Counter, ["method", "code"], "RPCs that were answered, by gRPC code";
    RPC_SECONDS = "csi_udisk_rpc_duration_seconds", Histogram, ["method"], "Time to an answer";
    API_REQUESTS = "csi_udisk_api_requests_total", Counter, ["action", "ret_code"],
        "Requests to the cloud's API, by RetCode; \"none\": no answer of the API";
    API_SECONDS = "csi_udisk_api_request_duration_seconds", Histogram, ["action"],
        "Time of one request to the cloud's API, without the wait for its turn";
    API_RETRIES = "csi_udisk_api_retries_total", Counter, ["action"], "Requests that were sent once more";
    HOST_SECONDS = "csi_udisk_host_step_duration_seconds", Histogram, ["step", "fs"],
        "Time of one step on the host: device_wait, format, check, mount";
    API_RATE = "csi_udisk_api_rate_limit_per_second", Gauge, [],
        "Requests to the cloud's API that the driver allows itself; falls when the cloud throttles";
    API_WAITING = "csi_udisk_api_requests_waiting", Gauge, [], "Requests that wait for their turn";
    OPERATIONS = "csi_udisk_operations_running", Gauge, [], "Changes of volumes that run now";
    OLDEST = "csi_udisk_operation_oldest_age_seconds", Gauge, [], "Age of the change that runs for the longest time";
    HOST_QUEUES = "csi_udisk_attachments_waiting", Gauge, [],
        "Attach, detach and grow operations that wait for their turn on a host";
    STUCK_DISKS = "csi_udisk_stuck_disks", Gauge, [],
        "Disks that have been attaching, detaching or initializing for more than three minutes";
    STUCK_CALLS = "csi_udisk_stuck_host_calls", Gauge, [], "Calls to the kernel that have not come back in their time";
    READY = "csi_udisk_ready", Gauge, [], "Whether the driver is ready for work";
}

/// From a cached answer to a mkfs of a large disk.
const BUCKETS: [f64; 12] = [0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

type Labels = Vec<(&'static str, String)>;

/// A handle to all metrics of one driver. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    rpcs: Family<Labels, Counter>,
    rpc_seconds: Family<Labels, Histogram>,
    api_requests: Family<Labels, Counter>,
    api_seconds: Family<Labels, Histogram>,
    api_retries: Family<Labels, Counter>,
    host_seconds: Family<Labels, Histogram>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// `mode`: which services the driver serves.
    pub fn new(mode: &str) -> Self {
        let mut registry = Registry::default();
        let histograms = || Family::new_with_constructor(histogram as fn() -> Histogram);
        let inner = Inner {
            rpcs: Family::default(),
            rpc_seconds: histograms(),
            api_requests: Family::default(),
            api_seconds: histograms(),
            api_retries: Family::default(),
            host_seconds: histograms(),
            registry: Mutex::default(),
        };
        let info: Family<Labels, ConstGauge<i64>> = Family::new_with_constructor(|| ConstGauge::new(1));
        drop(info.get_or_create(&vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("mode", mode.to_owned()),
        ]));
        register(&mut registry, &BUILD_INFO, info);
        register(&mut registry, &RPCS, inner.rpcs.clone());
        register(&mut registry, &RPC_SECONDS, inner.rpc_seconds.clone());
        register(&mut registry, &API_REQUESTS, inner.api_requests.clone());
        register(&mut registry, &API_SECONDS, inner.api_seconds.clone());
        register(&mut registry, &API_RETRIES, inner.api_retries.clone());
        register(&mut registry, &HOST_SECONDS, inner.host_seconds.clone());
        *lock(&inner.registry) = registry;
        Self(Arc::new(inner))
    }

    /// Adds a gauge that is read when somebody asks for the metrics. `read` must not block.
    pub fn gauge(&self, def: &'static Def, read: impl Fn() -> f64 + Send + Sync + 'static) {
        lock(&self.0.registry).register_collector(Box::new(Reading { def, read: Box::new(read) }));
    }

    /// Counts an RPC that was answered.
    pub fn rpc(&self, method: &str, code: &str, took: Duration) {
        let method = ("method", method.to_owned());
        self.0.rpcs.get_or_create(&vec![method.clone(), ("code", code.to_owned())]).inc();
        self.0.rpc_seconds.get_or_create(&vec![method]).observe(took.as_secs_f64());
    }

    /// The text of an answer to Prometheus.
    ///
    /// # Errors
    /// Never in practice: a `String` takes everything.
    pub fn expose(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &lock(&self.0.registry))?;
        Ok(text)
    }
}

impl ApiObserver for Metrics {
    fn attempt(&self, attempt: &Attempt<'_>) {
        let action = ("action", attempt.action.to_owned());
        let code = attempt.ret_code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        self.0.api_requests.get_or_create(&vec![action.clone(), ("ret_code", code)]).inc();
        if attempt.again {
            self.0.api_retries.get_or_create(&vec![action.clone()]).inc();
        }
        self.0.api_seconds.get_or_create(&vec![action]).observe(attempt.duration.as_secs_f64());
    }
}

impl HostObserver for Metrics {
    fn step(&self, step: Step, fs: &str, took: Duration) {
        let labels = vec![("step", step.word().to_owned()), ("fs", fs.to_owned())];
        self.0.host_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// The library adds the suffix of counters itself.
fn register(registry: &mut Registry, def: &Def, metric: impl prometheus_client::registry::Metric) {
    registry.register(def.name.strip_suffix("_total").unwrap_or(def.name), def.help, metric);
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    // Nothing that panics runs under this lock but the readings, and they leave the registry as it is.
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gauge without memory.
struct Reading {
    def: &'static Def,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&self.def.name).finish()
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let help = format!("{}.", self.def.help);
        let metric = encoder.encode_descriptor(self.def.name, &help, None, MetricType::Gauge)?;
        ConstGauge::new((self.read)()).encode(metric)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// With something counted everywhere.
    fn full() -> Metrics {
        let metrics = Metrics::new("all");
        metrics.rpc("CreateVolume", "Ok", SECOND);
        metrics.attempt(&Attempt {
            action: "CreateUDisk",
            number: 1,
            ret_code: Some(153),
            error: Some("busy"),
            request_id: None,
            duration: SECOND,
            again: true,
        });
        metrics.step(Step::Format, "ext4", SECOND);
        for def in TABLE.iter().filter(|def| def.kind == Kind::Gauge && def.name != BUILD_INFO.name) {
            metrics.gauge(def, || 0.5);
        }
        metrics
    }

    fn labels(sample: &str) -> BTreeSet<String> {
        let inside = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'))
            .map_or("", |(labels, _)| labels);
        let names =
            inside.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
        names.filter(|name| name != "le").collect()
    }

    #[test]
    fn what_is_exposed_is_the_table_and_nothing_else() {
        let text = full().expose().unwrap();
        let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let expected: Vec<String> = TABLE
            .iter()
            .map(|def| {
                let name = def.name.strip_suffix("_total").unwrap_or(def.name);
                format!("{name} {}", format!("{:?}", def.kind).to_lowercase())
            })
            .collect();
        assert_eq!(types, expected, "{text}");
        for def in TABLE {
            let wanted: BTreeSet<String> = def.labels.iter().map(|label| (*label).to_owned()).collect();
            let mut samples = 0;
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let name = line.split(['{', ' ']).next().unwrap();
                let own = match def.kind {
                    Kind::Histogram => ["_bucket", "_sum", "_count"]
                        .iter()
                        .any(|suffix| name == format!("{}{suffix}", def.name)),
                    Kind::Counter | Kind::Gauge => name == def.name,
                };
                if own {
                    samples += 1;
                    assert_eq!(labels(line), wanted, "{line}");
                }
            }
            assert!(samples > 0, "{} is in the table and has no sample:\n{text}", def.name);
        }
    }

    #[test]
    fn operators_are_shown_the_same_table() {
        let shown = include_str!("../../deploy/METRICS.md");
        let rows: Vec<&str> = shown.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = TABLE
            .iter()
            .map(|def| {
                let labels =
                    def.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
                let kind = format!("{:?}", def.kind).to_lowercase();
                format!("| `{}` | {kind} | {labels} | {} |", def.name, def.help)
            })
            .collect();
        assert_eq!(rows, expected, "\n{}", expected.join("\n"));
    }

    #[test]
    fn names_carry_their_unit_as_prometheus_wants_it() {
        for def in TABLE {
            assert!(def.name.starts_with("csi_udisk_"), "{}", def.name);
            assert_eq!(def.kind == Kind::Counter, def.name.ends_with("_total"), "{}", def.name);
            assert_eq!(
                def.name.contains("duration") || def.name.contains("age"),
                def.name.ends_with("_seconds")
            );
            assert!(!def.help.ends_with('.'), "{}: the library adds it", def.name);
        }
    }

    #[test]
    fn counts_go_up_and_gauges_are_read_when_asked() {
        let metrics = full();
        metrics.rpc("CreateVolume", "Ok", SECOND);
        metrics.rpc("CreateVolume", "Aborted", SECOND);
        let text = metrics.expose().unwrap();
        for line in [
            "csi_udisk_rpcs_total{method=\"CreateVolume\",code=\"Ok\"} 2",
            "csi_udisk_rpcs_total{method=\"CreateVolume\",code=\"Aborted\"} 1",
            "csi_udisk_rpc_duration_seconds_count{method=\"CreateVolume\"} 3",
            "csi_udisk_api_requests_total{action=\"CreateUDisk\",ret_code=\"153\"} 1",
            "csi_udisk_api_retries_total{action=\"CreateUDisk\"} 1",
            "csi_udisk_host_step_duration_seconds_count{step=\"format\",fs=\"ext4\"} 1",
            "csi_udisk_operations_running 0.5",
        ] {
            assert!(text.lines().any(|one| one == line), "no {line:?} in\n{text}");
        }
    }
}
