use super::Action;
use crate::cloud::Grown;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, Gib, HostId, Zone};

/// Grows a disk of a bare-metal host while it is attached.
#[derive(Debug)]
pub(crate) struct ResizePHostAttachedDisk<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) id: &'a DiskId,
    pub(crate) host: &'a HostId,
    pub(crate) size: Gib,
}

impl Action for ResizePHostAttachedDisk<'_> {
    const NAME: &'static str = "ResizePHostAttachedDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = Grown;

    fn params(&self, params: &mut Params) {
        params.text("Zone", self.zone.as_str());
        params.text("PHostId", self.host.as_str());
        params.text("UDiskId", self.id.as_str());
        params.number("DiskSpace", self.size.get().into());
    }

    /// The documentation knows of no restart here.
    fn answer(&self, _: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        Ok(Grown::Online)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sent;
    use super::*;

    #[test]
    fn host_disk_and_size_are_sent() {
        let action = ResizePHostAttachedDisk {
            zone: &Zone::parse("cn-bj2-05").unwrap(),
            id: &DiskId::parse("bsm-1").unwrap(),
            host: &HostId::parse("upm-1").unwrap(),
            size: Gib::new(30),
        };
        assert_eq!(sent(&action), "Zone=cn-bj2-05 PHostId=upm-1 UDiskId=bsm-1 DiskSpace=30");
    }
}
