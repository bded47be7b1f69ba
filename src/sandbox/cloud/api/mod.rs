//! The API's actions. Each declares its parameters as a table and acts on the model.

mod attach;
mod clone;
mod create;
mod describe;
mod grow;
mod hosts;
mod names;
mod price;
mod problem;
mod regions;
mod remove;
mod snapshot;
mod snapshot_service;
mod table;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value};

pub use table::{ActionSpec, Kind, Param, Place};

pub(crate) use problem::Problem;

use problem::Verb;

use super::config::Quirks;
use super::model::{Disk, Refusal, World};
use super::request::Params;

/// The data of an answer, without the envelope.
pub(crate) type Data = Map<String, Value>;

pub(crate) type Act = fn(&mut Call<'_>) -> Result<Data, Problem>;

/// Every action that this cloud knows.
pub const ACTIONS: &[ActionSpec] = &[
    create::CREATE,
    create::CREATE_ATTACH,
    describe::DESCRIBE,
    attach::ATTACH,
    attach::DETACH,
    remove::DELETE,
    remove::DETACH_DELETE,
    remove::RENAME,
    grow::RESIZE,
    grow::RESIZE_ATTACHED,
    grow::RESIZE_PHOST_ATTACHED,
    hosts::DESCRIBE_UHOST,
    hosts::DESCRIBE_PHOST,
    snapshot::CREATE,
    snapshot::DESCRIBE,
    snapshot::DELETE,
    snapshot::RESTORE,
    clone::CLONE,
    clone::CLONE_SNAPSHOT,
    snapshot_service::CREATE,
    snapshot_service::DESCRIBE,
    snapshot_service::DELETE,
    price::DESCRIBE,
    regions::LIST_REGIONS,
    regions::LIST_ZONES,
];

/// A disk type's name in the hosts' API and metadata.
pub(crate) fn disk_type_of_hosts(kind: crate::volume::DiskType) -> &'static str {
    names::of(kind).cloud
}

/// What stays the same for all calls to one account.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account<'a> {
    pub(crate) region: &'a str,
    /// The first one is the default.
    pub(crate) projects: &'a [String],
    pub(crate) quirks: &'a Quirks,
    /// Unix time at which the cloud was started, in seconds.
    pub(crate) epoch: u64,
}

/// One call, with all that an action may look at.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) params: &'a Params,
    pub(crate) world: &'a mut World,
    pub(crate) account: Account<'a>,
    /// The zone that was given and checked.
    pub(crate) zone: Option<&'a str>,
    pub(crate) project: &'a str,
}

pub(crate) fn find(name: &str) -> Option<&'static ActionSpec> {
    ACTIONS.iter().find(|spec| spec.name == name)
}

/// Checks a signed request and does what it asks for.
pub(crate) fn run(
    spec: &ActionSpec,
    params: &Params,
    world: &mut World,
    account: Account<'_>,
) -> Result<Data, Problem> {
    match params.get("Region") {
        None if spec.place != Place::Anywhere => return Err(Problem::missing("Region")),
        Some(region) if region != account.region => return Err(Problem::not_available("Region")),
        None | Some(_) => {}
    }
    let zone = params.get("Zone");
    match zone {
        None if spec.place == Place::RegionAndZone => return Err(Problem::missing("Zone")),
        Some(zone) if !world.rules().zones.iter().any(|own| own.name == zone) => {
            return Err(Problem::not_available("Zone"));
        }
        None | Some(_) => {}
    }
    let default = account.projects.first().map_or("", String::as_str);
    let project = params.get("ProjectId").unwrap_or(default);
    if !account.projects.iter().any(|own| own == project) {
        return Err(Problem::new(292, "project not exist"));
    }
    spec.check(params)?;
    (spec.act)(&mut Call { params, world, account, zone, project })
}

impl Call<'_> {
    fn unix(&self, at: Duration) -> u64 {
        self.account.epoch + at.as_secs()
    }

    fn refused(&self, verb: Verb, refusal: &Refusal) -> Problem {
        Problem::refused(verb, refusal, self.account.quirks)
    }

    /// A disk that the call names, if it is one of this project and, when a zone is given, of that zone.
    fn disk(&self, verb: Verb, name: &str) -> Result<Disk, Problem> {
        self.world
            .disk(self.text(name))
            .filter(|disk| disk.project == self.project && self.zone.is_none_or(|zone| zone == disk.zone))
            .cloned()
            .ok_or_else(|| self.refused(verb, &Refusal::NoSuchDisk))
    }

    /// The host, by its newer or its retired parameter.
    fn host(&self) -> &str {
        self.get("HostId").or_else(|| self.get("UHostId")).unwrap_or_default()
    }

    fn offset_and_limit(&self) -> Result<(usize, usize), Problem> {
        let limit = self.number::<u32>("Limit").unwrap_or(20);
        if limit > self.world.rules().limits.page {
            return Err(Problem::not_available("Limit"));
        }
        Ok((self.number("Offset").unwrap_or(0), usize::try_from(limit).unwrap_or(usize::MAX)))
    }
}

/// One page of a listing, with the count of all of it.
fn page(key: &str, all: Vec<Value>, (offset, limit): (usize, usize)) -> Data {
    let mut data = Data::new();
    data.insert("TotalCount".to_owned(), all.len().into());
    data.insert(key.to_owned(), all.into_iter().skip(offset).take(limit).collect());
    data
}

/// An object that is built from `json!`.
fn data(value: Value) -> Data {
    match value {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Data::new(),
    }
}
