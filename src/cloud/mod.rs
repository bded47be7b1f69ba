//! The cloud as the use cases see it: a handful of operations on disks and hosts, and errors that say
//! what they mean for the disk.
//!
//! The trait is literal: one method is one API action, plus retries that cannot do the action twice. It
//! decides nothing about idempotency: "already done" is decided by the use cases, which read first.

mod error;
#[cfg(test)]
pub(crate) mod testing;

pub use error::{Cause, CloudError, Outcome};

use std::future::Future;
use std::net::IpAddr;

use tokio::time::Instant;

use crate::volume::{ChargeType, DiskId, DiskType, Gib, HostId, Zone};

/// The moment after which the caller no longer wants an answer. Retries and waits end before it.
pub type Deadline = Instant;

/// The state of a disk as the cloud reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskStatus {
    Initializing,
    Available,
    Attaching,
    InUse,
    Detaching,
    Cloning,
    Restoring,
    RestoreFailed,
    Failed,
    /// A word that this driver does not know; kept to be shown. Nothing is concluded from it.
    Other(String),
}

impl DiskStatus {
    /// Whether the cloud works on the disk, so that another state follows by itself.
    pub fn is_changing(&self) -> bool {
        match self {
            Self::Initializing | Self::Attaching | Self::Detaching | Self::Cloning | Self::Restoring => true,
            Self::Available | Self::InUse | Self::RestoreFailed | Self::Failed | Self::Other(_) => false,
        }
    }
}

/// A disk as read from the cloud. What an answer left out is `None`, never a default that means something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: DiskId,
    pub name: String,
    pub zone: Zone,
    pub size: Gib,
    pub status: DiskStatus,
    /// `None`: a type that this driver does not sell (for example a system disk).
    pub disk_type: Option<DiskType>,
    /// The host that the disk is attached, attaching or detaching to; `None` when the answer names none.
    pub host: Option<HostId>,
    /// The private address of that host, by which the plugin we replace named its nodes.
    pub host_ip: Option<IpAddr>,
    /// The slot on that host as the API names it, without `/dev/` and in lower case: `vdc`.
    pub device: Option<String>,
    /// Unix seconds.
    pub created_at: Option<u64>,
    /// The business group.
    pub tag: Option<String>,
    /// `Dynamic` (by the hour), `Month`, `Year` and others. Only in readings with bills.
    pub charge_type: Option<String>,
    /// Only in readings with bills, and only if there is anything to say.
    pub bill: Option<Box<Bill>>,
    /// How many snapshots of it the cloud keeps, if it says so.
    pub snapshots: Option<u32>,
    pub rdma_cluster: Option<String>,
    /// Whether this is a system disk, which this driver never touches.
    pub is_boot: bool,
    /// The encryption key of the disk, if any.
    pub cmk_id: Option<String>,
}

/// What is known of the payment for a disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bill {
    /// Unix seconds until which it is paid for in advance.
    pub paid_until: Option<u64>,
    /// After some days the cloud deletes such a disk.
    pub overdue: bool,
}

/// Which disks a listing should hold. The cloud's filters may be fuzzy or ignored: callers compare again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskFilter {
    pub zone: Option<Zone>,
    pub name: Option<String>,
    pub host: Option<HostId>,
    /// Whether the bills are read, too, which makes the call slow. No filter.
    pub bills: bool,
}

/// One page of a listing.
#[derive(Debug, Clone)]
pub struct DiskPage {
    /// Disks for the filter in all pages, as the cloud counted at this call.
    pub total: usize,
    /// In the cloud's order, which a page is asked for by.
    pub disks: Vec<Result<Disk, Unreadable>>,
}

/// A disk of a listing of which the cloud says something that this driver does not understand. One such disk must not
/// hide all others; where it is and what it is, nobody knows.
#[derive(Debug, Clone)]
pub struct Unreadable {
    pub id: DiskId,
    /// `None`: not even its name can be read.
    pub name: Option<String>,
    /// Whether anything readable says that it is a system disk.
    pub is_boot: bool,
    /// Says which field it is, and what is wrong with it.
    pub source: Box<CloudError>,
}

/// A disk to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    pub zone: Zone,
    pub name: String,
    pub size: Gib,
    pub disk_type: DiskType,
    pub charge_type: ChargeType,
    /// Months or years for prepaid disks.
    pub quantity: Option<u32>,
    pub data_ark: bool,
    pub tag: Option<String>,
    pub cmk_id: Option<String>,
    pub rdma_cluster: Option<String>,
}

/// An attachment to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub disk: DiskId,
    pub host: HostId,
    pub zone: Zone,
    /// `None` leaves the API's own default.
    pub multi_attach: Option<bool>,
    /// Whether an RDMA disk may be attached to a host of another RDMA cluster.
    pub cross_pod: bool,
}

/// Whether a grown disk is seen by the host at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grown {
    Online,
    /// The host sees the new size only after it was stopped and started.
    NeedsRestart,
}

/// A host, virtual or bare metal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub id: HostId,
    pub zone: Option<Zone>,
    /// As the API words it, such as `Running` or `Stopped`.
    pub state: String,
    pub machine_type: Option<String>,
    pub private_ips: Vec<IpAddr>,
    pub rdma_cluster: Option<String>,
}

/// A page of hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPage {
    pub total: usize,
    pub hosts: Vec<Host>,
}

/// A disk, as far as its price depends on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PriceClass {
    pub zone: Zone,
    pub size: Gib,
    pub disk_type: DiskType,
    /// In the API's words, as a disk has it.
    pub charge_type: String,
}

/// What disks cost. Apart from [`Cloud`], because no volume needs it.
pub trait Prices: Send + Sync + 'static {
    /// The price of one period (an hour, a month, a year, as the charge type says), in hundredths of a yuan.
    fn price(
        &self,
        class: &PriceClass,
        deadline: Deadline,
    ) -> impl Future<Output = Result<u64, CloudError>> + Send;
}

/// The operations of the cloud that the use cases are written against.
///
/// Every method may retry inside `deadline`, but only what cannot happen twice; an error says through
/// [`CloudError::outcome`] whether the change may have happened.
pub trait Cloud: Send + Sync + 'static {
    /// Reads one disk, without naming a zone. `None` is a positive answer: the cloud does not know the id.
    fn disk(
        &self,
        id: &DiskId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Option<Disk>, CloudError>> + Send;

    /// One page of the disks that match.
    fn disks(
        &self,
        filter: &DiskFilter,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<DiskPage, CloudError>> + Send;

    /// Sends one create. Never repeated after it may have been received.
    fn create_disk(
        &self,
        disk: &NewDisk,
        deadline: Deadline,
    ) -> impl Future<Output = Result<DiskId, CloudError>> + Send;

    fn delete_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Starts an attachment; the disk is `Attaching` afterwards.
    fn attach_disk(
        &self,
        attachment: &Attachment,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Starts a detachment; the disk is `Detaching` afterwards.
    fn detach_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        host: &HostId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Grows a disk that is not attached.
    fn resize_detached_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        size: Gib,
        deadline: Deadline,
    ) -> impl Future<Output = Result<(), CloudError>> + Send;

    /// Grows a disk that is attached to `host`.
    fn resize_attached_disk(
        &self,
        zone: &Zone,
        id: &DiskId,
        host: &HostId,
        size: Gib,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Grown, CloudError>> + Send;

    /// Reads one host. `None`: the cloud does not know the id.
    fn host(
        &self,
        id: &HostId,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Option<Host>, CloudError>> + Send;

    /// One page of the virtual machines of the configured VPC (of the project, when none is configured).
    fn virtual_hosts(
        &self,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<HostPage, CloudError>> + Send;

    /// One page of the bare-metal hosts, likewise.
    fn bare_metal_hosts(
        &self,
        offset: usize,
        limit: usize,
        deadline: Deadline,
    ) -> impl Future<Output = Result<HostPage, CloudError>> + Send;

    /// Why no request has been getting through for a while, if so, as a clause for who waits.
    fn held_up(&self) -> Option<String> {
        None
    }
}
