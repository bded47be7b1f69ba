use super::Action;
use crate::cloud::Attachment;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;

/// Starts an attachment. The answer names a slot, but only a disk that is in use has it for sure, so it is read
/// from the disk.
#[derive(Debug)]
pub(crate) struct AttachUDisk<'a> {
    pub(crate) attachment: &'a Attachment,
}

impl Action for AttachUDisk<'_> {
    const NAME: &'static str = "AttachUDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = ();

    fn params(&self, params: &mut Params) {
        let attachment = self.attachment;
        params.text("Zone", attachment.zone.as_str());
        params.text("UDiskId", attachment.disk.as_str());
        params.text("HostId", attachment.host.as_str());
        if let Some(multi_attach) = attachment.multi_attach {
            params.yes_no("MultiAttach", multi_attach);
        }
        if attachment.cross_pod {
            params.yes_no("EnableCrossPodAttach", true);
        }
    }

    fn answer(&self, _: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::sent;
    use super::*;
    use crate::volume::{DiskId, HostId, Zone};

    #[test]
    fn switches_are_sent_only_when_they_are_asked_for() {
        let attachment = |multi_attach, cross_pod| Attachment {
            disk: DiskId::parse("bsm-1").unwrap(),
            host: HostId::parse("uhost-1").unwrap(),
            zone: Zone::parse("cn-bj2-05").unwrap(),
            multi_attach,
            cross_pod,
        };
        let plain = "Zone=cn-bj2-05 UDiskId=bsm-1 HostId=uhost-1";
        for (multi_attach, cross_pod, more) in [
            (None, false, ""),
            (Some(false), false, " MultiAttach=No"),
            (Some(true), false, " MultiAttach=Yes"),
            (Some(false), true, " MultiAttach=No EnableCrossPodAttach=Yes"),
        ] {
            let attachment = attachment(multi_attach, cross_pod);
            assert_eq!(sent(&AttachUDisk { attachment: &attachment }), format!("{plain}{more}"));
        }
    }
}
