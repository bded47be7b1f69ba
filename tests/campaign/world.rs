//! The simulated account of the campaign.

use std::time::Duration;

use csi_udisk::sandbox::cloud::model::{Lags, Latencies, Span};
use csi_udisk::sandbox::cloud::{Disk, HostSpec, SimCloud, SimConfig};
use csi_udisk::volume::Gib;

pub const ZONE: &str = "cn-sh2-02";
pub const HOST_A: &str = "uhost-a";
pub const HOST_B: &str = "uhost-b";
pub const METAL: &str = "upm-c";
/// Its guest sees a new size after a restart only.
pub const OLD: &str = "uhost-old";
/// A disk that no call is about.
pub const STRANGER: &str = "somebody-else";

/// How far the reads of the account are behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    Prompt,
    /// Less than the driver allows for by default: a new disk is listed after 8 s, reads are 5 s old.
    Lagging,
    /// A new disk is listed after a minute, as long as the driver waits before it creates again.
    Late,
}

impl Temper {
    pub fn lags(self) -> Lags {
        let seconds = Duration::from_secs;
        match self {
            Self::Prompt => Lags::default(),
            Self::Lagging => Lags {
                new_in_lists: seconds(8),
                new_by_id: seconds(3),
                stale_lists: seconds(5),
                stale_by_id: seconds(5),
            },
            Self::Late => Lags { new_in_lists: seconds(60), ..Lags::default() },
        }
    }
}

/// Two virtual machines, a bare-metal host and an old one, and changes that take a second or two.
pub async fn account(temper: Temper, seed: u64) -> SimCloud {
    let mut config = SimConfig { seed, ..SimConfig::default() };
    let cluster = config.hosts[0].rdma_cluster.clone();
    let more = [
        HostSpec::new(METAL, "10.9.0.13"),
        HostSpec { online_grow: false, ..HostSpec::new(OLD, "10.9.0.14") },
    ];
    config.hosts.extend(more.into_iter().map(|host| host.in_rdma_cluster(&cluster)));
    config.latencies = Latencies {
        api: Span::millis(30, 30),
        create: Span::millis(800, 800),
        attach: Span::millis(1200, 1200),
        detach: Span::millis(1200, 1200),
        resize: Span::millis(800, 800),
        ..Latencies::none()
    };
    config.lags = temper.lags();
    config.limits.one_change_per_host = true;
    let cloud = SimCloud::new(config);
    cloud.create_disk(STRANGER, Gib::new(10)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    cloud
}

pub fn named(cloud: &SimCloud, name: &str) -> Vec<Disk> {
    cloud.disks().into_iter().filter(|disk| disk.name == name).collect()
}
