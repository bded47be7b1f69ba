//! The proof that a disk is blank. One rule decides: every byte that is read is zero.
//!
//! "No signature found" is no proof: a disk with read errors, a file system that lost its first block, and raw data
//! all look like that to signature scanners, and drivers have formatted such disks. Here a single non-zero byte or
//! a single failed read means "not blank".

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::device::OpenDevice;
use super::probe::ReadAt;

const MIB: u64 = 1 << 20;
/// Past the start of a first partition, which is at 1 MiB and which a lost partition table still leaves.
const START: u64 = 4 * MIB;
const SPOT: u64 = 4096;
/// An allocation group of xfs starts where its maker's rounding put it.
const WIDE_SPOT: u64 = 64 * 1024;
/// Spots spread evenly over the disk, for data that has no signature at all.
const SAMPLES: u64 = 64;

/// Why a disk is not taken as blank.
#[derive(Debug, thiserror::Error)]
pub enum NotBlank {
    #[error("it holds data at byte {offset}")]
    Data { offset: u64 },
    #[error("it could not be read at byte {offset}: {source}")]
    Unreadable { offset: u64, source: io::Error },
}

/// A device that was proven blank. Only the proof makes one, and only one of these can be formatted.
#[derive(Debug)]
pub struct BlankDevice(Arc<OpenDevice>);

impl BlankDevice {
    /// Reads all regions of the device. Blocking.
    pub fn prove(device: Arc<OpenDevice>) -> Result<Self, NotBlank> {
        prove(device.as_ref())?;
        Ok(Self(device))
    }

    pub fn device(&self) -> &Arc<OpenDevice> {
        &self.0
    }
}

fn prove(disk: &dyn ReadAt) -> Result<(), NotBlank> {
    let mut buffer = vec![0u8; 256 * 1024];
    for (start, end) in regions(disk.size()) {
        let mut offset = start;
        while offset < end {
            let length = (end - offset).min(buffer.len() as u64);
            // No longer than the buffer, whose length is a usize.
            let part = usize::try_from(length).map_or(&mut [][..], |length| &mut buffer[..length]);
            disk.read_exact_at(part, offset).map_err(|source| NotBlank::Unreadable { offset, source })?;
            if let Some(index) = part.iter().position(|byte| *byte != 0) {
                return Err(NotBlank::Data { offset: offset + index as u64 });
            }
            offset += length;
        }
    }
    Ok(())
}

/// Where to read, as half-open ranges of bytes in ascending order: the start, the last MiB, the places of backup
/// superblocks, and samples.
fn regions(size: u64) -> Vec<(u64, u64)> {
    let mut spots = BTreeSet::new();
    let mut add = |start: u64, length: u64| {
        let end = start.saturating_add(length).min(size);
        if start < end {
            spots.insert((start, end));
        }
    };
    add(0, START);
    add(size.saturating_sub(MIB), MIB);
    // ext: a group has as many blocks as a block has bits; copies are in group 1 and in powers of 3, 5 and 7.
    for block_size in [1024u64, 2048, 4096, 65536] {
        let group_size = 8 * block_size * block_size;
        let mut groups = BTreeSet::from([1u64]);
        for base in [3u64, 5, 7] {
            let powers = std::iter::successors(Some(base), |power| power.checked_mul(base));
            groups.extend(powers.take_while(|group| *group <= size / group_size));
        }
        for group in groups {
            add(group.saturating_mul(group_size), SPOT);
        }
    }
    // xfs: equal groups, by the sizes that mkfs.xfs chooses, of at most 1 TiB.
    for groups in [2u64, 4, 8, 16, 32] {
        for group in 1..groups {
            add((size / groups).saturating_mul(group).saturating_sub(WIDE_SPOT / 2) & !(SPOT - 1), WIDE_SPOT);
        }
    }
    for group in 1..=size >> 40 {
        add((group << 40) - WIDE_SPOT / 2, WIDE_SPOT);
    }
    // btrfs: the mirrors of its superblock.
    for mirror in [64 * MIB, 256 << 30, 1 << 50] {
        add(mirror, SPOT);
    }
    for sample in 1..SAMPLES {
        add((size / SAMPLES).saturating_mul(sample) & !(SPOT - 1), SPOT);
    }
    spots.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::linux::probe::tests::TestDisk;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_zero_disk_of_any_size_is_blank_and_read_inside_its_bounds() {
        for size in [512, 4096, MIB - 512, MIB, 3 * MIB + 512, 10 * GIB, 8000 * GIB, 32_000 * GIB] {
            let disk = TestDisk::blank(size);
            assert!(prove(&disk).is_ok(), "{size}");
            let bytes: usize = disk.reads.borrow().iter().map(|(_, length)| length).sum();
            assert!(bytes < 12 << 20, "{bytes} bytes read of {size}");
        }
    }

    #[test]
    fn backup_superblocks_are_read() {
        // ext4 with 4 KiB blocks: group 1; 1 KiB blocks: group 3, one block in; xfs: the second of four groups; btrfs.
        for offset in [134_217_728 + 0x38, 3 * 8_388_608 + 1024 + 0x38, 10 * GIB / 4, 64 * MIB + 0x40] {
            let disk = TestDisk::blank(10 * GIB).with(offset, &[1]);
            assert!(
                matches!(prove(&disk), Err(NotBlank::Data { offset: found }) if found == offset),
                "{offset}"
            );
        }
    }

    /// A disk that was partitioned, and lost its first sectors: ext4, xfs and btrfs in a first partition.
    #[test]
    fn the_first_partition_is_read_though_its_table_is_gone() {
        for offset in [MIB, MIB + 1024, MIB + 64 * 1024, 2 * MIB, START - 1] {
            let disk = TestDisk::blank(10 * GIB).with(offset, &[1]);
            assert!(
                matches!(prove(&disk), Err(NotBlank::Data { offset: found }) if found == offset),
                "{offset}"
            );
        }
    }

    #[test]
    fn a_read_error_is_not_blank() {
        for unreadable in [0, 134_217_728, 10 * GIB - 1] {
            let disk = TestDisk { unreadable: Some(unreadable), ..TestDisk::blank(10 * GIB) };
            assert!(matches!(prove(&disk), Err(NotBlank::Unreadable { .. })), "{unreadable}");
        }
    }

    proptest! {
        /// No single byte in any region is missed, whatever its value and place.
        #[test]
        fn one_byte_is_enough(
            size in 1024u64..40_000 * GIB, region in any::<prop::sample::Index>(), place in any::<u64>(), byte in 1u8..
        ) {
            let regions = regions(size);
            let (start, end) = regions[region.index(regions.len())];
            let offset = start + place % (end - start);
            let disk = TestDisk::blank(size).with(offset, &[byte]);
            let missed = !matches!(prove(&disk), Err(NotBlank::Data { offset: found }) if found == offset);
            prop_assert!(!missed, "byte {} of {}", offset, size);
        }
    }
}
