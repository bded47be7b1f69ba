//! `CreateUDisk` and `CreateAttachUDisk`.

use std::time::Duration;

use serde_json::{Value, json};

use super::names::{self, DATA_TYPES, Sold};
use super::problem::{Problem, Verb};
use super::table::{ActionSpec, COUNT, Kind, Param, Place, SIZE, YES_NO, optional, required};
use super::{Call, Data, data};
use crate::sandbox::cloud::model::{AttachOrder, NewDisk, Refusal};
use crate::volume::Gib;

pub(super) const CHARGE_TYPE: Kind = Kind::OneOf(&["Year", "Month", "Dynamic", "Postpay", "Trial"]);

/// The snapshot service, ordered together with a disk.
pub(super) const SNAPSHOT_GROUP: &[Param] = &[
    optional("SnapshotService", YES_NO),
    optional("BackupMode", Kind::OneOf(&["Base", "Ultimate", "Custom", "Lite"])),
    optional("Journal", COUNT),
    optional("Hour", COUNT),
    optional("Day", COUNT),
];

const COMMON: &[Param] = &[
    required("Size", SIZE),
    required("Name", Kind::Text),
    optional("ChargeType", CHARGE_TYPE),
    optional("Quantity", COUNT),
    optional("DiskType", Kind::OneOf(DATA_TYPES)),
    optional("UDataArkMode", YES_NO),
    optional("Tag", Kind::Text),
    optional("UKmsMode", YES_NO),
    optional("CmkId", Kind::Text),
    optional("CouponId", Kind::Text),
];

pub(super) const CREATE: ActionSpec = ActionSpec {
    name: "CreateUDisk",
    place: Place::RegionAndZone,
    params: &[
        COMMON,
        SNAPSHOT_GROUP,
        &[optional("RdmaClusterId", Kind::Text), optional("Labels", Kind::Text)],
    ],
    one_of: &[],
    act: create,
};

pub(super) const CREATE_ATTACH: ActionSpec = ActionSpec {
    name: "CreateAttachUDisk",
    place: Place::RegionAndZone,
    params: &[
        COMMON,
        SNAPSHOT_GROUP,
        &[optional("HostId", Kind::Text), optional("UHostId", Kind::Text), optional("MultiAttach", YES_NO)],
    ],
    one_of: &[&["HostId", "UHostId"]],
    act: create_attach,
};

fn create(call: &mut Call<'_>) -> Result<Data, Problem> {
    let rdma = call.get("RdmaClusterId").map(str::to_owned);
    let new = order(call, rdma, "Dynamic")?;
    let id = call.world.create(new).map_err(|refusal| call.refused(Verb::Create, &refusal))?;
    Ok(data(json!({ "UDiskId": new_id(call, &id) })))
}

fn create_attach(call: &mut Call<'_>) -> Result<Data, Problem> {
    let host_id = call.host().to_owned();
    let Some(host) = call.world.host(&host_id) else {
        return Err(call.refused(Verb::Attach, &Refusal::NoSuchHost));
    };
    // The disk is made where the host is.
    let rdma = Some(host.spec.rdma_cluster.clone()).filter(|cluster| !cluster.is_empty());
    let by_size = if call.number::<u32>("Size").unwrap_or(0) <= 2000 { "Dynamic" } else { "Month" };
    let new = order(call, rdma, by_size)?;
    call.world.admits(&host_id, &new).map_err(|refusal| call.refused(Verb::Attach, &refusal))?;
    let disk = call.world.create(new).map_err(|refusal| call.refused(Verb::Create, &refusal))?;
    let attach = AttachOrder { disk: disk.clone(), host: host_id.clone(), across_clusters: false };
    let device =
        call.world.attach_once_made(attach).map_err(|refusal| call.refused(Verb::Attach, &refusal))?.device;
    Ok(data(json!({
        "UDiskId": new_id(call, &disk),
        "UHostId": host_id,
        "HostId": host_id,
        "DeviceName": super::attach::early_device_name(call, device),
    })))
}

/// A new disk's id is an array in the documents' tables, a text in some of their examples.
pub(super) fn new_id(call: &Call<'_>, id: &str) -> Value {
    if call.account.quirks.bare_disk_id { json!(id) } else { json!([id]) }
}

fn order(call: &Call<'_>, rdma: Option<String>, charge_type: &str) -> Result<NewDisk, Problem> {
    let name = call.get("DiskType").unwrap_or("DataDisk");
    let sold = names::by_data_name(name).ok_or_else(|| Problem::not_available("DiskType"))?;
    let size = size_of(call, "Size", sold)?;
    check_backup_mode(call, sold)?;
    if call.yes("UKmsMode") && call.get("CmkId").is_none() {
        return Err(Problem::missing("CmkId"));
    }
    let charge_type = call.get("ChargeType").unwrap_or(charge_type);
    check_money(call)?;
    Ok(NewDisk {
        project: call.project.to_owned(),
        zone: call.zone.unwrap_or_default().to_owned(),
        name: call.text("Name").to_owned(),
        size,
        kind: sold.kind,
        charge_type: charge_type.to_owned(),
        tag: call.get("Tag").unwrap_or("Default").to_owned(),
        ark: call.yes("UDataArkMode"),
        key: call.get("CmkId").filter(|_| call.yes("UKmsMode")).map(str::to_owned),
        snapshot_service: call.yes("SnapshotService"),
        rdma,
        paid_for: paid_for(charge_type, call.number("Quantity").unwrap_or(1)),
    })
}

/// A size, within what the type can have.
pub(super) fn size_of(call: &Call<'_>, name: &str, sold: &Sold) -> Result<Gib, Problem> {
    match call.number(name).map(Gib::new) {
        Some(size) if size <= sold.largest => Ok(size),
        Some(_) | None => Err(Problem::not_available(name)),
    }
}

/// Custom periods come in whole steps; ESSD and ERSSD know only one mode, which the others lack.
pub(super) fn check_backup_mode(call: &Call<'_>, sold: &Sold) -> Result<(), Problem> {
    let Some(mode) = call.get("BackupMode") else { return Ok(()) };
    let light = matches!(sold.kind, crate::volume::DiskType::Essd | crate::volume::DiskType::Erssd);
    if (mode == "Lite") != light {
        return Err(Problem::not_available("BackupMode"));
    }
    for (name, step) in [("Journal", 12), ("Hour", 24), ("Day", 5)] {
        if mode == "Custom" && call.number::<u32>(name).is_some_and(|number| number % step != 0) {
            return Err(Problem::not_available(name));
        }
    }
    Ok(())
}

pub(super) fn check_money(call: &Call<'_>) -> Result<(), Problem> {
    match call.world.rules().limits.no_balance {
        Some(code) => Err(Problem::new(code, "Lack of balance")),
        None => Ok(()),
    }
}

/// How long a prepaid disk is paid for. Months are of thirty days: nothing here needs a calendar.
pub(super) fn paid_for(charge_type: &str, quantity: u32) -> Option<Duration> {
    const DAY: Duration = Duration::from_secs(86_400);
    match charge_type {
        "Year" => Some(DAY * 365 * quantity.clamp(1, 10)),
        "Month" => Some(DAY * 30 * quantity.clamp(1, 12)),
        "Trial" => Some(DAY * 7),
        _ => None,
    }
}
