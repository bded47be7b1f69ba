//! The Controller service.

use std::collections::BTreeMap;

use csi_udisk::csi::proto::v1;
use tonic::Code::{
    self, Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Ok as Fine, OutOfRange,
    ResourceExhausted, Unimplemented,
};
use tonic::transport::Channel;
use v1::controller_client::ControllerClient;
use v1::volume_capability::access_mode::Mode;

use super::{Judge, NO_DISKS, Place, Row, capacity, huge, mode, mount, send, shown};
use crate::csi::{self, GIB};
use crate::world::World;

type Create = v1::CreateVolumeRequest;
type Publish = v1::ControllerPublishVolumeRequest;
type Unpublish = v1::ControllerUnpublishVolumeRequest;
type Expand = v1::ControllerExpandVolumeRequest;
type Validate = v1::ValidateVolumeCapabilitiesRequest;

fn set(request: &mut Create, key: &str, value: &str) {
    request.parameters.insert(key.to_owned(), value.to_owned());
}

fn caps(mode: i32) -> Vec<v1::VolumeCapability> {
    vec![super::mode(mode)]
}

fn source(source: Option<v1::volume_content_source::Type>) -> Option<v1::VolumeContentSource> {
    Some(v1::VolumeContentSource { r#type: source })
}

fn snapshot(id: &str) -> Option<v1::VolumeContentSource> {
    use v1::volume_content_source::{SnapshotSource, Type};
    source(Some(Type::Snapshot(SnapshotSource { snapshot_id: id.to_owned() })))
}

fn clone(id: &str) -> Option<v1::VolumeContentSource> {
    use v1::volume_content_source::{Type, VolumeSource};
    source(Some(Type::Volume(VolumeSource { volume_id: id.to_owned() })))
}

/// One requisite segment with these keys, ours by their last part.
fn requisite(keys: &[(&str, &str)]) -> Option<v1::TopologyRequirement> {
    let key = |key: &str| match key.contains('/') {
        true => key.to_owned(),
        false => format!("topology.udisk.csi.ucloud.cn/{key}"),
    };
    let segments = keys.iter().map(|(name, value)| (key(name), (*value).to_owned())).collect();
    let requisite = vec![v1::Topology { segments }];
    Some(v1::TopologyRequirement { requisite, preferred: Vec::new() })
}

/// One requisite segment for each of 2000 values.
fn many(key: &str) -> Option<v1::TopologyRequirement> {
    let mut all = v1::TopologyRequirement::default();
    for number in 0..2000 {
        all.requisite.extend(requisite(&[(key, &format!("a-{number}"))])?.requisite);
    }
    Some(all)
}

#[rustfmt::skip]
const CREATE: &[Row<Create>] = &[
    ("no name", |r, _| r.name.clear(), InvalidArgument, "name is required"),
    ("name of 129 characters", |r, _| r.name = "n".repeat(129), InvalidArgument, "name has 129 bytes; at most 128"),
    ("name of 43 characters that are 129 bytes", |r, _| r.name = "盘".repeat(43), InvalidArgument, "name has 129 bytes"),
    ("huge name", |r, _| r.name = huge(), InvalidArgument, "name has 120000 bytes"),
    ("name with NUL", |r, _| r.name = "pvc-\0".into(), InvalidArgument, "control character '\\0'"),
    ("name with escape", |r, _| r.name = "pvc-\u{1b}[2J".into(), InvalidArgument, "control character '\\u{1b}'"),
    ("no capabilities", |r, _| r.volume_capabilities.clear(), InvalidArgument, "volume_capabilities is required"),
    ("empty capability", |r, _| r.volume_capabilities = vec![Default::default()], InvalidArgument, "access_mode is required; allowed: SINGLE_NODE_WRITER, SINGLE_NODE_READER_ONLY"),
    ("no access type", |r, _| r.volume_capabilities[0].access_type = None, InvalidArgument, "access_type is required; allowed: block, mount"),
    ("one good and one empty capability", |r, _| r.volume_capabilities.push(Default::default()), InvalidArgument, "access_mode is required"),
    ("mode UNKNOWN", |r, _| r.volume_capabilities = caps(0), InvalidArgument, "access_mode is UNKNOWN; allowed: SINGLE_NODE_WRITER"),
    ("mode many readers", |r, _| r.volume_capabilities = caps(Mode::MultiNodeReaderOnly.into()), InvalidArgument, "access_mode is MULTI_NODE_READER_ONLY; allowed"),
    ("mode one writer, many readers", |r, _| r.volume_capabilities = caps(Mode::MultiNodeSingleWriter.into()), InvalidArgument, "MULTI_NODE_SINGLE_WRITER"),
    ("mode many writers", |r, _| r.volume_capabilities = caps(Mode::MultiNodeMultiWriter.into()), InvalidArgument, "ReadWriteOnce"),
    ("mode single node, single writer", |r, _| r.volume_capabilities = caps(Mode::SingleNodeSingleWriter.into()), InvalidArgument, "SINGLE_NODE_SINGLE_WRITER"),
    ("mode single node, many writers", |r, _| r.volume_capabilities = caps(Mode::SingleNodeMultiWriter.into()), InvalidArgument, "SINGLE_NODE_MULTI_WRITER"),
    ("mode of another century", |r, _| r.volume_capabilities = caps(99), InvalidArgument, "access_mode is 99"),
    ("mode that is negative", |r, _| r.volume_capabilities = caps(i32::MIN), InvalidArgument, "access_mode is -2147483648"),
    ("file system ntfs", |r, _| r.volume_capabilities = vec![mount("ntfs", &[], "")], InvalidArgument, "fs_type is \"ntfs\"; allowed: ext3, ext4, xfs, btrfs"),
    ("file system in capitals", |r, _| r.volume_capabilities = vec![mount("EXT4", &[], "")], InvalidArgument, "fs_type is \"EXT4\""),
    ("file system that is an option of mkfs", |r, _| r.volume_capabilities = vec![mount("-F", &[], "")], InvalidArgument, "fs_type is \"-F\""),
    ("huge file system", |r, _| r.volume_capabilities = vec![mount(&huge(), &[], "")], InvalidArgument, "…\"; allowed: ext3, ext4, xfs, btrfs"),
    ("two file systems", |r, _| r.volume_capabilities = vec![mount("xfs", &[], ""), mount("ext4", &[], "")], InvalidArgument, "the file systems xfs and ext4; a volume has one"),
    ("empty mount flag", |r, _| r.volume_capabilities = vec![mount("", &["ro", ""], "")], InvalidArgument, "mount_flags entry 1 (counted from 0) is empty"),
    ("mount flag with NUL", |r, _| r.volume_capabilities = vec![mount("", &["a\0b"], "")], InvalidArgument, "mount_flags entry 0 (counted from 0) holds a control character"),
    ("mount flag with line break", |r, _| r.volume_capabilities = vec![mount("", &["ro\nrw"], "")], InvalidArgument, "holds a control character"),
    ("mount group", |r, _| r.volume_capabilities = vec![mount("", &[], "1000")], InvalidArgument, "volume_mount_group"),
    ("no parameters", |r, _| r.parameters.clear(), InvalidArgument, "parameter \"type\" is required; allowed: sata, ssd, essd, rssd, erssd, efficiency"),
    ("empty type", |r, _| set(r, "type", ""), InvalidArgument, "parameter \"type\" is \"\"; allowed: sata"),
    ("type in capitals", |r, _| set(r, "type", "SSD"), InvalidArgument, "parameter \"type\" is \"SSD\"; allowed: sata, ssd"),
    ("type with a blank", |r, _| set(r, "type", "ssd "), InvalidArgument, "\"ssd \""),
    ("type of a tape", |r, _| set(r, "type", "tape"), InvalidArgument, "\"tape\"; allowed: sata"),
    ("type of the API", |r, _| set(r, "type", "SSDDataDisk"), InvalidArgument, "\"SSDDataDisk\"; allowed: sata"),
    ("type with control characters", |r, _| set(r, "type", "s\r\n\u{1b}[31msd"), InvalidArgument, "allowed: sata"),
    ("huge type", |r, _| set(r, "type", &huge()), InvalidArgument, "…\"; allowed: sata, ssd, essd, rssd, erssd, efficiency"),
    ("unknown parameter", |r, _| set(r, "iops", "9"), InvalidArgument, "unknown parameter \"iops\"; allowed: type, fsType, csi.storage.k8s.io/fstype, udataArkMode, chargeType, quantity, cmkId, blankReadsAsNoise, businessGroup, tag"),
    ("parameter in other case", |r, _| set(r, "Type", "ssd"), InvalidArgument, "unknown parameter \"Type\""),
    ("empty parameter key", |r, _| set(r, "", "x"), InvalidArgument, "unknown parameter \"\""),
    ("huge parameter key", |r, _| set(r, &huge(), "x"), InvalidArgument, "…\"; allowed: type, fsType"),
    ("ten thousand parameters", |r, _| (0..10_000).for_each(|i| set(r, &format!("k{i}"), "x")), InvalidArgument, "unknown parameter \"k0\"; allowed: type"),
    ("huge key of UKMS", |r, _| { set(r, "type", "rssd"); set(r, "cmkId", &huge()) }, InvalidArgument, "…\"; allowed: the id of a key of UKMS"),
    ("two huge business groups", |r, _| { set(r, "businessGroup", &huge()); set(r, "tag", "b") }, InvalidArgument, "…\"; allowed: the name of a business group"),
    ("quantity in other digits", |r, _| { set(r, "chargeType", "month"); set(r, "quantity", "１") }, InvalidArgument, "\"quantity\" is \"１\"; allowed: 1 to 9"),
    ("parameter key with control characters", |r, _| set(r, "\u{7}\n", "x"), InvalidArgument, "unknown parameter"),
    ("fsType of another world", |r, _| set(r, "fsType", "zfs"), InvalidArgument, "parameter \"fsType\" is \"zfs\"; allowed: ext3, ext4, xfs, btrfs"),
    ("sidecar's fstype of another world", |r, _| set(r, "csi.storage.k8s.io/fstype", "zfs"), InvalidArgument, "parameter \"csi.storage.k8s.io/fstype\" is \"zfs\""),
    ("two fstypes", |r, _| { set(r, "fsType", "xfs"); set(r, "csi.storage.k8s.io/fstype", "ext4") }, InvalidArgument, "contradict each other: \"xfs\" and \"ext4\""),
    ("udataArkMode that is neither", |r, _| set(r, "udataArkMode", "perhaps"), InvalidArgument, "parameter \"udataArkMode\" is \"perhaps\"; allowed: yes, no"),
    ("chargeType of the API", |r, _| set(r, "chargeType", "Dynamic"), InvalidArgument, "parameter \"chargeType\" is \"Dynamic\"; allowed: dynamic, month, year"),
    ("quantity of dynamic", |r, _| set(r, "quantity", "1"), InvalidArgument, "\"quantity\" is not possible with \"chargeType\" \"dynamic\""),
    ("quantity 0", |r, _| { set(r, "chargeType", "month"); set(r, "quantity", "0") }, InvalidArgument, "\"quantity\" is \"0\"; allowed: 1 to 9 with chargeType month"),
    ("quantity of months too large", |r, _| { set(r, "chargeType", "month"); set(r, "quantity", "10") }, InvalidArgument, "allowed: 1 to 9"),
    ("quantity of years too large", |r, _| { set(r, "chargeType", "year"); set(r, "quantity", "11") }, InvalidArgument, "allowed: 1 to 10 with chargeType year"),
    ("quantity with sign", |r, _| { set(r, "chargeType", "month"); set(r, "quantity", "+1") }, InvalidArgument, "\"+1\""),
    ("quantity that overflows", |r, _| { set(r, "chargeType", "year"); set(r, "quantity", "18446744073709551617") }, InvalidArgument, "allowed: 1 to 10"),
    ("key for a type without encryption", |r, _| set(r, "cmkId", "uskms-1"), InvalidArgument, "\"cmkId\" is not possible with \"type\" \"ssd\""),
    ("key with a blank", |r, _| { set(r, "type", "rssd"); set(r, "cmkId", "a b") }, InvalidArgument, "parameter \"cmkId\" is \"a b\"; allowed: the id of a key of UKMS"),
    ("empty key", |r, _| { set(r, "type", "rssd"); set(r, "cmkId", "") }, InvalidArgument, "parameter \"cmkId\" is \"\""),
    ("empty business group", |r, _| set(r, "businessGroup", ""), InvalidArgument, "\"businessGroup\" is \"\"; allowed: the name of a business group, 1 to 63 characters"),
    ("long business group", |r, _| set(r, "businessGroup", &"g".repeat(64)), InvalidArgument, "1 to 63 characters"),
    ("two business groups", |r, _| { set(r, "businessGroup", "a"); set(r, "tag", "b") }, InvalidArgument, "\"businessGroup\" and \"tag\" contradict each other"),
    ("mutable parameters", |r, _| r.mutable_parameters = BTreeMap::from([("iops".into(), "9".into())]), InvalidArgument, "mutable_parameters is not supported"),
    ("empty content source", |r, _| r.volume_content_source = source(None), InvalidArgument, "volume_content_source is not supported"),
    ("source snapshot", |r, _| r.volume_content_source = snapshot("snap-1"), InvalidArgument, "volume_content_source is not supported"),
    ("source snapshot without id", |r, _| r.volume_content_source = snapshot(""), InvalidArgument, "volume_content_source is not supported"),
    ("source volume", |r, p| r.volume_content_source = clone(&p.free), InvalidArgument, "remove dataSource from the claim"),
    ("source volume that is unknown", |r, _| r.volume_content_source = clone("bsm-none"), InvalidArgument, "volume_content_source is not supported"),
    ("negative size", |r, _| r.capacity_range = capacity(-1, 0), InvalidArgument, "required_bytes is -1; it must not be negative"),
    ("least size", |r, _| r.capacity_range = capacity(i64::MIN, 0), InvalidArgument, "required_bytes is -9223372036854775808"),
    ("negative limit", |r, _| r.capacity_range = capacity(0, -1), InvalidArgument, "limit_bytes is -1; it must not be negative"),
    ("least limit", |r, _| r.capacity_range = capacity(1, i64::MIN), InvalidArgument, "limit_bytes is -9223372036854775808"),
    ("limit below required", |r, _| r.capacity_range = capacity(20 * GIB, 10 * GIB), InvalidArgument, "limit_bytes (10 GiB) is below capacity_range.required_bytes (20 GiB)"),
    ("largest size", |r, _| r.capacity_range = capacity(i64::MAX, 0), OutOfRange, "more than a disk of type ssd can have, which is 8000 GiB"),
    ("largest size and limit", |r, _| r.capacity_range = capacity(i64::MAX, i64::MAX), OutOfRange, "8000 GiB"),
    ("one byte above the largest disk", |r, _| r.capacity_range = capacity(8000 * GIB + 1, 0), OutOfRange, "8000 GiB"),
    ("one byte above the largest rssd", |r, _| { set(r, "type", "rssd"); r.capacity_range = capacity(32_000 * GIB + 1, 0) }, OutOfRange, "32000 GiB"),
    ("limit between steps", |r, _| r.capacity_range = capacity(11 * GIB, 19 * GIB), OutOfRange, "steps of 10 GiB, the nearest are 10 GiB and 20 GiB"),
    ("limit one byte short of a step", |r, _| r.capacity_range = capacity(11 * GIB, 20 * GIB - 1), OutOfRange, "the nearest are 10 GiB and 20 GiB"),
    ("limit below the smallest disk", |r, _| r.capacity_range = capacity(0, 1), OutOfRange, "the smallest is 10 GiB"),
    ("topology of others", |r, _| r.accessibility_requirements = requisite(&[("topology.kubernetes.io/zone", "x")]), InvalidArgument, "no segment of accessibility_requirements has a key of this driver (topology.udisk.csi.ucloud.cn/region"),
    ("empty segment", |r, _| r.accessibility_requirements = requisite(&[]), InvalidArgument, "no segment of accessibility_requirements"),
    ("zone with a slash", |r, _| r.accessibility_requirements = requisite(&[("zone", "a/b")]), InvalidArgument, "/zone\" is \"a/b\", which holds '/'"),
    ("empty zone", |r, _| r.accessibility_requirements = requisite(&[("zone", "")]), InvalidArgument, "/zone\" is \"\", which is empty"),
    ("huge zone", |r, _| r.accessibility_requirements = requisite(&[("zone", &huge())]), InvalidArgument, "…\", which "),
    ("rssd that is neither", |r, _| r.accessibility_requirements = requisite(&[("rssd", "maybe")]), InvalidArgument, "/rssd\" is \"maybe\"; allowed: true, false"),
    ("zone twice in other case", |r, _| r.accessibility_requirements = requisite(&[("zone", "a"), ("ZONE", "b")]), InvalidArgument, "set twice in one segment"),
    ("zone that is not sold", |r, _| r.accessibility_requirements = requisite(&[("zone", "cn-none-01")]), InvalidArgument, "of type ssd in zone cn-none-01: CreateUDisk failed with RetCode 230: Params [Zone] not available"),
    ("region of others", |r, _| r.accessibility_requirements = requisite(&[("region", "cn-none")]), ResourceExhausted, "only regions cn-none, but this driver works in region cn-sh2"),
    ("very many regions", |r, _| r.accessibility_requirements = many("region"), ResourceExhausted, "only regions a-0, a-1, a-10, a-100, a-1000, a-1001, a-1002, a-1003 and 1992 more, but this driver"),
    ("very many zones", |r, _| { r.name = FREE.into(); r.accessibility_requirements = many("zone") }, AlreadyExists, "the request allows only a-0, a-1, a-10, a-100, a-1000, a-1001, a-1002, a-1003 and 1992 more"),
    ("huge region", |r, _| r.accessibility_requirements = requisite(&[("region", &"r".repeat(100_000))]), InvalidArgument, "…\", which is longer than 128 bytes"),
    ("rssd on a node without RDMA", |r, _| { set(r, "type", "rssd"); r.accessibility_requirements = requisite(&[("rssd", "false")]) }, ResourceExhausted, "no RDMA network"),
    ("rssd for a host that is unknown", |r, _| { set(r, "type", "rssd"); r.accessibility_requirements = requisite(&[("host", "uhost-none")]) }, ResourceExhausted, "host uhost-none cannot take a disk of type rssd"),
    ("name taken, other size", |r, _| { r.name = FREE.into(); r.capacity_range = capacity(40 * GIB, 0) }, AlreadyExists, "has 20 GiB, which is less than"),
    ("name taken, smaller limit", |r, _| { r.name = FREE.into(); r.capacity_range = capacity(0, 10 * GIB) }, AlreadyExists, "has 20 GiB, which is more than the limit"),
    ("name taken, other type", |r, _| { r.name = FREE.into(); set(r, "type", "sata") }, AlreadyExists, "its type is ssd and not sata"),
    ("name taken, other zone", |r, _| { r.name = FREE.into(); r.accessibility_requirements = requisite(&[("zone", "cn-sh2-01")]) }, AlreadyExists, "the request allows only cn-sh2-01"),
];

#[rustfmt::skip]
const DELETE: &[Row<v1::DeleteVolumeRequest>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("attached volume", |r, p| r.volume_id.clone_from(&p.attached), FailedPrecondition, "is attached to host"),
];

#[rustfmt::skip]
const PUBLISH: &[Row<Publish>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no node", |r, _| r.node_id.clear(), InvalidArgument, "node_id is required"),
    ("no capability", |r, _| r.volume_capability = None, InvalidArgument, "volume_capability is required"),
    ("empty capability", |r, _| r.volume_capability = Some(Default::default()), InvalidArgument, "access_mode is required"),
    ("mode many writers", |r, _| r.volume_capability = Some(mode(5)), InvalidArgument, "access_mode is MULTI_NODE_MULTI_WRITER"),
    ("file system ntfs", |r, _| r.volume_capability = Some(mount("ntfs", &[], "")), InvalidArgument, "fs_type is \"ntfs\"; allowed"),
    ("read-only", |r, _| r.readonly = true, InvalidArgument, "readonly is not supported"),
    ("unknown volume", |r, _| r.volume_id = "bsm-none".into(), NotFound, "UDisk bsm-none does not exist"),
    ("unknown volume and node", |r, _| { r.volume_id = "bsm-none".into(); r.node_id = "uhost-none".into() }, NotFound, "UDisk bsm-none does not exist"),
    ("odd volume", |r, _| r.volume_id = "bs/1".into(), NotFound, "volume \"bs/1\" does not exist: the id holds '/'"),
    ("huge volume", |r, _| r.volume_id = huge(), NotFound, "the id is longer than 128 bytes"),
    ("unknown host", |r, _| r.node_id = "uhost-none".into(), NotFound, "host uhost-none does not exist"),
    ("unknown bare-metal host", |r, _| r.node_id = "upm-none".into(), NotFound, "host upm-none does not exist"),
    ("unknown address", |r, _| r.node_id = "10.99.99.99".into(), NotFound, "no host of this project (and VPC) has the private address 10.99.99.99"),
    ("unknown long address", |r, _| r.node_id = "fd00::1".into(), NotFound, "private address fd00::1"),
    ("address that is none", |r, _| r.node_id = "10.9.0.999".into(), NotFound, "host 10.9.0.999 does not exist"),
    ("garbage node", |r, _| r.node_id = "a node\n".into(), NotFound, "does not exist: the id holds ' '"),
    ("huge node", |r, _| r.node_id = huge(), NotFound, "the id is longer than 128 bytes"),
    ("system disk", |r, _| r.volume_id = "bsi-uhost-a".into(), NotFound, "does not exist"),
    ("attached elsewhere", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = OTHER_HOST.into() }, FailedPrecondition, "is attached to host"),
    ("attached already, with odd volume context", |r, p| { r.volume_id.clone_from(&p.attached); r.volume_context = BTreeMap::from([("type".into(), "tape".into()), ("\0".into(), huge())]) }, Fine, ""),
];

#[rustfmt::skip]
const UNPUBLISH: &[Row<Unpublish>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no id and no node", |r, _| { r.volume_id.clear(); r.node_id.clear() }, InvalidArgument, "volume_id is required"),
    ("free volume, no node", |r, p| { r.volume_id.clone_from(&p.free); r.node_id.clear() }, Fine, ""),
    ("free volume, unknown node", |r, p| { r.volume_id.clone_from(&p.free); r.node_id = "uhost-none".into() }, Fine, ""),
    ("attached volume, other host", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = OTHER_HOST.into() }, Fine, ""),
    ("attached volume, unknown host", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = "uhost-none".into() }, Fine, ""),
    ("attached volume, unknown address", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = "10.99.99.99".into() }, Fine, ""),
    ("attached volume, garbage node", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = "a node\n".into() }, Fine, ""),
    ("attached volume, huge node", |r, p| { r.volume_id.clone_from(&p.attached); r.node_id = huge() }, Fine, ""),
];

#[rustfmt::skip]
const EXPAND: &[Row<Expand>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no range", |r, _| r.capacity_range = None, InvalidArgument, "capacity_range is required"),
    ("empty range", |r, _| r.capacity_range = capacity(0, 0), InvalidArgument, "capacity_range is required"),
    ("negative size", |r, _| r.capacity_range = capacity(i64::MIN, 0), InvalidArgument, "required_bytes is -9223372036854775808"),
    ("negative limit", |r, _| r.capacity_range = capacity(0, -5), InvalidArgument, "limit_bytes is -5"),
    ("limit below required", |r, _| r.capacity_range = capacity(30 * GIB, 20 * GIB), InvalidArgument, "is below capacity_range.required_bytes"),
    ("largest size", |r, _| r.capacity_range = capacity(i64::MAX, 0), OutOfRange, "8000 GiB"),
    ("limit between steps", |r, _| r.capacity_range = capacity(21 * GIB, 29 * GIB), OutOfRange, "the nearest are 20 GiB and 30 GiB"),
    ("limit below the present size", |r, _| r.capacity_range = capacity(0, 10 * GIB), OutOfRange, "disks cannot shrink"),
    ("attached, limit below the present size", |r, p| { r.volume_id.clone_from(&p.attached); r.capacity_range = capacity(1, GIB) }, OutOfRange, "disks cannot shrink"),
    ("unknown volume", |r, _| r.volume_id = "bsm-none".into(), NotFound, "UDisk bsm-none does not exist"),
    ("odd volume", |r, _| r.volume_id = "bs/1".into(), NotFound, "volume \"bs/1\" does not exist"),
    ("huge volume", |r, _| r.volume_id = huge(), NotFound, "longer than 128 bytes"),
    ("smaller than it is", |r, _| r.capacity_range = capacity(1, 0), Fine, ""),
    ("odd capability", |r, _| { r.capacity_range = capacity(1, 0); r.volume_capability = Some(Default::default()) }, Fine, ""),
];

#[rustfmt::skip]
const VALIDATE: &[Row<Validate>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("no capabilities", |r, _| r.volume_capabilities.clear(), InvalidArgument, "volume_capabilities is required"),
    ("unknown volume", |r, _| r.volume_id = "bsm-none".into(), NotFound, "volume bsm-none does not exist"),
    ("odd volume", |r, _| r.volume_id = "a\0b".into(), NotFound, "does not exist: the id holds '\\0'"),
    ("huge volume", |r, _| r.volume_id = huge(), NotFound, "longer than 128 bytes"),
];

/// What is not confirmed is an answer and no error: its message says why.
#[rustfmt::skip]
const NOT_CONFIRMED: &[Row<Validate>] = &[
    ("mode many writers", |r, _| r.volume_capabilities = caps(5), Fine, "access_mode is MULTI_NODE_MULTI_WRITER"),
    ("empty capability", |r, _| r.volume_capabilities.push(Default::default()), Fine, "access_mode is required"),
    ("file system ntfs", |r, _| r.volume_capabilities = vec![mount("ntfs", &[], "")], Fine, "fs_type is \"ntfs\""),
    ("unknown parameter", |r, _| r.parameters = BTreeMap::from([("iops".into(), "9".into())]), Fine, "unknown parameter \"iops\""),
    ("other type", |r, _| r.parameters = BTreeMap::from([("type".into(), "sata".into())]), Fine, "is of type ssd, but parameters say sata"),
    ("other type in the context", |r, _| r.volume_context = BTreeMap::from([("type".into(), "sata".into())]), Fine, "volume_context say sata"),
    ("mutable parameters", |r, _| r.mutable_parameters = BTreeMap::from([("a".into(), "b".into())]), Fine, "mutable_parameters are not supported"),
    ("context that nobody knows", |r, _| r.volume_context = BTreeMap::from([("a".into(), "b".into()), ("fsType".into(), "?".into())]), Fine, "confirmed"),
];

#[rustfmt::skip]
const LIST: &[Row<v1::ListVolumesRequest>] = &[
    ("negative number", |r, _| r.max_entries = -1, InvalidArgument, "max_entries is -1; it must not be negative"),
    ("least number", |r, _| r.max_entries = i32::MIN, InvalidArgument, "max_entries is -2147483648"),
    ("foreign token", |r, _| r.starting_token = "invalid-token".into(), Aborted, "starting_token \"invalid-token\" was not given out"),
    ("token of a later version", |r, _| r.starting_token = "v2:bsm-1".into(), Aborted, "start over without a token"),
    ("token with odd id", |r, _| r.starting_token = "v1:a/b".into(), Aborted, "starting_token"),
    ("huge token", |r, _| r.starting_token = huge(), Aborted, "starting_token \"盘"),
    ("token with control characters", |r, _| r.starting_token = "\u{1b}\n".into(), Aborted, "starting_token"),
    ("token of a disk that has left", |r, _| r.starting_token = "v1:zzz".into(), Fine, ""),
    ("largest number", |r, _| r.max_entries = i32::MAX, Fine, ""),
];

#[rustfmt::skip]
const GET: &[Row<v1::ControllerGetVolumeRequest>] = &[
    ("no id", |r, _| r.volume_id.clear(), InvalidArgument, "volume_id is required"),
    ("unknown volume", |r, _| r.volume_id = "bsm-none".into(), NotFound, "the cloud knows no UDisk of this id"),
    ("odd volume", |r, _| r.volume_id = "bs 1".into(), NotFound, "the id holds ' '"),
    ("huge volume", |r, _| r.volume_id = huge(), NotFound, "longer than 128 bytes"),
];

/// Names that CSI allows and the cloud does not: each is one disk, found again by the same name.
const NAMES: [fn() -> String; 13] = [
    || "a".into(),
    || "12345".into(),
    || "n".repeat(63),
    || "n".repeat(64),
    || "n".repeat(128),
    || "盘".repeat(42),
    || "with blank".into(),
    || "a.b.c".into(),
    || "../../etc/passwd".into(),
    || "Robert'); DROP TABLE--".into(),
    || "a\tb".into(),
    || "\u{202e}txt.exe".into(),
    || format!("csi-sha1-{}", "0".repeat(40)),
];

const FREE: &str = "pvc-free";
const OTHER_HOST: &str = "uhost-b";

async fn volume(controller: &mut ControllerClient<Channel>, name: &str) -> String {
    let volume = controller.create_volume(csi::create(name, "ext4", 20)).await.unwrap().into_inner().volume;
    volume.unwrap().volume_id
}

impl Place {
    /// A world with two volumes.
    pub(super) async fn new(controller: &mut ControllerClient<Channel>, world: World) -> Self {
        let free = volume(controller, FREE).await;
        let attached = volume(controller, "pvc-attached").await;
        let host = world.first_host();
        assert_ne!(host, OTHER_HOST);
        let published =
            controller.controller_publish_volume(csi::attach(&attached, &host, "ext4")).await.unwrap();
        let kubelet = world.dir.join("bad-input-kubelet");
        std::fs::create_dir(&kubelet).unwrap();
        Self {
            world,
            host,
            free,
            attached,
            context: published.into_inner().publish_context,
            kubelet,
            blank: None,
        }
    }
}

#[tokio::test]
async fn the_controller_refuses_bad_input_and_leaves_nothing() {
    let world = World::start("none").await;
    let driver = world.controller().await;
    let mut controller = driver.controller();
    let place = Place::new(&mut controller, world).await;
    let mut judge = Judge::new(&place).await;
    let free = place.free.clone();

    send!(judge, place, controller, create_volume, csi::create("pvc-bad-input", "ext4", 20), CREATE);
    send!(judge, place, controller, delete_volume, csi::delete(&free), DELETE);
    let attach = || csi::attach(&free, &place.host, "ext4");
    send!(judge, place, controller, controller_publish_volume, attach(), PUBLISH);
    let detach = || csi::detach(&free, &place.host);
    send!(judge, place, controller, controller_unpublish_volume, detach(), UNPUBLISH);
    send!(judge, place, controller, controller_expand_volume, csi::grow(&free, "ext4", 30), EXPAND);
    let validate = || Validate {
        volume_id: free.clone(),
        volume_capabilities: vec![csi::capability("ext4")],
        ..Validate::default()
    };
    send!(judge, place, controller, validate_volume_capabilities, validate(), VALIDATE);
    send!(judge, place, controller, list_volumes, v1::ListVolumesRequest::default(), LIST);
    let get = || v1::ControllerGetVolumeRequest { volume_id: free.clone() };
    send!(judge, place, controller, controller_get_volume, get(), GET);

    for (what, spoil, code, phrase) in NOT_CONFIRMED {
        let mut request = validate();
        spoil(&mut request, &place);
        let answer = controller.validate_volume_capabilities(request).await.unwrap().into_inner();
        let text = answer.confirmed.map_or(answer.message, |_| "confirmed".to_owned());
        judge.row(&place, &format!("not confirmed, {what}"), (Code::Ok, text), (*code, *phrase)).await;
    }
    for id in NO_DISKS {
        let (id, shown) = (id(), shown(&id()));
        let answer = super::answer(controller.delete_volume(csi::delete(&id)).await);
        judge.row(&place, &format!("delete_volume of {shown}"), answer, (Fine, "")).await;
        for node in [place.host.as_str(), "", "10.9.0.11", "10.99.99.99", "?"] {
            let answer = super::answer(controller.controller_unpublish_volume(csi::detach(&id, node)).await);
            let name = format!("controller_unpublish_volume of {shown} from {node:?}");
            judge.row(&place, &name, answer, (Fine, "")).await;
        }
    }
    for (what, bytes, code, phrase) in UNREADABLE {
        let answer = super::answer(unreadable(driver.channel.clone(), bytes()).await);
        judge.row(&place, &format!("unreadable, {what}"), answer, (*code, *phrase)).await;
    }
    not_offered(driver.channel.clone(), &place, &mut judge).await;
    odd_names(&mut controller, &place, &mut judge).await;
    judge.finish("controller");
}

/// Calls that CSI has, or had, or never had, and that this driver does not advertise.
async fn not_offered(channel: Channel, place: &Place, judge: &mut Judge) {
    let long = format!("Controller/{}", "A".repeat(10_000));
    for method in [
        "Controller/CreateSnapshot",
        "Controller/DeleteSnapshot",
        "Controller/ListSnapshots",
        "Controller/GetSnapshot",
        "Controller/GetCapacity",
        "Controller/ControllerModifyVolume",
        "Controller/LevitateVolume",
        "GroupController/CreateVolumeGroupSnapshot",
        "Node/NodeStageVolume",
        &long,
    ] {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<Unreadable, Unreadable>::default();
        let path = format!("/csi.v1.{method}").parse().unwrap();
        let empty = tonic::Request::new(Unreadable { name: Vec::new() });
        let answer = super::answer(client.unary(empty, path, codec).await);
        let name: String = method.rsplit('/').next().unwrap().chars().take(100).collect();
        let phrase = format!("this driver offers no call \"{name}");
        judge.row(place, &format!("not offered, {name}"), answer, (Unimplemented, &phrase)).await;
    }
}

type OddName = (&'static str, fn() -> Vec<u8>, Code, &'static str);

/// Bytes in place of a name of CreateVolume, as no well-behaved client sends them.
#[rustfmt::skip]
const UNREADABLE: &[OddName] = &[
    ("name that is not UTF-8", || vec![b'p', 0xff, 0xfe], InvalidArgument, "CreateVolumeRequest.name"),
    ("request of five megabytes", || vec![b'n'; 5 << 20], OutOfRange, "too large"),
];

/// A CreateVolume request whose name is no text.
#[derive(Clone, PartialEq, prost::Message)]
struct Unreadable {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
}

async fn unreadable(channel: Channel, name: Vec<u8>) -> Result<tonic::Response<Unreadable>, tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = "/csi.v1.Controller/CreateVolume".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<Unreadable, Unreadable>::default();
    client.unary(tonic::Request::new(Unreadable { name }), path, codec).await
}

/// Every CSI name gives one disk, under a name that the cloud takes, and deleting it leaves nothing.
async fn odd_names(controller: &mut ControllerClient<Channel>, place: &Place, judge: &mut Judge) {
    let disks = |value: serde_json::Value| -> BTreeMap<String, String> {
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        value.as_array().unwrap().iter().map(|disk| (text(&disk["id"]), text(&disk["name"]))).collect()
    };
    let before = disks(judge.before.disks.clone());
    let mut ids = BTreeMap::new();
    for name in NAMES {
        let id = volume(controller, &name()).await;
        assert_eq!(volume(controller, &name()).await, id, "{:?}", name());
        assert_eq!(ids.insert(id.clone(), name()), None, "{:?} shares a disk", name());
    }
    let after = disks(place.world.control("GET", "disks", "").await);
    assert_eq!(after.len(), before.len() + NAMES.len());
    for id in ids.keys() {
        let name = &after[id];
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!((6..=63).contains(&name.len()) && name.chars().all(plain), "{name:?}");
        controller.delete_volume(csi::delete(id)).await.unwrap();
    }
    judge.before.journal = place.world.control("GET", "journal", "").await;
    for (id, name) in &ids {
        let answer = super::answer(controller.delete_volume(csi::delete(id)).await);
        judge.row(place, &format!("create and delete {name:?}"), answer, (Fine, "")).await;
    }
}
