//! ext2, ext3 and ext4. Only the first superblock is written: the kernel and e2fsck use no other as long as that one is
//! sound, and the copies stay a sound description of the same file system under its former UUID.

use std::io;

use super::super::crc32c;
use super::super::probe::{EXT, ReadAt, at, le32, read, uuid};
use super::{Steps, Unable, Write};
use crate::volume::FsUuid;

const SIZE: usize = 1024;

const COMPATIBLE: usize = 0x5c;
const INCOMPATIBLE: usize = 0x60;
const RO_COMPATIBLE: usize = 0x64;
const UUID: usize = 0x68;
const SEED: usize = 0x270;
const CHECKSUM: usize = 0x3fc;

const STABLE_INODES: u32 = 0x800;
const NEEDS_RECOVERY: u32 = 0x4;
const EA_INODE: u32 = 0x400;
const CSUM_SEED: u32 = 0x2000;
const GROUP_CHECKSUMS: u32 = 0x10;
const METADATA_CHECKSUMS: u32 = 0x400;

pub(super) fn steps(disk: &dyn ReadAt, from: FsUuid, to: FsUuid) -> io::Result<Result<Steps, Unable>> {
    let found = Superblock(read(disk, EXT as u64, SIZE)?);
    Ok(found.stamped(from, to).map(|new| {
        if new == found { Vec::new() } else { vec![vec![Write { offset: EXT as u64, bytes: new.0 }]] }
    }))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Superblock(Vec<u8>);

impl Superblock {
    fn has(&self, word: usize, flag: u32) -> bool {
        le32(&self.0, word) & flag != 0
    }

    fn uuid(&self) -> FsUuid {
        uuid(&self.0, UUID)
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn checksum(&self) -> u32 {
        crc32c::update(!0, &self.0[..CHECKSUM])
    }

    fn is_sound(&self) -> bool {
        at(&self.0, 0x38, &[0x53, 0xef])
            && (!self.has(RO_COMPATIBLE, METADATA_CHECKSUMS) || self.checksum() == le32(&self.0, CHECKSUM))
    }

    /// Its two sectors may come from before and after a write that a power cut tore. The first one has the UUID and the
    /// flag, the second one the seed and the checksum, so the checksum tells what the first one was.
    fn untorn(&self, from: FsUuid, to: FsUuid) -> Option<Self> {
        let with = |uuid: FsUuid, seeded: bool| {
            let mut first = self.clone();
            first.put(UUID, &uuid.bytes());
            let flags = le32(&self.0, INCOMPATIBLE);
            let flags = if seeded { flags | CSUM_SEED } else { flags & !CSUM_SEED };
            first.put(INCOMPATIBLE, &flags.to_le_bytes());
            first
        };
        [self.clone(), with(to, true), with(from, true), with(from, false)].into_iter().find(Self::is_sound)
    }

    fn stamped(&self, from: FsUuid, to: FsUuid) -> Result<Self, Unable> {
        let mut new = self.untorn(from, to).ok_or(Unable::Damaged("its superblock"))?;
        if new.uuid() == to {
            return Ok(new);
        }
        if new.uuid() != from {
            return Err(Unable::OtherUuid(new.uuid()));
        }
        if new.has(INCOMPATIBLE, NEEDS_RECOVERY) {
            return Err(Unable::Dirty);
        }
        let seeded = new.has(INCOMPATIBLE, CSUM_SEED);
        let by_hand = |what| {
            let remedy = format!("run e2fsck -f and then tune2fs -U {to}");
            Err(Unable::ByHand { what, remedy })
        };
        let checksums = new.has(RO_COMPATIBLE, METADATA_CHECKSUMS);
        if new.has(COMPATIBLE, STABLE_INODES) {
            return by_hand("encryption");
        } else if !checksums && new.has(RO_COMPATIBLE, GROUP_CHECKSUMS) {
            return by_hand("group checksums (uninit_bg)");
        } else if !checksums && !seeded && new.has(INCOMPATIBLE, EA_INODE) {
            return by_hand("large attributes (ea_inode)");
        }
        if checksums && !seeded {
            new.put(SEED, &crc32c::update(!0, &from.bytes()).to_le_bytes());
            new.put(INCOMPATIBLE, &(le32(&new.0, INCOMPATIBLE) | CSUM_SEED).to_le_bytes());
        }
        new.put(UUID, &to.bytes());
        if checksums {
            new.put(CHECKSUM, &new.checksum().to_le_bytes());
        }
        Ok(new)
    }
}
