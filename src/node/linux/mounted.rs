//! Whether a file system was ever mounted for writing since it was made, by what the kernel writes before anything else.
//!
//! It is asked of a file system whose making was noted and not confirmed: it may lack parts after a power cut though its
//! superblock is there. One that was never mounted holds nothing and is made again.

use std::io;

use super::probe::{BTRFS, EXT, FoundFs, FsKind, ReadAt, be32, be64, le16, le32, le64, read};

/// `true` only where each first trace of a mount is known to be missing.
pub(super) fn never_mounted(disk: &dyn ReadAt, found: &FoundFs) -> io::Result<bool> {
    match found.kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => Ok(ext_never_mounted(&read(disk, EXT as u64, 1024)?)),
        FsKind::Xfs => xfs_never_mounted(disk),
        FsKind::Btrfs => Ok(btrfs_never_mounted(&read(disk, BTRFS as u64, 4096)?)),
    }
}

/// A writable mount counts itself and notes its time, and waits until that is on the disk. e2fsck sets the count back,
/// but not the time; so both are looked at, and where it was mounted.
pub(super) fn ext_never_mounted(superblock: &[u8]) -> bool {
    let last_mounted = superblock.get(0x88..0xc8).unwrap_or(&[1]);
    le32(superblock, 0x2c) == 0 && le16(superblock, 0x34) == 0 && last_mounted.iter().all(|byte| *byte == 0)
}

/// The first superblock that a kernel writes flags large nodes, which mkfs leaves to it; one with files that were synced
/// before that has a log; and each that is committed later says how far the UUID tree is.
fn btrfs_never_mounted(superblock: &[u8]) -> bool {
    const BIG_METADATA: u64 = 0x20;
    let (log_root, incompatible, uuid_tree) =
        (le64(superblock, 0x60), le64(superblock, 0xbc), le64(superblock, 0x23b));
    log_root == 0 && incompatible & BIG_METADATA == 0 && uuid_tree == 0
}

/// Nothing reaches an xfs but through its log, and a mount writes there first. mkfs leaves one record, at its start and of
/// its first cycle, and after it none.
fn xfs_never_mounted(disk: &dyn ReadAt) -> io::Result<bool> {
    /// More than any record has, so the log of a mounted one shows a record in it wherever its head is.
    const READ: u64 = 1 << 20;
    const RECORD: u32 = 0xfeed_babe;
    let superblock = read(disk, 0, 512)?;
    let (block_size, group_blocks, log_blocks) =
        (u64::from(be32(&superblock, 4)), u64::from(be32(&superblock, 84)), u64::from(be32(&superblock, 96)));
    let (start, shift) = (be64(&superblock, 48), u32::from(superblock[124]));
    let Some(group) = start.checked_shr(shift).filter(|_| start != 0) else {
        return Ok(false);
    };
    let block = group.saturating_mul(group_blocks).saturating_add(start - (group << shift));
    let (offset, length) =
        (block.saturating_mul(block_size), log_blocks.saturating_mul(block_size).min(READ));
    if length == 0 || offset.saturating_add(length) > disk.size() {
        return Ok(false);
    }
    // At most `READ`.
    let log = read(disk, offset, usize::try_from(length).unwrap_or_default())?;
    let records: Vec<usize> = (0..log.len()).step_by(512).filter(|at| be32(&log, *at) == RECORD).collect();
    Ok(match records.as_slice() {
        [] => true,
        [0] => be32(&log, 4) == 1,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::probe::tests::TestDisk;
    use super::*;
    use crate::volume::FsUuid;

    fn asked(kind: FsKind, disk: &TestDisk) -> bool {
        let uuid = FsUuid::from_bytes([0; 16]);
        let found = FoundFs { kind, uuid, size: disk.size, block_size: 4096, granule: 1 << 20 };
        never_mounted(disk, &found).unwrap()
    }

    #[test]
    fn each_trace_of_an_ext_mount_is_enough() {
        for kind in [FsKind::Ext3, FsKind::Ext4] {
            let fresh = TestDisk::blank(1 << 30);
            assert!(asked(kind, &fresh));
            for place in [0x2c, 0x2f, 0x34, 0x35, 0x88, 0xc7] {
                assert!(!asked(kind, &fresh.clone().with(1024 + place, &[1])), "{place}");
            }
        }
    }

    #[test]
    fn each_trace_of_a_btrfs_mount_is_enough() {
        let fresh = TestDisk::blank(1 << 30);
        assert!(asked(FsKind::Btrfs, &fresh));
        for (place, byte) in [(0x60, 1), (0x67, 1), (0xbc, 0x20), (0x23b, 1), (0x242, 1)] {
            assert!(!asked(FsKind::Btrfs, &fresh.clone().with(65536 + place, &[byte])), "{place}");
        }
    }

    /// A log of 64 MiB in the middle of 10 GiB, as mkfs makes it.
    #[test]
    fn a_record_after_the_first_or_of_a_later_cycle_is_a_trace_of_an_xfs_mount() {
        let log = 5_368_733_696;
        let superblock = TestDisk::blank(10 << 30)
            .with(4, &4096u32.to_be_bytes())
            .with(48, &2_097_158u64.to_be_bytes())
            .with(84, &655_360u32.to_be_bytes())
            .with(96, &16_384u32.to_be_bytes())
            .with(124, &[20]);
        let record = |disk: &TestDisk, offset: u64, cycle: u32| {
            let header = [0xfeed_babe_u32.to_be_bytes(), cycle.to_be_bytes()].concat();
            disk.clone().with(log + offset, &header)
        };
        assert!(asked(FsKind::Xfs, &superblock));
        let fresh = record(&superblock, 0, 1);
        assert!(asked(FsKind::Xfs, &fresh));
        assert!(!asked(FsKind::Xfs, &record(&fresh, 0, 2)));
        for later in [512, 1024, 32 * 1024, (1 << 20) - 512] {
            assert!(!asked(FsKind::Xfs, &record(&fresh, later, 1)), "{later}");
            assert!(!asked(FsKind::Xfs, &record(&superblock, later, 0)), "{later}");
        }
        // A log elsewhere, or nowhere, is not known to be empty.
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(48, &[0; 8])));
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(96, &[0; 4])));
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(124, &[64])));
        assert!(!asked(FsKind::Xfs, &fresh.with(84, &[0xff; 4])));
    }
}
