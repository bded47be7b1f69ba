//! The paid service without which a disk has no snapshots.

use serde_json::{Value, json};

use super::create::{check_backup_mode, check_money};
use super::names;
use super::problem::{Problem, Verb};
use super::table::{ActionSpec, COUNT, Kind, Place, optional, required};
use super::{Call, Data, data, page};
use crate::sandbox::cloud::model::Service;

pub(super) const CREATE: ActionSpec = ActionSpec {
    name: "CreateSnapshotService",
    place: Place::RegionAndZone,
    params: &[&[
        required("VDiskId", Kind::Text),
        optional("ChargeType", Kind::OneOf(&["Year", "Month", "Dynamic"])),
        optional("Quantity", COUNT),
        optional("Tag", Kind::Text),
        optional("BackupMode", Kind::OneOf(&["Base", "Ultimate", "Custom", "Lite"])),
        optional("Journal", COUNT),
        optional("Hour", COUNT),
        optional("Day", COUNT),
        optional("CouponId", Kind::Text),
    ]],
    one_of: &[],
    act: create,
};

pub(super) const DESCRIBE: ActionSpec = ActionSpec {
    name: "DescribeSnapshotService",
    place: Place::RegionAndZone,
    params: &[&[
        optional("SnapshotServiceId", Kind::Text),
        optional("VDiskId", Kind::Text),
        optional("SnapshotId", Kind::Text),
        optional("Offset", COUNT),
        optional("Limit", COUNT),
    ]],
    one_of: &[],
    act: describe,
};

pub(super) const DELETE: ActionSpec = ActionSpec {
    name: "DeleteSnapshotService",
    place: Place::RegionAndZone,
    params: &[&[required("VDiskId", Kind::Text)]],
    one_of: &[],
    act: delete,
};

fn create(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Update, "VDiskId")?;
    check_backup_mode(call, names::of(disk.kind))?;
    check_money(call)?;
    let charge_type = call.get("ChargeType").unwrap_or("Month");
    let id = call
        .world
        .open_service(&disk.id, charge_type)
        .map_err(|refusal| call.refused(Verb::Update, &refusal))?;
    Ok(data(json!({ "SnapshotServiceId": id, "Status": "Available" })))
}

fn describe(call: &mut Call<'_>) -> Result<Data, Problem> {
    let snapshot_of = call.get("SnapshotId").map(|id| {
        call.world.snapshots().find(|one| one.id == id).map(|one| one.of.id.clone()).unwrap_or_default()
    });
    let all = call
        .world
        .services()
        .filter(|one| call.get("SnapshotServiceId").is_none_or(|id| id == one.id))
        .filter(|one| call.get("VDiskId").is_none_or(|id| id == one.disk))
        .filter(|one| snapshot_of.as_ref().is_none_or(|disk| *disk == one.disk))
        .filter_map(|one| describe_one(call, one))
        .collect();
    Ok(page("DataSet", all, call.offset_and_limit()?))
}

fn describe_one(call: &Call<'_>, one: &Service) -> Option<Value> {
    let disk = call.world.disk(&one.disk)?;
    let here = disk.project == call.project && call.zone.is_none_or(|zone| zone == disk.zone);
    here.then(|| {
        json!({
            "ServiceId": one.id,
            "VDiskId": one.disk,
            "VDiskName": disk.name,
            "VDiskType": if disk.boot { "UDiskBoot" } else { "UDiskData" },
            "VDiskSize": disk.size.get(),
            "Status": "Available",
            "ChargeType": one.charge_type,
            "CreateTime": call.unix(one.created),
        })
    })
}

fn delete(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Update, "VDiskId")?.id;
    call.world.close_service(&disk).map_err(|refusal| call.refused(Verb::Update, &refusal))?;
    Ok(Data::new())
}
