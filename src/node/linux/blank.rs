//! The proof that a disk is blank. One rule decides: every byte that is read is zero.
//!
//! "No signature found" is no proof: a disk with read errors, a file system that lost its first block, and raw data
//! all look like that to signature scanners, and drivers have formatted such disks. Here a single non-zero byte or
//! a single failed read means "not blank".

use std::io;
use std::sync::Arc;

use super::backup;
pub use super::backup::regions;
use super::device::{OpenDevice, UseError};
use super::exclusive::ExclusiveDevice;
use super::noise::is_noise;
use super::note;
use super::probe::{ReadAt, is_zero};
use crate::volume::{BlankSectors, FoundNote, FsType};

/// Why a disk is not taken as blank.
#[derive(Debug, thiserror::Error)]
pub enum NotBlank {
    #[error("it holds data at byte {offset}")]
    Data { offset: u64 },
    #[error("it holds {name} near byte {offset}: it was in use and lost its first blocks")]
    Backup { name: &'static str, offset: u64 },
    #[error(
        "it holds the note of this driver that UDisk {disk} was being formatted as {fs}, at byte {offset}: this is the wrong \
         disk, or a copy made outside Kubernetes"
    )]
    Note { disk: String, fs: FsType, offset: u64 },
    #[error(
        "it holds a damaged note of this driver that a disk was being formatted, or one of a later version, in 512 bytes at byte \
         {offset}"
    )]
    DamagedNote { offset: u64 },
    #[error(
        "it holds data at byte {offset}, which is not the noise of an encrypted disk that was never written"
    )]
    NotNoise { offset: u64 },
    #[error("it could not be read at byte {offset}: {source}")]
    Unreadable { offset: u64, source: io::Error },
}

/// Why there is no proof that a disk is blank.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    #[error(transparent)]
    NotBlank(#[from] NotBlank),
    #[error(transparent)]
    Use(#[from] UseError),
}

/// A device that was proven blank, and that nobody else can mount. Only the proof makes one, and only one of these can be
/// formatted.
#[derive(Debug)]
pub struct BlankDevice {
    pub(super) device: Arc<OpenDevice>,
    pub(super) claim: ExclusiveDevice,
}

impl BlankDevice {
    /// Reads all regions of the disk itself. What the kernel has in memory of the device may be older: file systems, and
    /// mappings made of it, write past that memory, which stays as long as anybody has the device open. Blocking.
    pub fn prove(device: Arc<OpenDevice>, sectors: BlankSectors) -> Result<Self, ProofError> {
        let claim = ExclusiveDevice::open(&device)?;
        prove(&claim, sectors)?;
        Ok(Self { device, claim })
    }
}

/// What is read at a time; a multiple of what noise is judged by.
const CHUNK: u64 = 256 * 1024;

fn unreadable(offset: u64, source: io::Error) -> NotBlank {
    NotBlank::Unreadable { offset, source }
}

/// Whether every byte in the regions of `disk` is zero, or such noise as `sectors` allows.
pub fn prove(disk: &dyn ReadAt, sectors: BlankSectors) -> Result<(), NotBlank> {
    let first = read_all(disk, unreadable, |bytes, start| {
        if is_zero(bytes) {
            return Ok(());
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let offset = start + zeros as u64;
        match sectors {
            BlankSectors::Zero => Err(NotBlank::Data { offset }),
            BlankSectors::Noise if is_noise(bytes) => Ok(()),
            BlankSectors::Noise => Err(NotBlank::NotNoise { offset }),
        }
    });
    // Noise may hide a copy, and of data it may say whose they are.
    match (&first, sectors) {
        (Ok(()), BlankSectors::Zero) | (Err(NotBlank::Unreadable { .. }), _) => first,
        _ => noted(disk).and_then(|()| read_all(disk, unreadable, copy)).and(first),
    }
}

/// A note of the volume's own disk was seen before; so this is another's, which is found with what it was written for.
fn noted(disk: &dyn ReadAt) -> Result<(), NotBlank> {
    let offset = note::PLACE;
    match note::read(disk).map_err(|source| unreadable(offset, source))? {
        FoundNote::None => Ok(()),
        FoundNote::Damaged => Err(NotBlank::DamagedNote { offset }),
        FoundNote::Note(note) => Err(NotBlank::Note { disk: note.disk.to_string(), fs: note.fs, offset }),
    }
}

fn copy(bytes: &[u8], offset: u64) -> Result<(), NotBlank> {
    match backup::superblocks(bytes).next() {
        Some(found) => Err(NotBlank::Backup { name: found.name(), offset }),
        None => Ok(()),
    }
}

/// Reads all regions, until `judge` says no.
pub(super) fn read_all<E>(
    disk: &dyn ReadAt,
    unreadable: impl Fn(u64, io::Error) -> E,
    judge: impl Fn(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = Vec::new();
    for (start, end) in backup::regions(disk.size()) {
        let mut offset = start;
        while offset < end {
            let length = (end - offset).min(CHUNK);
            // At most `CHUNK`, which is a usize.
            buffer.resize(usize::try_from(length).unwrap_or_default(), 0);
            disk.read_exact_at(&mut buffer, offset).map_err(|source| unreadable(offset, source))?;
            judge(&buffer, offset)?;
            offset += length;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::linux::backup::{START, regions};
    use crate::node::linux::noise::tests::noise;
    use crate::node::linux::probe::tests::TestDisk;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    const TIB: u64 = 1 << 40;

    fn zero(disk: &TestDisk) -> Result<(), NotBlank> {
        prove(disk, BlankSectors::Zero)
    }

    #[test]
    fn a_zero_disk_of_any_size_is_blank_and_read_inside_its_bounds() {
        for size in [512, 4096, MIB - 512, MIB, 3 * MIB + 512, 10 * GIB, 8000 * GIB, 32_000 * GIB] {
            let disk = TestDisk::blank(size);
            assert!(zero(&disk).is_ok() && prove(&disk, BlankSectors::Noise).is_ok(), "{size}");
            let bytes: usize = disk.reads.borrow().iter().map(|(_, length)| length).sum();
            assert!(bytes < 45 << 20, "{bytes} bytes read three times of {size}");
        }
    }

    #[test]
    fn copies_of_superblocks_are_named_when_the_start_is_lost() {
        let ext = |group: u64| {
            let mut copy = vec![0; 1024];
            copy[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
            copy[0x4c] = 1;
            (group, copy, "a copy of an ext superblock")
        };
        let xfs = |group: u64| (group, b"XFSB".to_vec(), "a copy of an xfs superblock");
        let btrfs = |mirror: u64| (mirror + 0x40, b"_BHRfS_M".to_vec(), "a copy of a btrfs superblock");
        for (size, (offset, bytes, expected)) in [
            // Groups of 4 KiB blocks: the first, and powers of 3, 5 and 7.
            (10 * GIB, ext(128 * MIB)),
            (10 * GIB, ext(27 * 128 * MIB)),
            (10 * GIB, ext(25 * 128 * MIB)),
            (10 * GIB, ext(49 * 128 * MIB)),
            // The last one; and 1 KiB blocks, which count from the second block.
            (10 * GIB, ext(79 * 128 * MIB)),
            (10 * GIB, ext(3 * 8 * MIB + KIB)),
            (20 * GIB, xfs(5 * GIB)),
            (20 * GIB, xfs(15 * GIB)),
            (20 * GIB, xfs(20 * GIB / 32)),
            // Made on 10 GiB and grown.
            (1000 * GIB, xfs(GIB * 5 / 2)),
            (32_000 * GIB, xfs(TIB - 4 * KIB)),
            (32_000 * GIB, xfs(30 * (TIB - 4 * KIB))),
            (10 * GIB, btrfs(64 * MIB)),
            (1000 * GIB, btrfs(256 * GIB)),
        ] {
            let disk = TestDisk::blank(size).with(offset, &bytes);
            for sectors in [BlankSectors::Zero, BlankSectors::Noise] {
                let named =
                    matches!(prove(&disk, sectors), Err(NotBlank::Backup { name, .. }) if name == expected);
                assert!(named, "{offset} of {size}: {:?}", prove(&disk, sectors));
            }
        }
    }

    /// A disk that was partitioned, and lost its first sectors: ext4, xfs and btrfs in a first partition.
    #[test]
    fn the_first_partition_is_read_though_its_table_is_gone() {
        for offset in [MIB, MIB + 1024, MIB + 64 * 1024, 2 * MIB, START - 1] {
            let disk = TestDisk::blank(10 * GIB).with(offset, &[1]);
            assert!(
                matches!(zero(&disk), Err(NotBlank::Data { offset: found }) if found == offset),
                "{offset}"
            );
        }
    }

    #[test]
    fn a_read_error_is_not_blank() {
        for unreadable in [0, 134_217_728, 10 * GIB - 1] {
            let disk = TestDisk { unreadable: Some(unreadable), ..TestDisk::blank(10 * GIB) };
            for sectors in [BlankSectors::Zero, BlankSectors::Noise] {
                assert!(matches!(prove(&disk, sectors), Err(NotBlank::Unreadable { .. })), "{unreadable}");
            }
        }
    }

    #[test]
    fn noise_is_blank_only_where_that_was_said_and_only_as_a_whole() {
        let size = 4 * MIB;
        let bytes = noise(7, 4 << 20);
        let disk = TestDisk::blank(size).with(0, &bytes);
        assert!(prove(&disk, BlankSectors::Noise).is_ok());
        assert!(matches!(zero(&disk), Err(NotBlank::Data { .. })));
        let text = disk.clone().with(8192, &b"a table of somebody's, with words in it ".repeat(50));
        assert!(matches!(prove(&text, BlankSectors::Noise), Err(NotBlank::NotNoise { .. })));
        let copy = disk.with(size / 2, b"XFSB");
        assert!(matches!(prove(&copy, BlankSectors::Noise), Err(NotBlank::Backup { .. })));
    }

    proptest! {
        /// No single byte in any region is missed, whatever its value and place, by either reading.
        #[test]
        fn one_byte_is_enough(
            size in 1024u64..40_000 * GIB, region in any::<prop::sample::Index>(), place in any::<u64>(), byte in 1u8..
        ) {
            let regions = regions(size);
            let (start, end) = regions[region.index(regions.len())];
            let offset = start + place % (end - start);
            let disk = TestDisk::blank(size).with(offset, &[byte]);
            let missed = !matches!(zero(&disk), Err(NotBlank::Data { offset: found }) if found == offset);
            prop_assert!(!missed, "byte {} of {}", offset, size);
            prop_assert!(prove(&disk, BlankSectors::Noise).is_err(), "byte {} of {}, as noise", offset, size);
        }
    }
}
