//! Where a new disk goes, decided from the topology requirement alone.

use crate::volume::quoted::few;
use crate::volume::{DiskType, HostId, HostKind, Segment, TopologyRequirement, Zone};

/// One place where the disk may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) zone: Zone,
    /// The host whose RDMA cluster the disk must be in; only for the types that live in one.
    pub(super) host: Option<HostId>,
}

/// Why no place is good. Nothing was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error(
        "the requested topology has only regions {asked}, but this driver works in region {region}: \
         use nodes of that region"
    )]
    WrongRegion { asked: String, region: String },
    #[error(
        "no zone is known for the new disk: the request names none, and neither --zone nor the metadata service does; \
         set volumeBindingMode: WaitForFirstConsumer or --zone"
    )]
    NoZone,
    /// Another node may do.
    #[error(
        "{host} cannot take a disk of type {disk_type}: {reason}; choose another node or StorageClass type"
    )]
    Unsuitable { host: String, disk_type: DiskType, reason: String },
}

/// The places to try, best first. Never empty.
pub(super) fn places(
    disk_type: DiskType,
    topology: Option<&TopologyRequirement>,
    region: &str,
    default_zone: Option<&Zone>,
) -> Result<Vec<Place>, PlacementError> {
    let segments: Vec<&Segment> =
        topology.iter().flat_map(|t| t.preferred.iter().chain(&t.requisite)).collect();
    let (here, elsewhere): (Vec<&Segment>, Vec<&Segment>) =
        segments.iter().partition(|s| s.region.as_deref().is_none_or(|r| r == region));
    if here.is_empty() && !elsewhere.is_empty() {
        let mut asked: Vec<&str> = elsewhere.iter().filter_map(|s| s.region.as_deref()).collect();
        asked.sort_unstable();
        asked.dedup();
        return Err(PlacementError::WrongRegion { asked: few(&asked), region: region.to_owned() });
    }
    let mut places = Vec::new();
    let mut unsuitable = None;
    let anywhere = Segment::default();
    let here = if here.is_empty() { vec![&anywhere] } else { here };
    for segment in here {
        if let Some(reason) = obstacle(disk_type, segment) {
            unsuitable.get_or_insert((segment, reason));
            continue;
        }
        let Some(zone) = segment.zone.as_ref().or(default_zone) else { continue };
        let host = segment.host.clone().filter(|_| disk_type.needs_rdma());
        let place = Place { zone: zone.clone(), host };
        if !places.contains(&place) {
            places.push(place);
        }
    }
    match (places.is_empty(), unsuitable) {
        (false, _) => Ok(places),
        (true, Some((segment, reason))) => {
            Err(PlacementError::Unsuitable { host: describe(segment), disk_type, reason: reason.to_owned() })
        }
        (true, None) => Err(PlacementError::NoZone),
    }
}

/// Whether a disk in the zone is accessible as required. The host in a segment is only a hint for the
/// placement, and "preferred" forbids nothing.
pub(super) fn allows(topology: Option<&TopologyRequirement>, zone: &Zone) -> bool {
    let requisite = topology.map_or(&[][..], |t| &t.requisite);
    requisite.is_empty() || requisite.iter().any(|s| s.zone.as_ref().is_none_or(|z| z == zone))
}

/// The zones that a requirement allows, for an error.
pub(super) fn zones(topology: Option<&TopologyRequirement>) -> String {
    let mut zones: Vec<&str> = topology
        .iter()
        .flat_map(|t| &t.requisite)
        .filter_map(|s| s.zone.as_ref())
        .map(Zone::as_str)
        .collect();
    zones.sort_unstable();
    zones.dedup();
    few(&zones)
}

fn obstacle(disk_type: DiskType, segment: &Segment) -> Option<&'static str> {
    if disk_type.needs_rdma() {
        return (segment.rssd == Some(false))
            .then_some("its machine type has no RDMA network, which this disk type needs");
    }
    let bare_metal = segment.host.as_ref().is_some_and(|h| h.kind() == HostKind::BareMetal);
    bare_metal.then_some("bare-metal hosts take only RSSD disks")
}

fn describe(segment: &Segment) -> String {
    match (&segment.host, &segment.zone) {
        (Some(host), _) => format!("host {host}"),
        (None, Some(zone)) => format!("the selected node in zone {zone}"),
        (None, None) => String::from("the selected node"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(text: &str) -> Zone {
        Zone::parse(text).unwrap()
    }

    fn segment(region: &str, z: &str) -> Segment {
        Segment { region: Some(region.into()), zone: Some(zone(z)), ..Segment::default() }
    }

    fn hosted(z: &str, host: &str, rssd: bool) -> Segment {
        Segment { rssd: Some(rssd), host: Some(HostId::parse(host).unwrap()), ..segment("cn-bj2", z) }
    }

    fn zones_of(preferred: Vec<Segment>, requisite: Vec<Segment>) -> Result<Vec<String>, PlacementError> {
        let topology = TopologyRequirement { requisite, preferred };
        places(DiskType::Ssd, Some(&topology), "cn-bj2", Some(&zone("cn-bj2-02")))
            .map(|places| places.into_iter().map(|p| p.zone.to_string()).collect())
    }

    #[test]
    fn preferred_comes_before_requisite_and_the_configured_zone_is_the_last_resort() {
        let (a, b) = (segment("cn-bj2", "cn-bj2-04"), segment("cn-bj2", "cn-bj2-05"));
        assert_eq!(zones_of(vec![b.clone()], vec![a.clone(), b]).unwrap(), ["cn-bj2-05", "cn-bj2-04"]);
        assert_eq!(zones_of(vec![], vec![segment("cn-sh2", "cn-sh2-02"), a]).unwrap(), ["cn-bj2-04"]);
        assert_eq!(zones_of(vec![], vec![]).unwrap(), ["cn-bj2-02"]);
        let only_region = Segment { region: Some("cn-bj2".into()), ..Segment::default() };
        assert_eq!(zones_of(vec![], vec![only_region]).unwrap(), ["cn-bj2-02"]);
        let error = zones_of(vec![], vec![segment("cn-sh2", "cn-sh2-02")]).unwrap_err();
        assert!(
            error.to_string().contains("regions cn-sh2, but this driver works in region cn-bj2"),
            "{error}"
        );
        assert_eq!(places(DiskType::Ssd, None, "cn-bj2", None), Err(PlacementError::NoZone));
    }

    #[test]
    fn rdma_disks_go_only_to_hosts_that_can_take_them_and_name_the_host() {
        let topology = TopologyRequirement {
            requisite: vec![hosted("cn-bj2-04", "uhost-n", false), hosted("cn-bj2-05", "uhost-o", true)],
            preferred: vec![],
        };
        let place = Place { zone: zone("cn-bj2-05"), host: Some(HostId::parse("uhost-o").unwrap()) };
        assert_eq!(places(DiskType::Rssd, Some(&topology), "cn-bj2", None), Ok(vec![place]));
        let ssd = places(DiskType::Ssd, Some(&topology), "cn-bj2", None).unwrap();
        assert!(ssd.iter().all(|p| p.host.is_none()), "only RDMA placement depends on the host");

        let topology =
            TopologyRequirement { requisite: vec![hosted("cn-bj2-04", "uhost-n", false)], preferred: vec![] };
        let error = places(DiskType::Rssd, Some(&topology), "cn-bj2", None).unwrap_err();
        assert!(error.to_string().starts_with("host uhost-n cannot take a disk of type rssd"), "{error}");

        let topology =
            TopologyRequirement { requisite: vec![hosted("cn-bj2-04", "upm-1", true)], preferred: vec![] };
        assert!(places(DiskType::Ssd, Some(&topology), "cn-bj2", None).is_err());
        assert!(places(DiskType::Erssd, Some(&topology), "cn-bj2", None).is_ok());
    }

    #[test]
    fn an_existing_disk_is_allowed_by_requisite_zones_alone() {
        let topology = TopologyRequirement {
            requisite: vec![hosted("cn-bj2-04", "uhost-n", false)],
            preferred: vec![segment("cn-bj2", "cn-bj2-05")],
        };
        assert!(allows(Some(&topology), &zone("cn-bj2-04")));
        assert!(!allows(Some(&topology), &zone("cn-bj2-05")));
        assert!(allows(None, &zone("cn-bj2-05")));
        let preferred = TopologyRequirement { requisite: vec![], ..topology };
        assert!(allows(Some(&preferred), &zone("cn-bj2-04")));
    }
}
