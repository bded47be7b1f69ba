use super::Action;
use super::create_udisk::type_word;
use crate::cloud::PriceClass;
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;

/// What the API calls the disk itself, beside its snapshots and the data ark.
const OF_DISK: &str = "UDisk";

/// Asks what one period of a disk costs, in hundredths of a yuan.
#[derive(Debug)]
pub(crate) struct DescribeUDiskPrice<'a> {
    pub(crate) class: &'a PriceClass,
}

impl Action for DescribeUDiskPrice<'_> {
    const NAME: &'static str = "DescribeUDiskPrice";
    const FACTS: Facts = Facts::READ;
    type Answer = u64;

    fn params(&self, params: &mut Params) {
        let class = self.class;
        params.text("Zone", class.zone.as_str());
        params.number("Size", class.size.get().into());
        params.text("DiskType", type_word(class.disk_type));
        params.text("ChargeType", &class.charge_type);
        params.number("Quantity", 1);
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        for line in fields.objects("DataSet")? {
            let same = line.remark("ChargeType").is_none_or(|word| word == self.class.charge_type);
            if same && line.remark("ChargeName").as_deref() == Some(OF_DISK) {
                return line.required_number("Price");
            }
        }
        Err(fields.error(format!("names no price of {OF_DISK} with ChargeType {}", self.class.charge_type)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{answer, sent};
    use super::*;
    use crate::volume::{DiskType, Gib, Zone};

    fn class() -> PriceClass {
        PriceClass {
            zone: Zone::parse("cn-bj2-05").unwrap(),
            size: Gib::new(20),
            disk_type: DiskType::Rssd,
            charge_type: "Month".into(),
        }
    }

    #[test]
    fn one_period_of_the_disk_is_asked_for() {
        let class = class();
        assert_eq!(
            sent(&DescribeUDiskPrice { class: &class }),
            "Zone=cn-bj2-05 Size=20 DiskType=RSSDDataDisk ChargeType=Month Quantity=1"
        );
    }

    #[test]
    fn the_price_is_that_of_the_disk_and_of_its_charge_type() {
        let class = class();
        let action = DescribeUDiskPrice { class: &class };
        let line = |charge: &str, name: &str, price: u64| json!({"ChargeType": charge, "ChargeName": name, "Price": price});
        let set = json!({"DataSet": [line("Month", "SnapshotService", 3), line("Year", "UDisk", 9), line("Month", "UDisk", 7)]});
        assert_eq!(answer(&action, &set), Ok(7));
        let bare = json!({"DataSet": [{"ChargeName": "UDisk", "Price": "7"}]});
        assert_eq!(answer(&action, &bare), Ok(7));
        for body in [
            json!({}),
            json!({"DataSet": []}),
            json!({"DataSet": [line("Year", "UDisk", 9)]}),
            json!({"DataSet": [{"ChargeName": "UDisk", "Price": -7}]}),
        ] {
            assert!(answer(&action, &body).is_err(), "{body}");
        }
    }
}
