//! `AttachUDisk` and `DetachUDisk`.

use serde_json::json;

use super::problem::{Problem, Verb};
use super::table::{ActionSpec, Kind, Param, Place, YES_NO, optional, required};
use super::{Call, Data, data};
use crate::sandbox::cloud::config::DeviceNameStyle;
use crate::sandbox::cloud::model::{AttachOrder, Device};

pub(super) const DISK_AND_HOST: &[Param] =
    &[required("UDiskId", Kind::Text), optional("HostId", Kind::Text), optional("UHostId", Kind::Text)];

pub(super) const ATTACH: ActionSpec = ActionSpec {
    name: "AttachUDisk",
    place: Place::Region,
    params: &[DISK_AND_HOST, &[optional("MultiAttach", YES_NO), optional("EnableCrossPodAttach", YES_NO)]],
    one_of: &[&["HostId", "UHostId"]],
    act: attach,
};

pub(super) const DETACH: ActionSpec = ActionSpec {
    name: "DetachUDisk",
    place: Place::Region,
    params: &[DISK_AND_HOST],
    one_of: &[&["HostId", "UHostId"]],
    act: detach,
};

fn attach(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Attach, "UDiskId")?.id;
    let host = call.host().to_owned();
    let order = AttachOrder {
        disk: disk.clone(),
        host: host.clone(),
        across_clusters: call.yes("EnableCrossPodAttach"),
    };
    // `MultiAttach` changes nothing: a disk is on one host at a time, whatever it says.
    let attachment = call.world.attach(&order).map_err(|refusal| call.refused(Verb::Attach, &refusal))?;
    Ok(data(json!({
        "UDiskId": disk,
        "UHostId": host,
        "HostId": host,
        "DeviceName": early_device_name(call, attachment.device),
    })))
}

fn detach(call: &mut Call<'_>) -> Result<Data, Problem> {
    let disk = call.disk(Verb::Detach, "UDiskId")?.id;
    let host = call.host().to_owned();
    let from = call.world.detach(&disk, &host).map_err(|refusal| call.refused(Verb::Detach, &refusal))?;
    Ok(data(json!({ "UDiskId": disk, "UHostId": from, "HostId": from })))
}

/// A device's name as this cloud spells it.
pub(super) fn device_name(call: &Call<'_>, device: Device) -> String {
    match call.account.quirks.device_name {
        DeviceNameStyle::Plain => device.to_string(),
        DeviceNameStyle::Path => format!("/dev/{device}"),
        DeviceNameStyle::UpperCase => device.to_string().to_ascii_uppercase(),
    }
}

/// The name in the answer to an attachment that has only begun.
pub(super) fn early_device_name(call: &Call<'_>, device: Device) -> String {
    if call.account.quirks.device_name_after_in_use { String::new() } else { device_name(call, device) }
}
