use std::net::IpAddr;

use super::{Action, page};
use crate::cloud::{Host, HostPage};
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{HostId, Zone};

const NAME: &str = "DescribeUHostInstance";

/// The number of "not found" for all products.
const UNKNOWN: i64 = 54002;

/// Reads one virtual machine.
#[derive(Debug)]
pub(crate) struct DescribeUHostInstance<'a> {
    pub(crate) id: &'a HostId,
}

impl Action for DescribeUHostInstance<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = Option<Host>;

    fn params(&self, params: &mut Params) {
        params.text("UHostIds.0", self.id.as_str());
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        fields.set("UHostSet")?.single(self.id.as_str(), host, |host| host.id.as_str())
    }

    fn refused(&self, ret_code: i64) -> Option<Self::Answer> {
        (ret_code == UNKNOWN).then_some(None)
    }
}

/// Reads one page of virtual machines. There is no filter by address.
#[derive(Debug)]
pub(crate) struct DescribeUHostInstances<'a> {
    pub(crate) vpc_id: Option<&'a str>,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

impl Action for DescribeUHostInstances<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = HostPage;

    fn params(&self, params: &mut Params) {
        params.optional("VPCId", self.vpc_id);
        page(params, self.offset, self.limit);
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        let set = fields.set("UHostSet")?;
        let hosts = set.entries.iter().map(host).collect::<Result<_, _>>()?;
        Ok(HostPage { total: set.total()?, hosts })
    }
}

fn host(fields: &Fields<'_>) -> Result<Host, DecodeError> {
    Ok(Host {
        id: fields.required_parsed("UHostId", HostId::parse)?,
        zone: fields.parsed("Zone", Zone::parse)?,
        // Documented to be empty at times.
        state: fields.required_or_empty("State")?,
        machine_type: fields.text("MachineType")?,
        private_ips: private_ips(fields)?,
        rdma_cluster: fields.text("RdmaClusterId")?,
    })
}

/// The private addresses, that of the default interface first: it is the node's name.
fn private_ips(fields: &Fields<'_>) -> Result<Vec<IpAddr>, DecodeError> {
    let mut found = Vec::new();
    for address in fields.objects("IPSet")? {
        let private = address.remark("Type").is_some_and(|kind| kind.eq_ignore_ascii_case("private"));
        if private && let Some(ip) = address.remark("IP").and_then(|ip| ip.parse().ok()) {
            found.push((address.switch("Default")? != Some(true), ip));
        }
    }
    found.sort_by_key(|(other, _)| *other);
    Ok(found.into_iter().map(|(_, ip)| ip).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::testing::{answer, sent};
    use super::*;
    use crate::ucloud::decode::tests::any_json;

    fn id() -> HostId {
        HostId::parse("uhost-1").unwrap()
    }

    fn running() -> Value {
        json!({
            "Zone": "cn-bj2-05", "UHostId": "uhost-1", "UHostType": "N3", "MachineType": "OM", "Name": "node",
            "State": "Running", "CPU": 4, "Memory": 8192, "RdmaClusterId": "9002", "HotplugFeature": true,
            "DiskSet": [{"DiskType": "CLOUD_RSSD", "IsBoot": "True", "DiskId": "bsi-1", "Drive": "/dev/vda", "Size": 40}],
            "IPSet": [
                {"IPMode": "IPv4", "Default": "false", "Type": "Private", "IP": "10.9.0.7", "VPCId": "uvnet-1"},
                {"IPMode": "IPv4", "Default": "true", "Type": "Private", "IP": "10.9.184.108", "VPCId": "uvnet-1"},
                {"Type": "Bgp", "IP": "117.50.1.1", "Bandwidth": 10}
            ]
        })
    }

    fn read(body: &Value) -> Result<Option<Host>, DecodeError> {
        answer(&DescribeUHostInstance { id: &id() }, body)
    }

    #[test]
    fn a_host_is_asked_for_and_read() {
        assert_eq!(sent(&DescribeUHostInstance { id: &id() }), "UHostIds.0=uhost-1");
        let expected = Host {
            id: id(),
            zone: Some(Zone::parse("cn-bj2-05").unwrap()),
            state: "Running".into(),
            machine_type: Some("OM".into()),
            private_ips: vec!["10.9.184.108".parse().unwrap(), "10.9.0.7".parse().unwrap()],
            rdma_cluster: Some("9002".into()),
        };
        assert_eq!(read(&json!({"TotalCount": 1, "UHostSet": [running()]})), Ok(Some(expected)));
        let sparse =
            json!({"TotalCount": 1, "UHostSet": [{"UHostId": "uhost-1", "State": "", "IPSet": null}]});
        let host = read(&sparse).unwrap().unwrap();
        assert_eq!((host.zone, host.private_ips, host.rdma_cluster), (None, vec![], None));
    }

    #[test]
    fn only_an_empty_set_means_gone() {
        assert_eq!(read(&json!({"TotalCount": 0, "UHostSet": []})), Ok(None));
        assert_eq!(DescribeUHostInstance { id: &id() }.refused(54002), Some(None));
        assert_eq!(DescribeUHostInstance { id: &id() }.refused(8300), None);
        for body in [
            json!({}),
            json!({"UHostSet": [{"UHostId": "uhost-2", "State": ""}]}),
            json!({"UHostSet": [{"UHostId": "uhost-1"}]}),
        ] {
            assert!(read(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_page_is_of_the_vpc() {
        let all = DescribeUHostInstances { vpc_id: None, offset: 0, limit: 1000 };
        assert_eq!(sent(&all), "Offset=0 Limit=100");
        let vpc = DescribeUHostInstances { vpc_id: Some("uvnet-1"), offset: 100, limit: 50 };
        assert_eq!(sent(&vpc), "VPCId=uvnet-1 Offset=100 Limit=50");
        let page = answer(&vpc, &json!({"TotalCount": 101, "UHostSet": [running()]})).unwrap();
        assert_eq!((page.total, page.hosts.len()), (101, 1));
        assert!(answer(&vpc, &json!({"UHostSet": [running()]})).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_never_gone_and_never_another_host(body in any_json()) {
            let Value::Object(map) = &body else { return Ok(()) };
            let says_empty = match map.get("UHostSet") {
                Some(Value::Array(set)) => set.is_empty(),
                Some(Value::Null) => map.get("TotalCount").is_some_and(|total| !total.is_null()),
                _ => false,
            };
            match read(&body) {
                Ok(None) => prop_assert!(says_empty, "{body}"),
                Ok(Some(host)) => prop_assert_eq!(host.id, id()),
                Err(_) => {}
            }
        }
    }
}
