//! Where a disk that lost its first blocks still shows what it held: the copies of superblocks.

use std::collections::BTreeSet;

use super::note;
use super::probe::{at, uuid};
use super::signature::LUKS2_SECOND;
use crate::volume::{FsType, FsUuid};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Past the start of a first partition, which is at 1 MiB and which a lost partition table still leaves.
pub(super) const START: u64 = 4 * MIB;
const SPOT: u64 = 4 * KIB;
/// An allocation group of xfs starts where its maker's rounding put it.
const WIDE_SPOT: u64 = 64 * KIB;
/// Spots spread evenly over the disk, for data that has no signature at all.
const SAMPLES: u64 = 64;
/// The cloud makes disks in steps of 10 GiB, which xfs cuts into four groups.
const XFS_STEP: u64 = 10 * GIB / 4;

/// Half-open ranges of bytes to read before a disk is called blank, in ascending order: the start, the last MiB, the
/// places of copies, the place of a format's note, and samples.
pub fn regions(size: u64) -> Vec<(u64, u64)> {
    let mut regions = Regions { size, ranges: BTreeSet::new() };
    regions.add(0, START);
    regions.add(size.saturating_sub(MIB), MIB);
    regions.ext();
    regions.xfs();
    // The mirrors of btrfs's superblock.
    for mirror in [64 * MIB, 256 * GIB, 1 << 50] {
        regions.add(mirror, SPOT);
    }
    for second_header in LUKS2_SECOND {
        regions.add(second_header, SPOT);
    }
    regions.add(note::PLACE, note::ROOM);
    for sample in 1..SAMPLES {
        regions.add((size / SAMPLES).saturating_mul(sample) & !(SPOT - 1), SPOT);
    }
    regions.ranges.into_iter().collect()
}

struct Regions {
    size: u64,
    ranges: BTreeSet<(u64, u64)>,
}

impl Regions {
    fn add(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length).min(self.size);
        if start < end {
            self.ranges.insert((start, end));
        }
    }

    /// A group has as many blocks as a block has bits; copies are in group 1 and in powers of 3, 5 and 7, or with
    /// `sparse_super2` in group 1 and the last one.
    fn ext(&mut self) {
        for block_size in [1, 2, 4, 8, 16, 32, 64].map(|kib| kib * KIB) {
            let group_size = 8 * block_size * block_size;
            let last = self.size.saturating_sub(1) / group_size;
            let mut groups = BTreeSet::from([1, last]);
            for base in [3u64, 5, 7] {
                let powers = std::iter::successors(Some(base), |power| power.checked_mul(base));
                groups.extend(powers.take_while(|group| *group <= last));
            }
            for group in groups {
                self.add(group.saturating_mul(group_size), SPOT);
            }
        }
    }

    /// Equal groups, by the rules of mkfs.xfs.
    fn xfs(&mut self) {
        let size = self.size;
        // Four, or on what looks like an array up to 32.
        for groups in [2u64, 4, 8, 16, 32] {
            for group in 1..groups {
                let start = (size / groups).saturating_mul(group);
                self.add(start.saturating_sub(WIDE_SPOT / 2) & !(SPOT - 1), WIDE_SPOT);
            }
        }
        // One that was made on a smaller disk and has grown with it keeps the size of its groups.
        for step in 1..=size.min(TIB) / XFS_STEP {
            self.add(step * XFS_STEP, SPOT);
        }
        // The largest group is a block smaller than 1 TiB, so they move away from the round numbers.
        for block_size in [1, 2, 4, 8, 16, 32, 64].map(|kib| kib * KIB) {
            for group in 1..=size / TIB {
                self.add(group * (TIB - block_size), SPOT);
            }
        }
    }
}

/// A superblock or a copy of one: the bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Superblock<'a> {
    Ext(&'a [u8]),
    Xfs(&'a [u8]),
    Btrfs(&'a [u8]),
}

impl Superblock<'_> {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext(_) => "a copy of an ext superblock",
            Self::Xfs(_) => "a copy of an xfs superblock",
            Self::Btrfs(_) => "a copy of a btrfs superblock",
        }
    }

    pub(super) fn uuid(self) -> FsUuid {
        match self {
            Self::Ext(bytes) => uuid(bytes, 0x68),
            Self::Xfs(bytes) | Self::Btrfs(bytes) => uuid(bytes, 0x20),
        }
    }

    /// Whether mkfs of `fs` writes such.
    pub(super) fn is_of(self, fs: FsType) -> bool {
        match self {
            Self::Ext(_) => matches!(fs, FsType::Ext3 | FsType::Ext4),
            Self::Xfs(_) => fs == FsType::Xfs,
            Self::Btrfs(_) => fs == FsType::Btrfs,
        }
    }
}

/// The superblocks in `bytes`. They need not be where those start: regions overlap, and an ext of 1 KiB blocks counts its
/// groups from the second block.
pub(super) fn superblocks(bytes: &[u8]) -> impl Iterator<Item = Superblock<'_>> {
    let every = |step: usize| (0..bytes.len()).step_by(step).map(|start| &bytes[start..]);
    // The magic of ext is short; its revision keeps noise from looking like it.
    let is_ext = |copy: &&[u8]| at(copy, 0x38, &[0x53, 0xef]) && at(copy, 0x4c, &[1, 0, 0, 0]);
    every(4096)
        .filter(|copy| at(copy, 0x40, b"_BHRfS_M"))
        .map(Superblock::Btrfs)
        .chain(every(1024).filter(is_ext).map(Superblock::Ext))
        .chain(every(512).filter(|copy| at(copy, 0, b"XFSB")).map(Superblock::Xfs))
}
