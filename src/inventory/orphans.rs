//! Disks that bear the name of a CSI volume and that nothing in the cluster refers to.
//!
//! A wrong answer here costs somebody's data, so every doubt keeps a disk off the list, and a name alone never makes a
//! disk this cluster's: an account may hold several clusters, whose provisioners all name their volumes `pvc-…`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::cluster::{Claim, Cluster};
use super::finding::ago;
use super::names::{COMMON_PREFIX, CsiName, uids};
use crate::cloud::{Disk, DiskStatus, Unreadable};
use crate::volume::{DiskId, DiskName};

/// What an orphan is.
#[derive(Debug, Clone)]
pub struct Rule {
    pub driver: String,
    pub now: u64,
    /// In seconds.
    pub older_than: u64,
    pub marks: Marks,
}

/// What only this cluster's disks bear. With several, a disk must bear them all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// `--volume-name-prefix` of this cluster's provisioner.
    pub name_prefix: Option<String>,
    /// A business group that is reserved for this cluster.
    pub business_group: Option<String>,
}

impl Marks {
    pub fn is_empty(&self) -> bool {
        let Self { name_prefix, business_group } = self;
        name_prefix.is_none() && business_group.is_none()
    }

    /// Whether the disk bears every mark, and was certainly made by a provisioner: people may use the group, too.
    pub fn are_on(&self, disk: &Disk) -> bool {
        let prefix = match CsiName::read(&disk.name, self.name_prefix.as_deref()) {
            Some(CsiName::OfClaim { prefix, .. }) => Some(prefix),
            Some(CsiName::Hash) => None,
            Some(CsiName::Alike) | None => return false,
        };
        !self.is_empty()
            && self.name_prefix.as_deref().is_none_or(|mark| prefix == Some(mark))
            && self.business_group.as_ref().is_none_or(|mark| disk.tag.as_ref() == Some(mark))
    }
}

/// A disk that nothing in the cluster refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    pub disk: Disk,
    /// Whether it bears the marks. Else it may be any cluster's.
    pub ours: bool,
}

/// A disk without a reference that is no orphan, or not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    pub disk: Disk,
    pub why: Doubt,
}

/// What keeps a disk off the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doubt {
    /// It is on a host, or on its way to or from one.
    Attached,
    /// Its state is neither free nor failed.
    Unsettled,
    /// It may still be on its way into the cluster.
    Young,
    /// The cloud does not say when it was made.
    NoAge,
    /// Somebody wanted to keep what is on it.
    Snapshots,
    /// A claim waits for a volume whose name may hash to this.
    ClaimWaits,
    /// It was not there, or was another, a moment ago.
    SeenOnce,
}

impl Doubt {
    pub fn text(self) -> &'static str {
        match self {
            Self::Attached => "attached to a host",
            Self::Unsettled => "in a passing state",
            Self::Young => "too young",
            Self::NoAge => "of unknown age",
            Self::Snapshots => "with snapshots",
            Self::ClaimWaits => "perhaps that of a claim that waits",
            Self::SeenOnce => "seen only once",
        }
    }
}

/// The disks with CSI names, sorted out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sorted {
    pub orphans: Vec<Orphan>,
    pub held_back: Vec<HeldBack>,
    /// How many of them something in the cluster refers to.
    pub referred: usize,
    /// How many volumes of this cluster have a disk in this account, and how many of these disks bear the marks:
    /// what shows that cluster, account and marks belong together.
    pub volumes_here: usize,
    pub volumes_marked: usize,
}

/// The texts that must be looked for in the cluster: the ids of all disks that may be orphans.
pub fn wanted(disks: &[Disk], marks: &Marks) -> HashSet<String> {
    bearing(disks, marks).map(|disk| disk.id.to_string()).collect()
}

fn bearing<'a>(disks: &'a [Disk], marks: &'a Marks) -> impl Iterator<Item = &'a Disk> {
    let named = |disk: &&Disk| CsiName::read(&disk.name, marks.name_prefix.as_deref()).is_some();
    disks.iter().filter(|disk| !disk.is_boot).filter(named)
}

/// Sorts the disks out. `cluster` must hold all of the cluster, `disks` all of the account, and the cluster must have been
/// read after the disks: what is made in between then has its reference.
pub fn sort_out(disks: &[Disk], cluster: &Cluster, rule: &Rule) -> Sorted {
    let references = References::new(disks, cluster, rule);
    let mut sorted = Sorted::default();
    for volume in &cluster.volumes {
        let disk = volume.disk_of(&rule.driver).and_then(|id| references.disks.get(id));
        sorted.volumes_here += usize::from(disk.is_some());
        sorted.volumes_marked += usize::from(disk.is_some_and(|disk| rule.marks.are_on(disk)));
    }
    for disk in bearing(disks, &rule.marks) {
        if references.has(disk) {
            sorted.referred += 1;
        } else if let Some(why) = references.doubt(disk, rule) {
            sorted.held_back.push(HeldBack { disk: disk.clone(), why });
        } else {
            sorted.orphans.push(Orphan { disk: disk.clone(), ours: rule.marks.are_on(disk) });
        }
    }
    sorted.orphans.sort_by(|a, b| (!a.ours, &a.disk.id).cmp(&(!b.ours, &b.disk.id)));
    sorted
}

/// Of the disks that cannot be read those that may bear the name of a volume. What is sorted out is not less sure for
/// them: a disk whose namesake cannot be read counts as referred to.
pub fn hidden(unreadable: Vec<Unreadable>, marks: &Marks) -> Vec<Unreadable> {
    let named = |name: &String| CsiName::read(name, marks.name_prefix.as_deref()).is_some();
    unreadable.into_iter().filter(|disk| !disk.is_boot && disk.name.as_ref().is_none_or(named)).collect()
}

/// Of the later reading only what was an orphan in the earlier one, too, and has not changed since.
pub fn seen_twice(earlier: &Sorted, mut later: Sorted) -> Sorted {
    let before: HashMap<&DiskId, &Orphan> = earlier.orphans.iter().map(|o| (&o.disk.id, o)).collect();
    let same = |orphan: &Orphan| before.get(&orphan.disk.id).is_some_and(|known| **known == *orphan);
    let (twice, once): (Vec<Orphan>, Vec<Orphan>) = later.orphans.into_iter().partition(same);
    later.orphans = twice;
    later.held_back.extend(once.into_iter().map(|o| HeldBack { disk: o.disk, why: Doubt::SeenOnce }));
    later
}

/// Why nothing may be deleted in this run at all; `None`: single disks may.
pub fn refusal(sorted: &Sorted, marks: &Marks) -> Option<String> {
    if marks.is_empty() {
        return Some(
            "nothing tells which of these disks are this cluster's: an account may hold several clusters. Give \
             --volume-name-prefix (what this cluster's provisioner has) or --business-group (one that is reserved \
             for this cluster)"
                .to_owned(),
        );
    }
    if sorted.volumes_here == 0 {
        return Some(
            "no PersistentVolume of this cluster has its disk in this account and region, so nothing shows that the \
             cluster and the account belong together"
                .to_owned(),
        );
    }
    if sorted.volumes_marked == 0 {
        return Some(
            "no PersistentVolume of this cluster has a disk with this mark, so nothing shows that the mark is this \
             cluster's"
                .to_owned(),
        );
    }
    None
}

/// Whether the orphan may be deleted, as far as it was seen.
pub fn deletable(orphan: &Orphan) -> Result<(), String> {
    if !orphan.ours {
        return Err("it does not bear the mark, so it is unknown to this cluster".to_owned());
    }
    if orphan.disk.status != DiskStatus::Available {
        return Err(format!("it is {:?}; only Available disks are deleted", orphan.disk.status));
    }
    Ok(())
}

/// Whether the disk, read right before its deletion, is still what was listed. The text says what is not.
pub fn unchanged(listed: &Disk, now: &Disk) -> Result<(), String> {
    let differs = |what: &str, was: String, is: String| Err(format!("its {what} was {was} and is {is}"));
    if now.status != DiskStatus::Available || is_at_host(now) {
        let place = now.host.as_ref().map_or_else(String::new, |host| format!(" at {host}"));
        return Err(format!("it is {:?}{place}, no longer Available", now.status));
    }
    if now.id != listed.id {
        return differs("id", listed.id.to_string(), now.id.to_string());
    }
    if now.name != listed.name {
        return differs("name", format!("{:?}", listed.name), format!("{:?}", now.name));
    }
    if now.created_at.is_none() || now.created_at != listed.created_at {
        return differs("creation", format!("{:?}", listed.created_at), format!("{:?}", now.created_at));
    }
    if now.zone != listed.zone {
        return differs("zone", listed.zone.to_string(), now.zone.to_string());
    }
    if now.size != listed.size {
        return differs("size", listed.size.to_string(), now.size.to_string());
    }
    if now.is_boot {
        return Err("it is a system disk".to_owned());
    }
    if now.snapshots.is_some_and(|count| count > 0) {
        return Err("it has snapshots".to_owned());
    }
    Ok(())
}

fn is_at_host(disk: &Disk) -> bool {
    disk.host.is_some() || disk.host_ip.is_some() || disk.device.is_some()
}

/// What in the cluster refers to disks.
struct References<'a> {
    cluster: &'a Cluster,
    disks: HashMap<&'a str, &'a Disk>,
    handles: HashSet<&'a str>,
    /// Names of disks that belong to something, with the disk that it has, if it says one.
    names: BTreeMap<String, BTreeSet<Option<&'a str>>>,
    /// The uids of all claims, with the disk that they have.
    uids: HashMap<&'a str, Option<&'a str>>,
    /// Whether a claim waits for a volume of the driver, or of one that is not known.
    waiting: bool,
}

impl<'a> References<'a> {
    fn new(disks: &'a [Disk], cluster: &'a Cluster, rule: &Rule) -> Self {
        let volumes: HashMap<&str, &super::cluster::Volume> =
            cluster.volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect();
        let mut names = BTreeMap::<String, BTreeSet<Option<&str>>>::new();
        for volume in &cluster.volumes {
            let name = DiskName::for_volume(&volume.name).to_string();
            let handle = volume.handle.as_deref();
            names.entry(volume.name.clone()).or_default().insert(handle);
            names.entry(name).or_default().insert(handle);
        }
        for wanted in cluster.attachments.iter().filter_map(|attachment| attachment.volume.as_deref()) {
            if !volumes.contains_key(wanted) {
                names.entry(wanted.to_owned()).or_default().insert(None);
                names.entry(DiskName::for_volume(wanted).to_string()).or_default().insert(None);
            }
        }
        let mut uids = HashMap::new();
        for claim in &cluster.claims {
            let volume = claim.volume.as_deref().and_then(|name| volumes.get(name));
            let handle = volume.and_then(|volume| volume.handle.as_deref());
            uids.insert(claim.uid.as_str(), handle);
            for prefix in [Some(COMMON_PREFIX), rule.marks.name_prefix.as_deref()].into_iter().flatten() {
                let name = DiskName::for_volume(&format!("{prefix}-{}", claim.uid)).to_string();
                names.entry(name).or_default().insert(handle);
            }
        }
        let waits = |claim: &Claim| {
            let bound = claim.volume.as_deref().is_some_and(|name| volumes.contains_key(name));
            !bound && claim.provisioner.as_ref().is_none_or(|driver| *driver == rule.driver)
        };
        Self {
            cluster,
            disks: disks.iter().map(|disk| (disk.id.as_str(), disk)).collect(),
            handles: cluster.volumes.iter().filter_map(|volume| volume.handle.as_deref()).collect(),
            names,
            uids,
            waiting: cluster.claims.iter().any(waits),
        }
    }

    fn has(&self, disk: &Disk) -> bool {
        let id = disk.id.as_str();
        self.handles.contains(id) || self.cluster.mentions.contains(id) || self.by_name(disk)
    }

    fn by_name(&self, disk: &Disk) -> bool {
        let named = self.names.get(&disk.name).into_iter().flatten();
        let claimed = uids(&disk.name).filter_map(|uid| self.uids.get(uid));
        named.chain(claimed).any(|handle| !self.is_of_twin(disk, *handle))
    }

    /// Whether what bears this disk's name has another disk of that name: a create that was sent twice made two, and
    /// one of them is nobody's. A volume whose disk cannot be found may be about to be given this one instead.
    fn is_of_twin(&self, disk: &Disk, handle: Option<&str>) -> bool {
        let other =
            handle.filter(|handle| *handle != disk.id.as_str()).and_then(|handle| self.disks.get(handle));
        other.is_some_and(|other| other.name == disk.name)
    }

    fn doubt(&self, disk: &Disk, rule: &Rule) -> Option<Doubt> {
        if is_at_host(disk) {
            return Some(Doubt::Attached);
        }
        match &disk.status {
            DiskStatus::Available | DiskStatus::Failed => {}
            DiskStatus::InUse | DiskStatus::Attaching | DiskStatus::Detaching => {
                return Some(Doubt::Attached);
            }
            DiskStatus::Initializing
            | DiskStatus::Cloning
            | DiskStatus::Restoring
            | DiskStatus::RestoreFailed
            | DiskStatus::Other(_) => return Some(Doubt::Unsettled),
        }
        let Some(created) = disk.created_at.filter(|created| *created > 0) else { return Some(Doubt::NoAge) };
        if rule.now.saturating_sub(created) < rule.older_than {
            return Some(Doubt::Young);
        }
        if disk.snapshots.is_some_and(|count| count > 0) {
            return Some(Doubt::Snapshots);
        }
        if self.waiting && CsiName::read(&disk.name, None) == Some(CsiName::Hash) {
            return Some(Doubt::ClaimWaits);
        }
        None
    }
}

/// How old a disk is, in words.
pub fn age(disk: &Disk, now: u64) -> String {
    disk.created_at.map_or_else(|| "?".to_owned(), |created| ago(now.saturating_sub(created)))
}
