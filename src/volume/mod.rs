//! Pure values of the driver: what a disk, a size, a name or a parameter *is*. No I/O, no async, no clocks.

pub mod capacity;
pub mod disk_type;
pub mod id;
pub mod request;

pub use capacity::Gib;
pub use disk_type::DiskType;
pub use id::{DiskId, HostId, HostKind, Zone};
pub use request::{
    Access, AccessMode, Capability, ChargeType, FsType, MountAccess, Parameters, PublishContext, Segment,
    SizeRequest, TopologyRequirement,
};
