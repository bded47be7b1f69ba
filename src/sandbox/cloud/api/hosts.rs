//! `DescribeUHostInstance` and `DescribePHost`.

use serde_json::{Value, json};

use super::names;
use super::problem::Problem;
use super::table::{ActionSpec, COUNT, Kind, Place, optional};
use super::{Call, Data, page};
use crate::sandbox::cloud::model::{Device, Disk, Host};

pub(super) const DESCRIBE_UHOST: ActionSpec = ActionSpec {
    name: "DescribeUHostInstance",
    place: Place::Region,
    params: &[&[
        optional("UHostIds", Kind::List),
        optional("Tag", Kind::Text),
        optional("Offset", COUNT),
        optional("Limit", COUNT),
        optional("IsolationGroup", Kind::Text),
        optional("VPCId", Kind::Text),
        optional("SubnetId", Kind::Text),
        optional("UDiskIdForAttachment", Kind::Text),
    ]],
    one_of: &[],
    act: describe_uhost,
};

pub(super) const DESCRIBE_PHOST: ActionSpec = ActionSpec {
    name: "DescribePHost",
    place: Place::Region,
    params: &[&[
        optional("PHostId", Kind::List),
        optional("Offset", COUNT),
        optional("Limit", COUNT),
        optional("VPCId", Kind::Text),
        optional("UDiskIdForAttachment", Kind::Text),
    ]],
    one_of: &[],
    act: describe_phost,
};

const VPC: &str = "uvnet-sandbox";
const SUBNET: &str = "subnet-sandbox";

fn describe_uhost(call: &mut Call<'_>) -> Result<Data, Problem> {
    let elsewhere = ["VPCId", "SubnetId"]
        .iter()
        .zip([VPC, SUBNET])
        .any(|(name, own)| call.get(name).is_some_and(|wanted| wanted != own));
    let untagged = call.get("Tag").is_none_or(|tag| tag == "Default") && call.get("IsolationGroup").is_none();
    let hosts = listed(call, "UHostIds", false)
        .filter(|_| untagged && !elsewhere)
        .map(|host| uhost(call, host))
        .collect();
    Ok(page("UHostSet", hosts, call.offset_and_limit()?))
}

fn describe_phost(call: &mut Call<'_>) -> Result<Data, Problem> {
    let elsewhere = call.get("VPCId").is_some_and(|wanted| wanted != VPC);
    let hosts = listed(call, "PHostId", true).filter(|_| !elsewhere).map(|host| phost(call, host)).collect();
    Ok(page("PHostSet", hosts, call.offset_and_limit()?))
}

fn listed<'a>(call: &'a Call<'_>, ids: &str, bare_metal: bool) -> impl Iterator<Item = &'a Host> {
    let ids = call.params.list(ids);
    call.world
        .hosts()
        .filter(move |host| host.spec.bare_metal() == bare_metal && host.spec.project == call.project)
        .filter(move |host| ids.is_empty() || ids.contains(&host.spec.id.as_str()))
        .filter(move |host| call.zone.is_none_or(|zone| zone == host.spec.zone))
        .filter(move |host| {
            call.get("UDiskIdForAttachment").is_none_or(|id| {
                call.world.disk(id).is_some_and(|disk| call.world.could_attach(disk, &host.spec.id))
            })
        })
}

fn disks<'a>(call: &'a Call<'_>, host: &'a Host) -> impl Iterator<Item = (Device, &'a Disk)> {
    std::iter::once((Device::SYSTEM, &host.system_disk))
        .chain(host.disks.iter().map(|(device, id)| (*device, id)))
        .filter_map(|(device, id)| Some((device, call.world.disk(id)?)))
}

fn uhost(call: &Call<'_>, host: &Host) -> Value {
    let spec = &host.spec;
    let set: Vec<Value> = disks(call, host)
        .map(|(device, disk)| {
            json!({
                "DiskType": names::of(disk.kind).cloud,
                "IsBoot": if disk.boot { "True" } else { "False" },
                "Encrypted": if disk.key.is_some() { "true" } else { "false" },
                "Type": if disk.boot { "Boot" } else { "Udisk" },
                "DiskId": disk.id,
                "Name": disk.name,
                "Drive": format!("/dev/{device}"),
                "Size": disk.size.get(),
                "BackupType": "NONE",
            })
        })
        .collect();
    let total: u32 = disks(call, host).map(|(_, disk)| disk.size.get()).sum();
    json!({
        "Zone": spec.zone,
        "UHostId": spec.id,
        "UHostType": spec.machine_type,
        "MachineType": spec.machine_type,
        "CpuPlatform": "Intel/Auto",
        "UHostFamily": "o1i",
        "Name": spec.name,
        "Tag": "Default",
        "Remark": "",
        "State": spec.state.word(),
        "CreateTime": call.unix(std::time::Duration::ZERO),
        "ExpireTime": 0,
        "ChargeType": "Dynamic",
        "CPU": 4,
        "Memory": 8192,
        "DiskSet": set,
        "IPSet": [{
            "IPMode": "IPv4",
            "Default": "true",
            "Mac": "52:54:00:00:00:01",
            "Type": "Private",
            "IP": spec.ip,
            "IPId": "",
            "VPCId": VPC,
            "SubnetId": SUBNET,
            "NetworkInterfaceId": "",
            "Weight": 0,
            "Bandwidth": 0,
        }],
        "NetCapability": "Normal",
        "OsName": "Ubuntu 22.04 64",
        "OsType": "Linux",
        "GPU": 0,
        "BootDiskState": "Normal",
        "TotalDiskSpace": total,
        "IsolationGroup": "",
        "RdmaClusterId": spec.rdma_cluster,
        "HotplugFeature": false,
        "CloudInitFeature": true,
        "IPv6Feature": false,
    })
}

fn phost(call: &Call<'_>, host: &Host) -> Value {
    let spec = &host.spec;
    let set: Vec<Value> = disks(call, host)
        .map(|(device, disk)| {
            json!({
                "Drive": device.to_string(),
                "DiskId": disk.id,
                "Name": disk.name,
                "Type": names::of(disk.kind).cloud,
                "Space": disk.size.get(),
                "IsBoot": if disk.boot { "True" } else { "False" },
            })
        })
        .collect();
    json!({
        "Zone": spec.zone,
        "PHostId": spec.id,
        "Name": spec.name,
        "PMStatus": spec.state.word(),
        "PhostClass": "CloudDisk",
        "PHostType": spec.machine_type,
        "RdmaClusterId": spec.rdma_cluster,
        "CreateTime": call.unix(std::time::Duration::ZERO),
        "ChargeType": "Dynamic",
        "DiskSet": set,
        "IPSet": [{ "IPAddr": spec.ip, "OperatorName": "Private", "VPCId": VPC, "SubnetId": SUBNET }],
    })
}
