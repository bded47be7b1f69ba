//! The letters that the cloud gives to a host's disks.

use std::fmt;

/// A place on a host's disk bus, counted from the system disk: 0 is `vda`, 1 is `vdb`, 26 is `vdaa`.
///
/// This is the name in the API and in the disk's serial. The guest's kernel numbers its devices in the order in
/// which it finds them, so its letter may be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device(u32);

impl Device {
    pub const SYSTEM: Self = Self(0);
    pub const FIRST_DATA: Self = Self(1);

    pub const fn new(place: u32) -> Self {
        Self(place)
    }

    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    fn letters(self) -> String {
        // Bijective base 26, as the kernel names its disks: after `z` comes `aa`.
        let mut rest = self.0;
        let mut letters = Vec::new();
        loop {
            letters.push(b'a' + u8::try_from(rest % 26).unwrap_or(0));
            if rest < 26 {
                break;
            }
            rest = rest / 26 - 1;
        }
        letters.iter().rev().map(|&byte| char::from(byte)).collect()
    }

    /// The virtio serial under which the guest sees the disk, such as `UCLOUD_DISK_VDB`.
    pub fn serial(self) -> String {
        format!("UCLOUD_DISK_VD{}", self.letters().to_ascii_uppercase())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vd{}", self.letters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_on_after_z() {
        let name = |place| Device::new(place).to_string();
        assert_eq!(name(0), "vda");
        assert_eq!(name(1), "vdb");
        assert_eq!(name(25), "vdz");
        assert_eq!(name(26), "vdaa");
        assert_eq!(name(27), "vdab");
        assert_eq!(name(26 + 26 * 26), "vdaaa");
        assert_eq!(Device::new(26).serial(), "UCLOUD_DISK_VDAA");
    }
}
