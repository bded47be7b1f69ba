//! Why the cloud refuses a change. The API maps each to the RetCode of the action at hand.

use super::{HostState, Status};
use crate::volume::DiskType;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("udisk does not exist")]
    NoSuchDisk,
    #[error("host does not exist")]
    NoSuchHost,
    #[error("snapshot does not exist")]
    NoSuchSnapshot,
    #[error("udisk is attaching")]
    Attaching,
    #[error("udisk is detaching")]
    Detaching,
    #[error("udisk is attached to this host already")]
    AttachedHere,
    #[error("udisk is attached to another host")]
    AttachedElsewhere,
    #[error("udisk is not attached to this host")]
    NotAttached,
    #[error("udisk is {}", .0.word())]
    NotReady(Status),
    #[error("udisk is being updated")]
    Updating,
    #[error("system disk")]
    SystemDisk,
    #[error("udisk and host are in different zones")]
    OtherZone,
    #[error("udisk and host are in different rdma clusters")]
    OtherRdmaCluster,
    #[error("host cannot have {0} disks")]
    WrongMachine(DiskType),
    #[error("host has all the disks it can have")]
    HostFull,
    #[error("host is {}", .0.word())]
    HostUnsettled(HostState),
    #[error("another udisk of this host is attaching")]
    HostAttaching,
    #[error("another udisk of this host is detaching")]
    HostDetaching,
    #[error("another udisk of this host is being resized")]
    HostResizing,
    #[error("no available set exist")]
    OutOfStock,
    #[error("disk type is not sold in this zone")]
    NotSold,
    #[error("rdma cluster does not exist")]
    NoSuchRdmaCluster,
    #[error("quota is used up")]
    Quota,
    #[error("size must grow")]
    NotGrowing,
    #[error("snapshot service is not open for this udisk")]
    NoSnapshotService,
    #[error("snapshots of this udisk are used up")]
    SnapshotQuota,
    #[error("snapshot is being made")]
    SnapshotCreating,
    #[error("udisk is being cloned")]
    Cloning,
    #[error("snapshot service is open already")]
    SnapshotServiceOpen,
}
