//! `DescribeUDiskPrice`. The amounts are invented; only their shape is the API's.

use serde_json::{Value, json};

use super::create::{CHARGE_TYPE, SNAPSHOT_GROUP};
use super::names::DISK_TYPES;
use super::problem::Problem;
use super::table::{ActionSpec, COUNT, Kind, Place, SIZE, YES_NO, optional, required};
use super::{Call, Data, data};

pub(super) const DESCRIBE: ActionSpec = ActionSpec {
    name: "DescribeUDiskPrice",
    place: Place::RegionAndZone,
    params: &[
        &[
            required("Size", SIZE),
            optional("ChargeType", CHARGE_TYPE),
            optional("Quantity", COUNT),
            optional("DiskType", Kind::OneOf(DISK_TYPES)),
            optional("UDataArkMode", YES_NO),
            optional("IsTotalPrice", YES_NO),
            optional("MachineType", Kind::Text),
        ],
        SNAPSHOT_GROUP,
    ],
    one_of: &[],
    act: describe,
};

fn describe(call: &mut Call<'_>) -> Result<Data, Problem> {
    let charge_type = call.get("ChargeType").unwrap_or("Month");
    let fen_per_gib: u64 = match charge_type {
        "Year" => 600,
        "Month" => 60,
        _ => 1,
    };
    let price = fen_per_gib * call.number::<u64>("Size").unwrap_or(0);
    let line = |name: &str| -> Value {
        json!({
            "ChargeType": charge_type,
            "ChargeName": name,
            "Price": price,
            "OriginalPrice": price,
            "ListPrice": price,
        })
    };
    let lines = [line(if call.yes("IsTotalPrice") { "Total" } else { "UDisk" })];
    Ok(data(json!({ "DataSet": lines })))
}
