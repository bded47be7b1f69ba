use super::Action;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, Gib, Zone};

/// Grows a detached disk.
#[derive(Debug)]
pub(crate) struct ResizeUDisk<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) id: &'a DiskId,
    pub(crate) size: Gib,
}

impl Action for ResizeUDisk<'_> {
    const NAME: &'static str = "ResizeUDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = ();

    fn params(&self, params: &mut Params) {
        params.text("Zone", self.zone.as_str());
        params.text("UDiskId", self.id.as_str());
        params.number("Size", self.size.get().into());
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
    fn the_new_size_is_sent() {
        let action = ResizeUDisk {
            zone: &Zone::parse("cn-bj2-05").unwrap(),
            id: &DiskId::parse("bsm-1").unwrap(),
            size: Gib::new(30),
        };
        assert_eq!(sent(&action), "Zone=cn-bj2-05 UDiskId=bsm-1 Size=30");
    }
}
