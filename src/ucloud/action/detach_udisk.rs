use super::Action;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, HostId, Zone};

/// Starts a detachment.
#[derive(Debug)]
pub(crate) struct DetachUDisk<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) id: &'a DiskId,
    pub(crate) host: &'a HostId,
}

impl Action for DetachUDisk<'_> {
    const NAME: &'static str = "DetachUDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = ();

    fn params(&self, params: &mut Params) {
        params.text("Zone", self.zone.as_str());
        params.text("UDiskId", self.id.as_str());
        params.text("HostId", self.host.as_str());
    }

    fn answer(&self, _: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sent;
    use super::*;

    #[test]
    fn disk_and_host_are_named() {
        let action = DetachUDisk {
            zone: &Zone::parse("cn-bj2-05").unwrap(),
            id: &DiskId::parse("bsm-1").unwrap(),
            host: &HostId::parse("upm-1").unwrap(),
        };
        assert_eq!(sent(&action), "Zone=cn-bj2-05 UDiskId=bsm-1 HostId=upm-1");
    }
}
