//! `DeleteUDisk`, `DetachDeleteUDisk` and `RenameUDisk`.

use serde_json::json;

use super::attach::DISK_AND_HOST;
use super::problem::{Problem, Verb};
use super::table::{ActionSpec, Kind, Place, YES_NO, optional, required};
use super::{Call, Data, data};

pub(super) const DELETE: ActionSpec = ActionSpec {
    name: "DeleteUDisk",
    place: Place::RegionAndZone,
    params: &[&[required("UDiskId", Kind::Text)]],
    one_of: &[],
    act: delete,
};

pub(super) const DETACH_DELETE: ActionSpec = ActionSpec {
    name: "DetachDeleteUDisk",
    place: Place::Region,
    params: &[DISK_AND_HOST, &[optional("DeleteSnapshotService", YES_NO)]],
    one_of: &[&["HostId", "UHostId"]],
    act: detach_delete,
};

pub(super) const RENAME: ActionSpec = ActionSpec {
    name: "RenameUDisk",
    place: Place::RegionAndZone,
    params: &[&[required("UDiskId", Kind::Text), required("UDiskName", Kind::Text)]],
    one_of: &[],
    act: rename,
};

fn delete(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Delete, "UDiskId")?.id;
    call.world.delete(&disk).map_err(|refusal| call.refused(Verb::Delete, &refusal))?;
    Ok(Data::new())
}

fn detach_delete(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Detach, "UDiskId")?.id;
    let host = call.host().to_owned();
    let from =
        call.world.detach_and_delete(&disk, &host).map_err(|refusal| call.refused(Verb::Detach, &refusal))?;
    Ok(data(json!({ "UDiskId": disk, "UHostId": from, "HostId": from })))
}

fn rename(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Update, "UDiskId")?.id;
    let name = call.text("UDiskName");
    call.world.rename(&disk, name).map_err(|refusal| call.refused(Verb::Update, &refusal))?;
    Ok(Data::new())
}
