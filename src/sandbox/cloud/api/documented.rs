//! What the documentation says of each action, held against what this cloud enforces.

use std::fmt::Write as _;

use super::table::{COUNT, Kind, Place};
use super::{ACTIONS, ActionSpec};

/// A line without an indent is an action: its name, `zone` where the zone is required, `region` where only the region
/// is, and groups of which one is needed. Below it are its parameters, `*` for required, with the values that are
/// allowed; without any, every text is. `ProjectId`, `Region` and `Zone` are common to all.
const DOCUMENTED: &str = "
CreateUDisk zone
  * Size 1..32000
  * Name
  - ChargeType Year|Month|Dynamic|Postpay|Trial
  - Quantity 0..
  - DiskType DataDisk|SSDDataDisk|ESSDDataDisk|RSSDDataDisk|ERSSDDataDisk|EfficiencyDataDisk
  - UDataArkMode Yes|No
  - SnapshotService Yes|No
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - Tag
  - UKmsMode Yes|No
  - CmkId
  - RdmaClusterId
  - Labels
  - CouponId
CreateAttachUDisk zone, one of HostId UHostId
  * Size 1..32000
  * Name
  - ChargeType Year|Month|Dynamic|Postpay|Trial
  - Quantity 0..
  - DiskType DataDisk|SSDDataDisk|ESSDDataDisk|RSSDDataDisk|ERSSDDataDisk|EfficiencyDataDisk
  - UDataArkMode Yes|No
  - SnapshotService Yes|No
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - Tag
  - UKmsMode Yes|No
  - CmkId
  - CouponId
  - UHostId
  - HostId
  - MultiAttach Yes|No
DescribeUDisk region
  - UDiskId
  - Offset 0..
  - Limit 0..
  - DiskType DataDisk|SystemDisk|SSDDataDisk|SSDSystemDisk|ESSDDataDisk|ESSDSystemDisk|RSSDDataDisk|RSSDSystemDisk|ERSSDDataDisk|ERSSDSystemDisk|EfficiencyDataDisk|EfficiencySystemDisk|CLOUD_NORMAL|CLOUD_SSD|CLOUD_ESSD|CLOUD_RSSD|CLOUD_ERSSD|CLOUD_EFFICIENCY
  - ProtocolVersion 0..1
  - IsBoot True|False
  - IgnoreUBillInfo Yes|No
  - IgnoreBackupMode Yes|No
  - UDiskBasicInfo Yes|No
  - HostIdForAttachment
  - UHostIdForAttachment
  - HostId
  - HostProduct uhost|uphost
  - Status All|Available|Attaching|InUse|Detaching|Initializating|Failed|Cloning|Restoring|RestoreFailed
  - Tag
  - UDiskName
AttachUDisk region, one of HostId UHostId
  * UDiskId
  - HostId
  - UHostId
  - MultiAttach Yes|No
  - EnableCrossPodAttach Yes|No
DetachUDisk region, one of HostId UHostId
  * UDiskId
  - HostId
  - UHostId
DetachDeleteUDisk region, one of HostId UHostId
  * UDiskId
  - HostId
  - UHostId
  - DeleteSnapshotService Yes|No
DeleteUDisk zone
  * UDiskId
RenameUDisk zone
  * UDiskId
  * UDiskName
ResizeUDisk zone
  * UDiskId
  * Size 1..32000
  - MachineType
  - CouponId
ResizeAttachedDisk zone
  * UHostId
  * DiskId
  * DiskSpace 0..
  - DryRun true|false
ResizePHostAttachedDisk zone
  - PHostId
  - UDiskId
  - DiskSpace 20..32000
CreateUDiskSnapshot zone
  * UDiskId
  * Name
  - Comment
  - Quantity 0..
  - ChargeType
DescribeUDiskSnapshot region
  - Offset 0..
  - Limit 0..
  - UDiskId
  - SnapshotId
DeleteUDiskSnapshot zone, one of SnapshotId UDiskId
  - SnapshotId
  - UDiskId
RestoreUDisk zone, one of SnapshotId SnapshotTime
  * UDiskId
  - SnapshotId
  - SnapshotTime 0..
CloneUDisk zone
  * SourceId
  * Name
  - Size 1..32000
  - ChargeType Year|Month|Dynamic|Postpay|Trial
  - Quantity 0..
  - Comment
  - Tag
  - UDataArkMode Yes|No
  - SnapshotService Yes|No
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - RdmaClusterId
  - HostId
  - CouponId
CloneUDiskSnapshot zone
  * SourceId
  * Name
  - Size 1..32000
  - ChargeType Year|Month|Dynamic|Postpay|Trial
  - Quantity 0..
  - Comment
  - Tag
  - UDataArkMode Yes|No
  - SnapshotService Yes|No
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - RdmaClusterId
  - HostId
  - CouponId
DescribeUDiskPrice zone
  * Size 1..32000
  - ChargeType Year|Month|Dynamic|Postpay|Trial
  - Quantity 0..
  - DiskType DataDisk|SystemDisk|SSDDataDisk|SSDSystemDisk|ESSDDataDisk|ESSDSystemDisk|RSSDDataDisk|RSSDSystemDisk|ERSSDDataDisk|ERSSDSystemDisk|EfficiencyDataDisk|EfficiencySystemDisk
  - UDataArkMode Yes|No
  - SnapshotService Yes|No
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - IsTotalPrice Yes|No
  - MachineType
CreateSnapshotService zone
  * VDiskId
  - ChargeType Year|Month|Dynamic
  - Quantity 0..
  - Tag
  - BackupMode Base|Ultimate|Custom|Lite
  - Journal 0..
  - Hour 0..
  - Day 0..
  - CouponId
DescribeSnapshotService zone
  - SnapshotServiceId
  - VDiskId
  - SnapshotId
  - Offset 0..
  - Limit 0..
DeleteSnapshotService zone
  * VDiskId
DescribeUHostInstance region
  - UHostIds.N
  - Tag
  - Offset 0..
  - Limit 0..
  - IsolationGroup
  - VPCId
  - SubnetId
  - UDiskIdForAttachment
DescribePHost region
  - PHostId.N
  - Offset 0..
  - Limit 0..
  - VPCId
  - UDiskIdForAttachment
ListRegions
ListZones region
";

/// A table in the form above, its lines below each action in the order of names.
fn enforced(spec: &ActionSpec) -> String {
    let mut text = spec.name.to_owned();
    text += match spec.place {
        Place::Anywhere => "",
        Place::Region => " region",
        Place::RegionAndZone => " zone",
    };
    for group in spec.one_of {
        write!(text, ", one of {}", group.join(" ")).unwrap();
    }
    let mut lines: Vec<String> = spec
        .lines()
        .map(|line| {
            let mark = if line.required { '*' } else { '-' };
            let values = match line.kind {
                Kind::Text => String::new(),
                Kind::List => ".N".to_owned(),
                Kind::Bool => " true|false".to_owned(),
                kind if kind == COUNT => " 0..".to_owned(),
                Kind::Int { min, max } => format!(" {min}..{max}"),
                Kind::OneOf(words) => format!(" {}", sorted(words.iter().copied(), "|")),
            };
            format!("\n  {mark} {}{values}", line.name)
        })
        .collect();
    lines.sort_unstable();
    text + &lines.concat()
}

fn sorted<'a>(words: impl Iterator<Item = &'a str>, between: &str) -> String {
    let mut words: Vec<_> = words.collect();
    words.sort_unstable();
    words.join(between)
}

/// The actions of the documentation, in the form of [`enforced`].
fn documented() -> Vec<String> {
    let actions = DOCUMENTED.trim().split('\n').fold(Vec::<Vec<String>>::new(), |mut all, line| {
        match all.last_mut() {
            Some(action) if line.starts_with("  ") => {
                let (name, values) = line.rsplit_once(' ').unwrap();
                let values = if values.contains('|') && values != "true|false" {
                    sorted(values.split('|'), "|")
                } else {
                    values.to_owned()
                };
                action.push(format!("{name} {values}"));
            }
            _ => all.push(vec![line.to_owned()]),
        }
        all
    });
    actions
        .into_iter()
        .map(|mut action| {
            action[1..].sort_unstable();
            action.join("\n")
        })
        .collect()
}

#[test]
fn names_required_marks_and_values_are_those_of_the_documents() {
    let (mut own, mut documented) = (ACTIONS.iter().map(enforced).collect::<Vec<_>>(), documented());
    own.sort_unstable();
    documented.sort_unstable();
    assert_eq!(own.len(), documented.len(), "actions");
    for (own, documented) in own.iter().zip(&documented) {
        assert_eq!(own, documented, "\nenforced: {own}\ndocumented: {documented}\n");
    }
}
