//! Names and sizes of disk types in the API.

use crate::volume::{DiskType, Gib};

pub(crate) struct Sold {
    pub(crate) kind: DiskType,
    /// In the disks' API.
    pub(crate) data: &'static str,
    pub(crate) system: &'static str,
    /// In the hosts' API, and with `ProtocolVersion=1`.
    pub(crate) cloud: &'static str,
    pub(crate) largest: Gib,
}

pub(crate) const TYPES: &[Sold] = &[
    sold(DiskType::Sata, "DataDisk", "SystemDisk", "CLOUD_NORMAL", 8_000),
    sold(DiskType::Ssd, "SSDDataDisk", "SSDSystemDisk", "CLOUD_SSD", 8_000),
    sold(DiskType::Essd, "ESSDDataDisk", "ESSDSystemDisk", "CLOUD_ESSD", 8_000),
    sold(DiskType::Rssd, "RSSDDataDisk", "RSSDSystemDisk", "CLOUD_RSSD", 32_000),
    sold(DiskType::Erssd, "ERSSDDataDisk", "ERSSDSystemDisk", "CLOUD_ERSSD", 32_000),
    sold(DiskType::Efficiency, "EfficiencyDataDisk", "EfficiencySystemDisk", "CLOUD_EFFICIENCY", 32_000),
];

const fn sold(
    kind: DiskType,
    data: &'static str,
    system: &'static str,
    cloud: &'static str,
    largest: u32,
) -> Sold {
    Sold { kind, data, system, cloud, largest: Gib::new(largest) }
}

/// What the disks' API calls data disks.
pub(crate) const DATA_TYPES: &[&str] =
    &["DataDisk", "SSDDataDisk", "ESSDDataDisk", "RSSDDataDisk", "ERSSDDataDisk", "EfficiencyDataDisk"];

/// Data and system disks.
pub(crate) const DISK_TYPES: &[&str] = &[
    "DataDisk",
    "SSDDataDisk",
    "ESSDDataDisk",
    "RSSDDataDisk",
    "ERSSDDataDisk",
    "EfficiencyDataDisk",
    "SystemDisk",
    "SSDSystemDisk",
    "ESSDSystemDisk",
    "RSSDSystemDisk",
    "ERSSDSystemDisk",
    "EfficiencySystemDisk",
];

/// All names by which a listing can be filtered.
pub(crate) const ALL_TYPES: &[&str] = &[
    "DataDisk",
    "SSDDataDisk",
    "ESSDDataDisk",
    "RSSDDataDisk",
    "ERSSDDataDisk",
    "EfficiencyDataDisk",
    "SystemDisk",
    "SSDSystemDisk",
    "ESSDSystemDisk",
    "RSSDSystemDisk",
    "ERSSDSystemDisk",
    "EfficiencySystemDisk",
    "CLOUD_NORMAL",
    "CLOUD_SSD",
    "CLOUD_ESSD",
    "CLOUD_RSSD",
    "CLOUD_ERSSD",
    "CLOUD_EFFICIENCY",
];

pub(crate) fn of(kind: DiskType) -> &'static Sold {
    // The table has a line for each type, which a test checks.
    TYPES.iter().find(|sold| sold.kind == kind).unwrap_or(&TYPES[0])
}

pub(crate) fn by_data_name(name: &str) -> Option<&'static Sold> {
    TYPES.iter().find(|sold| sold.data == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_line() {
        for kind in DiskType::ALL {
            assert_eq!(of(kind).kind, kind);
            assert!(DATA_TYPES.contains(&of(kind).data));
            assert!(ALL_TYPES.contains(&of(kind).system) && ALL_TYPES.contains(&of(kind).cloud));
        }
    }
}
