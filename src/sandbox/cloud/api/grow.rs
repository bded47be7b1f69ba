//! `ResizeUDisk` for detached disks; `ResizeAttachedDisk` and `ResizePHostAttachedDisk` for those in use.

use serde_json::json;

use super::create::{check_money, size_of};
use super::names;
use super::problem::{Problem, Verb};
use super::table::{ActionSpec, COUNT, Kind, Place, SIZE, optional, required};
use super::{Call, Data, data};
use crate::sandbox::cloud::model::{Growth, Refusal};
use crate::volume::Gib;

pub(super) const RESIZE: ActionSpec = ActionSpec {
    name: "ResizeUDisk",
    place: Place::RegionAndZone,
    params: &[&[
        required("UDiskId", Kind::Text),
        required("Size", SIZE),
        optional("MachineType", Kind::Text),
        optional("CouponId", Kind::Text),
    ]],
    one_of: &[],
    act: resize,
};

pub(super) const RESIZE_ATTACHED: ActionSpec = ActionSpec {
    name: "ResizeAttachedDisk",
    place: Place::RegionAndZone,
    params: &[&[
        required("UHostId", Kind::Text),
        required("DiskId", Kind::Text),
        required("DiskSpace", COUNT),
        optional("DryRun", Kind::Bool),
    ]],
    one_of: &[],
    act: resize_attached,
};

pub(super) const RESIZE_PHOST_ATTACHED: ActionSpec = ActionSpec {
    name: "ResizePHostAttachedDisk",
    place: Place::RegionAndZone,
    params: &[&[
        // The documents call none of them required; without one there is nothing to grow, which is refused as such.
        optional("PHostId", Kind::Text),
        optional("UDiskId", Kind::Text),
        optional("DiskSpace", Kind::Int { min: 20, max: 32_000 }),
    ]],
    one_of: &[],
    act: resize_phost_attached,
};

fn resize(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Resize, "UDiskId")?;
    let size = size_of(call, "Size", names::of(disk.kind))?;
    check_money(call)?;
    call.world.resize_detached(&disk.id, size).map_err(|refusal| call.refused(Verb::Resize, &refusal))?;
    Ok(Data::new())
}

fn resize_attached(call: &mut Call<'_>) -> Result<Data, Problem> {
    let growth = grow(call, "UHostId", "DiskId")?;
    Ok(data(json!({ "DiskId": call.text("DiskId"), "NeedRestart": growth.needs_restart })))
}

fn resize_phost_attached(call: &mut Call<'_>) -> Result<Data, Problem> {
    grow(call, "PHostId", "UDiskId")?;
    Ok(data(json!({ "UDiskId": call.text("UDiskId") })))
}

fn grow(call: &mut Call<'_>, host_param: &str, disk_param: &str) -> Result<Growth, Problem> {
    let bare_metal = host_param == "PHostId";
    let host = call.text(host_param).to_owned();
    if call.world.host(&host).is_none_or(|host| host.spec.bare_metal() != bare_metal) {
        return Err(match call.refused(Verb::ResizeAttached, &Refusal::NoSuchHost) {
            Problem { code: 230, .. } => Problem::not_available(host_param),
            other => other,
        });
    }
    let disk = call.disk(Verb::ResizeAttached, disk_param)?;
    let size = call.number("DiskSpace").map(Gib::new).unwrap_or_default();
    if !size.get().is_multiple_of(10) || size > names::of(disk.kind).largest {
        return Err(Problem::new(8107, "disk size must be a multiple of 10 within the range of its type"));
    }
    check_money(call)?;
    let dry_run = call.yes("DryRun");
    call.world
        .resize_attached(&disk.id, &host, size, dry_run)
        .map_err(|refusal| call.refused(Verb::ResizeAttached, &refusal))
}
