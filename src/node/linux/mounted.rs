//! Whether a file system was ever mounted for writing since it was made, by what the kernel writes before anything else.
//!
//! It is asked of a file system whose making was noted and not confirmed: it may lack parts after a power cut though its
//! superblock is there. One that was never mounted holds nothing and is made again.

use std::io;

use super::backup::Superblock;
use super::probe::{BTRFS, EXT, FoundFs, FsKind, ReadAt, be32, be64, le16, le32, le64, read};

/// `true` only where each first trace of a mount is known to be missing.
pub(super) fn never_mounted(disk: &dyn ReadAt, found: &FoundFs) -> io::Result<bool> {
    match found.kind {
        FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => {
            shows_no_mount(disk, Superblock::Ext(&read(disk, EXT as u64, 1024)?))
        }
        FsKind::Xfs => shows_no_mount(disk, Superblock::Xfs(&read(disk, 0, 512)?)),
        FsKind::Btrfs => shows_no_mount(disk, Superblock::Btrfs(&read(disk, BTRFS as u64, 4096)?)),
    }
}

/// The same of a file system that has only a copy of its superblock left. A mount of ext and xfs does not write those;
/// but they tell where the journal is.
pub(super) fn shows_no_mount(disk: &dyn ReadAt, superblock: Superblock<'_>) -> io::Result<bool> {
    match superblock {
        Superblock::Ext(bytes) => Ok(ext_never_mounted(bytes) && !ext_journal_was_used(disk, bytes)?),
        Superblock::Xfs(bytes) => xfs_never_mounted(disk, bytes),
        Superblock::Btrfs(bytes) => Ok(btrfs_never_mounted(bytes)),
    }
}

/// A writable mount counts itself and notes its time, and waits until that is on the disk. e2fsck sets the count back,
/// but not the time; so both are looked at, and where it was mounted.
fn ext_never_mounted(superblock: &[u8]) -> bool {
    let last_mounted = superblock.get(0x88..0xc8).unwrap_or(&[1]);
    le32(superblock, 0x2c) == 0 && le16(superblock, 0x34) == 0 && last_mounted.iter().all(|byte| *byte == 0)
}

/// mkfs starts the journal at its first transaction, and each mount that changes anything goes on from there.
fn ext_journal_was_used(disk: &dyn ReadAt, superblock: &[u8]) -> io::Result<bool> {
    const MAGIC: u32 = 0xc03b_3998;
    const FIRST: u32 = 1;
    let block_size = 1024u64.checked_shl(le32(superblock, 0x18)).unwrap_or(0);
    let Some(block) = ext_journal_block(disk, superblock, block_size)? else {
        return Ok(false);
    };
    let start = read(disk, block.saturating_mul(block_size), 1024)?;
    let (sequence, tail) = (be32(&start, 0x18), be32(&start, 0x1c));
    Ok(be32(&start, 0) == MAGIC && (sequence, tail) != (FIRST, 0))
}

/// Where the journal begins, by the copy of its inode's map that each superblock has. `None`: it has no journal, or one
/// that was not written out.
fn ext_journal_block(disk: &dyn ReadAt, superblock: &[u8], block_size: u64) -> io::Result<Option<u64>> {
    const HAS_COPY: u8 = 1;
    const EXTENTS: u16 = 0xf30a;
    const DEEPEST: u16 = 5;
    let map = superblock.get(0x10c..0x148).unwrap_or_default();
    if superblock.get(0xfd) != Some(&HAS_COPY) {
        return Ok(None);
    }
    if le16(map, 0) != EXTENTS {
        let first = u64::from(le32(map, 0));
        return Ok((first != 0).then_some(first));
    }
    let mut node = map.to_vec();
    for _ in 0..=DEEPEST {
        let (entries, depth) = (le16(&node, 2), le16(&node, 6));
        if le16(&node, 0) != EXTENTS || entries == 0 {
            return Ok(None);
        }
        let wide = |low: usize, high: usize| u64::from(le16(&node, high)) << 32 | u64::from(le32(&node, low));
        if depth == 0 {
            return Ok(Some(wide(20, 18)));
        }
        node = read(disk, wide(16, 20).saturating_mul(block_size), 1024)?;
    }
    Ok(None)
}

/// The first superblock that a kernel writes flags nodes larger than its pages, which mkfs leaves to it; one with files
/// that were synced before that has a log. Later ones say how far the UUID tree is, once that was looked through. And the
/// last that mkfs does is to move chunks, which a kernel rarely does.
fn btrfs_never_mounted(superblock: &[u8]) -> bool {
    const BIG_METADATA: u64 = 0x20;
    let (generation, of_chunks) = (le64(superblock, 0x48), le64(superblock, 0xa4));
    let (log_root, incompatible, uuid_tree) =
        (le64(superblock, 0x60), le64(superblock, 0xbc), le64(superblock, 0x233));
    log_root == 0 && incompatible & BIG_METADATA == 0 && uuid_tree == 0 && generation == of_chunks
}

/// Nothing reaches an xfs but through its log, and a mount writes there first. mkfs leaves one record, at its start and of
/// its first cycle, and after it none. A log that somebody emptied by force leaves the superblock with its last place.
fn xfs_never_mounted(disk: &dyn ReadAt, superblock: &[u8]) -> io::Result<bool> {
    /// More than any record has, so the log of a mounted one shows a record in it wherever its head is.
    const READ: u64 = 1 << 20;
    const RECORD: u32 = 0xfeed_babe;
    let (block_size, group_blocks, log_blocks) =
        (u64::from(be32(superblock, 4)), u64::from(be32(superblock, 84)), u64::from(be32(superblock, 96)));
    let (start, place) = (be64(superblock, 48), be64(superblock, 240));
    let shift = superblock.get(124).map_or(64, |shift| u32::from(*shift));
    let Some(group) = start.checked_shr(shift).filter(|_| start != 0 && place == 0) else {
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

    /// Both ways of mapping a journal, and a tree of two levels.
    #[test]
    fn a_journal_that_was_gone_on_with_is_a_trace_of_an_ext_mount() {
        let superblock = |map: &[u8]| {
            TestDisk::blank(1 << 30).with(1024 + 0x18, &[2]).with(1024 + 0xfd, &[1]).with(1024 + 0x10c, map)
        };
        let node = |depth: u8, child: [u8; 12]| {
            [&[0x0a, 0xf3, 1, 0, 4, 0, depth, 0, 0, 0, 0, 0][..], &child].concat()
        };
        let leaf = node(0, [0, 0, 0, 0, 8, 0, 1, 0, 7, 0, 0, 0]);
        let tree = node(1, [0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        let far = (1 << 44) + 7 * 4096;
        for (disk, place) in [
            (superblock(&[7, 0, 0, 0, 8]), 7 * 4096),
            (TestDisk { size: 1 << 50, ..superblock(&leaf) }, far),
            (TestDisk { size: 1 << 50, ..superblock(&tree) }.with(9 * 4096, &leaf), far),
        ] {
            let journal = |sequence: u8, start: u8| {
                let bytes = [0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4];
                disk.clone().with(place, &bytes).with(place + 0x1b, &[sequence]).with(place + 0x1f, &[start])
            };
            assert!(asked(FsKind::Ext4, &disk) && asked(FsKind::Ext4, &journal(1, 0)));
            assert!(!asked(FsKind::Ext4, &journal(2, 0)) && !asked(FsKind::Ext4, &journal(1, 1)));
            assert!(asked(FsKind::Ext4, &journal(2, 0).with(1024 + 0xfd, &[0])));
        }
        // What leads nowhere is no journal.
        assert!(asked(FsKind::Ext4, &superblock(&tree)));
        assert!(asked(FsKind::Ext4, &superblock(&tree).with(9 * 4096, &tree)));
        assert!(asked(FsKind::Ext4, &superblock(&[0xff; 60])));
    }

    #[test]
    fn each_trace_of_a_btrfs_mount_is_enough() {
        let fresh = TestDisk::blank(1 << 30).with(65536 + 0x48, &[6]).with(65536 + 0xa4, &[6]);
        assert!(asked(FsKind::Btrfs, &fresh));
        for (place, byte) in [(0x48, 7), (0x60, 1), (0x67, 1), (0xbc, 0x20), (0x233, 1), (0x23a, 1)] {
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
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(240, &[0, 0, 0, 1])));
        // A log elsewhere, or nowhere, is not known to be empty.
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(48, &[0; 8])));
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(96, &[0; 4])));
        assert!(!asked(FsKind::Xfs, &fresh.clone().with(124, &[64])));
        assert!(!asked(FsKind::Xfs, &fresh.with(84, &[0xff; 4])));
    }
}
