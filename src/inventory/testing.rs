//! Small things to compare.

use crate::cloud::{Disk, DiskStatus};
use crate::volume::{DiskId, DiskType, Gib, HostId, Zone};

pub(super) const NOW: u64 = 1_800_000_000;
pub(super) const DAY: u64 = 86_400;
pub(super) const DRIVER: &str = "udisk.csi.ucloud.cn";

/// A free disk of 20 GiB that is ten days old.
pub(super) fn disk(id: &str) -> Disk {
    Disk {
        id: DiskId::parse(id).unwrap(),
        name: format!("name-of-{id}"),
        zone: Zone::parse("cn-bj2-05").unwrap(),
        size: Gib::new(20),
        status: DiskStatus::Available,
        disk_type: Some(DiskType::Rssd),
        host: None,
        host_ip: None,
        device: None,
        created_at: Some(NOW - 10 * DAY),
        tag: Some("Default".into()),
        charge_type: Some("Dynamic".into()),
        bill: None,
        snapshots: Some(0),
        rdma_cluster: None,
        is_boot: false,
        cmk_id: None,
    }
}

/// The disk at a host.
pub(super) fn at(disk: Disk, host: &str, ip: &str, status: DiskStatus) -> Disk {
    Disk {
        host: Some(HostId::parse(host).unwrap()),
        host_ip: ip.parse().ok(),
        device: Some("vdc".into()),
        status,
        ..disk
    }
}
