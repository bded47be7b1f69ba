use super::Action;
use crate::cloud::NewDisk;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{ChargeType, DiskId, DiskType};

/// Makes a disk. The API has no token by which a second request could be told from a repeated one.
#[derive(Debug)]
pub(crate) struct CreateUDisk<'a> {
    pub(crate) disk: &'a NewDisk,
}

impl Action for CreateUDisk<'_> {
    const NAME: &'static str = "CreateUDisk";
    const FACTS: Facts = Facts::CHANGE;
    type Answer = DiskId;

    fn params(&self, params: &mut Params) {
        let disk = self.disk;
        params.text("Zone", disk.zone.as_str());
        params.text("Name", &disk.name);
        params.number("Size", disk.size.get().into());
        params.text("DiskType", type_word(disk.disk_type));
        params.text("ChargeType", charge_word(disk.charge_type));
        if let Some(quantity) = disk.quantity {
            params.number("Quantity", quantity.into());
        }
        // Closed for new users, whose requests may be refused for naming it.
        if disk.data_ark {
            params.yes_no("UDataArkMode", true);
        }
        params.optional("Tag", disk.tag.as_deref());
        if let Some(key) = &disk.cmk_id {
            params.yes_no("UKmsMode", true);
            params.text("CmkId", key);
        }
        params.optional("RdmaClusterId", disk.rdma_cluster.as_deref());
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        let id = fields.single_id("UDiskId")?;
        DiskId::parse(&id).map_err(|problem| fields.error(format!("UDiskId {problem}")))
    }
}

/// The API's name of a disk type.
pub(super) fn type_word(disk_type: DiskType) -> &'static str {
    match disk_type {
        DiskType::Sata => "DataDisk",
        DiskType::Ssd => "SSDDataDisk",
        DiskType::Essd => "ESSDDataDisk",
        DiskType::Rssd => "RSSDDataDisk",
        DiskType::Erssd => "ERSSDDataDisk",
        DiskType::Efficiency => "EfficiencyDataDisk",
    }
}

fn charge_word(charge_type: ChargeType) -> &'static str {
    match charge_type {
        ChargeType::Dynamic => "Dynamic",
        ChargeType::Month => "Month",
        ChargeType::Year => "Year",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{answer, sent};
    use super::*;
    use crate::volume::{Gib, Zone};

    fn plain() -> NewDisk {
        NewDisk {
            zone: Zone::parse("cn-bj2-05").unwrap(),
            name: "pvc-1".into(),
            size: Gib::new(20),
            disk_type: DiskType::Ssd,
            charge_type: ChargeType::Dynamic,
            quantity: None,
            data_ark: false,
            tag: None,
            cmk_id: None,
            rdma_cluster: None,
        }
    }

    #[test]
    fn only_what_is_wanted_is_sent() {
        let disk = plain();
        assert_eq!(
            sent(&CreateUDisk { disk: &disk }),
            "Zone=cn-bj2-05 Name=pvc-1 Size=20 DiskType=SSDDataDisk ChargeType=Dynamic"
        );
        let disk = NewDisk {
            disk_type: DiskType::Rssd,
            charge_type: ChargeType::Month,
            quantity: Some(3),
            data_ark: true,
            tag: Some("team".into()),
            cmk_id: Some("kms-1".into()),
            rdma_cluster: Some("9002".into()),
            ..disk
        };
        assert_eq!(
            sent(&CreateUDisk { disk: &disk }),
            "Zone=cn-bj2-05 Name=pvc-1 Size=20 DiskType=RSSDDataDisk ChargeType=Month Quantity=3 UDataArkMode=Yes \
             Tag=team UKmsMode=Yes CmkId=kms-1 RdmaClusterId=9002"
        );
    }

    #[test]
    fn every_type_has_a_word_that_reads_back() {
        let words: std::collections::BTreeSet<_> = DiskType::ALL.into_iter().map(type_word).collect();
        assert_eq!(words.len(), DiskType::ALL.len());
    }

    #[test]
    fn exactly_one_id_is_an_answer() {
        let disk = plain();
        let action = CreateUDisk { disk: &disk };
        let id = DiskId::parse("bsm-1").unwrap();
        assert_eq!(answer(&action, &json!({"RetCode": 0, "UDiskId": ["bsm-1"]})), Ok(id.clone()));
        assert_eq!(answer(&action, &json!({"RetCode": 0, "UDiskId": "bsm-1"})), Ok(id));
        for body in [
            json!({"RetCode": 0}),
            json!({"UDiskId": []}),
            json!({"UDiskId": ["bsm-1", "bsm-2"]}),
            json!({"UDiskId": "a/b"}),
        ] {
            let error = answer(&action, &body).unwrap_err().to_string();
            assert!(error.contains("CreateUDisk") && error.contains("UDiskId"), "{error}");
        }
    }
}
