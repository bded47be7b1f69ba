//! The mark on a disk's content: a file-system UUID that says which UDisk it was made on.
//!
//! A virtio serial names a slot, and slots are used again by other disks. The UUID of the file system travels
//! with the data, so it is what tells a volume from another volume in the same slot.
//!
//! Layout (a version 8 UUID of RFC 9562, whose content is free): six fixed bytes, the version, twelve bits of hash,
//! the variant, sixty-two bits of hash. `mke2fs` and its kind draw version 4, so no UUID but ours looks like this.

use std::fmt;

use sha1::{Digest as _, Sha1};

use super::DiskId;

/// What every mark starts with: "UDisk" and the layout's number.
const MARK: [u8; 6] = [b'U', b'D', b'i', b's', b'k', 1];
const VERSION: u8 = 0x80;
const VARIANT: u8 = 0x80;
/// Keeps the hash apart from other uses of a disk id. Never changed: volumes carry the result.
const DOMAIN: &[u8] = b"udisk.csi.ucloud.cn/file-system/1\0";

/// A file-system UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FsUuid([u8; 16]);

/// What a UUID found on a disk says about whose content it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Made by this driver on this disk.
    Ours,
    /// Made by this driver on another disk: a copy, or the wrong disk.
    OtherDisk,
    /// Made by something else.
    None,
}

impl FsUuid {
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The UUID that file systems on `disk` are made with.
    pub fn of_disk(disk: &DiskId) -> Self {
        let hash = Sha1::new().chain_update(DOMAIN).chain_update(disk.as_str()).finalize();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&MARK);
        bytes[6..].copy_from_slice(&hash[..10]);
        bytes[6] = VERSION | (bytes[6] & 0x0f);
        bytes[8] = VARIANT | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// From the text that [`fmt::Display`] writes, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        let mut bytes = [0; 16];
        if digits.len() != 2 * bytes.len() {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        // The dashes are where they belong.
        Some(Self(bytes)).filter(|uuid| uuid.to_string().eq_ignore_ascii_case(text))
    }

    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether this driver marks some disk with it.
    pub fn is_mark(self) -> bool {
        self.0[..6] == MARK && self.0[6] & 0xf0 == VERSION && self.0[8] & 0xc0 == VARIANT
    }

    /// Whose content a file system with this UUID is, as seen from `disk`.
    pub fn mark(self, disk: &DiskId) -> Mark {
        if self == Self::of_disk(disk) {
            Mark::Ours
        } else if self.is_mark() {
            Mark::OtherDisk
        } else {
            Mark::None
        }
    }
}

impl fmt::Display for FsUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for FsUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(id: &str) -> DiskId {
        DiskId::parse(id).unwrap()
    }

    /// Volumes carry these values: a change here orphans all of them.
    #[test]
    fn the_layout_is_stable() {
        assert_eq!(FsUuid::of_disk(&disk("bsm-abc123")).to_string(), "55446973-6b01-8972-9751-ce2064ccbc49");
    }

    #[test]
    fn the_text_is_read_back_and_nothing_else_is() {
        let uuid = FsUuid::of_disk(&disk("bs-1"));
        let text = uuid.to_string();
        assert_eq!(FsUuid::parse(&text), Some(uuid));
        assert_eq!(FsUuid::parse(&text.to_uppercase()), Some(uuid));
        for bad in
            ["", &text[1..], &text.replace('-', ""), &format!("{text}0"), &text.replace("5544", "554g")]
        {
            assert_eq!(FsUuid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_mark_tells_its_own_disk_from_others_and_from_foreign_uuids() {
        let ours = FsUuid::of_disk(&disk("bs-1"));
        assert_eq!(ours.mark(&disk("bs-1")), Mark::Ours);
        assert_eq!(ours.mark(&disk("bs-2")), Mark::OtherDisk);
        // The same bytes with the version of a random UUID.
        let mut random = ours.0;
        random[6] = 0x40;
        assert_eq!(FsUuid::from_bytes(random).mark(&disk("bs-2")), Mark::None);
        assert_eq!(FsUuid::from_bytes([0; 16]).mark(&disk("bs-1")), Mark::None);
    }
}
