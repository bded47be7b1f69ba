//! Disks in memory: zero but for a few bytes.

use std::collections::BTreeMap;
use std::io;

use csi_udisk::node::linux::blank::regions;
use csi_udisk::node::linux::note::PLACE;
use csi_udisk::node::linux::probe::ReadAt;
use csi_udisk::volume::{DiskId, FormatNote, FsType};

use super::input::Input;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Most are small, so that most runs are short.
const SIZES: [u64; 16] = [
    0,
    512,
    KIB,
    4 * KIB,
    64 * KIB,
    128 * KIB,
    256 * KIB,
    MIB - 512,
    MIB + 512,
    3 * MIB,
    5 * MIB + 512,
    64 * MIB + 4 * KIB,
    3 * GIB,
    10 * GIB,
    10 * GIB + 512,
    40_000 * GIB,
];

/// A disk. A read past its end panics.
#[derive(Debug, Clone, Default)]
pub struct Image {
    pub size: u64,
    bytes: BTreeMap<u64, u8>,
    unreadable: Option<u64>,
}

impl Image {
    pub fn blank(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// What of `bytes` is on the disk, is written to it.
    #[must_use]
    pub fn with(mut self, offset: u64, bytes: &[u8]) -> Self {
        self.put(offset, bytes);
        self
    }

    /// A read of this byte fails.
    #[must_use]
    pub fn unreadable_at(mut self, offset: u64) -> Self {
        self.unreadable = Some(offset);
        self
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (place, byte) in (offset..self.size).zip(bytes) {
            self.bytes.insert(place, *byte);
        }
    }

    /// A size, and then pieces of content, each at a place of interest.
    pub fn parse(input: &mut Input<'_>) -> Self {
        let size = match input.byte() {
            class @ 0..240 => SIZES[usize::from(class % 16)],
            _ => input.number::<6>(),
        };
        let mut image = Self::blank(size);
        let regions = regions(size);
        while !input.is_empty() {
            let (kind, number) = (input.byte(), input.number::<2>());
            let index = usize::try_from(number).unwrap_or_default();
            let region = regions.get(index % regions.len().max(1)).copied().unwrap_or_default();
            match kind % 12 {
                0..=2 => image.put(number, input.counted()),
                3 => image.put(64 * KIB + number, input.counted()),
                4 => image.put(number * 512, input.counted()),
                5 => image.put(size.saturating_sub(number), input.counted()),
                6 => image.put(region.0 + u64::from(input.byte()), input.counted()),
                7 => image.put(region.1.saturating_sub(1 + u64::from(input.byte())), input.counted()),
                8 => image.put(PLACE + number % 8192, input.counted()),
                9 => image.put_note(index, input),
                10 => image.put(input.number::<6>(), input.counted()),
                _ => image.unreadable = Some(if number % 2 == 0 { region.0 } else { input.number::<6>() }),
            }
        }
        image
    }

    fn put_note(&mut self, index: usize, input: &mut Input<'_>) {
        let fs = FsType::ALL[index % FsType::ALL.len()];
        let id = input.choice(&["bs-1", "bs-2"]);
        if let Ok(disk) = DiskId::parse(id) {
            self.put(PLACE, &FormatNote { disk, fs }.encode());
        }
    }

    pub fn byte(&self, offset: u64) -> u8 {
        self.bytes.get(&offset).copied().unwrap_or_default()
    }

    /// Where it is not zero.
    pub fn data(&self) -> impl Iterator<Item = u64> {
        self.bytes.iter().filter(|(_, byte)| **byte != 0).map(|(offset, _)| *offset)
    }

    /// The byte that cannot be read.
    pub fn hole(&self) -> Option<u64> {
        self.unreadable.filter(|offset| *offset < self.size)
    }
}

impl ReadAt for Image {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        assert!(end <= self.size, "read to byte {end} of {}", self.size);
        if self.unreadable.is_some_and(|bad| (offset..end).contains(&bad)) {
            return Err(io::Error::other("unreadable"));
        }
        buffer.fill(0);
        for (place, byte) in self.bytes.range(offset..end) {
            if let Some(into) = usize::try_from(place - offset).ok().and_then(|place| buffer.get_mut(place)) {
                *into = *byte;
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        self.size
    }
}
