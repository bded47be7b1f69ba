use super::Action;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, Zone};

/// Deletes a detached disk, for good: there is no recycle bin.
#[derive(Debug)]
pub(crate) struct DeleteUDisk<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) id: &'a DiskId,
}

impl Action for DeleteUDisk<'_> {
    const NAME: &'static str = "DeleteUDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = ();

    fn params(&self, params: &mut Params) {
        params.text("Zone", self.zone.as_str());
        params.text("UDiskId", self.id.as_str());
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
    fn zone_and_disk_are_named() {
        let action =
            DeleteUDisk { zone: &Zone::parse("cn-bj2-05").unwrap(), id: &DiskId::parse("bsm-1").unwrap() };
        assert_eq!(sent(&action), "Zone=cn-bj2-05 UDiskId=bsm-1");
    }
}
