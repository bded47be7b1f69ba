//! The names of what is no volume: what wraps other content, and other file systems.
//!
//! A table only names. That nothing in it matches proves nothing.

use std::io;

use super::probe::{BTRFS, BTRFS_CHANGING_UUID, EXT, ReadAt, at, le16, le64, read};

const KIB: u64 = 1024;
const SECTOR: usize = 512;

const LUKS: &str = "a LUKS encrypted volume";
const LVM: &str = "an LVM2 physical volume";
const RAID: &str = "a member of a Linux software RAID";
const FIRMWARE_RAID: &str = "a member of a firmware RAID";
const ZFS: &str = "a member of a ZFS pool";
const HALF_CHANGED_BTRFS: &str = "a btrfs whose UUID btrfstune was changing when it was cut off (run it again with the same arguments, until it ends)";
const GPT: &str = "a GPT partition table";

const MD: u32 = 0xa92b_4efc;
const BCACHE: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];
/// At the beginning of each of the ring of blocks in a ZFS label, in the byte order of its maker.
const UBERBLOCK: [u64; 2] = [0x00ba_b10c, 0x0cb1_ba00_0000_0000];
const ZFS_LABEL: u64 = 256 * KIB;
/// No file system has files before this.
const FIRST_FILE: u64 = 16 * KIB;
/// Where the second header of LUKS2 is, by the size of the first.
pub(super) const LUKS2_SECOND: [u64; 9] =
    [16 * KIB, 32 * KIB, 64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB, 1024 * KIB, 2048 * KIB, 4096 * KIB];

/// What wraps other content: a file system found beside it must not be mounted directly. Up to `files` the disk holds the
/// files of a file system, and they may hold anything.
pub(super) fn wrapper(disk: &dyn ReadAt, head: &[u8], files: u64) -> io::Result<Option<&'static str>> {
    let free = |place: u64| place < FIRST_FILE || place >= files;
    let found = [at_start(head, free), luks2(disk, free)?, zfs(disk, free)?, at_end(disk, free)?];
    Ok(found.into_iter().flatten().next())
}

fn at_start(head: &[u8], free: impl Fn(u64) -> bool) -> Option<&'static str> {
    let lvm = (0..4)
        .map(|sector| sector * SECTOR)
        .any(|label| at(head, label, b"LABELONE") && at(head, label + 24, b"LVM2 001"));
    let swap = [4096usize, 8192, 16384, 65536].iter().filter(|page| free(**page as u64 - 10)).any(|page| {
        [b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\0", b"S2SUSPEND\0", b"ULSUSPEND\0", b"LINHIB0001"]
            .iter()
            .any(|word| at(head, page - 10, *word))
    });
    if at(head, 0, b"LUKS\xba\xbe") {
        Some(LUKS)
    } else if lvm {
        Some(LVM)
    } else if is_md(head, 0) || is_md(head, 4096) {
        Some(RAID)
    } else if at(head, 4096 + 24, &BCACHE) {
        Some("a bcache device")
    } else if at(head, 4096 + 24, &BCACHEFS) {
        Some("bcachefs")
    } else if at(head, SECTOR, b"EFI PART") || at(head, 4096, b"EFI PART") {
        Some(GPT)
    } else if swap {
        Some("swap space")
    } else {
        None
    }
}

fn is_md(bytes: &[u8], offset: usize) -> bool {
    at(bytes, offset, &MD.to_le_bytes()) || at(bytes, offset, &MD.to_be_bytes())
}

/// The second header alone: the first may be lost.
fn luks2(disk: &dyn ReadAt, free: impl Fn(u64) -> bool) -> io::Result<Option<&'static str>> {
    for offset in LUKS2_SECOND.into_iter().filter(|offset| free(*offset)) {
        if at(&read(disk, offset, SECTOR)?, 0, b"SKUL\xba\xbe") {
            return Ok(Some(LUKS));
        }
    }
    Ok(None)
}

/// Two labels at the start and two at the end, so that one is left when partitions were made over the others.
fn zfs(disk: &dyn ReadAt, free: impl Fn(u64) -> bool) -> io::Result<Option<&'static str>> {
    let whole = disk.size() / ZFS_LABEL * ZFS_LABEL;
    let Some(third) = whole.checked_sub(2 * ZFS_LABEL) else {
        return Ok(None);
    };
    for label in [0, ZFS_LABEL, third, third + ZFS_LABEL] {
        let start = label + ZFS_LABEL / 2;
        let mut blocks = (0..128).filter(|block| free(start + *block as u64 * KIB)).peekable();
        if blocks.peek().is_none() {
            continue;
        }
        let ring = read(disk, start, 128 * 1024)?;
        if blocks.any(|block| UBERBLOCK.contains(&le64(&ring, block * 1024))) {
            return Ok(Some(ZFS));
        }
    }
    Ok(None)
}

/// What keeps its description, or a copy of it, at the end of the disk.
fn at_end(disk: &dyn ReadAt, free: impl Fn(u64) -> bool) -> io::Result<Option<&'static str>> {
    const TAIL: usize = 128 * 1024;
    let size = disk.size();
    let Some(start) = size.checked_sub(TAIL as u64) else {
        return Ok(None);
    };
    if !free(size - 1) {
        return Ok(None);
    }
    let tail = read(disk, start, TAIL)?;
    let index = |offset: u64| offset.checked_sub(start).and_then(|o| usize::try_from(o).ok());
    let index = |offset: u64| index(offset).filter(|_| free(offset));
    let is = |offset: u64, magic: &[u8]| index(offset).is_some_and(|o| at(&tail, o, magic));
    // Version 0.90 at the last 64 KiB boundary that leaves 64 KiB; version 1.0 at 8 KiB before the end, to 4 KiB.
    let old = (size & !0xffff).saturating_sub(0x10000);
    let new = size.saturating_sub(0x2000) & !0xfff;
    Ok(if [old, new].into_iter().any(|place| index(place).is_some_and(|o| is_md(&tail, o))) {
        Some(RAID)
    } else if is(size - 512, b"EFI PART") || is(size - 4096, b"EFI PART") {
        Some(GPT)
    } else if is(size - 512, &0xde11_de11_u32.to_be_bytes())
        || is(size - 512, &0xde11_de11_u32.to_le_bytes())
        || is(size - 1024, b"Intel Raid ISM Cfg Sig. ")
    {
        Some(FIRMWARE_RAID)
    } else {
        None
    })
}

/// Other file systems, and partition tables without a signature of their own.
pub(super) fn other(head: &[u8]) -> Option<&'static str> {
    const TABLE: [(usize, &[u8], &str); 13] = [
        (BTRFS + 0x40, b"_BHRfS_M", "a btrfs that spans several disks"),
        (EXT + 0x38, &[0x53, 0xef], "an ext journal device"),
        (3, b"NTFS    ", "NTFS"),
        (3, b"EXFAT   ", "exFAT"),
        (82, b"FAT32   ", "a FAT file system"),
        (54, b"FAT1", "a FAT file system"),
        (0, b"hsqs", "squashfs"),
        (1024, &[0xe2, 0xe1, 0xf5, 0xe0], "erofs"),
        (1024, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        (1030, &[0x34, 0x34], "nilfs2"),
        (65536 + 52, b"ReIsEr", "reiserfs"),
        (32769, b"CD001", "an ISO 9660 image"),
        (32768, b"JFS1", "jfs"),
    ];
    if at(head, BTRFS + 0x40, b"_BHRfS_M") && le64(head, BTRFS + 0x38) & BTRFS_CHANGING_UUID != 0 {
        return Some(HALF_CHANGED_BTRFS);
    }
    TABLE
        .iter()
        .find(|(offset, magic, _)| at(head, *offset, magic))
        .map(|(_, _, name)| *name)
        .or_else(|| (le16(head, 510) == 0xaa55).then_some("an MBR partition table or a boot sector"))
}

#[cfg(test)]
mod tests {
    use super::super::probe::tests::TestDisk;
    use super::super::probe::{Content, probe};
    use super::*;
    use crate::volume::{DiskId, FsUuid};

    const GIB: u64 = 1 << 30;

    /// Each signature at each of its places, alone on a disk.
    #[test]
    fn everything_in_the_table_is_named_at_every_place() {
        let (le, be) = (&MD.to_le_bytes(), &MD.to_be_bytes());
        let (zfs, zfs_be) = (&UBERBLOCK[0].to_le_bytes(), &UBERBLOCK[0].to_be_bytes());
        let mut cases: Vec<(u64, &[u8], &str)> = vec![
            (0, b"LUKS\xba\xbe\0\x01", LUKS),
            (0, b"LUKS\xba\xbe\0\x02", LUKS),
            (0, le, RAID),
            (4096, le, RAID),
            (4096, be, RAID),
            (GIB - 0x2000, le, RAID),
            (GIB - 0x10000, le, RAID),
            (GIB - 0x10000, be, RAID),
            (GIB - 512, &[0xde, 0x11, 0xde, 0x11], FIRMWARE_RAID),
            (GIB - 1024, b"Intel Raid ISM Cfg Sig. 1.2", FIRMWARE_RAID),
            (4096 + 24, &BCACHE, "a bcache device"),
            (4096 + 24, &BCACHEFS, "bcachefs"),
            (128 * KIB, zfs, ZFS),
            (255 * KIB, zfs_be, ZFS),
            (256 * KIB + 128 * KIB, zfs, ZFS),
            (GIB - 384 * KIB, zfs, ZFS),
            (GIB - 128 * KIB, zfs, ZFS),
            (512, b"EFI PART", GPT),
            (4096, b"EFI PART", GPT),
            (GIB - 512, b"EFI PART", GPT),
            (GIB - 4096, b"EFI PART", GPT),
            (510, &[0x55, 0xaa], "an MBR partition table or a boot sector"),
            (4086, b"SWAPSPACE2", "swap space"),
            (65526, b"SWAPSPACE2", "swap space"),
            (4086, b"S1SUSPEND\0", "swap space"),
            (3, b"NTFS    ", "NTFS"),
            (65536 + 0x38, b"\0\0\0\0\x08\0\0\0_BHRfS_M", HALF_CHANGED_BTRFS),
            (65536 + 0x38, b"\0\0\0\0\x10\0\0\0_BHRfS_M", HALF_CHANGED_BTRFS),
            (1024, &[0x10, 0x20, 0xf5, 0xf2], "f2fs"),
        ];
        cases.extend(LUKS2_SECOND.map(|offset| (offset, &b"SKUL\xba\xbe\0\x02"[..], LUKS)));
        for (offset, bytes, name) in cases {
            let disk = TestDisk::blank(GIB).with(offset, bytes);
            assert_eq!(probe(&disk).unwrap(), Content::Other(name.to_owned()), "{offset}");
        }
        for sector in 0..4 {
            let label = sector * 512;
            let disk = TestDisk::blank(GIB).with(label, b"LABELONE").with(label + 24, b"LVM2 001");
            assert_eq!(probe(&disk).unwrap(), Content::Other(LVM.to_owned()), "{label}");
        }
    }

    /// Files of pods that hold images of other disks, among them such as fill the volume.
    #[test]
    fn what_a_volume_s_own_files_hold_wraps_nothing() {
        let uuid = |id: &str| FsUuid::of_disk(&DiskId::parse(id).unwrap());
        // 262144 blocks of 4 KiB.
        let ext = |uuid: FsUuid, blocks: u32| {
            TestDisk::blank(GIB)
                .with(1024 + 4, &blocks.to_le_bytes())
                .with(1024 + 0x18, &[2])
                .with(1024 + 0x38, &[0x53, 0xef])
                .with(1024 + 0x5c, &[4])
                .with(1024 + 0x68, &uuid.bytes())
        };
        let (md, zfs) = (&MD.to_le_bytes(), &UBERBLOCK[0].to_le_bytes());
        let files: [(u64, &[u8]); 7] = [
            (16 * KIB, b"SKUL\xba\xbe"),
            (4096 * KIB, b"SKUL\xba\xbe"),
            (65526, b"SWAPSPACE2"),
            (128 * KIB, zfs),
            (GIB - 128 * KIB, zfs),
            (GIB - 0x10000, md),
            (GIB - 512, b"EFI PART"),
        ];
        for (offset, bytes) in files {
            let is_fs = |disk: TestDisk| matches!(probe(&disk.with(offset, bytes)).unwrap(), Content::Fs(_));
            assert!(is_fs(ext(uuid("bs-1"), 262_144)), "{offset}");
            // Somebody else's may be older than what wraps it.
            assert!(!is_fs(ext(FsUuid::from_bytes([7; 16]), 262_144)), "{offset}");
            // What lies behind it is not its own.
            assert_eq!(is_fs(ext(uuid("bs-1"), 2048)), offset < 8 << 20, "{offset}");
        }
        for (offset, bytes) in
            [(0, &b"LUKS\xba\xbe"[..]), (4096, md), (4086, b"SWAPSPACE2"), (512, b"EFI PART")]
        {
            let disk = ext(uuid("bs-1"), 262_144).with(offset, bytes);
            assert!(matches!(probe(&disk).unwrap(), Content::Other(_)), "{offset}");
        }
    }

    /// The places at the end are counted from a size that need not be round.
    #[test]
    fn the_end_of_a_disk_of_odd_size_is_found() {
        for size in [GIB + 512, GIB + 4096 + 512, GIB + 65536 - 512] {
            let old = (size & !0xffff) - 0x10000;
            let new = (size - 0x2000) & !0xfff;
            let label = size / ZFS_LABEL * ZFS_LABEL - ZFS_LABEL;
            for (offset, bytes, name) in [
                (old, &MD.to_le_bytes()[..], RAID),
                (new, &MD.to_le_bytes()[..], RAID),
                (size - 512, b"EFI PART", GPT),
                (label + 200 * KIB, &UBERBLOCK[0].to_le_bytes()[..], ZFS),
            ] {
                let disk = TestDisk::blank(size).with(offset, bytes);
                assert_eq!(probe(&disk).unwrap(), Content::Other(name.to_owned()), "{offset} of {size}");
            }
        }
    }
}
