//! What a caller wants of a volume, checked and free of the protocol.

use std::collections::BTreeMap;

use super::{DiskType, Gib, HostId, Zone};

/// How the volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a raw block device.
    Block,
    /// With a file system, mounted.
    Mount(MountAccess),
}

/// The file system and how to mount it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountAccess {
    pub fs: FsType,
    /// One entry is one option as the StorageClass lists it; it may hold commas (an SELinux context) and is never split.
    pub flags: Vec<String>,
}

/// The file systems that the driver makes and mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FsType {
    Ext3,
    Ext4,
    Xfs,
    Btrfs,
}

impl FsType {
    pub const ALL: [Self; 4] = [Self::Ext3, Self::Ext4, Self::Xfs, Self::Btrfs];

    pub fn word(self) -> &'static str {
        match self {
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fs| fs.word() == word)
    }
}

/// Who may use the volume: one node, for writing or only for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessMode {
    SingleNodeWriter,
    SingleNodeReaderOnly,
}

/// One checked volume capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    pub access: Access,
    pub mode: AccessMode,
}

/// How a disk is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChargeType {
    Dynamic,
    Month,
    Year,
}

/// StorageClass parameters, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    pub disk_type: DiskType,
    /// From `fsType` or `csi.storage.k8s.io/fstype`; the capability's own file system wins.
    pub fs: Option<FsType>,
    pub data_ark: bool,
    pub charge_type: ChargeType,
    /// Months or years for prepaid disks.
    pub quantity: Option<u32>,
    pub cmk_id: Option<String>,
    /// The business group.
    pub tag: Option<String>,
}

/// One segment of a topology requirement, by our own keys; keys of others are not looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Segment {
    pub region: Option<String>,
    pub zone: Option<Zone>,
    pub rssd: Option<bool>,
    pub host: Option<HostId>,
}

/// Where the volume must be accessible from; `preferred` is in order of preference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopologyRequirement {
    pub requisite: Vec<Segment>,
    pub preferred: Vec<Segment>,
}

/// The size to make: already rounded, inside the type's range and the caller's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeRequest {
    /// What to make.
    pub wanted: Gib,
    /// An existing disk is compatible from this size in bytes…
    pub required_bytes: u64,
    /// …up to this one, when there is a limit.
    pub limit_bytes: Option<u64>,
}

/// What the controller hands to the node with an attachment. Stable for ever; unknown keys are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishContext {
    /// The slot as the API names it, lower case without `/dev/`: `vdc`. `None` in attachments of older plugins.
    pub device: Option<String>,
    /// The disk's size when it was attached.
    pub size: Option<Gib>,
}

impl PublishContext {
    pub const DEVICE: &'static str = "device";
    pub const SIZE: &'static str = "size";

    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        if let Some(device) = &self.device {
            map.insert(Self::DEVICE.to_owned(), device.clone());
        }
        if let Some(size) = self.size {
            map.insert(Self::SIZE.to_owned(), size.get().to_string());
        }
        map
    }
}
