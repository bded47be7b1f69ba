use std::net::IpAddr;

use super::{Action, page};
use crate::cloud::{Host, HostPage};
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{HostId, Zone};

const NAME: &str = "DescribePHost";

/// "Not found" of bare metal, and of all products.
const UNKNOWN: [i64; 2] = [16001, 54002];

/// Reads one bare-metal host.
#[derive(Debug)]
pub(crate) struct DescribePHost<'a> {
    pub(crate) id: &'a HostId,
}

impl Action for DescribePHost<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = Option<Host>;

    fn params(&self, params: &mut Params) {
        params.text("PHostId.0", self.id.as_str());
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        fields.set("PHostSet")?.single(self.id.as_str(), host, |host| host.id.as_str())
    }

    fn refused(&self, ret_code: i64) -> Option<Self::Answer> {
        UNKNOWN.contains(&ret_code).then_some(None)
    }
}

/// Reads one page of bare-metal hosts.
#[derive(Debug)]
pub(crate) struct DescribePHosts<'a> {
    pub(crate) vpc_id: Option<&'a str>,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

impl Action for DescribePHosts<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = HostPage;

    fn params(&self, params: &mut Params) {
        params.optional("VPCId", self.vpc_id);
        page(params, self.offset, self.limit);
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        let set = fields.set("PHostSet")?;
        let hosts = set.entries.iter().map(host).collect::<Result<_, _>>()?;
        Ok(HostPage { total: set.total()?, hosts })
    }
}

fn host(fields: &Fields<'_>) -> Result<Host, DecodeError> {
    Ok(Host {
        id: fields.required_parsed("PHostId", HostId::parse)?,
        zone: fields.parsed("Zone", Zone::parse)?,
        state: fields.required_or_empty("PMStatus")?,
        machine_type: fields.text("PHostType")?,
        private_ips: private_ips(fields)?,
        rdma_cluster: fields.text("RdmaClusterId")?,
    })
}

/// The set mixes private and public addresses and does not always say which is which; a node's name is private.
fn private_ips(fields: &Fields<'_>) -> Result<Vec<IpAddr>, DecodeError> {
    let addresses = fields.objects("IPSet")?.into_iter().filter_map(|address| {
        let ip: IpAddr = address.remark("IPAddr")?.parse().ok()?;
        let says_private =
            address.remark("OperatorName").is_some_and(|name| name.eq_ignore_ascii_case("private"));
        (says_private || is_private(ip)).then_some(ip)
    });
    Ok(addresses.collect())
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::testing::{answer, sent};
    use super::*;
    use crate::ucloud::decode::tests::any_json;

    fn id() -> HostId {
        HostId::parse("upm-1").unwrap()
    }

    fn running() -> Value {
        json!({
            "Zone": "cn-sh2-02", "PHostId": "upm-1", "PMStatus": "Running", "PhostClass": "CloudDisk",
            "PHostType": "Cloud-A", "RdmaClusterId": "9002", "DiskSet": [],
            "IPSet": [{"IPAddr": "10.9.1.2", "VPCId": "uvnet-1"}, {"IPAddr": "117.50.1.1"}, {"OperatorName": "Private", "IPAddr": "30.1.1.1"}]
        })
    }

    #[test]
    fn a_host_is_asked_for_and_read() {
        let action = DescribePHost { id: &id() };
        assert_eq!(sent(&action), "PHostId.0=upm-1");
        let expected = Host {
            id: id(),
            zone: Some(Zone::parse("cn-sh2-02").unwrap()),
            state: "Running".into(),
            machine_type: Some("Cloud-A".into()),
            private_ips: vec!["10.9.1.2".parse().unwrap(), "30.1.1.1".parse().unwrap()],
            rdma_cluster: Some("9002".into()),
        };
        assert_eq!(answer(&action, &json!({"TotalCount": 1, "PHostSet": [running()]})), Ok(Some(expected)));
    }

    #[test]
    fn only_an_empty_set_or_its_number_means_gone() {
        let action = DescribePHost { id: &id() };
        assert_eq!(answer(&action, &json!({"TotalCount": 0, "PHostSet": []})), Ok(None));
        assert_eq!(action.refused(16001), Some(None));
        assert_eq!(action.refused(17041), None);
        for body in [
            json!({}),
            json!({"PHostSet": [{"PHostId": "upm-2", "PMStatus": "Running"}]}),
            json!({"PHostSet": [{}]}),
        ] {
            assert!(answer(&action, &body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_page_is_of_the_vpc() {
        let action = DescribePHosts { vpc_id: Some("uvnet-1"), offset: 0, limit: 0 };
        assert_eq!(sent(&action), "VPCId=uvnet-1 Offset=0 Limit=1");
        let page = answer(&action, &json!({"TotalCount": 7, "PHostSet": [running()]})).unwrap();
        assert_eq!((page.total, page.hosts.len()), (7, 1));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(body in any_json()) {
            if body.is_object() {
                let _ = answer(&DescribePHost { id: &id() }, &body);
            }
        }
    }
}
