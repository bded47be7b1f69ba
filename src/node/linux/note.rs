//! Where the note of a format is on a disk, and how it gets there and away.

use std::io;
use std::sync::Arc;

use super::blank::BlankDevice;
use super::device::{OpenDevice, UseError};
use super::error::Doing as _;
use super::exclusive::ExclusiveDevice;
use super::probe::ReadAt;
use crate::volume::{FormatNote, FoundNote};

/// The place of the note, which no mkfs writes.
///
/// It is 2 MiB before the end of ext's first sixteen groups. There ext has only free blocks: each group's tables are at
/// its start, or those of sixteen groups together at the start of the first; the journal, of 1 GiB at most, begins in
/// the first group (ext3) or in the middle of the disk (ext4). Xfs and btrfs write at the starts of their groups
/// and chunks, which on disks of whole GiB begin elsewhere. A test watches it for each of them.
pub const PLACE: u64 = 2046 << 20;
/// What is kept free for it: the smallest that a file system writes.
pub(super) const ROOM: u64 = 4096;
/// A smaller disk is not formatted. The cloud's have 10 GiB and more, unless somebody asked for less by hand.
pub const LEAST_DISK: u64 = 3 << 30;

/// What is at the note's place.
pub fn read(disk: &dyn ReadAt) -> io::Result<FoundNote> {
    Ok(sector(disk)?.map_or(FoundNote::None, |bytes| FormatNote::decode(&bytes)))
}

fn sector(disk: &dyn ReadAt) -> io::Result<Option<[u8; FormatNote::LENGTH]>> {
    if disk.size() < PLACE + ROOM {
        return Ok(None);
    }
    let mut bytes = [0; FormatNote::LENGTH];
    disk.read_exact_at(&mut bytes, PLACE)?;
    Ok(Some(bytes))
}

/// A device that holds a note of its own on disk for good, and beside it nothing that anybody needs. Only these can
/// be formatted.
#[derive(Debug)]
pub struct NotedDevice {
    device: Arc<OpenDevice>,
    note: FormatNote,
}

impl NotedDevice {
    /// Puts a note on a blank device. Blocking.
    pub fn write(blank: BlankDevice, note: FormatNote) -> Result<Self, UseError> {
        let BlankDevice { device, claim } = blank;
        put(&claim, &note.encode())?;
        Ok(Self { device, note })
    }

    /// For the removal of what an earlier mkfs left, which proves that nothing but the note is there.
    pub(super) fn cleared(device: Arc<OpenDevice>, note: FormatNote) -> Self {
        Self { device, note }
    }

    pub fn device(&self) -> &Arc<OpenDevice> {
        &self.device
    }

    pub fn note(&self) -> &FormatNote {
        &self.note
    }
}

/// Takes a note away, for good. Blocking.
///
/// That it is there, byte for byte, proves that what is wiped is nobody's. Where it is not, nothing is written.
pub fn wipe(device: &OpenDevice, note: &FormatNote) -> Result<(), UseError> {
    let claim = ExclusiveDevice::open(device)?;
    if read(&claim).doing("read", device.path())? == FoundNote::Note(note.clone()) {
        put(&claim, &[0; FormatNote::LENGTH])?;
    }
    Ok(())
}

fn put(claim: &ExclusiveDevice, sector: &[u8; FormatNote::LENGTH]) -> Result<(), UseError> {
    claim.write(PLACE, sector)?;
    claim.sync()?;
    Ok(())
}

/// A disk with its note out of sight, to prove that the rest is blank.
pub(super) struct Unnoted<'a> {
    pub(super) disk: &'a dyn ReadAt,
    pub(super) note: &'a FormatNote,
}

impl ReadAt for Unnoted<'_> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_exact_at(buffer, offset)?;
        let Some(start) = PLACE.checked_sub(offset).and_then(|start| usize::try_from(start).ok()) else {
            return Ok(());
        };
        if let Some(sector) = buffer.get_mut(start..).and_then(|rest| rest.get_mut(..FormatNote::LENGTH))
            && *sector == self.note.encode()
        {
            sector.fill(0);
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.disk.size()
    }
}
