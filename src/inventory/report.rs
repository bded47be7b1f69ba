//! What is printed: tables for people, JSON for scripts.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::finding::{Finding, Kind};
use super::judge::place_of;
use super::orphans::{self, Doubt, HeldBack, Marks, Orphan, Sorted};
use super::table::{Table, fixed, flexible, number};
use super::volumes::{Attached, Row};
use crate::cloud::{Disk, DiskStatus, PriceClass, Unreadable};

/// What a line of text may take.
const WIDTH: usize = 120;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines of at most 120 columns.
    Text,
    /// Lines as long as they need to be.
    Wide,
    Json,
}

impl Format {
    fn width(self) -> Option<usize> {
        (self == Self::Text).then_some(WIDTH)
    }
}

/// The volumes, in the order of their rows.
pub fn volumes(rows: &[Row], account: &str, format: Format) -> String {
    let odd = rows.iter().filter(|row| !row.findings.is_empty()).count();
    if format == Format::Json {
        let rows: Vec<Value> = rows.iter().map(volume_json).collect();
        return pretty(&json!({ "account": account, "volumes": rows, "withFindings": odd }));
    }
    let mut table = Table::new([
        flexible("CLAIM", 2, 16),
        flexible("PV", 0, 13),
        fixed("UDISK"),
        fixed("TYPE"),
        number("SIZE"),
        fixed("STATE"),
        flexible("HOST", 3, 14),
        flexible("ATTACHMENT", 1, 25),
    ]);
    for row in rows {
        let remarks = row.findings.iter().map(|f| format!("{}: {}", f.kind.word(), f.text)).collect();
        table.row(cells(row), remarks);
    }
    let count = format!("{}, {odd} with findings\n{account}\n", counted(rows.len(), "volume"));
    if rows.is_empty() { count } else { format!("{}\n{count}", table.print(format.width())) }
}

fn cells(row: &Row) -> [String; 8] {
    let none = || "-".to_owned();
    let disk = row.disk.as_ref();
    [
        row.claim.as_ref().map_or_else(none, |(namespace, name)| format!("{namespace}/{name}")),
        row.volume.as_ref().map_or_else(none, |volume| volume.name.clone()),
        row.handle.clone().unwrap_or_else(none),
        disk.map_or_else(none, type_word),
        disk.map_or_else(none, |disk| format!("{}Gi", disk.size.get())),
        match (disk, &row.handle) {
            (Some(disk), _) => state_word(disk).to_owned(),
            (None, Some(_)) if row.has(Kind::DiskUnreadable) => "unreadable".to_owned(),
            (None, Some(_)) => "missing".to_owned(),
            (None, None) => none(),
        },
        disk.filter(|disk| disk.host.is_some() || disk.host_ip.is_some()).map_or_else(none, short_place),
        match row.attachments.as_slice() {
            [] => none(),
            several => several.iter().map(attachment_text).collect::<Vec<_>>().join(", "),
        },
    ]
}

fn short_place(disk: &Disk) -> String {
    disk.host.as_ref().map_or_else(|| place_of(disk), ToString::to_string)
}

fn attachment_text(attached: &Attached) -> String {
    let word = match (attached.detaching, attached.attached) {
        (true, _) => "detaching",
        (false, true) => "attached",
        (false, false) => "attaching",
    };
    format!("{} {word}", attached.node)
}

fn type_word(disk: &Disk) -> String {
    disk.disk_type.map_or_else(|| "?".to_owned(), |kind| kind.word().to_owned())
}

/// The state in the API's own word.
fn state_word(disk: &Disk) -> &str {
    match &disk.status {
        DiskStatus::Initializing => "Initializating",
        DiskStatus::Available => "Available",
        DiskStatus::Attaching => "Attaching",
        DiskStatus::InUse => "InUse",
        DiskStatus::Detaching => "Detaching",
        DiskStatus::Cloning => "Cloning",
        DiskStatus::Restoring => "Restoring",
        DiskStatus::RestoreFailed => "RestoreFailed",
        DiskStatus::Failed => "Failed",
        DiskStatus::Other(word) => word,
    }
}

fn volume_json(row: &Row) -> Value {
    let claim = row
        .claim
        .as_ref()
        .map(|(namespace, name)| json!({ "namespace": namespace, "name": name, "phase": row.claim_phase }));
    let volume = row.volume.as_ref().map(|volume| {
        json!({
            "name": volume.name,
            "phase": volume.phase,
            "capacityBytes": volume.bytes,
            "storageClass": volume.class,
            "reclaimPolicy": volume.reclaim,
        })
    });
    let attachments: Vec<Value> = row
        .attachments
        .iter()
        .map(|attached| {
            json!({
                "name": attached.name,
                "node": attached.node,
                "attached": attached.attached,
                "detaching": attached.detaching,
                "diskIsThere": attached.here,
            })
        })
        .collect();
    let findings: Vec<Value> = row
        .findings
        .iter()
        .map(|Finding { kind, text }| json!({ "kind": kind.word(), "text": text }))
        .collect();
    json!({
        "claim": claim,
        "persistentVolume": volume,
        "volumeHandle": row.handle,
        "udisk": row.disk.as_ref().map(disk_json),
        "volumeAttachments": attachments,
        "findings": findings,
    })
}

fn disk_json(disk: &Disk) -> Value {
    let bill = disk.bill.as_deref().cloned().unwrap_or_default();
    json!({
        "id": disk.id.as_str(),
        "name": disk.name,
        "zone": disk.zone.as_str(),
        "type": disk.disk_type.map(|kind| kind.word()),
        "sizeGiB": disk.size.get(),
        "state": state_word(disk),
        "host": disk.host.as_ref().map(ToString::to_string),
        "hostIP": disk.host_ip,
        "createdAt": disk.created_at,
        "businessGroup": disk.tag,
        "chargeType": disk.charge_type,
        "paidUntil": bill.paid_until,
        "overdue": bill.overdue,
        "snapshots": disk.snapshots,
        "rdmaCluster": disk.rdma_cluster,
    })
}

/// Prices of one period in hundredths of a yuan. Classes whose price could not be learnt are not in it.
pub type PriceList = BTreeMap<PriceClass, u64>;

/// On what a disk's price depends; `None` when the cloud does not say it all.
pub fn price_class(disk: &Disk) -> Option<PriceClass> {
    Some(PriceClass {
        zone: disk.zone.clone(),
        size: disk.size,
        disk_type: disk.disk_type?,
        charge_type: disk.charge_type.clone()?,
    })
}

/// What became of a disk that was to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Deleted,
    /// It was not confirmed.
    Kept,
    /// It was not sent, for this reason.
    Refused(String),
    /// It was sent, and this came back.
    Failed(String),
}

/// All that is said of orphans.
#[derive(Debug)]
pub struct Orphans<'a> {
    pub sorted: &'a Sorted,
    /// Disks that may be orphans as well, for all that can be read of them.
    pub unreadable: &'a [Unreadable],
    pub marks: &'a Marks,
    pub prices: &'a PriceList,
    pub now: u64,
    pub account: &'a str,
    /// What was done, by id; empty when nothing was to be deleted.
    pub fates: &'a BTreeMap<String, Fate>,
}

impl Orphans<'_> {
    pub fn print(&self, format: Format) -> String {
        if format == Format::Json {
            return self.json();
        }
        let (ours, unknown): (Vec<&Orphan>, Vec<&Orphan>) =
            self.sorted.orphans.iter().partition(|orphan| orphan.ours);
        let mut text = String::new();
        for (title, orphans) in [
            (format!("of this cluster ({})", self.mark_text()), ours),
            ("unknown to this cluster".to_owned(), unknown),
        ] {
            if !orphans.is_empty() {
                text += &format!("{title}:\n{}\n", self.table(&orphans).print(format.width()));
            }
        }
        text += &format!(
            "{} that nothing refers to; {} with a volume's name are in use by this cluster\n",
            counted(self.sorted.orphans.len(), "disk"),
            self.sorted.referred,
        );
        if !self.sorted.held_back.is_empty() {
            text += &format!("not listed: {}\n", self.doubts());
        }
        for Unreadable { id, source, .. } in self.unreadable {
            text += &format!("not listed: {id}, which cannot be read: {source}\n");
        }
        text += &format!("{}\n", self.account);
        text
    }

    fn mark_text(&self) -> String {
        let prefix = self.marks.name_prefix.as_ref().map(|prefix| format!("names {prefix}-…"));
        let group = self.marks.business_group.as_ref().map(|group| format!("business group {group}"));
        prefix.into_iter().chain(group).collect::<Vec<_>>().join(", ")
    }

    fn table(&self, orphans: &[&Orphan]) -> Table<9> {
        let mut table = Table::new([
            fixed("UDISK"),
            flexible("NAME", 0, 24),
            fixed("TYPE"),
            number("SIZE"),
            fixed("CHARGE"),
            number("PRICE"),
            number("AGE"),
            fixed("ZONE"),
            flexible("GROUP", 1, 8),
        ]);
        for Orphan { disk, .. } in orphans {
            let unknown = || "?".to_owned();
            let cells = [
                disk.id.to_string(),
                disk.name.clone(),
                type_word(disk),
                format!("{}Gi", disk.size.get()),
                disk.charge_type.clone().unwrap_or_else(unknown),
                self.price(disk).map_or_else(unknown, |price| yuan(price, disk.charge_type.as_deref())),
                orphans::age(disk, self.now),
                disk.zone.to_string(),
                disk.tag.clone().unwrap_or_else(|| "-".to_owned()),
            ];
            table.row(cells, remarks(disk));
        }
        table
    }

    fn price(&self, disk: &Disk) -> Option<u64> {
        self.prices.get(&price_class(disk)?).copied()
    }

    fn doubts(&self) -> String {
        let mut counts = BTreeMap::<Doubt, usize>::new();
        for HeldBack { why, .. } in &self.sorted.held_back {
            *counts.entry(*why).or_default() += 1;
        }
        counts.iter().map(|(why, n)| format!("{n} {}", why.text())).collect::<Vec<_>>().join(", ")
    }

    fn json(&self) -> String {
        let orphans: Vec<Value> = self
            .sorted
            .orphans
            .iter()
            .map(|Orphan { disk, ours }| {
                let mut value = disk_json(disk);
                value["belongsTo"] = json!(if *ours { "this cluster" } else { "unknown to this cluster" });
                value["priceFen"] = json!(self.price(disk));
                if let Some(fate) = self.fates.get(disk.id.as_str()) {
                    value["deletion"] = json!(fate.to_string());
                    value["deleted"] = json!(*fate == Fate::Deleted);
                }
                value
            })
            .collect();
        let held_back: Vec<Value> = self
            .sorted
            .held_back
            .iter()
            .map(|HeldBack { disk, why }| json!({ "id": disk.id.as_str(), "name": disk.name, "why": why.text() }))
            .collect();
        let unreadable: Vec<Value> = self
            .unreadable
            .iter()
            .map(|disk| json!({ "id": disk.id.as_str(), "name": disk.name, "problem": disk.source.to_string() }))
            .collect();
        pretty(&json!({
            "account": self.account,
            "orphans": orphans,
            "notListed": held_back,
            "unreadable": unreadable,
            "inUse": self.sorted.referred,
        }))
    }
}

fn remarks(disk: &Disk) -> Vec<String> {
    let failed = (disk.status == DiskStatus::Failed).then(|| "the disk is Failed".to_owned());
    let overdue = disk.bill.as_ref().filter(|bill| bill.overdue);
    let overdue =
        overdue.map(|_| "its bill is overdue; UCloud deletes it after ten days in arrears".to_owned());
    failed.into_iter().chain(overdue).collect()
}

impl std::fmt::Display for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Deleted => f.write_str("deleted"),
            Self::Kept => f.write_str("kept: not confirmed"),
            Self::Refused(why) => write!(f, "not deleted: {why}"),
            Self::Failed(why) => write!(f, "perhaps not deleted: {why}"),
        }
    }
}

fn yuan(fen: u64, charge_type: Option<&str>) -> String {
    let period = match charge_type {
        Some("Dynamic" | "Postpay") => "/h",
        Some("Month") => "/month",
        Some("Year") => "/year",
        _ => "",
    };
    format!("¥{}.{:02}{period}", fen / 100, fen % 100)
}

fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn pretty(value: &Value) -> String {
    // The alternate form of a JSON value is the indented one.
    format!("{value:#}\n")
}
