use super::Action;
use crate::cloud::Grown;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, Gib, HostId, Zone};

/// Grows a disk of a virtual machine while it is attached. Sizes go in steps of 10.
#[derive(Debug)]
pub(crate) struct ResizeAttachedDisk<'a> {
    pub(crate) zone: &'a Zone,
    pub(crate) id: &'a DiskId,
    pub(crate) host: &'a HostId,
    pub(crate) size: Gib,
}

impl Action for ResizeAttachedDisk<'_> {
    const NAME: &'static str = "ResizeAttachedDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = Grown;

    fn params(&self, params: &mut Params) {
        params.text("Zone", self.zone.as_str());
        params.text("UHostId", self.host.as_str());
        params.text("DiskId", self.id.as_str());
        params.number("DiskSpace", self.size.get().into());
    }

    /// Without the field nothing needs a restart: encoders leave out what is false. The node waits for the new size
    /// in any case.
    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        Ok(match fields.switch("NeedRestart")? {
            Some(true) => Grown::NeedsRestart,
            Some(false) | None => Grown::Online,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{answer, sent};
    use super::*;

    #[test]
    fn the_need_of_a_restart_is_read() {
        let action = ResizeAttachedDisk {
            zone: &Zone::parse("cn-bj2-05").unwrap(),
            id: &DiskId::parse("bsm-1").unwrap(),
            host: &HostId::parse("uhost-1").unwrap(),
            size: Gib::new(30),
        };
        assert_eq!(sent(&action), "Zone=cn-bj2-05 UHostId=uhost-1 DiskId=bsm-1 DiskSpace=30");
        for (body, expected) in [
            (json!({"DiskId": "bsm-1", "NeedRestart": false}), Grown::Online),
            (json!({"DiskId": "bsm-1"}), Grown::Online),
            (json!({"NeedRestart": true}), Grown::NeedsRestart),
            (json!({"NeedRestart": "True"}), Grown::NeedsRestart),
        ] {
            assert_eq!(answer(&action, &body), Ok(expected), "{body}");
        }
        let error = answer(&action, &json!({"NeedRestart": ["x"]})).unwrap_err().to_string();
        assert!(error.contains("ResizeAttachedDisk") && error.contains("NeedRestart"), "{error}");
    }
}
