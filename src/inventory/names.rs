//! Which disks bear the name of a CSI volume, and what that name tells.

use crate::volume::DiskName;

/// What provisioners begin names with unless they are told otherwise. So do those of every other cluster.
pub const COMMON_PREFIX: &str = "pvc";

/// The name of a disk, as far as a provisioner may have given it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CsiName<'a> {
    /// A prefix, a dash and the uid of a claim: how provisioners name volumes.
    OfClaim { prefix: &'a str, uid: &'a str },
    /// The driver's hash of a name that the cloud does not take. It tells nothing.
    Hash,
    /// It begins like the name of a volume, and goes on in another way.
    Alike,
}

impl<'a> CsiName<'a> {
    /// Reads the name of a disk. `None`: no provisioner makes such names.
    pub fn read(name: &'a str, own_prefix: Option<&str>) -> Option<Self> {
        if DiskName::is_hash(name) {
            return Some(Self::Hash);
        }
        // A name can be cut only between characters, and names of disks may hold any.
        let cut = name.len().checked_sub(UID).and_then(|at| name.split_at_checked(at));
        if let Some((head, uid)) = cut
            && let Some(prefix) = head.strip_suffix('-')
            && !prefix.is_empty()
            && is_uid(uid)
        {
            return Some(Self::OfClaim { prefix, uid });
        }
        let begins = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-'));
        (begins(COMMON_PREFIX) || own_prefix.is_some_and(begins)).then_some(Self::Alike)
    }
}

/// Every uid that a name holds.
pub(super) fn uids(name: &str) -> impl Iterator<Item = &str> {
    (0..name.len().saturating_sub(UID - 1))
        .filter_map(|at| name.get(at..at + UID))
        .filter(|text| is_uid(text))
}

/// The length of a uid.
const UID: usize = 36;

fn is_uid(text: &str) -> bool {
    text.len() == UID
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID_TEXT: &str = "0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d";

    #[test]
    fn names_of_provisioners_are_told_from_names_of_people() {
        let of = |prefix| Some(CsiName::OfClaim { prefix, uid: UID_TEXT });
        let name = |prefix: &str| format!("{prefix}-{UID_TEXT}");
        assert_eq!(CsiName::read(&name("pvc"), None), of("pvc"));
        assert_eq!(CsiName::read(&name("prod-a"), None), of("prod-a"));
        assert_eq!(CsiName::read(&name("prod"), Some("prod")), of("prod"));
        let hash = DiskName::for_volume("my.volume").to_string();
        assert_eq!(CsiName::read(&hash, None), Some(CsiName::Hash));
        assert_eq!(CsiName::read("pvc-backup", None), Some(CsiName::Alike));
        assert_eq!(CsiName::read("prod-db", Some("prod")), Some(CsiName::Alike));
        // Volumes of the FlexVolume plugin end in the id of their disk.
        assert_eq!(CsiName::read(&format!("pvc-{UID_TEXT}-bsm-1"), None), Some(CsiName::Alike));
        for other in [
            "",
            "pvc",
            "pvcs-1",
            "data",
            "prod-db",
            "-0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d",
            UID_TEXT,
            "数据盘",
        ] {
            assert_eq!(CsiName::read(other, None), None, "{other}");
        }
        assert_eq!(CsiName::read(&name("pvc").to_uppercase(), None), None);
        assert_eq!(uids(&format!("pvc-{UID_TEXT}-bsm-1")).collect::<Vec<_>>(), [UID_TEXT]);
        assert_eq!(uids("数据盘").count(), 0);
    }

    proptest! {
        #[test]
        fn any_name_can_be_read(name in "\\PC{0,80}", prefix in proptest::option::of("\\PC{0,10}")) {
            let _ = CsiName::read(&name, prefix.as_deref());
            let _ = uids(&name).count();
        }
    }
}
