//! btrfs. The blocks of its trees, those of a log that waits to be replayed included, keep the UUID that they were made
//! with: superblocks name it as `metadata_uuid`.

use std::io;

use super::super::crc32c;
use super::super::probe::{BTRFS, ReadAt, at, le16, le64, read, uuid};
use super::{Steps, Unable, Write};
use crate::volume::FsUuid;

const SIZE: usize = 4096;
/// Where the copies are, on disks that are that large; the kernel reads none of them by itself.
const COPIES: [u64; 2] = [64 << 20, 256 << 30];

const CHECKSUM: usize = 0;
const CHECKED: usize = 0x20;
const UUID: usize = 0x20;
const PLACE: usize = 0x30;
const MAGIC: usize = 0x40;
const INCOMPATIBLE: usize = 0xbc;
const CHECKSUM_TYPE: usize = 0xc4;
const DEVICE_UUID: usize = 0x11b;
const METADATA_UUID: usize = 0x23b;

const HAS_METADATA_UUID: u64 = 1 << 10;
const CRC32C: u16 = 0;

/// Kernels before 5.0 could not mount it any more.
pub(super) fn prove_kernel() -> Result<(), String> {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    if is_new_enough(&release) { Ok(()) } else { Err(release) }
}

fn is_new_enough(release: &str) -> bool {
    let major = release.split(|c: char| !c.is_ascii_digit()).next().and_then(|word| word.parse::<u32>().ok());
    major.is_some_and(|major| major >= 5)
}

pub(super) fn steps(disk: &dyn ReadAt, from: FsUuid, to: FsUuid) -> io::Result<Result<Steps, Unable>> {
    let found = Superblock(read(disk, BTRFS as u64, SIZE)?);
    let new = match found.stamped(from, to) {
        Ok(new) if new == found => return Ok(Ok(Vec::new())),
        Ok(new) => new,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut copies = Vec::new();
    for offset in COPIES.into_iter().filter(|offset| offset + SIZE as u64 <= disk.size()) {
        let copy = Superblock(read(disk, offset, SIZE)?);
        // Others are not what the file system would fall back to either.
        if let Ok(new) = copy.stamped(from, to)
            && new != copy
            && le64(&copy.0, PLACE) == offset
        {
            copies.push(Write { offset, bytes: new.0 });
        }
    }
    Ok(Ok(vec![copies, vec![Write { offset: BTRFS as u64, bytes: new.0 }]]))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Superblock(Vec<u8>);

impl Superblock {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn uuid(&self) -> FsUuid {
        uuid(&self.0, UUID)
    }

    fn has_metadata_uuid(&self) -> bool {
        le64(&self.0, INCOMPATIBLE) & HAS_METADATA_UUID != 0
    }

    fn checksum(&self) -> [u8; 4] {
        (!crc32c::update(!0, &self.0[CHECKED..])).to_le_bytes()
    }

    fn is_sound(&self) -> bool {
        at(&self.0, CHECKSUM, &self.checksum())
    }

    /// Its sectors may come from before and after a write that a power cut tore. Of what is changed only the second UUID
    /// is not in the first sector, where the checksum is, so the checksum tells what it was.
    fn untorn(&self, from: FsUuid, to: FsUuid) -> Option<Self> {
        let with = |second: FsUuid| {
            let mut other = self.clone();
            other.put(METADATA_UUID, &second.bytes());
            other
        };
        let nothing = FsUuid::from_bytes([0; 16]);
        [self.clone(), with(from), with(to), with(nothing)].into_iter().find(Self::is_sound)
    }

    fn stamped(&self, from: FsUuid, to: FsUuid) -> Result<Self, Unable> {
        if !at(&self.0, MAGIC, b"_BHRfS_M") {
            return Err(Unable::Damaged("its superblock"));
        }
        if le16(&self.0, CHECKSUM_TYPE) != CRC32C {
            let remedy = format!("run btrfstune -M {to}");
            return Err(Unable::ByHand { what: "kind of checksum", remedy });
        }
        let mut new = self.untorn(from, to).ok_or(Unable::Damaged("its superblock"))?;
        if new.uuid() == to {
            return Ok(new);
        }
        if new.uuid() != from {
            return Err(Unable::OtherUuid(new.uuid()));
        }
        let in_metadata = if new.has_metadata_uuid() { uuid(&new.0, METADATA_UUID) } else { from };
        if uuid(&new.0, DEVICE_UUID) != in_metadata {
            return Err(Unable::Damaged("what its superblock says of its device"));
        }
        let flags = le64(&new.0, INCOMPATIBLE);
        // It may have been made on this very disk, and be back by way of a copy.
        let (flags, second) = if in_metadata == to {
            (flags & !HAS_METADATA_UUID, FsUuid::from_bytes([0; 16]))
        } else {
            (flags | HAS_METADATA_UUID, in_metadata)
        };
        new.put(INCOMPATIBLE, &flags.to_le_bytes());
        new.put(METADATA_UUID, &second.bytes());
        new.put(UUID, &to.bytes());
        new.put(CHECKSUM, &new.checksum());
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_by_their_release() {
        for old in ["4.19.0-1.el7.ucloud.x86_64", "3.10.0-1160.el7.x86_64", "", "unknown"] {
            assert!(!is_new_enough(old), "{old}");
        }
        for new in ["5.0.0", "5.4.0-26-generic", "10.1"] {
            assert!(is_new_enough(new), "{new}");
        }
    }
}
