//! Where volumes and nodes are.
//!
//! Region and zone are what the plugin we replace writes into PersistentVolumes and Node labels. The RDMA cluster
//! that it once wrote there too is not here: UCloud moves disks and hosts between clusters at will, and a
//! PersistentVolume's node affinity can never change.

use std::collections::BTreeMap;

use super::id::IdError;
use super::{DiskType, HostId, Quoted, Zone};

/// The keys.
pub mod key {
    pub const REGION: &str = "topology.udisk.csi.ucloud.cn/region";
    pub const ZONE: &str = "topology.udisk.csi.ucloud.cn/zone";
    /// `true`: the host is one that RDMA disks can be attached to.
    pub const RSSD: &str = "topology.udisk.csi.ucloud.cn/rssd";
    /// The host's id. Only in what nodes say and requests ask, never in a volume's place.
    pub const HOST: &str = "topology.udisk.csi.ucloud.cn/host";

    pub const ALL: [&str; 4] = [REGION, ZONE, RSSD, HOST];
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

/// Why a requirement cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopologyError {
    #[error("topology key {key:?} is {}, which {reason}", Quoted(.value))]
    Id { key: &'static str, value: String, reason: IdError },
    #[error("topology key {key:?} is {}; allowed: true, false", Quoted(.value))]
    Bool { key: &'static str, value: String },
    #[error("topology key {key:?} is set twice in one segment, in different case")]
    Twice { key: &'static str },
    #[error(
        "no segment of accessibility_requirements has a key of this driver ({}); \
         its node plugin has not registered on the nodes that were chosen",
        key::ALL.join(", ")
    )]
    NoneOfOurs,
}

impl Segment {
    /// Reads our keys of one segment. CSI compares keys without regard to case.
    pub fn parse(map: &BTreeMap<String, String>) -> Result<Self, TopologyError> {
        let get = |key: &'static str| {
            let mut values = map.iter().filter(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v);
            match (values.next(), values.next()) {
                (_, Some(_)) => Err(TopologyError::Twice { key }),
                (value, None) => Ok(value.map(|value| (key, value.as_str()))),
            }
        };
        Ok(Self {
            // A region's name has the form of a zone's.
            region: get(key::REGION)?.map(|v| id(v, Zone::parse)).transpose()?.map(|r| r.to_string()),
            zone: get(key::ZONE)?.map(|v| id(v, Zone::parse)).transpose()?,
            rssd: get(key::RSSD)?.map(boolean).transpose()?,
            host: get(key::HOST)?.map(|v| id(v, HostId::parse)).transpose()?,
        })
    }

    /// Whether it holds none of our keys, and so says nothing.
    pub fn is_empty(&self) -> bool {
        let Self { region, zone, rssd, host } = self;
        region.is_none() && zone.is_none() && rssd.is_none() && host.is_none()
    }

    /// The segment as CSI writes it.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let Self { region, zone, rssd, host } = self;
        [
            (key::REGION, region.clone()),
            (key::ZONE, zone.as_ref().map(Zone::to_string)),
            (key::RSSD, rssd.map(|rssd| rssd.to_string())),
            (key::HOST, host.as_ref().map(HostId::to_string)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect()
    }

    /// Where a volume can be reached from. An RDMA disk can be attached only to hosts that know RDMA; which of
    /// them are near enough is not said, because it changes.
    pub fn of_volume(region: &str, zone: &Zone, disk_type: Option<DiskType>) -> Self {
        Self {
            region: Some(region.to_owned()),
            zone: Some(zone.clone()),
            rssd: disk_type.is_some_and(DiskType::needs_rdma).then_some(true),
            host: None,
        }
    }

    /// Where a node is. All four keys, always: Kubernetes fixes a driver's set of keys at registration.
    pub fn of_node(region: &str, zone: &Zone, rssd: bool, host: &HostId) -> Self {
        Self {
            region: Some(region.to_owned()),
            zone: Some(zone.clone()),
            rssd: Some(rssd),
            host: Some(host.clone()),
        }
    }
}

impl TopologyRequirement {
    /// Reads a requirement. `None`: it does not say anything.
    ///
    /// Segments without a key of ours are places that this driver does not know; no volume can be there, so they
    /// are left out. If that leaves nothing, an answer would be a volume at a random place: refused.
    pub fn parse<'a>(
        requisite: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
        preferred: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
    ) -> Result<Option<Self>, TopologyError> {
        let (required, requisite) = segments(requisite)?;
        let (preferring, preferred) = segments(preferred)?;
        match (required, preferring) {
            (false, false) => Ok(None),
            (true, _) if requisite.is_empty() => Err(TopologyError::NoneOfOurs),
            (false, true) if preferred.is_empty() => Err(TopologyError::NoneOfOurs),
            (true, _) | (false, true) => Ok(Some(Self { requisite, preferred })),
        }
    }
}

/// Whether there are any segments, and those that say something.
fn segments<'a>(
    maps: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
) -> Result<(bool, Vec<Segment>), TopologyError> {
    let mut segments = maps.into_iter().map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
    let any = !segments.is_empty();
    segments.retain(|segment| !segment.is_empty());
    Ok((any, segments))
}

fn id<T>(
    (key, value): (&'static str, &str),
    parse: impl Fn(&str) -> Result<T, IdError>,
) -> Result<T, TopologyError> {
    parse(value).map_err(|reason| TopologyError::Id { key, value: value.to_owned(), reason })
}

fn boolean((key, value): (&'static str, &str)) -> Result<bool, TopologyError> {
    value.parse().map_err(|_| TopologyError::Bool { key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Map = BTreeMap<String, String>;

    fn map(entries: &[(&str, &str)]) -> Map {
        entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn zone(name: &str) -> Zone {
        Zone::parse(name).unwrap()
    }

    #[test]
    fn a_node_says_all_four_keys_and_is_read_back() {
        let node = Segment::of_node("cn-bj2", &zone("cn-bj2-05"), false, &HostId::parse("uhost-1").unwrap());
        let written = node.to_map();
        let expected = map(&[
            ("topology.udisk.csi.ucloud.cn/region", "cn-bj2"),
            ("topology.udisk.csi.ucloud.cn/zone", "cn-bj2-05"),
            ("topology.udisk.csi.ucloud.cn/rssd", "false"),
            ("topology.udisk.csi.ucloud.cn/host", "uhost-1"),
        ]);
        assert_eq!(written, expected);
        assert_eq!(Segment::parse(&written), Ok(node));
    }

    #[test]
    fn a_volume_is_bound_to_its_zone_and_to_rdma_hosts_only_if_it_needs_them() {
        for disk_type in [None, Some(DiskType::Ssd), Some(DiskType::Efficiency), Some(DiskType::Essd)] {
            let expected = map(&[(key::REGION, "cn-bj2"), (key::ZONE, "cn-bj2-05")]);
            assert_eq!(Segment::of_volume("cn-bj2", &zone("cn-bj2-05"), disk_type).to_map(), expected);
        }
        for disk_type in [DiskType::Rssd, DiskType::Erssd] {
            let segment = Segment::of_volume("cn-bj2", &zone("cn-bj2-05"), Some(disk_type)).to_map();
            assert_eq!(segment.get(key::RSSD).map(String::as_str), Some("true"));
            assert_eq!(segment.len(), 3);
        }
    }

    #[test]
    fn keys_of_others_and_of_older_plugins_are_not_looked_at() {
        let segment = Segment::parse(&map(&[
            ("topology.kubernetes.io/zone", "elsewhere"),
            ("topology.udisk.csi.ucloud.cn/rdma-cluster-id", "9002_25GE_D_R006"),
            ("Topology.UDisk.csi.ucloud.cn/Zone", "cn-bj2-05"),
        ]));
        assert_eq!(segment, Ok(Segment { zone: Some(zone("cn-bj2-05")), ..Segment::default() }));
    }

    #[test]
    fn requirements_keep_their_order_and_lose_unknown_places() {
        let (a, b) = (map(&[(key::ZONE, "cn-bj2-04")]), map(&[(key::ZONE, "cn-bj2-05")]));
        let foreign = map(&[("topology.kubernetes.io/zone", "x")]);
        let requirement = TopologyRequirement::parse([&a, &foreign, &b], [&b, &a]).unwrap().unwrap();
        let zones = |segments: &[Segment]| {
            segments.iter().map(|s| s.zone.as_ref().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(zones(&requirement.requisite), ["cn-bj2-04", "cn-bj2-05"]);
        assert_eq!(zones(&requirement.preferred), ["cn-bj2-05", "cn-bj2-04"]);
        assert_eq!(TopologyRequirement::parse([], []), Ok(None));
    }

    #[test]
    fn a_requirement_without_a_key_of_ours_is_refused() {
        let foreign = map(&[("topology.kubernetes.io/zone", "x")]);
        let old = map(&[("topology.udisk.csi.ucloud.cn/rdma-cluster-id", "r")]);
        for segments in [vec![&foreign], vec![&old], vec![&foreign, &old]] {
            let error = TopologyRequirement::parse(segments, []).unwrap_err();
            assert_eq!(error, TopologyError::NoneOfOurs);
            assert!(error.to_string().contains("topology.udisk.csi.ucloud.cn/zone"));
        }
        assert_eq!(TopologyRequirement::parse([], [&foreign]), Err(TopologyError::NoneOfOurs));
        // A preference does not make up for a place that is required and not known; the other way round it does.
        let ours = map(&[(key::ZONE, "cn-bj2-05")]);
        assert_eq!(TopologyRequirement::parse([&foreign], [&ours]), Err(TopologyError::NoneOfOurs));
        let requirement = TopologyRequirement::parse([&ours], [&foreign]).unwrap().unwrap();
        assert_eq!((requirement.requisite.len(), requirement.preferred.len()), (1, 0));
    }

    #[test]
    fn ill_typed_values_name_their_key() {
        for (entries, text) in [
            (
                &[(key::ZONE, "")][..],
                r#"topology key "topology.udisk.csi.ucloud.cn/zone" is "", which is empty"#,
            ),
            (
                &[(key::RSSD, "yes")],
                r#"topology key "topology.udisk.csi.ucloud.cn/rssd" is "yes"; allowed: true, false"#,
            ),
            (
                &[(key::ZONE, "a"), ("topology.udisk.csi.ucloud.cn/ZONE", "b")],
                r#"topology key "topology.udisk.csi.ucloud.cn/zone" is set twice in one segment, in different case"#,
            ),
        ] {
            let foreign = map(&[]);
            let error = TopologyRequirement::parse([&map(entries), &foreign], []).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        let error = Segment::parse(&map(&[(key::HOST, "uhost 1")])).unwrap_err().to_string();
        assert!(error.contains(key::HOST) && error.contains("uhost 1"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            region in proptest::option::of("[a-z]{2}-[a-z0-9]{1,8}"),
            zone in proptest::option::of("[a-z]{2}-[a-z0-9]{1,8}-[0-9]{2}"),
            rssd in proptest::option::of(any::<bool>()),
            host in proptest::option::of("(uhost|upm)-[a-z0-9]{1,12}"),
        ) {
            let segment = Segment {
                region,
                zone: zone.map(|z| Zone::parse(&z).unwrap()),
                rssd,
                host: host.map(|h| HostId::parse(&h).unwrap()),
            };
            prop_assert_eq!(Segment::parse(&segment.to_map()), Ok(segment));
        }

        #[test]
        fn odd_maps_do_not_panic(
            map in proptest::collection::btree_map("\\PC{0,20}", "\\PC{0,20}", 0..4),
            index in 0..key::ALL.len(),
            value in "\\PC{0,20}",
        ) {
            let mut map = map;
            map.insert(key::ALL[index].to_owned(), value);
            if let Err(error) = TopologyRequirement::parse([&map], []) {
                prop_assert!(error.to_string().contains(key::ALL[index]));
            }
        }
    }
}
