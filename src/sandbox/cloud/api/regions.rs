//! `ListRegions` and `ListZones`.

use serde_json::{Value, json};

use super::problem::Problem;
use super::table::{ActionSpec, Place};
use super::{Call, Data, data};

pub(super) const LIST_REGIONS: ActionSpec =
    ActionSpec { name: "ListRegions", place: Place::Anywhere, params: &[], one_of: &[], act: list_regions };

pub(super) const LIST_ZONES: ActionSpec =
    ActionSpec { name: "ListZones", place: Place::Region, params: &[], one_of: &[], act: list_zones };

fn list_regions(call: &mut Call<'_>) -> Result<Data, Problem> {
    let region = call.account.region;
    Ok(data(json!({ "Regions": [{ "Region": region, "RegionName": region }] })))
}

fn list_zones(call: &mut Call<'_>) -> Result<Data, Problem> {
    let region = call.account.region;
    let zones: Vec<Value> = call
        .world
        .rules()
        .zones
        .iter()
        .map(|zone| json!({ "Region": region, "Zone": zone.name, "ZoneName": zone.name }))
        .collect();
    Ok(data(json!({ "Zones": zones })))
}
