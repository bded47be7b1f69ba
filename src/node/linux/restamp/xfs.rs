//! xfs, version 5. Its log must carry the UUID of its superblock, or the kernel refuses it; but a null UUID in the log
//! has always been taken for any (IRIX wrote none). So the log's last record, which says that it was unmounted, is made
//! to carry none, then the superblocks are changed, the one that the kernel reads last, and then the record gets the new
//! UUID. The log is not cleared, so its sequence numbers go on.

use std::io;

use super::super::crc32c;
use super::super::probe::{ReadAt, at, be32, be64, le32, read, uuid};
use super::{Steps, Unable, Write};
use crate::volume::FsUuid;

/// All that is changed of a superblock is in its first sector of this size, whatever its own.
const SECTOR: usize = 512;

const BLOCK_SIZE: usize = 4;
const UUID: usize = 32;
const LOG_START: usize = 48;
const GROUP_BLOCKS: usize = 84;
const GROUPS: usize = 88;
const LOG_BLOCKS: usize = 96;
const VERSION: usize = 100;
const SECTOR_SIZE: usize = 102;
const GROUP_BLOCKS_LOG: usize = 124;
const IN_PROGRESS: usize = 126;
const INCOMPATIBLE: usize = 216;
const CHECKSUM: usize = 224;
const META_UUID: usize = 248;
const HAS_META_UUID: u32 = 4;

const NOTHING: FsUuid = FsUuid::from_bytes([0; 16]);

pub(super) fn steps(disk: &dyn ReadAt, from: FsUuid, to: FsUuid) -> io::Result<Result<Steps, Unable>> {
    // The copies are left "in progress" by mkfs.
    let Some(found) = Superblock::read(disk, 0)?.filter(|found| found.0[IN_PROGRESS] == 0) else {
        return Ok(Err(Unable::Damaged("its superblock")));
    };
    let new = match found.stamped(from, to) {
        Ok(new) if new == found => return Ok(Ok(Vec::new())),
        Ok(new) => new,
        Err(reason) => return Ok(Err(reason)),
    };
    let last = match LastRecord::find(disk, &found)? {
        Ok(last) => last,
        Err(reason) => return Ok(Err(reason)),
    };
    if ![from, to, NOTHING].contains(&last.uuid()) {
        return Ok(Err(Unable::Damaged("its log")));
    }
    let mut copies = Vec::new();
    for group in 1..u64::from(be32(&found.0, GROUPS)) {
        let offset = group.saturating_mul(u64::from(be32(&found.0, GROUP_BLOCKS)) * found.block_size());
        // Nothing but xfs_repair looks at the copies, and that puts right what is wrong with them.
        if let Some(copy) = Superblock::read(disk, offset)?
            && let Ok(new) = copy.stamped(from, to)
            && new != copy
        {
            copies.push(new.write(offset));
        }
    }
    Ok(Ok(vec![vec![last.with(NOTHING)], copies, vec![new.write(0)], vec![last.with(to)]]))
}

/// A superblock whose checksum is right, with the rest of its sector.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Superblock(Vec<u8>);

impl Superblock {
    fn read(disk: &dyn ReadAt, offset: u64) -> io::Result<Option<Self>> {
        let start = read(disk, offset, SECTOR)?;
        let size = usize::from(u16::from_be_bytes([start[SECTOR_SIZE], start[SECTOR_SIZE + 1]]));
        if !at(&start, 0, b"XFSB") || !size.is_power_of_two() || !(SECTOR..=32768).contains(&size) {
            return Ok(None);
        }
        let this = Self(read(disk, offset, size)?);
        Ok((!this.has_checksum() || this.checksum() == le32(&this.0, CHECKSUM)).then_some(this))
    }

    fn has_checksum(&self) -> bool {
        self.0[VERSION + 1] & 0xf == 5
    }

    fn checksum(&self) -> u32 {
        let register = crc32c::update(!0, &self.0[..CHECKSUM]);
        let register = crc32c::update(register, &[0; 4]);
        !crc32c::update(register, &self.0[CHECKSUM + 4..])
    }

    fn block_size(&self) -> u64 {
        u64::from(be32(&self.0, BLOCK_SIZE))
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn stamped(&self, from: FsUuid, to: FsUuid) -> Result<Self, Unable> {
        let mut new = self.clone();
        let found = uuid(&new.0, UUID);
        if found == to {
            return Ok(new);
        }
        if found != from {
            return Err(Unable::OtherUuid(found));
        }
        if !new.has_checksum() {
            let remedy = format!("run xfs_admin -U {to}");
            return Err(Unable::ByHand { what: "old format (version 4)", remedy });
        }
        let flags = be32(&new.0, INCOMPATIBLE);
        let in_metadata = if flags & HAS_META_UUID != 0 { uuid(&new.0, META_UUID) } else { from };
        // It may have been made on this very disk, and be back by way of a copy.
        let (flags, second) = if in_metadata == to {
            (flags & !HAS_META_UUID, NOTHING)
        } else {
            (flags | HAS_META_UUID, in_metadata)
        };
        new.put(INCOMPATIBLE, &flags.to_be_bytes());
        new.put(META_UUID, &second.bytes());
        new.put(UUID, &to.bytes());
        new.put(CHECKSUM, &new.checksum().to_le_bytes());
        Ok(new)
    }

    fn write(&self, offset: u64) -> Write {
        Write { offset, bytes: self.0[..SECTOR].to_vec() }
    }

    /// Where the log is: its first byte and its length; `None`: on another device.
    fn log(&self) -> Option<(u64, u64)> {
        let start = be64(&self.0, LOG_START);
        // A block number is a group's and a block's in it, of which this many bits are the latter.
        let bits = u32::from(self.0[GROUP_BLOCKS_LOG]).min(63);
        let (group, block) = (start >> bits, start & ((1 << bits) - 1));
        let block = group.checked_mul(u64::from(be32(&self.0, GROUP_BLOCKS)))?.checked_add(block)?;
        let length = u64::from(be32(&self.0, LOG_BLOCKS)) * self.block_size();
        Some((block.checked_mul(self.block_size())?, length)).filter(|_| start != 0 && length != 0)
    }
}

const MAGIC: [u8; 4] = [0xfe, 0xed, 0xba, 0xbe];
const RECORD_VERSION: usize = 8;
const LENGTH: usize = 12;
const SEQUENCE: usize = 16;
const RECORD_CHECKSUM: usize = 32;
const OPERATIONS: usize = 40;
const RECORD_UUID: usize = 304;
const BUFFER_SIZE: usize = 320;
/// Of the header, as the kernels of 64-bit machines check it.
const CHECKED: usize = 328;
const VERSION_2: u32 = 2;
/// Of the operation in an unmount record.
const OPERATION_FLAGS: usize = 9;
const UNMOUNT: u8 = 0x20;
/// One sector of header is for so much.
const HEADER_COVERS: u32 = 32 * 1024;
/// Of the other sectors of a header, as the kernel checks them.
const CHECKED_OF_MORE: usize = 260;
const LARGEST: u32 = 256 * 1024;

/// The header of the log's last record, which is the one of an unmount.
#[derive(Debug)]
struct LastRecord {
    offset: u64,
    /// The first sector.
    header: Vec<u8>,
    /// What the checksum is made of beside that.
    rest: Vec<u8>,
}

impl LastRecord {
    fn find(disk: &dyn ReadAt, fs: &Superblock) -> io::Result<Result<Self, Unable>> {
        let Some((start, length)) = fs.log() else {
            return Ok(Err(Unable::Damaged("the place of its log")));
        };
        let Some((place, header)) = newest(disk, start, length)? else {
            return Ok(Err(Unable::Dirty));
        };
        let size = be32(&header, LENGTH);
        // One operation, filled up to what the log is written in.
        if be32(&header, OPERATIONS) != 1 || !(1..=LARGEST).contains(&size) {
            return Ok(Err(Unable::Dirty));
        }
        // The log is a ring.
        let sector = |index: u32| {
            let place = (place + u64::from(index) * SECTOR as u64) % length;
            read(disk, start + place, SECTOR)
        };
        let headers = if be32(&header, RECORD_VERSION) & VERSION_2 != 0 {
            be32(&header, BUFFER_SIZE).div_ceil(HEADER_COVERS).max(1)
        } else {
            1
        };
        if sector(headers)?[OPERATION_FLAGS] & UNMOUNT == 0 {
            return Ok(Err(Unable::Dirty));
        }
        let mut rest = Vec::new();
        for index in 1..size.div_ceil(HEADER_COVERS) {
            rest.extend_from_slice(&sector(index)?[..CHECKED_OF_MORE]);
        }
        let before = rest.len();
        let size = usize::try_from(size).unwrap_or_default();
        for index in (headers..).take(size.div_ceil(SECTOR)) {
            rest.extend(sector(index)?);
        }
        rest.truncate(before + size);
        let this = Self { offset: start + place, header, rest };
        // mkfs writes none.
        if this.has_checksum() && this.checksum(&this.header) != le32(&this.header, RECORD_CHECKSUM) {
            return Ok(Err(Unable::Damaged("the last record of its log")));
        }
        Ok(Ok(this))
    }

    fn uuid(&self) -> FsUuid {
        uuid(&self.header, RECORD_UUID)
    }

    fn has_checksum(&self) -> bool {
        le32(&self.header, RECORD_CHECKSUM) != 0
    }

    fn checksum(&self, header: &[u8]) -> u32 {
        let register = crc32c::update(!0, &header[..RECORD_CHECKSUM]);
        let register = crc32c::update(register, &[0; 4]);
        let register = crc32c::update(register, &header[RECORD_CHECKSUM + 4..CHECKED]);
        !crc32c::update(register, &self.rest)
    }

    fn with(&self, uuid: FsUuid) -> Write {
        let mut bytes = self.header.clone();
        bytes[RECORD_UUID..RECORD_UUID + 16].copy_from_slice(&uuid.bytes());
        if self.has_checksum() {
            let checksum = self.checksum(&bytes).to_le_bytes();
            bytes[RECORD_CHECKSUM..RECORD_CHECKSUM + 4].copy_from_slice(&checksum);
        }
        Write { offset: self.offset, bytes }
    }
}

/// The header with the highest sequence number, and its place in the log. Nothing else in a log can look like a header:
/// the first word of all other sectors is replaced by a counter.
fn newest(disk: &dyn ReadAt, start: u64, length: u64) -> io::Result<Option<(u64, Vec<u8>)>> {
    const CHUNK: u64 = 1 << 20;
    let mut newest: Option<(u64, u64, Vec<u8>)> = None;
    let mut chunk = 0;
    while chunk < length {
        // At most `CHUNK`, which is a usize.
        let bytes =
            read(disk, start + chunk, usize::try_from((length - chunk).min(CHUNK)).unwrap_or_default())?;
        for (index, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            if !at(sector, 0, &MAGIC) {
                continue;
            }
            let place = chunk + (index * SECTOR) as u64;
            let sequence = be64(sector, SEQUENCE);
            // A sequence number is that of the turn of the ring and of the sector in it.
            let is_here = sequence & 0xffff_ffff == place / SECTOR as u64;
            if is_here && newest.as_ref().is_none_or(|(highest, ..)| sequence > *highest) {
                newest = Some((sequence, place, sector.to_vec()));
            }
        }
        chunk += CHUNK;
    }
    Ok(newest.map(|(_, place, sector)| (place, sector)))
}
