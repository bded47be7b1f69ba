//! Pure values of the driver: what a disk, a size, a name or a parameter *is*. No I/O, no async, no clocks.

pub mod adopt;
pub mod blank;
pub mod capability;
pub mod capacity;
pub mod context;
pub mod disk_type;
pub mod format_note;
pub mod fs_uuid;
pub mod id;
pub mod list_token;
pub mod machine;
pub mod name;
pub mod node_ref;
pub mod parameters;
pub mod quoted;
pub mod slot;
pub mod topology;

pub use adopt::Adoption;
pub use blank::BlankSectors;
pub use capability::{Access, AccessMode, Capability, FsType, MountAccess};
pub use capacity::{Gib, SizeRange, SizeRequest};
pub use context::{PublishContext, VolumeContext};
pub use disk_type::DiskType;
pub use format_note::{FormatNote, FoundNote};
pub use fs_uuid::{FsUuid, Mark};
pub use id::{DiskId, HostId, HostKind, Zone};
pub use list_token::ListToken;
pub use name::DiskName;
pub use node_ref::NodeRef;
pub use parameters::{ChargeType, Parameters};
pub use quoted::Quoted;
pub use slot::Slot;
pub use topology::{Segment, TopologyRequirement};
