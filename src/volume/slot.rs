//! The place of a disk on its host, as the API and the disk's virtio serial name it.

use std::fmt;

/// A slot such as `vdc`. It names a place, not a disk: after a detach the next disk may get it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot(String);

/// Why a text is no slot of a data disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    #[error("{0:?} is not a slot such as vdc")]
    Malformed(String),
    #[error("{0:?} is the slot of the system disk, which is never used as a volume")]
    System(String),
}

impl Slot {
    /// Takes `vdc`, and the spellings `/dev/vdc` and `VDC`.
    pub fn parse(text: &str) -> Result<Self, SlotError> {
        let name = text.strip_prefix("/dev/").unwrap_or(text).to_ascii_lowercase();
        let letters = name.strip_prefix("vd").unwrap_or_default();
        if letters.is_empty() || letters.len() > 2 || !letters.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(SlotError::Malformed(text.to_owned()));
        }
        if letters == "a" {
            return Err(SlotError::System(text.to_owned()));
        }
        Ok(Self(name))
    }

    /// What the disk in this slot answers as its serial. The kernel's name of the device may have another letter.
    pub fn serial(&self) -> String {
        format!("{SERIAL_PREFIX}{}", self.0.to_ascii_uppercase())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the serials of all the cloud's disks start with.
pub const SERIAL_PREFIX: &str = "UCLOUD_DISK_";

/// The serial of the disk that a host runs from.
pub const SYSTEM_SERIAL: &str = "UCLOUD_DISK_VDA";

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_slot_have_one_serial() {
        for text in ["vdc", "/dev/vdc", "VDC"] {
            assert_eq!(Slot::parse(text).unwrap().serial(), "UCLOUD_DISK_VDC");
        }
        assert_eq!(Slot::parse("vdaa").unwrap().serial(), "UCLOUD_DISK_VDAA");
    }

    #[test]
    fn other_text_and_the_system_disk_are_refused() {
        for text in ["", "vd", "sda", "vd1", "vdc1", "/dev/mapper/x", "vdabc", "../vdb"] {
            assert_eq!(Slot::parse(text), Err(SlotError::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!(Slot::parse("/dev/VDA"), Err(SlotError::System("/dev/VDA".to_owned())));
    }
}
