//! Snapshots of disks, and disks that go back to one.

use serde_json::{Value, json};

use super::problem::{Problem, Verb};
use super::table::{ActionSpec, COUNT, Kind, Place, optional, required};
use super::{Call, Data, data, page};
use crate::sandbox::cloud::model::{Disk, Refusal, Snapshot, SnapshotStatus};
use crate::volume::DiskType;

pub(super) const CREATE: ActionSpec = ActionSpec {
    name: "CreateUDiskSnapshot",
    place: Place::RegionAndZone,
    params: &[&[
        required("UDiskId", Kind::Text),
        required("Name", Kind::Text),
        optional("Comment", Kind::Text),
        optional("Quantity", COUNT),
        optional("ChargeType", Kind::Text),
    ]],
    one_of: &[],
    act: create,
};

pub(super) const DESCRIBE: ActionSpec = ActionSpec {
    name: "DescribeUDiskSnapshot",
    place: Place::Region,
    params: &[&[
        optional("Offset", COUNT),
        optional("Limit", COUNT),
        optional("UDiskId", Kind::Text),
        optional("SnapshotId", Kind::Text),
    ]],
    one_of: &[],
    act: describe,
};

pub(super) const DELETE: ActionSpec = ActionSpec {
    name: "DeleteUDiskSnapshot",
    place: Place::RegionAndZone,
    params: &[&[optional("SnapshotId", Kind::Text), optional("UDiskId", Kind::Text)]],
    one_of: &[&["SnapshotId", "UDiskId"]],
    act: delete,
};

pub(super) const RESTORE: ActionSpec = ActionSpec {
    name: "RestoreUDisk",
    place: Place::RegionAndZone,
    params: &[&[
        required("UDiskId", Kind::Text),
        optional("SnapshotId", Kind::Text),
        optional("SnapshotTime", COUNT),
    ]],
    one_of: &[&["SnapshotId", "SnapshotTime"]],
    act: restore,
};

fn create(call: &mut Call<'_>) -> Result<Data, Problem> {
    if call.account.quirks.snapshot_comment_refused && call.get("Comment").is_some() {
        return Err(Problem::not_available("Comment"));
    }
    let disk = call.disk(Verb::Snapshot, "UDiskId")?.id;
    let id = call
        .world
        .snapshot(&disk, call.params.get("Name").unwrap_or_default())
        .map_err(|refusal| call.refused(Verb::Snapshot, &refusal))?;
    Ok(data(json!({ "SnapshotId": [id] })))
}

fn describe(call: &mut Call<'_>) -> Result<Data, Problem> {
    if call.get("UDiskId").is_some() && call.zone.is_none() {
        return Err(Problem::missing("Zone"));
    }
    let (snapshot, disk) = (call.get("SnapshotId"), call.get("UDiskId"));
    let mut found: Vec<&Snapshot> = call
        .world
        .snapshots()
        .filter(|one| one.of.project == call.project && call.zone.is_none_or(|zone| zone == one.of.zone))
        // The snapshot's own id wins over the disk's.
        .filter(|one| match (snapshot, disk) {
            (Some(id), _) => one.id == id,
            (None, Some(id)) => one.of.id == id,
            (None, None) => true,
        })
        .collect();
    found.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    let all = found.into_iter().map(|one| describe_one(call, one)).collect();
    Ok(page("DataSet", all, call.offset_and_limit()?))
}

fn describe_one(call: &Call<'_>, one: &Snapshot) -> Value {
    let disk = call.world.disk(&one.of.id);
    json!({
        "Zone": one.of.zone,
        "SnapshotId": one.id,
        "Name": one.name,
        "UDiskId": one.of.id,
        "UDiskName": one.of.name,
        "CreateTime": call.unix(one.created),
        "ExpiredTime": 0,
        "Size": one.of.size.get(),
        "Status": one.status(call.world.now()).word(),
        "DiskType": type_number(&one.of),
        "Comment": "",
        "IsUDiskAvailable": disk.is_some(),
        "Version": "2.0",
        "UHostId": disk.and_then(Disk::host).unwrap_or_default(),
    })
}

/// Snapshots number the types. Types without a documented number share that of their nearest kin.
fn type_number(disk: &Disk) -> u8 {
    let data = match disk.kind {
        DiskType::Sata | DiskType::Efficiency => 0,
        DiskType::Ssd | DiskType::Essd => 2,
        DiskType::Rssd | DiskType::Erssd => 4,
    };
    data + u8::from(disk.boot)
}

fn delete(call: &mut Call<'_>) -> Result<Data, Problem> {
    let own = |one: &&Snapshot, zone: Option<&str>, project: &str| {
        one.of.project == project && zone.is_none_or(|zone| zone == one.of.zone)
    };
    let ids: Vec<String> = match (call.get("SnapshotId"), call.get("UDiskId")) {
        (Some(_), Some(_)) => return Err(Problem::not_available("UDiskId")),
        (Some(id), None) => vec![
            call.world
                .snapshots()
                .filter(|one| own(one, call.zone, call.project))
                .find(|one| one.id == id)
                .map(|one| one.id.clone())
                .ok_or_else(|| call.refused(Verb::DeleteSnapshot, &Refusal::NoSuchSnapshot))?,
        ],
        (None, disk) => {
            // All snapshots of the disk, or none while one of them is being made.
            let all: Vec<&Snapshot> = call
                .world
                .snapshots()
                .filter(|one| own(one, call.zone, call.project) && Some(one.of.id.as_str()) == disk)
                .collect();
            let now = call.world.now();
            if all.iter().any(|one| one.status(now) == SnapshotStatus::Creating) {
                return Err(call.refused(Verb::DeleteSnapshot, &Refusal::SnapshotCreating));
            }
            all.into_iter().map(|one| one.id.clone()).collect()
        }
    };
    for id in ids {
        call.world
            .delete_snapshot(&id)
            .map_err(|refusal| Problem::refused(Verb::DeleteSnapshot, &refusal, call.account.quirks))?;
    }
    Ok(Data::new())
}

fn restore(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Restore, "UDiskId")?.id;
    // A point in time needs the data ark, which is closed to new users.
    let Some(snapshot) = call.get("SnapshotId") else { return Err(Problem::not_available("SnapshotTime")) };
    call.world.restore(&disk, snapshot).map_err(|refusal| call.refused(Verb::Restore, &refusal))?;
    Ok(Data::new())
}
