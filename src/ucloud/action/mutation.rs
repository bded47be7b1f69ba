//! Valid answers, damaged at random, through envelope and decoders: nothing panics, and nothing but a whole answer that
//! says so means "gone", "made" or "complete".

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::cloud::{Disk, DiskFilter, Host, NewDisk};
use crate::ucloud::decode::tests::any_json;
use crate::ucloud::envelope::{self, Reply};
use crate::ucloud::transport::HttpResponse;
use crate::volume::{ChargeType, DiskId, DiskType, Gib, HostId, Zone};

/// What happens to the bytes of an answer.
#[derive(Debug, Clone)]
enum Damage {
    Cut(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    /// Replaces the value at a random place of the tree.
    Replace(prop::sample::Index, Value),
    /// Removes the member or element at a random place.
    Drop(prop::sample::Index),
    /// Repeats the element of a list.
    Repeat(prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        1 => at().prop_map(Damage::Cut),
        1 => (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Flip(at, byte)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        1 => (at(), 1_usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
        4 => (at(), any_json()).prop_map(|(at, value)| Damage::Replace(at, value)),
        3 => at().prop_map(Damage::Drop),
        1 => at().prop_map(Damage::Repeat),
    ]
}

impl Damage {
    fn apply(&self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        match self {
            Self::Cut(at) => body.truncate(at.index(body.len())),
            Self::Flip(at, byte) => {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            Self::Insert(at, bytes) => {
                let at = at.index(body.len());
                body.splice(at..at, bytes.iter().copied());
            }
            Self::Remove(at, length) => {
                let at = at.index(body.len());
                body.drain(at..(at + length).min(body.len()));
            }
            Self::Replace(..) | Self::Drop(_) | Self::Repeat(_) => self.prune(body),
        }
    }

    /// Damage that leaves JSON.
    fn prune(&self, body: &mut Vec<u8>) {
        let Ok(mut tree) = serde_json::from_slice::<Value>(body) else { return };
        let (Self::Replace(at, _) | Self::Drop(at) | Self::Repeat(at)) = self else { return };
        let places = places(&tree);
        if places.is_empty() {
            return;
        }
        let place = &places[at.index(places.len())];
        let (parent, name) = place.rsplit_once('/').unwrap_or_default();
        match (self, tree.pointer_mut(parent)) {
            (Self::Replace(_, value), _) => {
                if let Some(found) = tree.pointer_mut(place) {
                    value.clone_into(found);
                }
            }
            (Self::Drop(_), Some(Value::Object(map))) => drop(map.remove(name)),
            (Self::Drop(_), Some(Value::Array(list))) => drop(list.remove(name.parse().unwrap_or_default())),
            (Self::Repeat(_), Some(Value::Array(list))) => list.push(list[0].clone()),
            _ => {}
        }
        *body = tree.to_string().into_bytes();
    }
}

/// The places of a tree, as JSON pointers.
fn places(tree: &Value) -> Vec<String> {
    fn walk(value: &Value, place: &str, places: &mut Vec<String>) {
        let mut enter = |name: String, value: &Value| {
            let place = format!("{place}/{name}");
            places.push(place.clone());
            walk(value, &place, places);
        };
        match value {
            Value::Object(map) => map.iter().for_each(|(name, value)| enter(name.clone(), value)),
            Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| enter(i.to_string(), value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut places = Vec::new();
    walk(tree, "", &mut places);
    places
}

/// An answer that is good for every action.
fn body() -> Value {
    json!({
        "RetCode": 0, "Action": "Response", "TotalCount": 1,
        "DataSet": [{"UDiskId": "bsm-1", "Zone": "cn-bj2-05", "Name": "pvc-1", "Size": 20, "Status": "InUse", "HostId": "uhost-1",
            "HostIP": "10.0.0.1", "DeviceName": "vdc", "DiskType": "SSDDataDisk", "IsBoot": "False", "CreateTime": 1}],
        "UHostSet": [{"UHostId": "uhost-1", "Zone": "cn-bj2-05", "State": "Running", "RdmaClusterId": "9002",
            "IPSet": [{"Type": "Private", "IP": "10.0.0.1", "Default": "true"}]}],
        "PHostSet": [{"PHostId": "upm-1", "PMStatus": "Running", "IPSet": [{"OperatorName": "Private", "IPAddr": "10.0.0.2"}]}],
        "UDiskId": ["bsm-1"], "NeedRestart": true
    })
}

/// What an action makes of an answer; `None`: it is none.
fn read<A: Action>(action: &A, answer: &HttpResponse) -> Option<A::Answer> {
    match envelope::open(answer, Some(&str::to_owned)) {
        Reply::Done(body) => action.answer(&Fields::new(A::NAME, &body)).ok(),
        Reply::Refused { code, gateway: false, .. } => action.refused(code),
        Reply::Refused { .. } | Reply::Strange(_) => None,
    }
}

/// Whether an answer says in whole that a set is empty, or that the thing is unknown.
fn says_gone(answer: &HttpResponse, set: &str) -> bool {
    let Ok(body) = serde_json::from_slice::<Map<String, Value>>(&answer.body) else { return false };
    let number = |name: &str| match body.get(name) {
        Some(Value::String(text)) => text.trim().parse().ok(),
        Some(value) => value.as_f64(),
        None => None,
    };
    let empty = matches!(body.get(set), Some(Value::Null)) || body.get(set) == Some(&json!([]));
    match number("RetCode") {
        Some(0.0) => empty && number("TotalCount") == Some(0.0),
        Some(code) => [17041.0, 54002.0, 16001.0].contains(&code),
        None => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_answers_never_say_more_than_they_hold(damages in prop::collection::vec(damage(), 1..4)) {
        let mut body = body().to_string().into_bytes();
        damages.iter().for_each(|damage| damage.apply(&mut body));
        let answer = HttpResponse { status: 200, request_id: None, body };
        let text = || String::from_utf8_lossy(&answer.body).into_owned();

        let (disk, virtual_host, metal) =
            (DiskId::parse("bsm-1").unwrap(), HostId::parse("uhost-1").unwrap(), HostId::parse("upm-1").unwrap());
        match read(&DescribeUDisk { id: &disk }, &answer) {
            Some(None) => prop_assert!(says_gone(&answer, "DataSet"), "{}", text()),
            Some(Some(Disk { id, .. })) => prop_assert_eq!(id, disk.clone()),
            None => {}
        }
        let hosts: [(Option<Option<Host>>, &HostId, &str); 2] = [
            (read(&DescribeUHostInstance { id: &virtual_host }, &answer), &virtual_host, "UHostSet"),
            (read(&DescribePHost { id: &metal }, &answer), &metal, "PHostSet"),
        ];
        for (found, wanted, set) in hosts {
            match found {
                Some(None) => prop_assert!(says_gone(&answer, set), "{}", text()),
                Some(Some(Host { id, .. })) => prop_assert_eq!(&id, wanted),
                None => {}
            }
        }
        let entries = |set: &str| {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            body.get(set).and_then(Value::as_array).map_or(0, Vec::len)
        };
        let filter = DiskFilter::default();
        if let Some(page) = read(&DescribeUDisks { filter: &filter, offset: 0, limit: 100 }, &answer) {
            prop_assert_eq!(page.disks.len(), entries("DataSet"), "{}", text());
        }
        if let Some(page) = read(&DescribeUHostInstances { vpc_id: None, offset: 0, limit: 100 }, &answer) {
            prop_assert_eq!(page.hosts.len(), entries("UHostSet"), "{}", text());
        }
        if let Some(page) = read(&DescribePHosts { vpc_id: None, offset: 0, limit: 100 }, &answer) {
            prop_assert_eq!(page.hosts.len(), entries("PHostSet"), "{}", text());
        }
        let zone = Zone::parse("cn-bj2-05").unwrap();
        let new = NewDisk {
            zone: zone.clone(),
            name: "pvc-1".into(),
            size: Gib::new(20),
            disk_type: DiskType::Ssd,
            charge_type: ChargeType::Dynamic,
            quantity: None,
            data_ark: false,
            tag: None,
            cmk_id: None,
            rdma_cluster: None,
        };
        if let Some(id) = read(&CreateUDisk { disk: &new }, &answer) {
            prop_assert!(text().contains(id.as_str()), "{} is not in {}", id, text());
        }
        let size = Gib::new(30);
        let grown = read(&ResizeAttachedDisk { zone: &zone, id: &disk, host: &virtual_host, size }, &answer);
        if grown == Some(crate::cloud::Grown::NeedsRestart) {
            prop_assert!(text().contains("NeedRestart"), "{}", text());
        }
        let _ = read(&DeleteUDisk { zone: &zone, id: &disk }, &answer);
    }
}
