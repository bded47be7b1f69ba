//! The rules of one simulated cloud. All can be switched while it runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::volume::DiskType;

/// How long something takes: drawn evenly from a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    #[serde(with = "super::seconds")]
    pub min: Duration,
    #[serde(with = "super::seconds")]
    pub max: Duration,
}

impl Span {
    pub const ZERO: Self = Self { min: Duration::ZERO, max: Duration::ZERO };

    pub const fn millis(min: u64, max: u64) -> Self {
        Self { min: Duration::from_millis(min), max: Duration::from_millis(max) }
    }

    pub fn draw(self, rng: &mut fastrand::Rng) -> Duration {
        // f64 is exact enough for a delay, and the clamp keeps rounding inside the range.
        let width = self.max.saturating_sub(self.min);
        (self.min + width.mul_f64(rng.f64())).min(self.max.max(self.min))
    }
}

/// How long each change takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Latencies {
    /// One API call, between its arrival and its effect.
    pub api: Span,
    pub create: Span,
    pub attach: Span,
    pub detach: Span,
    pub resize: Span,
    pub clone: Span,
    pub restore: Span,
    pub snapshot: Span,
}

impl Latencies {
    /// Everything is done by the next read.
    pub const fn none() -> Self {
        Self {
            api: Span::ZERO,
            create: Span::ZERO,
            attach: Span::ZERO,
            detach: Span::ZERO,
            resize: Span::ZERO,
            clone: Span::ZERO,
            restore: Span::ZERO,
            snapshot: Span::ZERO,
        }
    }

    /// The order of magnitude that users of the service see. No figures are published.
    pub const fn realistic() -> Self {
        Self {
            api: Span::millis(30, 80),
            create: Span::millis(1_000, 3_000),
            attach: Span::millis(3_000, 8_000),
            detach: Span::millis(3_000, 8_000),
            resize: Span::millis(2_000, 5_000),
            clone: Span::millis(5_000, 20_000),
            restore: Span::millis(5_000, 20_000),
            snapshot: Span::millis(5_000, 20_000),
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::none()
    }
}

/// How far reads are behind the truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lags {
    /// A new disk is in no listing for so long.
    #[serde(with = "super::seconds")]
    pub new_in_lists: Duration,
    /// A new disk is not found by its id for so long.
    #[serde(with = "super::seconds")]
    pub new_by_id: Duration,
    /// Listings tell what was true so long ago.
    #[serde(with = "super::seconds")]
    pub stale_lists: Duration,
    /// Reads by id tell what was true so long ago.
    #[serde(with = "super::seconds")]
    pub stale_by_id: Duration,
}

impl Lags {
    pub const fn realistic() -> Self {
        Self {
            new_in_lists: Duration::from_secs(2),
            new_by_id: Duration::ZERO,
            stale_lists: Duration::ZERO,
            stale_by_id: Duration::ZERO,
        }
    }
}

/// When the guest sees a disk that is being attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceTiming {
    /// Half-way through `Attaching`.
    #[default]
    BeforeInUse,
    /// So long after the API says `InUse`.
    AfterInUse(#[serde(with = "super::seconds")] Duration),
}

/// Limits of the account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Disks in the account; the documented default is 1000.
    pub disks: usize,
    /// Manual snapshots of one disk.
    pub snapshots_per_disk: usize,
    /// Largest `Limit` of a listing.
    pub page: u32,
    /// Requests per second before 153; none for no limit.
    pub requests_per_second: Option<u32>,
    /// Whether a host refuses a change while another one is going on.
    pub one_change_per_host: bool,
    /// The RetCode that creating answers for want of money: 520 and 17063 have been seen.
    pub no_balance: Option<i64>,
    /// What cannot be made at the moment. `None` in a pair stands for all.
    pub out_of_stock: Vec<Stock>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disks: 1000,
            snapshots_per_disk: 3,
            page: 100,
            requests_per_second: None,
            one_change_per_host: false,
            no_balance: None,
            out_of_stock: Vec::new(),
        }
    }
}

/// A kind of disk in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stock {
    pub zone: Option<String>,
    /// A StorageClass word, such as `rssd`.
    pub disk_type: Option<String>,
}

impl Stock {
    pub(super) fn covers(&self, zone: &str, kind: DiskType) -> bool {
        self.zone.as_deref().is_none_or(|own| own == zone)
            && self.disk_type.as_deref().is_none_or(|own| own == kind.word())
    }
}

/// An availability zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZoneSpec {
    pub name: String,
    /// Where RSSD disks can be; without any, the zone has none.
    pub rdma_clusters: Vec<String>,
    /// StorageClass words of the types that are not sold here.
    #[serde(default)]
    pub not_sold: Vec<String>,
}

impl ZoneSpec {
    pub fn new(name: &str, rdma_clusters: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            rdma_clusters: rdma_clusters.iter().map(|&text| text.to_owned()).collect(),
            not_sold: Vec::new(),
        }
    }
}

/// All rules together.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub zones: Vec<ZoneSpec>,
    pub limits: Limits,
    pub latencies: Latencies,
    pub lags: Lags,
    pub device_timing: DeviceTiming,
}

impl Rules {
    pub(super) fn zone(&self, name: &str) -> Option<&ZoneSpec> {
        self.zones.iter().find(|zone| zone.name == name)
    }
}
