//! The UDisk name of a CSI volume name: the only thing by which a create can be found again.
//!
//! The API has no idempotency token, so the name must follow from the CSI name alone, for ever: a change here
//! would make a second disk for every create that is being retried during an update.

use std::fmt;
use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// Marks names that are a hash. A CSI name that looks like one is hashed as well, so that no CSI name can
/// choose the name of another's disk.
const HASHED: &str = "csi-sha1-";

/// Longest CSI name, in bytes: the limit that CSI sets for strings.
pub const MAX_CSI_NAME: usize = 128;

/// Why a text cannot be a CSI volume name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name is required")]
    Empty,
    #[error("name has {0} bytes; at most {MAX_CSI_NAME} are allowed")]
    TooLong(usize),
    #[error("name holds the control character {0:?}")]
    Control(char),
}

/// The name of a UDisk: 6 to 63 characters of `A-Za-z0-9_-`, which every part of the cloud accepts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskName(String);

impl DiskName {
    /// The disk's name for a CSI name: itself where the cloud accepts it, so that people find
    /// `pvc-…` in the console; a hash of it otherwise.
    pub fn for_volume(csi_name: &str) -> Self {
        if is_plain(csi_name) && !is_hashed(csi_name) {
            return Self(csi_name.to_owned());
        }
        let mut name = HASHED.to_owned();
        for byte in Sha1::digest(csi_name.as_bytes()) {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Self(name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name of a disk is the hash of a CSI name.
    pub fn is_hash(name: &str) -> bool {
        is_hashed(name)
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a CSI volume name against CSI's own rules.
pub fn check_csi_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_CSI_NAME {
        return Err(NameError::TooLong(name.len()));
    }
    match name.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        Some(control) => Err(NameError::Control(control)),
        None => Ok(()),
    }
}

fn is_plain(name: &str) -> bool {
    (6..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn is_hashed(name: &str) -> bool {
    name.strip_prefix(HASHED).is_some_and(|hash| {
        hash.len() == 2 * Sha1::output_size() && hash.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_the_cloud_takes_stay_and_others_are_hashed() {
        for plain in ["pvc-0b9c1a52-7f4e-4d6a-9d7a-0c5c2f1e3b4d", "sanity", "A_b-9z", &"x".repeat(63)] {
            assert_eq!(DiskName::for_volume(plain).as_str(), plain);
        }
        // Written down: these must be the same in every version of the driver.
        for (odd, name) in [
            ("vol-1", "csi-sha1-570404144e1bd4e5e1e1becc7d965ad6db41779a"),
            ("数据盘", "csi-sha1-f1c49c3396a3a4902bfe3e0cecef32fd18ad194c"),
            ("my.volume", "csi-sha1-a7050725fb92679eac9390a8bce1bb6b93925735"),
        ] {
            assert_eq!(DiskName::for_volume(odd).as_str(), name, "{odd}");
        }
    }

    #[test]
    fn a_name_that_looks_like_a_hash_cannot_take_the_disk_of_another() {
        let victim = DiskName::for_volume("vol-1");
        assert_ne!(DiskName::for_volume(victim.as_str()), victim);
    }

    #[test]
    fn csi_names_are_checked_by_csi_rules() {
        assert_eq!(check_csi_name("pvc-1"), Ok(()));
        assert_eq!(check_csi_name(&"x".repeat(128)), Ok(()));
        assert_eq!(check_csi_name("a\tb 卷"), Ok(()));
        assert_eq!(check_csi_name(""), Err(NameError::Empty));
        assert_eq!(check_csi_name(&"x".repeat(129)), Err(NameError::TooLong(129)));
        assert_eq!(check_csi_name("a\u{7}b"), Err(NameError::Control('\u{7}')));
    }

    /// Names of every kind: legal, too short, too long, odd, and those that look like hashes.
    fn any_name() -> impl Strategy<Value = String> {
        prop_oneof![".{1,128}", "[A-Za-z0-9_-]{1,128}", "csi-sha1-[0-9a-f]{39,41}"]
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_the_cloud_takes(name in any_name()) {
            prop_assert!(is_plain(DiskName::for_volume(&name).as_str()));
            prop_assert_eq!(DiskName::for_volume(&name), DiskName::for_volume(&name));
        }

        #[test]
        fn two_names_never_share_a_disk(one in any_name(), other in any_name()) {
            prop_assume!(one != other);
            prop_assert_ne!(DiskName::for_volume(&one), DiskName::for_volume(&other));
        }
    }
}
