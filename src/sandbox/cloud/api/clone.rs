//! New disks with the content of a disk or of a snapshot.

use serde_json::json;

use super::create::{CHARGE_TYPE, SNAPSHOT_GROUP, check_backup_mode, check_money, new_id, paid_for};
use super::names;
use super::problem::{Problem, Verb};
use super::table::{ActionSpec, COUNT, Kind, Param, Place, SIZE, YES_NO, optional, required};
use super::{Call, Data, data};
use crate::sandbox::cloud::model::{CloneOrder, Disk, Refusal, Snapshot};
use crate::volume::Gib;

const COMMON: &[Param] = &[
    required("SourceId", Kind::Text),
    required("Name", Kind::Text),
    optional("Size", SIZE),
    optional("ChargeType", CHARGE_TYPE),
    optional("Quantity", COUNT),
    optional("Comment", Kind::Text),
    optional("Tag", Kind::Text),
    optional("UDataArkMode", YES_NO),
    optional("RdmaClusterId", Kind::Text),
    optional("HostId", Kind::Text),
    optional("CouponId", Kind::Text),
];

pub(super) const CLONE: ActionSpec = ActionSpec {
    name: "CloneUDisk",
    place: Place::RegionAndZone,
    params: &[COMMON, SNAPSHOT_GROUP],
    one_of: &[],
    act: clone_disk,
};

pub(super) const CLONE_SNAPSHOT: ActionSpec = ActionSpec {
    name: "CloneUDiskSnapshot",
    place: Place::RegionAndZone,
    params: &[COMMON, SNAPSHOT_GROUP],
    one_of: &[],
    act: clone_snapshot,
};

fn clone_disk(call: &mut Call<'_>) -> Result<Data, Problem> {
    let source = call.disk(Verb::Clone, "SourceId")?;
    // Unlike everywhere else, a clone is paid by the month unless told otherwise.
    let order = order(call, &source, "Month")?;
    let id = call.world.clone_disk(order).map_err(|refusal| call.refused(Verb::Clone, &refusal))?;
    Ok(data(json!({ "UDiskId": new_id(call, &id) })))
}

fn clone_snapshot(call: &mut Call<'_>) -> Result<Data, Problem> {
    let wanted = call.text("SourceId");
    let own = |one: &&Snapshot| {
        one.id == wanted && one.of.project == call.project && call.zone.is_none_or(|zone| zone == one.of.zone)
    };
    let Some(source) = call.world.snapshots().find(own).map(|one| one.of.clone()) else {
        return Err(call.refused(Verb::CloneSnapshot, &Refusal::NoSuchSnapshot));
    };
    let order = order(call, &source, "Dynamic")?;
    let id =
        call.world.clone_snapshot(order).map_err(|refusal| call.refused(Verb::CloneSnapshot, &refusal))?;
    Ok(data(json!({ "UDiskId": new_id(call, &id) })))
}

fn order(call: &Call<'_>, source: &Disk, charge_type: &str) -> Result<CloneOrder, Problem> {
    let sold = names::of(source.kind);
    let size = call.number("Size").map(Gib::new);
    if size.is_some_and(|size| size > sold.largest) {
        return Err(Problem::not_available("Size"));
    }
    check_backup_mode(call, sold)?;
    check_money(call)?;
    let rdma = match (call.get("RdmaClusterId"), call.get("HostId")) {
        (Some(cluster), _) => Some(cluster.to_owned()),
        // The clone is to be attachable to that host.
        (None, Some(host)) => match call.world.host(host) {
            Some(host) => Some(host.spec.rdma_cluster.clone()),
            None => return Err(call.refused(Verb::Clone, &Refusal::NoSuchHost)),
        },
        (None, None) => None,
    };
    let charge_type = call.get("ChargeType").unwrap_or(charge_type);
    Ok(CloneOrder {
        source: call.text("SourceId").to_owned(),
        name: call.text("Name").to_owned(),
        size,
        charge_type: charge_type.to_owned(),
        tag: call.get("Tag").unwrap_or("Default").to_owned(),
        snapshot_service: call.yes("SnapshotService"),
        rdma,
        paid_for: paid_for(charge_type, call.number("Quantity").unwrap_or(1)),
    })
}
