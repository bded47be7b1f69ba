//! The join of a cluster's volumes with the cloud's disks: one row for each volume, with what disagrees.

use std::collections::{BTreeSet, HashMap};

use super::cluster::{Attachment, Claim, Cluster, Life, Volume};
use super::finding::{Finding, Kind, ago};
use super::judge;
use crate::cloud::{Disk, Unreadable};
use crate::volume::DiskName;

/// How things are looked at.
#[derive(Debug, Clone)]
pub struct View {
    pub driver: String,
    /// What the provisioner begins the names of volumes with.
    pub name_prefix: String,
    pub now: u64,
    /// From when on what should pass counts as stuck, in seconds.
    pub stuck_after: u64,
    /// Where the disks were looked for, in words.
    pub account: String,
}

/// One volume: a PersistentVolume, or what there is of one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Row {
    /// Namespace and name.
    pub claim: Option<(String, String)>,
    pub claim_phase: Option<String>,
    pub volume: Option<Volume>,
    /// The UDisk that the volume names; it need not exist.
    pub handle: Option<String>,
    pub disk: Option<Disk>,
    pub attachments: Vec<Attached>,
    pub findings: Vec<Finding>,
}

/// A VolumeAttachment of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub name: String,
    pub node: String,
    pub attached: bool,
    pub detaching: bool,
    /// Whether the disk is at that node; `None`: it cannot be told.
    pub here: Option<bool>,
}

impl Row {
    pub fn has(&self, kind: Kind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }

    /// What makes a row the same row in another reading.
    fn key(&self) -> (Option<&str>, Option<&(String, String)>, Option<&str>) {
        let attachment = self.attachments.first().map(|attached| attached.name.as_str());
        let volume = self.volume.as_ref().map(|volume| volume.name.as_str());
        // A row of an attachment only has nothing else to be known by.
        (volume, self.claim.as_ref(), attachment.filter(|_| volume.is_none()))
    }
}

/// Makes the rows, in the order of their claims. `disks` and `unreadable` are all disks of the account.
pub fn join(cluster: &Cluster, disks: &[Disk], unreadable: &[Unreadable], view: &View) -> Vec<Row> {
    let join = Join::new(cluster, disks, unreadable, view);
    let mut rows: Vec<Row> = join.volumes().chain(join.claims()).chain(join.attachments()).collect();
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    rows
}

fn order(row: &Row) -> (bool, Option<&(String, String)>, Option<&str>) {
    (row.claim.is_none(), row.claim.as_ref(), row.volume.as_ref().map(|volume| volume.name.as_str()))
}

/// Keeps of the later reading only what disagreed in the earlier one, too: cluster and cloud cannot be read in one
/// moment, so a single reading shows every change that is under way as a disagreement.
pub fn confirmed(earlier: &[Row], mut later: Vec<Row>) -> Vec<Row> {
    let before: HashMap<_, BTreeSet<Kind>> = earlier
        .iter()
        .map(|row| (row.key(), row.findings.iter().map(|finding| finding.kind).collect()))
        .collect();
    for row in &mut later {
        let known = before.get(&row.key());
        let held = |finding: &Finding| known.is_some_and(|kinds| kinds.contains(&finding.kind));
        let kept = row.findings.iter().filter(|finding| held(finding)).cloned().collect();
        row.findings = kept;
    }
    later
}

struct Join<'a> {
    cluster: &'a Cluster,
    view: &'a View,
    disks: HashMap<&'a str, &'a Disk>,
    unreadable: HashMap<&'a str, &'a Unreadable>,
    by_name: HashMap<&'a str, Vec<&'a Disk>>,
    volumes: HashMap<&'a str, &'a Volume>,
    /// The volumes of the driver that name a disk.
    by_handle: HashMap<&'a str, Vec<&'a Volume>>,
    attachments: HashMap<&'a str, Vec<&'a Attachment>>,
    claims: HashMap<(&'a str, &'a str), &'a Claim>,
}

impl<'a> Join<'a> {
    fn new(cluster: &'a Cluster, disks: &'a [Disk], unreadable: &'a [Unreadable], view: &'a View) -> Self {
        let mut join = Self {
            cluster,
            view,
            disks: disks.iter().map(|disk| (disk.id.as_str(), disk)).collect(),
            unreadable: unreadable.iter().map(|disk| (disk.id.as_str(), disk)).collect(),
            by_name: HashMap::new(),
            volumes: cluster.volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect(),
            by_handle: HashMap::new(),
            attachments: HashMap::new(),
            claims: HashMap::new(),
        };
        for disk in disks.iter().filter(|disk| !disk.is_boot) {
            join.by_name.entry(&disk.name).or_default().push(disk);
        }
        for volume in &cluster.volumes {
            if let Some(handle) = volume.disk_of(&view.driver) {
                join.by_handle.entry(handle).or_default().push(volume);
            }
        }
        for attachment in &cluster.attachments {
            if let Some(volume) = &attachment.volume {
                join.attachments.entry(volume).or_default().push(attachment);
            }
        }
        for claim in &cluster.claims {
            join.claims.insert((&claim.namespace, &claim.name), claim);
        }
        join
    }

    fn volumes(&self) -> impl Iterator<Item = Row> {
        let ours =
            self.cluster.volumes.iter().filter(|volume| volume.driver.as_ref() == Some(&self.view.driver));
        ours.map(|volume| self.volume(volume))
    }

    fn volume(&self, volume: &Volume) -> Row {
        let wanted: &[&Attachment] =
            self.attachments.get(volume.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let disk = volume.handle.as_deref().and_then(|handle| self.disks.get(handle)).copied();
        let claim = volume.claim.as_ref();
        let claim = claim.and_then(|(namespace, name)| self.claims.get(&(namespace.as_str(), name.as_str())));
        // A claim that went may have a successor of its name, which has nothing to do with this volume.
        let claim = claim.filter(|claim| volume.claim_uid.as_ref().is_none_or(|uid| *uid == claim.uid));
        let mut row = Row {
            claim: volume.claim.clone(),
            claim_phase: claim.map(|claim| claim.phase.clone()),
            volume: Some(volume.clone()),
            handle: volume.handle.clone(),
            disk: disk.cloned(),
            attachments: Vec::new(),
            findings: Vec::new(),
        };
        let places: Vec<_> = wanted.iter().map(|a| (*a, self.cluster.names_of_node(a))).collect();
        row.attachments = places
            .iter()
            .map(|(attachment, names)| Attached {
                name: attachment.name.clone(),
                node: attachment.node.clone(),
                attached: attachment.attached,
                detaching: attachment.life.deleted.is_some(),
                here: disk.and_then(|disk| names.have(disk)),
            })
            .collect();

        let view = self.view;
        let mut say = |kind: Kind, text: String| row.findings.push(Finding { kind, text });
        match (&volume.handle, disk) {
            (None, _) => say(Kind::DiskMissing, "the PersistentVolume names no UDisk".to_owned()),
            (Some(handle), None) if let Some(disk) = self.unreadable.get(handle.as_str()) => say(
                Kind::DiskUnreadable,
                format!(
                    "UDisk {handle} exists, and what the cloud says of it cannot be read ({}), so the driver can do \
                     nothing with it: ask UCloud's support",
                    disk.source
                ),
            ),
            (Some(handle), None) => say(
                Kind::DiskMissing,
                format!(
                    "the cloud knows no UDisk {handle} in {}: it was deleted there, or is another project's or \
                     region's",
                    view.account
                ),
            ),
            (Some(_), Some(disk)) => {
                judge::state(disk, &mut say);
                judge::attachment(disk, &places, view, &mut say);
                judge::size(volume, disk, &mut say);
                judge::place(volume, disk, &mut say);
                judge::bill(disk, view.now, &mut say);
                self.twice(volume, disk, &mut say);
            }
        }
        for attachment in wanted {
            judge::errors(attachment, &mut say);
        }
        judge::phase(volume, disk, view, &mut say);
        let ending = |what: String, life: &Life| judge::terminating(&what, life, view);
        let objects = [Some((format!("PersistentVolume {}", volume.name), &volume.life))]
            .into_iter()
            .chain([claim.map(|c| (format!("claim {}/{}", c.namespace, c.name), &c.life))])
            .chain(wanted.iter().map(|a| Some((format!("VolumeAttachment {}", a.name), &a.life))));
        for (what, life) in objects.flatten() {
            if let Some(text) = ending(what, life) {
                say(Kind::Terminating, text);
            }
        }
        row
    }

    /// One disk must be one volume, and one name one disk.
    fn twice(&self, volume: &Volume, disk: &Disk, say: &mut impl FnMut(Kind, String)) {
        let others = self.by_handle.get(disk.id.as_str()).into_iter().flatten();
        let others: Vec<&str> =
            others.map(|other| other.name.as_str()).filter(|name| *name != volume.name).collect();
        if !others.is_empty() {
            say(
                Kind::DiskInTwoVolumes,
                format!(
                    "UDisk {} is also that of {}: two claims would write to one disk",
                    disk.id,
                    others.join(", ")
                ),
            );
        }
        let namesakes = self.by_name.get(disk.name.as_str()).into_iter().flatten();
        let namesakes: Vec<&str> =
            namesakes.map(|other| other.id.as_str()).filter(|id| *id != disk.id.as_str()).collect();
        // People may name their disks alike; two of one volume's name come from a create that was sent twice.
        if !namesakes.is_empty() && disk.name == DiskName::for_volume(&volume.name).as_str() {
            say(
                Kind::NameTwice,
                format!(
                    "the volume's name is also that of {}; `csi-udisk orphans` tells whether it is used",
                    namesakes.join(", ")
                ),
            );
        }
    }

    /// Claims that have no volume and that the driver is to make one for.
    fn claims(&self) -> impl Iterator<Item = Row> {
        self.cluster.claims.iter().filter_map(|claim| self.claim(claim))
    }

    fn claim(&self, claim: &Claim) -> Option<Row> {
        let view = self.view;
        let bound_to = claim.volume.as_deref();
        if claim.provisioner.as_ref() != Some(&view.driver)
            || bound_to.is_some_and(|volume| self.volumes.contains_key(volume))
        {
            return None;
        }
        let name = DiskName::for_volume(&format!("{}-{}", view.name_prefix, claim.uid));
        let disk = self.by_name.get(name.as_str()).and_then(|disks| disks.first()).copied();
        let mut row = Row {
            claim: Some((claim.namespace.clone(), claim.name.clone())),
            claim_phase: Some(claim.phase.clone()),
            handle: disk.map(|disk| disk.id.to_string()),
            disk: disk.cloned(),
            ..Row::default()
        };
        let mut say = |kind: Kind, text: String| row.findings.push(Finding { kind, text });
        let age = claim.life.created.map(|created| view.now.saturating_sub(created));
        if let Some(volume) = bound_to {
            say(
                Kind::ClaimLost,
                format!("the claim is bound to PersistentVolume {volume}, which does not exist any more"),
            );
        } else if let Some(age) = age.filter(|age| *age > view.stuck_after)
            && (claim.selected_node.is_some() || disk.is_some())
        {
            let made = match disk {
                Some(disk) => format!("UDisk {} is made for it", disk.id),
                None => match self.unreadable.values().find(|odd| odd.name.as_deref() == Some(name.as_str()))
                {
                    Some(odd) => {
                        format!("UDisk {} has its name and cannot be read ({})", odd.id, odd.source)
                    }
                    None => "no UDisk has its name".to_owned(),
                },
            };
            say(
                Kind::ClaimPending,
                format!("the claim waits for its volume for {}; {made}; see its events", ago(age)),
            );
        }
        if let Some(text) =
            judge::terminating(&format!("claim {}/{}", claim.namespace, claim.name), &claim.life, view)
        {
            say(Kind::Terminating, text);
        }
        Some(row)
    }

    /// Attachments of volumes that do not exist.
    fn attachments(&self) -> impl Iterator<Item = Row> {
        let lost = self.cluster.attachments.iter().filter(|attachment| {
            attachment.attacher == self.view.driver
                && attachment.volume.as_deref().is_some_and(|volume| !self.volumes.contains_key(volume))
        });
        lost.map(|attachment| {
            let volume = attachment.volume.as_deref().unwrap_or_default();
            let text = format!(
                "VolumeAttachment {} is for PersistentVolume {volume}, which does not exist, so the attacher cannot \
                 end it: see in the console where the disk is, then remove its finalizers",
                attachment.name
            );
            Row {
                attachments: vec![Attached {
                    name: attachment.name.clone(),
                    node: attachment.node.clone(),
                    attached: attachment.attached,
                    detaching: attachment.life.deleted.is_some(),
                    here: None,
                }],
                findings: vec![Finding { kind: Kind::AttachmentWithoutVolume, text }],
                ..Row::default()
            }
        })
    }
}
