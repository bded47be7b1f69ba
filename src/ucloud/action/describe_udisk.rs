use super::{Action, page};
use crate::cloud::{Bill, Disk, DiskFilter, DiskPage, DiskStatus, Unreadable};
use crate::ucloud::decode::{DecodeError, Fields};
use crate::ucloud::error::Failure;
use crate::ucloud::params::Params;
use crate::ucloud::retry::Facts;
use crate::volume::{DiskId, DiskType, Gib, HostId, Zone};

const NAME: &str = "DescribeUDisk";

/// The API does not know the disk, in the zone that is named or, as here, in any.
const UNKNOWN_DISK: i64 = 17041;

/// Reads one disk. No zone is sent: a disk that is not found in a zone may be in another, and "gone" must mean gone.
#[derive(Debug)]
pub(crate) struct DescribeUDisk<'a> {
    pub(crate) id: &'a DiskId,
}

impl Action for DescribeUDisk<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = Option<Disk>;

    fn params(&self, params: &mut Params) {
        params.text("UDiskId", self.id.as_str());
        leave_out_slow_parts(params, false);
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        fields.set("DataSet")?.single(self.id.as_str(), disk, |disk| disk.id.as_str())
    }

    fn refused(&self, ret_code: i64) -> Option<Self::Answer> {
        (ret_code == UNKNOWN_DISK).then_some(None)
    }
}

/// Reads one page of the disks that match a filter.
#[derive(Debug)]
pub(crate) struct DescribeUDisks<'a> {
    pub(crate) filter: &'a DiskFilter,
    pub(crate) offset: usize,
    pub(crate) limit: usize,
}

/// A page of the listing as it was answered.
#[derive(Debug)]
pub(crate) struct AnsweredPage {
    pub(super) total: usize,
    pub(super) disks: Vec<Result<Disk, Odd>>,
}

/// A disk that cannot be read.
#[derive(Debug)]
pub(super) struct Odd {
    id: DiskId,
    name: Option<String>,
    is_boot: bool,
    error: DecodeError,
}

impl AnsweredPage {
    /// With the id of the request in what is said of disks that cannot be read.
    pub(crate) fn into_page(self, request_id: Option<&str>) -> DiskPage {
        let unreadable = |Odd { id, name, is_boot, error }| {
            let failure = Failure::undecodable(Facts::READ, &error);
            Unreadable {
                id,
                name,
                is_boot,
                source: Box::new(failure.into_error(NAME, request_id.map(str::to_owned), 1)),
            }
        };
        let disks = self.disks.into_iter().map(|disk| disk.map_err(unreadable)).collect();
        DiskPage { total: self.total, disks }
    }
}

impl Action for DescribeUDisks<'_> {
    const NAME: &'static str = NAME;
    const FACTS: Facts = Facts::READ;
    type Answer = AnsweredPage;

    fn params(&self, params: &mut Params) {
        params.optional("Zone", self.filter.zone.as_ref().map(Zone::as_str));
        params.optional("UDiskName", self.filter.name.as_deref());
        params.optional("HostId", self.filter.host.as_ref().map(HostId::as_str));
        page(params, self.offset, self.limit);
        leave_out_slow_parts(params, self.filter.bills);
    }

    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError> {
        let set = fields.set("DataSet")?;
        let disks = set.entries.iter().map(listed).collect::<Result<_, _>>()?;
        Ok(AnsweredPage { total: set.total()?, disks })
    }
}

/// Bills and backup modes make the call slow; the latter are not looked at, the former rarely. `UDiskBasicInfo` would be
/// faster still, but the documentation does not say which fields it leaves, and a disk without its size or name would be
/// refused here.
fn leave_out_slow_parts(params: &mut Params, bills: bool) {
    params.yes_no("IgnoreUBillInfo", !bills);
    params.yes_no("IgnoreBackupMode", true);
}

/// Reads one disk of a listing. What has no id is nothing that could be told apart from the others, and spoils the page.
fn listed(fields: &Fields<'_>) -> Result<Result<Disk, Odd>, DecodeError> {
    let id = id(fields)?;
    Ok(disk(fields).map_err(|error| Odd {
        name: fields.required_or_empty("Name").ok(),
        is_boot: is_boot(&id, fields),
        error,
        id,
    }))
}

fn id(fields: &Fields<'_>) -> Result<DiskId, DecodeError> {
    fields.required_parsed("UDiskId", DiskId::parse)
}

/// Whether anything that can be read says that it is a system disk.
fn is_boot(id: &DiskId, fields: &Fields<'_>) -> bool {
    fields.switch("IsBoot") == Ok(Some(true))
        || fields.remark("DiskType").is_some_and(|word| disk_kind(&word).system)
        || id.as_str().starts_with("bsi-")
}

/// Reads one disk of the set. What identifies it and says where it is must be there and be right; the rest informs.
fn disk(fields: &Fields<'_>) -> Result<Disk, DecodeError> {
    let id = id(fields)?;
    let size = fields.required_number("Size")?;
    let size = u32::try_from(size).map_err(|_| fields.error(format!("disk {id} has a Size of {size}")))?;
    let kind = disk_kind(&fields.text("DiskType")?.unwrap_or_default());
    // The retired twin names the same host; newer backends may leave it empty, older ones the new field.
    let host = match fields.parsed("HostId", HostId::parse)? {
        Some(host) => Some(host),
        None => fields.parsed("UHostId", HostId::parse)?,
    };
    let host_ip = ["HostIP", "UHostIP"].iter().find_map(|name| fields.remark(name)?.parse().ok());
    // One that says it in an odd way must not pass for a volume.
    fields.switch("IsBoot")?;
    let is_boot = is_boot(&id, fields);
    Ok(Disk {
        name: fields.required_or_empty("Name")?,
        zone: fields.required_parsed("Zone", Zone::parse)?,
        size: Gib::new(size),
        status: status(fields.required("Status")?),
        disk_type: kind.disk_type,
        host,
        host_ip,
        device: fields.remark("DeviceName").and_then(|name| device(&name)),
        created_at: fields.number("CreateTime")?,
        tag: fields.remark("Tag"),
        charge_type: fields.remark("ChargeType"),
        bill: bill(fields).map(Box::new),
        snapshots: fields.remark("SnapshotCount").and_then(|count| count.parse().ok()),
        rdma_cluster: fields.text("RdmaClusterId")?,
        is_boot,
        cmk_id: fields.text("CmkId")?,
        id,
    })
}

/// The end of what is paid counts for disks that are paid by the month or year. For others the API names the end of a
/// period that begins anew by itself, or 0.
fn bill(fields: &Fields<'_>) -> Option<Bill> {
    let prepaid = matches!(fields.remark("ChargeType").as_deref(), Some("Month" | "Year" | "Trial"));
    let end = fields.remark("ExpiredTime").and_then(|end| end.parse().ok());
    let bill = Bill {
        paid_until: end.filter(|end| prepaid && *end != 0),
        overdue: fields.remark("IsExpire").is_some_and(|word| word.eq_ignore_ascii_case("yes")),
    };
    (bill != Bill::default()).then_some(bill)
}

fn status(word: String) -> DiskStatus {
    match word.as_str() {
        // The API's own spelling first.
        "Initializating" | "Initializing" => DiskStatus::Initializing,
        "Available" => DiskStatus::Available,
        "Attaching" => DiskStatus::Attaching,
        "InUse" => DiskStatus::InUse,
        "Detaching" => DiskStatus::Detaching,
        "Cloning" => DiskStatus::Cloning,
        "Restoring" => DiskStatus::Restoring,
        "RestoreFailed" => DiskStatus::RestoreFailed,
        "Failed" => DiskStatus::Failed,
        _ => DiskStatus::Other(word),
    }
}

struct Kind {
    disk_type: Option<DiskType>,
    system: bool,
}

/// Understands both vocabularies of the API. A type that is new to us is no reason to refuse reading the disk.
fn disk_kind(word: &str) -> Kind {
    let disk_type = match word {
        "DataDisk" | "CLOUD_NORMAL" => Some(DiskType::Sata),
        "SSDDataDisk" | "CLOUD_SSD" => Some(DiskType::Ssd),
        "ESSDDataDisk" | "CLOUD_ESSD" => Some(DiskType::Essd),
        "RSSDDataDisk" | "CLOUD_RSSD" => Some(DiskType::Rssd),
        "ERSSDDataDisk" | "CLOUD_ERSSD" => Some(DiskType::Erssd),
        "EfficiencyDataDisk" | "CLOUD_EFFICIENCY" => Some(DiskType::Efficiency),
        _ => None,
    };
    Kind { disk_type, system: word.ends_with("SystemDisk") }
}

/// The slot, as it is compared on the host. What cannot be a slot is none: the host then refuses the disk, while it
/// can still be detached and deleted.
fn device(name: &str) -> Option<String> {
    let name = name.strip_prefix("/dev/").unwrap_or(name).to_ascii_lowercase();
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (plain && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::testing::{answer, sent};
    use super::*;
    use crate::ucloud::decode::tests::any_json;

    fn id() -> DiskId {
        DiskId::parse("bsm-1").unwrap()
    }

    fn attached() -> Value {
        json!({
            "Zone": "cn-bj2-05", "UDiskId": "bsm-1", "Name": "pvc-1", "Size": 20, "Status": "InUse",
            "CreateTime": 1_787_277_600, "ExpiredTime": 0, "UHostId": "uhost-old", "UHostName": "n", "UHostIP": "10.0.0.9",
            "HostId": "uhost-1", "HostName": "node", "HostIP": "10.9.184.108", "DeviceName": "/dev/VDC",
            "ChargeType": "Dynamic", "Tag": "Default", "IsExpire": "No", "Version": "2.0", "UDataArkMode": "No",
            "SnapshotCount": 0, "SnapshotLimit": 3, "DiskType": "RSSDDataDisk", "CloneEnable": 1, "UKmsMode": "Yes",
            "CmkId": "kms-1", "IsBoot": "False", "BackupMode": "", "RdmaClusterId": "9002_25GE_D_R006"
        })
    }

    fn set(entry: Value) -> Value {
        json!({"RetCode": 0, "Action": "DescribeUDiskResponse", "TotalCount": 1, "DataSet": [entry]})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut entry = attached();
        entry[name] = value;
        set(entry)
    }

    fn without(name: &str) -> Value {
        let mut entry = attached();
        entry.as_object_mut().unwrap().remove(name);
        set(entry)
    }

    fn read(body: &Value) -> Result<Option<Disk>, DecodeError> {
        answer(&DescribeUDisk { id: &id() }, body)
    }

    fn found(body: &Value) -> Disk {
        read(body).unwrap().expect("a disk")
    }

    #[test]
    fn a_single_disk_is_asked_for_without_a_zone() {
        assert_eq!(
            sent(&DescribeUDisk { id: &id() }),
            "UDiskId=bsm-1 IgnoreUBillInfo=Yes IgnoreBackupMode=Yes"
        );
    }

    #[test]
    fn an_attached_disk_is_read_whole() {
        let expected = Disk {
            id: id(),
            name: "pvc-1".into(),
            zone: Zone::parse("cn-bj2-05").unwrap(),
            size: Gib::new(20),
            status: DiskStatus::InUse,
            disk_type: Some(DiskType::Rssd),
            host: Some(HostId::parse("uhost-1").unwrap()),
            host_ip: Some("10.9.184.108".parse().unwrap()),
            device: Some("vdc".into()),
            created_at: Some(1_787_277_600),
            tag: Some("Default".into()),
            charge_type: Some("Dynamic".into()),
            bill: None,
            snapshots: Some(0),
            rdma_cluster: Some("9002_25GE_D_R006".into()),
            is_boot: false,
            cmk_id: Some("kms-1".into()),
        };
        assert_eq!(found(&set(attached())), expected);
    }

    #[test]
    fn a_detached_disk_with_few_fields_is_read() {
        let entry = json!({"Zone": "cn-bj2-05", "UDiskId": "bsm-1", "Name": "", "Size": "20", "Status": "Available",
            "UHostId": "", "HostId": "", "DeviceName": "", "RdmaClusterId": null});
        let disk = found(&set(entry));
        assert_eq!((disk.host, disk.host_ip, disk.device, disk.rdma_cluster), (None, None, None, None));
        assert_eq!((disk.size, disk.disk_type, disk.is_boot), (Gib::new(20), None, false));
    }

    #[test]
    fn the_retired_twin_names_the_host_when_the_new_field_does_not() {
        assert_eq!(found(&with("HostId", json!(""))).host.unwrap().as_str(), "uhost-old");
        assert_eq!(found(&without("HostIP")).host_ip.unwrap().to_string(), "10.0.0.9");
    }

    #[test]
    fn states_types_and_slots_are_understood() {
        for (word, expected) in [
            ("Initializating", DiskStatus::Initializing),
            ("Available", DiskStatus::Available),
            ("Attaching", DiskStatus::Attaching),
            ("InUse", DiskStatus::InUse),
            ("Detaching", DiskStatus::Detaching),
            ("Cloning", DiskStatus::Cloning),
            ("Restoring", DiskStatus::Restoring),
            ("RestoreFailed", DiskStatus::RestoreFailed),
            ("Failed", DiskStatus::Failed),
            ("Levitating", DiskStatus::Other("Levitating".into())),
        ] {
            assert_eq!(found(&with("Status", json!(word))).status, expected);
        }
        for (word, expected, boot) in [
            ("DataDisk", Some(DiskType::Sata), false),
            ("CLOUD_SSD", Some(DiskType::Ssd), false),
            ("ERSSDDataDisk", Some(DiskType::Erssd), false),
            ("EfficiencyDataDisk", Some(DiskType::Efficiency), false),
            ("RSSDSystemDisk", None, true),
            ("SystemDisk", None, true),
            ("NewDataDisk", None, false),
        ] {
            let disk = found(&with("DiskType", json!(word)));
            assert_eq!((disk.disk_type, disk.is_boot), (expected, boot), "{word}");
        }
        assert!(found(&with("IsBoot", json!("True"))).is_boot);
        for (name, expected) in
            [("vdb", Some("vdb")), ("/dev/vdaa", Some("vdaa")), ("VDC", Some("vdc")), ("../x", None)]
        {
            assert_eq!(found(&with("DeviceName", json!(name))).device.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn only_an_empty_set_or_17041_means_gone() {
        assert_eq!(read(&json!({"RetCode": 0, "TotalCount": 0, "DataSet": []})), Ok(None));
        assert_eq!(DescribeUDisk { id: &id() }.refused(17041), Some(None));
        for code in [0, 110, 17040, 17045, 54002, 230] {
            assert_eq!(DescribeUDisk { id: &id() }.refused(code), None, "{code}");
        }
        assert!(read(&json!({"RetCode": 0})).is_err());
        assert!(
            read(&with("UDiskId", json!("bsm-2")))
                .unwrap_err()
                .to_string()
                .contains("bsm-2 instead of bsm-1")
        );
    }

    #[test]
    fn what_must_be_there_is_missed_by_name() {
        for name in ["UDiskId", "Status", "Zone", "Size", "Name"] {
            for body in [without(name), with(name, json!(null)), with(name, json!({}))] {
                let error = read(&body).unwrap_err().to_string();
                assert!(error.contains(&format!("DataSet[0].{name}")), "{error}");
            }
        }
        for (name, value) in
            [("HostId", json!(["x"])), ("HostId", json!("a/b")), ("IsBoot", json!("?")), ("Size", json!(-1))]
        {
            assert!(read(&with(name, value.clone())).is_err(), "{name} {value}");
        }
        for (name, value) in [
            ("Tag", json!(["x"])),
            ("ChargeType", json!({})),
            ("HostIP", json!("?")),
            ("DeviceName", json!(1.5)),
        ] {
            assert!(read(&with(name, value.clone())).is_ok(), "{name} {value}");
        }
    }

    #[test]
    fn a_page_carries_its_filter_and_its_count() {
        let filter = DiskFilter {
            zone: Some(Zone::parse("cn-bj2-05").unwrap()),
            name: Some("pvc-1".into()),
            host: Some(HostId::parse("uhost-1").unwrap()),
            bills: false,
        };
        let action = DescribeUDisks { filter: &filter, offset: 100, limit: 500 };
        assert_eq!(
            sent(&action),
            "Zone=cn-bj2-05 UDiskName=pvc-1 HostId=uhost-1 Offset=100 Limit=100 IgnoreUBillInfo=Yes IgnoreBackupMode=Yes"
        );
        let all = DescribeUDisks { filter: &DiskFilter::default(), offset: 0, limit: 10 };
        assert_eq!(sent(&all), "Offset=0 Limit=10 IgnoreUBillInfo=Yes IgnoreBackupMode=Yes");
        let page = answer(&all, &json!({"TotalCount": "250", "DataSet": [attached(), attached()]})).unwrap();
        assert_eq!((page.total, page.disks.len()), (250, 2));
        for body in [
            json!({"DataSet": [attached()]}),
            json!({"TotalCount": 1}),
            json!({"TotalCount": 2, "DataSet": [attached(), {}]}),
        ] {
            assert!(answer(&all, &body).is_err(), "{body}");
        }
    }

    #[test]
    fn a_disk_that_cannot_be_read_leaves_the_others_readable() {
        let all = DescribeUDisks { filter: &DiskFilter::default(), offset: 0, limit: 10 };
        let listed = |entry: Value| {
            let body = json!({"TotalCount": 3, "DataSet": [attached(), entry, attached()]});
            let disks = answer(&all, &body).unwrap().into_page(Some("req-1")).disks;
            let [Ok(_), odd, Ok(_)] = <[_; 3]>::try_from(disks).unwrap() else { panic!("{body}") };
            odd
        };
        let spoilt = |name: &str, value: Value| {
            let mut entry = attached();
            entry[name] = value;
            listed(entry).unwrap_err()
        };
        for (name, value) in [
            ("Size", Value::Null),
            ("Size", json!("many")),
            ("Size", json!(u64::MAX)),
            ("Zone", json!("a b")),
            ("Status", Value::Null),
            ("HostId", json!("uhost 1")),
            ("CmkId", json!({})),
        ] {
            let odd = spoilt(name, value);
            assert_eq!((odd.id, odd.name.as_deref(), odd.is_boot), (id(), Some("pvc-1"), false), "{name}");
            let text = odd.source.to_string();
            assert!(text.contains(name) && text.contains("[request req-1]"), "{text}");
        }
        assert_eq!(spoilt("Name", json!([])).name, None);
        let system = |name: &str, value: Value| {
            let mut entry = attached();
            entry["Zone"] = Value::Null;
            entry[name] = value;
            listed(entry).unwrap_err().is_boot
        };
        for (name, value) in
            [("IsBoot", json!("True")), ("DiskType", json!("RSSDSystemDisk")), ("UDiskId", json!("bsi-1"))]
        {
            assert!(system(name, value.clone()), "{name} {value}");
        }
        assert!(!system("IsBoot", json!({})));
        // Without an id nobody knows which disk it is, or whether it is one.
        let body = json!({"TotalCount": 2, "DataSet": [attached(), {"Zone": "cn-bj2-05", "Name": "pvc-1"}]});
        answer(&all, &body).unwrap_err();
    }

    #[test]
    fn bills_are_read_where_they_are_wanted_and_break_nothing() {
        let filter = DiskFilter { bills: true, ..DiskFilter::default() };
        let action = DescribeUDisks { filter: &filter, offset: 0, limit: 10 };
        assert_eq!(sent(&action), "Offset=0 Limit=10 IgnoreUBillInfo=No IgnoreBackupMode=Yes");
        for (charge_type, end, overdue, expected) in [
            ("Month", json!(1_787_277_600), "No", Some((Some(1_787_277_600), false))),
            ("Year", json!("1787277600"), "Yes", Some((Some(1_787_277_600), true))),
            ("Dynamic", json!(1_787_277_600), "No", None),
            ("Month", json!(0), "yes", Some((None, true))),
            ("Month", json!({}), "?", None),
        ] {
            let mut body = with("ChargeType", json!(charge_type));
            body["DataSet"][0]["ExpiredTime"] = end;
            body["DataSet"][0]["IsExpire"] = json!(overdue);
            let disk = found(&body);
            assert_eq!(disk.bill.map(|bill| (bill.paid_until, bill.overdue)), expected, "{body}");
        }
        assert_eq!(found(&with("SnapshotCount", json!("2"))).snapshots, Some(2));
        assert_eq!(found(&without("SnapshotCount")).snapshots, None);
    }

    proptest! {
        #[test]
        fn garbage_is_never_gone_and_never_another_disk(body in any_json()) {
            let Value::Object(map) = &body else { return Ok(()) };
            let says_empty = match map.get("DataSet") {
                Some(Value::Array(set)) => set.is_empty(),
                Some(Value::Null) => map.get("TotalCount").is_some_and(|total| !total.is_null()),
                _ => false,
            };
            match read(&body) {
                Ok(None) => prop_assert!(says_empty, "{body}"),
                Ok(Some(disk)) => prop_assert_eq!(disk.id, id()),
                Err(_) => {}
            }
            let _ = answer(&DescribeUDisks { filter: &DiskFilter::default(), offset: 0, limit: 1 }, &body);
        }

        #[test]
        fn garbage_in_one_field_never_panics(name in "(UDiskId|Zone|Size|Status|HostId|HostIP|DeviceName|IsBoot|CreateTime)", value in any_json()) {
            if let Ok(found) = read(&with(&name, value)) {
                prop_assert_eq!(found.expect("never gone").id, id());
            }
        }
    }
}
