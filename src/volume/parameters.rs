//! StorageClass parameters: how a disk is to be made.
//!
//! Keys and values are compared exactly, as documented for UK8S, and an unknown key is refused: a typing error
//! that went unnoticed would make disks that are billed or protected in another way than intended. Only `yes`
//! and `no` are taken in any case and as `true` and `false` too, because that is what YAML tools turn them into.

use std::collections::BTreeMap;
use std::fmt;

use super::blank::yes_or_no;
use super::{BlankSectors, DiskType, FsType, Quoted};

/// The keys.
pub mod key {
    pub const TYPE: &str = "type";
    pub const FS_TYPE: &str = "fsType";
    pub const CSI_FS_TYPE: &str = "csi.storage.k8s.io/fstype";
    pub const DATA_ARK: &str = "udataArkMode";
    pub const CHARGE_TYPE: &str = "chargeType";
    pub const QUANTITY: &str = "quantity";
    pub const CMK_ID: &str = "cmkId";
    pub const NOISE: &str = "blankReadsAsNoise";
    pub const BUSINESS_GROUP: &str = "businessGroup";
    /// The API's word for the business group.
    pub const TAG: &str = "tag";

    /// In the order in which they are shown.
    pub const ALL: [&str; 10] =
        [TYPE, FS_TYPE, CSI_FS_TYPE, DATA_ARK, CHARGE_TYPE, QUANTITY, CMK_ID, NOISE, BUSINESS_GROUP, TAG];

    /// What starts so is the sidecars' own, such as the names of claim and volume; it says nothing on the disk.
    pub const SIDECAR_PREFIX: &str = "csi.storage.k8s.io/";
}

/// Longest business group, in characters.
const MAX_BUSINESS_GROUP: usize = 63;
/// The cloud gives out keys far shorter than this.
const MAX_CMK_ID: usize = 128;

/// How a disk is paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChargeType {
    /// By the hour, while it exists.
    Dynamic,
    Month,
    Year,
}

impl ChargeType {
    pub const ALL: [Self; 3] = [Self::Dynamic, Self::Month, Self::Year];

    /// The StorageClass word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|charge| charge.word() == word)
    }

    /// The most months or years that can be paid in advance; `None`: nothing is.
    fn max_quantity(self) -> Option<u32> {
        match self {
            Self::Dynamic => None,
            Self::Month => Some(9),
            Self::Year => Some(10),
        }
    }
}

/// StorageClass parameters, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    pub disk_type: DiskType,
    /// From `fsType` or `csi.storage.k8s.io/fstype`; the capability's own file system wins.
    pub fs: Option<FsType>,
    pub data_ark: bool,
    pub charge_type: ChargeType,
    /// Months or years; always there for prepaid disks, never for others.
    pub quantity: Option<u32>,
    pub cmk_id: Option<String>,
    /// Noise only with `cmk_id`.
    pub blank: BlankSectors,
    /// The business group.
    pub tag: Option<String>,
}

/// What is wrong with the parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    #[error("parameter {key:?} is required; allowed: {allowed}")]
    Missing { key: &'static str, allowed: String },
    #[error("unknown parameter {}; allowed: {}", Quoted(.key), Words(&key::ALL))]
    Unknown { key: String },
    #[error("parameter {key:?} is {}; allowed: {allowed}", Quoted(.value))]
    Value { key: &'static str, value: String, allowed: String },
    #[error(
        "parameters {one:?} and {other:?} contradict each other: {} and {}; set one of them",
        Quoted(.one_value), Quoted(.other_value)
    )]
    Contradiction { one: &'static str, one_value: String, other: &'static str, other_value: String },
    #[error("parameter {key:?} is not possible without {needs:?}")]
    Needs { key: &'static str, needs: &'static str },
    #[error("parameter {key:?} is not possible with {with:?} {value:?}; {remedy}")]
    Combination { key: &'static str, with: &'static str, value: &'static str, remedy: &'static str },
}

impl Parameters {
    pub fn parse(map: &BTreeMap<String, String>) -> Result<Self, ParameterError> {
        let unknown =
            map.keys().find(|key| !key::ALL.contains(&key.as_str()) && !key.starts_with(key::SIDECAR_PREFIX));
        if let Some(key) = unknown {
            return Err(ParameterError::Unknown { key: key.clone() });
        }

        let types = || words(DiskType::ALL.map(DiskType::word));
        let disk_type = word(map, key::TYPE, DiskType::from_word, types)?
            .ok_or_else(|| ParameterError::Missing { key: key::TYPE, allowed: types() })?;
        let charge_type = word(map, key::CHARGE_TYPE, ChargeType::from_word, || {
            words(ChargeType::ALL.map(ChargeType::word))
        })?
        .unwrap_or(ChargeType::Dynamic);

        Ok(Self {
            disk_type,
            fs: file_system(map)?,
            data_ark: word(map, key::DATA_ARK, yes_or_no, || words(["yes", "no"]))?.unwrap_or(false),
            charge_type,
            quantity: quantity(map, charge_type)?,
            cmk_id: cmk_id(map, disk_type)?,
            blank: blank(map)?,
            tag: business_group(map)?,
        })
    }
}

/// One value by its words; `None` when the key is not there.
fn word<T>(
    map: &BTreeMap<String, String>,
    key: &'static str,
    parse: impl Fn(&str) -> Option<T>,
    allowed: impl Fn() -> String,
) -> Result<Option<T>, ParameterError> {
    let Some(value) = map.get(key) else { return Ok(None) };
    match parse(value) {
        Some(parsed) => Ok(Some(parsed)),
        None => Err(ParameterError::Value { key, value: value.clone(), allowed: allowed() }),
    }
}

/// An empty file system is none, as in CSI's own field.
fn file_system(map: &BTreeMap<String, String>) -> Result<Option<FsType>, ParameterError> {
    let one = |key| {
        let parse =
            |value: &str| if value.is_empty() { Some(None) } else { FsType::from_word(value).map(Some) };
        word(map, key, parse, || words(FsType::ALL.map(FsType::word))).map(Option::flatten)
    };
    let (own, csi) = (one(key::FS_TYPE)?, one(key::CSI_FS_TYPE)?);
    if let (Some(own), Some(csi)) = (own, csi)
        && own != csi
    {
        return Err(ParameterError::Contradiction {
            one: key::FS_TYPE,
            one_value: own.word().to_owned(),
            other: key::CSI_FS_TYPE,
            other_value: csi.word().to_owned(),
        });
    }
    Ok(own.or(csi))
}

/// Prepaid disks get one month or year when nothing is said; the API would choose the same, but its default for
/// other values is not documented.
fn quantity(map: &BTreeMap<String, String>, charge_type: ChargeType) -> Result<Option<u32>, ParameterError> {
    let Some(max) = charge_type.max_quantity() else {
        return match map.get(key::QUANTITY) {
            None => Ok(None),
            Some(_) => Err(ParameterError::Combination {
                key: key::QUANTITY,
                with: key::CHARGE_TYPE,
                value: charge_type.word(),
                remedy: "remove it, or set chargeType to month or year",
            }),
        };
    };
    let parse = |value: &str| {
        let digits = value.bytes().all(|b| b.is_ascii_digit());
        value.parse().ok().filter(|count| digits && (1..=max).contains(count))
    };
    let allowed = || format!("1 to {max} with chargeType {}", charge_type.word());
    Ok(Some(word(map, key::QUANTITY, parse, allowed)?.unwrap_or(1)))
}

fn cmk_id(map: &BTreeMap<String, String>, disk_type: DiskType) -> Result<Option<String>, ParameterError> {
    let id = word(
        map,
        key::CMK_ID,
        |value| (is_text(value, MAX_CMK_ID) && !value.contains(' ')).then(|| value.to_owned()),
        || "the id of a key of UKMS".to_owned(),
    )?;
    if id.is_some() && disk_type != DiskType::Rssd {
        return Err(ParameterError::Combination {
            key: key::CMK_ID,
            with: key::TYPE,
            value: disk_type.word(),
            remedy: "only disks of type rssd can be encrypted",
        });
    }
    Ok(id)
}

/// The sectors of a disk that is not encrypted read as zero, so noise on it is data.
fn blank(map: &BTreeMap<String, String>) -> Result<BlankSectors, ParameterError> {
    let sectors =
        word(map, key::NOISE, BlankSectors::from_noise, || words(["yes", "no"]))?.unwrap_or_default();
    if sectors == BlankSectors::Noise && !map.contains_key(key::CMK_ID) {
        return Err(ParameterError::Needs { key: key::NOISE, needs: key::CMK_ID });
    }
    Ok(sectors)
}

fn business_group(map: &BTreeMap<String, String>) -> Result<Option<String>, ParameterError> {
    let one = |key| {
        let parse = |value: &str| is_text(value, MAX_BUSINESS_GROUP).then(|| value.to_owned());
        word(map, key, parse, || {
            format!("the name of a business group, 1 to {MAX_BUSINESS_GROUP} characters")
        })
    };
    match (one(key::BUSINESS_GROUP)?, one(key::TAG)?) {
        (Some(group), Some(tag)) if group != tag => Err(ParameterError::Contradiction {
            one: key::BUSINESS_GROUP,
            one_value: group,
            other: key::TAG,
            other_value: tag,
        }),
        (group, tag) => Ok(group.or(tag)),
    }
}

fn is_text(value: &str, max: usize) -> bool {
    (1..=max).contains(&value.chars().count()) && !value.chars().any(char::is_control)
}

fn words<const N: usize>(list: [&'static str; N]) -> String {
    Words(&list).to_string()
}

/// `a, b, c`.
struct Words<'a>(&'a [&'static str]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(entries: &[(&str, &str)]) -> Result<Parameters, String> {
        let map = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Parameters::parse(&map).map_err(|error| error.to_string())
    }

    fn plain(disk_type: DiskType) -> Parameters {
        Parameters {
            disk_type,
            fs: None,
            data_ark: false,
            charge_type: ChargeType::Dynamic,
            quantity: None,
            cmk_id: None,
            blank: BlankSectors::Zero,
            tag: None,
        }
    }

    #[test]
    fn the_type_alone_is_enough() {
        for disk_type in DiskType::ALL {
            assert_eq!(parse(&[("type", disk_type.word())]), Ok(plain(disk_type)));
        }
    }

    #[test]
    fn the_classes_that_uk8s_installs_are_taken() {
        assert_eq!(
            parse(&[("type", "ssd"), ("fsType", "ext4"), ("udataArkMode", "no")]),
            Ok(Parameters { fs: Some(FsType::Ext4), ..plain(DiskType::Ssd) })
        );
        assert_eq!(
            parse(&[("type", "rssd"), ("fsType", "xfs")]),
            Ok(Parameters { fs: Some(FsType::Xfs), ..plain(DiskType::Rssd) })
        );
    }

    #[test]
    fn every_key_has_its_effect() {
        let all = parse(&[
            ("type", "rssd"),
            ("fsType", "btrfs"),
            ("csi.storage.k8s.io/fstype", "btrfs"),
            ("udataArkMode", "Yes"),
            ("chargeType", "month"),
            ("quantity", "9"),
            ("cmkId", "cmk-1"),
            ("blankReadsAsNoise", "Yes"),
            ("businessGroup", "数据库"),
            ("tag", "数据库"),
            ("csi.storage.k8s.io/pvc/name", "data"),
            ("csi.storage.k8s.io/pvc/namespace", "shop"),
            ("csi.storage.k8s.io/pv/name", "pvc-1"),
            ("csi.storage.k8s.io/something/new", ""),
        ]);
        let expected = Parameters {
            disk_type: DiskType::Rssd,
            fs: Some(FsType::Btrfs),
            data_ark: true,
            charge_type: ChargeType::Month,
            quantity: Some(9),
            cmk_id: Some("cmk-1".to_owned()),
            blank: BlankSectors::Noise,
            tag: Some("数据库".to_owned()),
        };
        assert_eq!(all, Ok(expected));
    }

    #[test]
    fn single_values() {
        for (entry, effect) in [
            (
                ("csi.storage.k8s.io/fstype", "xfs"),
                Parameters { fs: Some(FsType::Xfs), ..plain(DiskType::Ssd) },
            ),
            (("fsType", ""), plain(DiskType::Ssd)),
            (("udataArkMode", "yes"), Parameters { data_ark: true, ..plain(DiskType::Ssd) }),
            (("udataArkMode", "true"), Parameters { data_ark: true, ..plain(DiskType::Ssd) }),
            (("udataArkMode", "False"), plain(DiskType::Ssd)),
            (("chargeType", "dynamic"), plain(DiskType::Ssd)),
            (
                ("chargeType", "year"),
                Parameters { charge_type: ChargeType::Year, quantity: Some(1), ..plain(DiskType::Ssd) },
            ),
            (("tag", "shop"), Parameters { tag: Some("shop".to_owned()), ..plain(DiskType::Ssd) }),
            (("businessGroup", "shop"), Parameters { tag: Some("shop".to_owned()), ..plain(DiskType::Ssd) }),
        ] {
            assert_eq!(parse(&[("type", "ssd"), entry]), Ok(effect), "{entry:?}");
        }
    }

    #[test]
    fn errors_name_the_key_and_what_is_allowed() {
        for (entries, text) in [
            (&[][..], r#"parameter "type" is required; allowed: sata, ssd, essd, rssd, erssd, efficiency"#),
            (
                &[("type", "SSD")],
                r#"parameter "type" is "SSD"; allowed: sata, ssd, essd, rssd, erssd, efficiency"#,
            ),
            (
                &[("type", "ssd"), ("Type", "ssd")],
                r#"unknown parameter "Type"; allowed: type, fsType, csi.storage.k8s.io/fstype, udataArkMode, chargeType, quantity, cmkId, blankReadsAsNoise, businessGroup, tag"#,
            ),
            (
                &[("type", "ssd"), ("fsType", "ntfs")],
                r#"parameter "fsType" is "ntfs"; allowed: ext3, ext4, xfs, btrfs"#,
            ),
            (
                &[("type", "ssd"), ("fsType", "ext4"), ("csi.storage.k8s.io/fstype", "xfs")],
                r#"parameters "fsType" and "csi.storage.k8s.io/fstype" contradict each other: "ext4" and "xfs"; set one of them"#,
            ),
            (
                &[("type", "ssd"), ("udataArkMode", "on")],
                r#"parameter "udataArkMode" is "on"; allowed: yes, no"#,
            ),
            (
                &[("type", "ssd"), ("chargeType", "hour")],
                r#"parameter "chargeType" is "hour"; allowed: dynamic, month, year"#,
            ),
            (
                &[("type", "ssd"), ("quantity", "1")],
                r#"parameter "quantity" is not possible with "chargeType" "dynamic"; remove it, or set chargeType to month or year"#,
            ),
            (
                &[("type", "ssd"), ("chargeType", "month"), ("quantity", "10")],
                r#"parameter "quantity" is "10"; allowed: 1 to 9 with chargeType month"#,
            ),
            (
                &[("type", "ssd"), ("chargeType", "year"), ("quantity", "0")],
                r#"parameter "quantity" is "0"; allowed: 1 to 10 with chargeType year"#,
            ),
            (
                &[("type", "ssd"), ("chargeType", "year"), ("quantity", "+1")],
                r#"parameter "quantity" is "+1"; allowed: 1 to 10 with chargeType year"#,
            ),
            (
                &[("type", "ssd"), ("cmkId", "cmk-1")],
                r#"parameter "cmkId" is not possible with "type" "ssd"; only disks of type rssd can be encrypted"#,
            ),
            (
                &[("type", "rssd"), ("cmkId", "")],
                r#"parameter "cmkId" is ""; allowed: the id of a key of UKMS"#,
            ),
            (
                &[("type", "rssd"), ("blankReadsAsNoise", "yes")],
                r#"parameter "blankReadsAsNoise" is not possible without "cmkId""#,
            ),
            (
                &[("type", "rssd"), ("cmkId", "k"), ("blankReadsAsNoise", "perhaps")],
                r#"parameter "blankReadsAsNoise" is "perhaps"; allowed: yes, no"#,
            ),
            (
                &[("type", "ssd"), ("tag", "")],
                r#"parameter "tag" is ""; allowed: the name of a business group, 1 to 63 characters"#,
            ),
            (
                &[("type", "ssd"), ("tag", "a"), ("businessGroup", "b")],
                r#"parameters "businessGroup" and "tag" contradict each other: "b" and "a"; set one of them"#,
            ),
        ] {
            assert_eq!(parse(entries), Err(text.to_owned()));
        }
    }

    proptest! {
        /// No key outside the list passes, whatever its value; no value panics.
        #[test]
        fn only_known_keys_pass(key in "\\PC{0,40}", value in "\\PC{0,80}") {
            let known = key::ALL.contains(&key.as_str()) || key.starts_with(key::SIDECAR_PREFIX);
            let result = parse(&[("type", "rssd"), (&key, &value)]);
            prop_assert!(known || result.is_err());
        }

        #[test]
        fn values_of_known_keys_are_parsed_or_named(index in 1..key::ALL.len(), value in "\\PC{0,80}") {
            let key = key::ALL[index];
            if let Err(text) = parse(&[("type", "rssd"), (key, &value)]) {
                let named = format!("{key:?}");
                prop_assert!(text.contains(&named));
            }
        }

        #[test]
        fn quantities_are_in_range_or_refused(count in any::<u32>(), year in any::<bool>()) {
            let (word, max) = if year { ("year", 10) } else { ("month", 9) };
            let text = count.to_string();
            let result = parse(&[("type", "ssd"), ("chargeType", word), ("quantity", &text)]);
            prop_assert_eq!(result.ok().and_then(|p| p.quantity), (1..=max).contains(&count).then_some(count));
        }
    }
}
