//! `DescribeUDisk`.

use serde_json::{Value, json};

use super::attach::device_name;
use super::names::{self, ALL_TYPES};
use super::problem::Problem;
use super::table::{ActionSpec, COUNT, Kind, Param, Place, YES_NO, optional};
use super::{Call, Data, page};
use crate::sandbox::cloud::config::NameFilter;
use crate::sandbox::cloud::model::{Disk, Reader, Status};

const PARAMS: &[Param] = &[
    optional("UDiskId", Kind::Text),
    optional("Offset", COUNT),
    optional("Limit", COUNT),
    optional("DiskType", Kind::OneOf(ALL_TYPES)),
    optional("ProtocolVersion", Kind::Int { min: 0, max: 1 }),
    optional("IsBoot", Kind::OneOf(&["True", "False"])),
    optional("IgnoreUBillInfo", YES_NO),
    optional("IgnoreBackupMode", YES_NO),
    optional("UDiskBasicInfo", YES_NO),
    optional("HostIdForAttachment", Kind::Text),
    optional("UHostIdForAttachment", Kind::Text),
    optional("HostId", Kind::Text),
    optional("HostProduct", Kind::OneOf(&["uhost", "uphost"])),
    optional(
        "Status",
        Kind::OneOf(&[
            "All",
            "Available",
            "Attaching",
            "InUse",
            "Detaching",
            "Initializating",
            "Failed",
            "Cloning",
            "Restoring",
            "RestoreFailed",
        ]),
    ),
    optional("Tag", Kind::Text),
    optional("UDiskName", Kind::Text),
];

pub(super) const DESCRIBE: ActionSpec =
    ActionSpec { name: "DescribeUDisk", place: Place::Region, params: &[PARAMS], one_of: &[], act: describe };

fn describe(call: &mut Call<'_>) -> Result<Data, Problem> {
    let newer_names = call.get("ProtocolVersion") == Some("1");
    if newer_names && call.get("DiskType").is_some() && call.get("IsBoot").is_none() {
        return Err(Problem::missing("IsBoot"));
    }
    let range = call.offset_and_limit()?;
    let found = match call.get("UDiskId") {
        Some(id) => call.world.seen(id, Reader::ById).into_iter().collect(),
        None => call.world.all_seen(Reader::List),
    };
    let matching: Vec<Value> = found
        .into_iter()
        .filter(|disk| matches(call, disk, newer_names))
        .map(|disk| describe_one(call, disk, newer_names))
        .collect();
    if matching.is_empty() && call.get("UDiskId").is_some() && call.account.quirks.unknown_id_is_error {
        return Err(Problem::new(17041, "udisk does not exist"));
    }
    Ok(page("DataSet", matching, range))
}

fn matches(call: &Call<'_>, disk: &Disk, newer_names: bool) -> bool {
    let quirks = call.account.quirks;
    let is = |name: &str, value: &str| call.get(name).is_none_or(|wanted| wanted == value);
    let host = disk.host().unwrap_or_default();
    disk.project == call.project
        && call.zone.is_none_or(|zone| zone == disk.zone)
        && (quirks.list_system_disks || !disk.boot || call.get("UDiskId").is_some())
        && is("DiskType", type_name(disk, newer_names))
        && is("IsBoot", boot_word(disk))
        && is("HostId", host)
        && call
            .get("HostProduct")
            .is_none_or(|product| !host.is_empty() && (product == "uphost") == host.starts_with("upm-"))
        && call.get("Status").is_none_or(|status| status == "All" || status == disk.status.word())
        && is("Tag", &disk.tag)
        && call.get("UDiskName").is_none_or(|wanted| match quirks.name_filter {
            NameFilter::Exact => disk.name == wanted,
            NameFilter::Fuzzy => disk.name.contains(wanted),
            NameFilter::Ignored => true,
        })
        && call
            .get("HostIdForAttachment")
            .or_else(|| call.get("UHostIdForAttachment"))
            .is_none_or(|host| call.world.could_attach(disk, host))
}

fn boot_word(disk: &Disk) -> &'static str {
    if disk.boot { "True" } else { "False" }
}

fn type_name(disk: &Disk, newer: bool) -> &'static str {
    let sold = names::of(disk.kind);
    match (newer, disk.boot) {
        (true, _) => sold.cloud,
        (false, true) => sold.system,
        (false, false) => sold.data,
    }
}

fn describe_one(call: &Call<'_>, disk: &Disk, newer_names: bool) -> Value {
    let quirks = call.account.quirks;
    let host = disk.host().and_then(|id| call.world.host(id));
    let host_id = disk.host().unwrap_or_default();
    let host_name = host.map_or("", |host| &host.spec.name);
    let host_ip = host.map_or("", |host| &host.spec.ip);
    let device = disk
        .attachment
        .as_ref()
        .filter(|_| !quirks.device_name_after_in_use || disk.status == Status::InUse)
        .map_or_else(String::new, |attachment| device_name(call, attachment.device));
    let key = disk.key.as_deref().unwrap_or_default();
    let mut set = super::data(json!({
        "Zone": disk.zone,
        "UDiskId": disk.id,
        "Name": disk.name,
        "Size": disk.size.get(),
        "Status": disk.status.word(),
        "CreateTime": call.unix(disk.created),
        "HostId": host_id,
        "HostName": host_name,
        "HostIP": host_ip,
        "DeviceName": device,
        "DiskType": type_name(disk, newer_names),
        "IsBoot": boot_word(disk),
        "Tag": disk.tag,
        "RdmaClusterId": disk.rdma,
        "UKmsMode": if disk.key.is_some() { "Yes" } else { "No" },
        "CmkId": key,
        "DataKey": "",
        "CmkIdAlias": key,
        "CmkIdStatus": if disk.key.is_some() { "Enabled" } else { "NoCmkId" },
        "Version": "2.0",
        "UDataArkMode": if disk.ark { "Yes" } else { "No" },
    }));
    if !quirks.no_uhost_twins {
        set.extend([
            ("UHostId".to_owned(), json!(host_id)),
            ("UHostName".to_owned(), json!(host_name)),
            ("UHostIP".to_owned(), json!(host_ip)),
        ]);
    }
    let basic = call.yes("UDiskBasicInfo");
    if !basic && !call.yes("IgnoreUBillInfo") {
        let end = disk.paid_for.map_or(0, |time| call.unix(disk.created + time));
        set.extend([
            ("ChargeType".to_owned(), json!(disk.charge_type)),
            ("ExpiredTime".to_owned(), json!(end)),
            ("IsExpire".to_owned(), json!("No")),
        ]);
    }
    let service = call.world.service_of(&disk.id).is_some();
    if !basic && !call.yes("IgnoreBackupMode") {
        let mode = match (service, disk.ark) {
            (true, _) => "SnapshotService",
            (false, true) => "UDataArk",
            (false, false) => "",
        };
        set.insert("BackupMode".to_owned(), json!(mode));
    }
    if !basic {
        let snapshots = call.world.snapshots().filter(|snapshot| snapshot.of.id == disk.id).count();
        set.extend([
            ("SnapshotCount".to_owned(), json!(snapshots)),
            ("SnapshotLimit".to_owned(), json!(call.world.rules().limits.snapshots_per_disk)),
            ("CloneEnable".to_owned(), json!(u8::from(!disk.boot))),
            ("SnapEnable".to_owned(), json!(u8::from(service))),
            ("ArkSwitchEnable".to_owned(), json!(0)),
        ]);
    }
    Value::Object(set)
}
