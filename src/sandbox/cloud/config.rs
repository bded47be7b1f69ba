//! What a simulated cloud is made of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::model::{DeviceTiming, HostSpec, Lags, Latencies, Limits, ZoneSpec};

/// A key pair of the account.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    pub public: String,
    pub private: String,
}

impl Key {
    pub fn new(public: &str, private: &str) -> Self {
        Self { public: public.to_owned(), private: private.to_owned() }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("public", &self.public).finish_non_exhaustive()
    }
}

/// A role that hosts can take through the metadata service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub name: String,
    /// How long credentials of the first STS version last; the second one asks for it.
    pub lasts: Duration,
}

impl Role {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), lasts: Duration::from_secs(3600) }
    }
}

/// How the API is odd. The documents leave these open, or contradict themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quirks {
    /// `"RetCode": "0"`.
    pub ret_code_as_text: bool,
    /// `"Size": "10"`, in all data.
    pub numbers_as_text: bool,
    /// `UDiskId` of a new disk as a text instead of an array of one.
    pub bare_disk_id: bool,
    /// Empty texts are left out of data.
    pub empty_fields_absent: bool,
    /// Errors carry no `Message`.
    pub no_messages: bool,
    pub device_name: DeviceNameStyle,
    /// `DeviceName` stays empty until the disk is `InUse`.
    pub device_name_after_in_use: bool,
    pub name_filter: NameFilter,
    /// Describing an unknown id answers 17041 instead of an empty set.
    pub unknown_id_is_error: bool,
    /// The retired `UHostId`, `UHostName` and `UHostIP` are left out.
    pub no_uhost_twins: bool,
    /// Attaching a disk that another host has: 17057 or 17055.
    pub attached_elsewhere: i64,
    /// Deleting an attached disk: 17026 or 17030.
    pub delete_attached: i64,
    /// An action on a host that does not exist.
    pub unknown_host: i64,
    /// Stock-out: 17005 or 17000.
    pub stock_out: i64,
    /// `Comment` is documented for snapshots, yet refused.
    pub snapshot_comment_refused: bool,
    /// Listings of disks hold the hosts' system disks too.
    pub list_system_disks: bool,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            ret_code_as_text: false,
            numbers_as_text: false,
            bare_disk_id: false,
            empty_fields_absent: false,
            no_messages: false,
            device_name: DeviceNameStyle::Plain,
            device_name_after_in_use: false,
            name_filter: NameFilter::Exact,
            unknown_id_is_error: false,
            no_uhost_twins: false,
            attached_elsewhere: 17057,
            delete_attached: 17026,
            unknown_host: 230,
            stock_out: 17005,
            snapshot_comment_refused: true,
            list_system_disks: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceNameStyle {
    /// `vdb`
    #[default]
    Plain,
    /// `/dev/vdb`
    Path,
    /// `VDB`
    UpperCase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameFilter {
    #[default]
    Exact,
    /// Any name that contains the text.
    Fuzzy,
    Ignored,
}

/// A simulated cloud to be.
#[derive(Debug, Clone)]
pub struct SimConfig {
    pub region: String,
    pub zones: Vec<ZoneSpec>,
    /// The first one is the default project.
    pub projects: Vec<String>,
    pub keys: Vec<Key>,
    pub roles: Vec<Role>,
    pub hosts: Vec<HostSpec>,
    pub latencies: Latencies,
    pub lags: Lags,
    pub device_timing: DeviceTiming,
    pub quirks: Quirks,
    pub limits: Limits,
    /// How long ago everything seems to have been made that is made at the start.
    pub existed: Duration,
    /// Everything random follows from it.
    pub seed: u64,
}

/// Data disks per host in the default account, as many as UCloud's own driver asks for.
pub const SANDBOX_MAX_DISKS: usize = 20;

impl Default for SimConfig {
    /// One zone, two virtual machines in one RDMA cluster, and everything immediate.
    fn default() -> Self {
        const ZONE: &str = "cn-sh2-02";
        const CLUSTER: &str = "9002_25GE_D_R006";
        let host = |id: &str, ip: &str| HostSpec {
            max_disks: SANDBOX_MAX_DISKS,
            ..HostSpec::new(id, ip).in_zone(ZONE).in_rdma_cluster(CLUSTER)
        };
        Self {
            region: "cn-sh2".to_owned(),
            zones: vec![ZoneSpec::new(ZONE, &[CLUSTER])],
            projects: vec!["org-sandbox".to_owned()],
            keys: vec![Key::new("sandbox-public-key", "sandbox-private-key")],
            roles: vec![Role::new("Uk8sServiceCharacter"), Role::new("ServiceRoleForUK8S")],
            hosts: vec![host("uhost-a", "10.9.0.11"), host("uhost-b", "10.9.0.12")],
            latencies: Latencies::none(),
            lags: Lags::default(),
            device_timing: DeviceTiming::default(),
            quirks: Quirks::default(),
            limits: Limits::default(),
            existed: Duration::ZERO,
            seed: 1,
        }
    }
}
