//! What is on a disk, by reading it.
//!
//! This only names things. Whether a disk is blank is never concluded from "nothing known was found": that takes
//! the proof of [`super::blank`].

use std::fmt;
use std::io;

use super::signature;
use crate::volume::{FsType, FsUuid};

/// Something that can be read at any offset: a block device, or a test's bytes.
pub trait ReadAt {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn size(&self) -> u64;
}

/// A file system that was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundFs {
    pub kind: FsKind,
    pub uuid: FsUuid,
    /// The size that it was made or grown to.
    pub size: u64,
    pub block_size: u64,
    /// The smallest part that it can grow by; it leaves less than that unused at the end.
    pub granule: u64,
}

impl FoundFs {
    /// Whether a disk of `device_size` has room that the file system could use.
    pub fn can_grow_to(&self, device_size: u64) -> bool {
        device_size.saturating_sub(self.size) >= self.granule
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FsKind {
    Ext2,
    Ext3,
    Ext4,
    Xfs,
    Btrfs,
}

impl FsKind {
    /// Whether this is what `wanted` asks for.
    pub fn is(self, wanted: FsType) -> bool {
        self == Self::from(wanted)
    }

    pub fn is_ext(self) -> bool {
        match self {
            Self::Ext2 | Self::Ext3 | Self::Ext4 => true,
            Self::Xfs | Self::Btrfs => false,
        }
    }

    /// By the name that the kernel mounts it under.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Ext2, Self::Ext3, Self::Ext4, Self::Xfs, Self::Btrfs]
            .into_iter()
            .find(|fs| fs.to_string() == word)
    }
}

impl From<FsType> for FsKind {
    fn from(fs: FsType) -> Self {
        match fs {
            FsType::Ext3 => Self::Ext3,
            FsType::Ext4 => Self::Ext4,
            FsType::Xfs => Self::Xfs,
            FsType::Btrfs => Self::Btrfs,
        }
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        })
    }
}

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Nothing that this table knows. Blank, or anything.
    Unrecognised,
    Fs(FoundFs),
    /// A file system whose mkfs did not come to its end.
    Unfinished(FsKind),
    /// Something that is not mounted as a volume, by name.
    Other(String),
}

/// Reads the places where signatures live. An error of a single read is an error: half-seen is not seen.
pub fn probe(disk: &dyn ReadAt) -> io::Result<Content> {
    let head = read(disk, 0, HEAD)?;
    let found: Vec<FoundFs> = [ext(&head), xfs(&head), btrfs(&head)].into_iter().flatten().collect();
    // One with a mark was made on a blank disk, so nothing in it is older.
    let files = match found.as_slice() {
        [fs] if fs.uuid.is_mark() => fs.size,
        _ => 0,
    };
    if let Some(name) = signature::wrapper(disk, &head, files)? {
        return Ok(Content::Other(name.to_owned()));
    }
    Ok(match found.as_slice() {
        [] => match (unfinished(&head), signature::other(&head)) {
            (Some(kind), _) => Content::Unfinished(kind),
            (None, Some(name)) => Content::Other(name.to_owned()),
            (None, None) => Content::Unrecognised,
        },
        [fs] if fs.size == 0 => Content::Other(format!("a damaged {} superblock", fs.kind)),
        [fs] => Content::Fs(*fs),
        several => {
            let names: Vec<_> = several.iter().map(|fs| fs.kind.to_string()).collect();
            Content::Other(format!("signatures of {} at once", names.join(" and ")))
        }
    })
}

/// The file system of one kind, read from its superblock alone; for proofs after a change.
pub fn probe_fs(disk: &dyn ReadAt) -> io::Result<Option<FoundFs>> {
    let head = read(disk, 0, HEAD)?;
    Ok([ext(&head), xfs(&head), btrfs(&head)].into_iter().flatten().next())
}

/// Xfs and btrfs use a device but for less than this.
pub(super) const GRANULE: u64 = 1 << 20;

/// Holds the superblocks of all file systems.
const HEAD: usize = 256 * 1024;

/// Reads what there is of `length` bytes at `offset`; the rest is zero.
pub(super) fn read(disk: &dyn ReadAt, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let there = disk.size().saturating_sub(offset).min(length as u64);
    // At most `length`, which is a usize.
    let there = usize::try_from(there).unwrap_or(length);
    if there > 0 {
        disk.read_exact_at(&mut bytes[..there], offset)?;
    }
    Ok(bytes)
}

pub(super) fn at(bytes: &[u8], offset: usize, magic: &[u8]) -> bool {
    bytes.get(offset..offset + magic.len()) == Some(magic)
}

/// Whether all is zero. The bytes are compared with themselves one further, which is one call that is fast in every build.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

pub(super) fn le16(bytes: &[u8], offset: usize) -> u16 {
    array(bytes, offset).map_or(0, u16::from_le_bytes)
}

pub(super) fn le32(bytes: &[u8], offset: usize) -> u32 {
    array(bytes, offset).map_or(0, u32::from_le_bytes)
}

pub(super) fn le64(bytes: &[u8], offset: usize) -> u64 {
    array(bytes, offset).map_or(0, u64::from_le_bytes)
}

pub(super) fn be32(bytes: &[u8], offset: usize) -> u32 {
    array(bytes, offset).map_or(0, u32::from_be_bytes)
}

pub(super) fn be64(bytes: &[u8], offset: usize) -> u64 {
    array(bytes, offset).map_or(0, u64::from_be_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset + N)?.try_into().ok()
}

pub(super) fn uuid(bytes: &[u8], offset: usize) -> FsUuid {
    FsUuid::from_bytes(array(bytes, offset).unwrap_or_default())
}

pub(super) const EXT: usize = 1024;
const EXT_HAS_JOURNAL: u32 = 0x4;
const EXT_JOURNAL_DEVICE: u32 = 0x8;
const EXT_64BIT: u32 = 0x80;
/// What ext3 knows; anything else makes it ext4. Incompatible: filetype, recover, journal device, meta_bg.
const EXT3_INCOMPATIBLE: u32 = 0x2 | 0x4 | 0x8 | 0x10;
/// Read-only compatible: sparse_super, large_file, btree_dir.
const EXT3_RO_COMPATIBLE: u32 = 0x1 | 0x2 | 0x4;

fn ext(head: &[u8]) -> Option<FoundFs> {
    if !at(head, EXT + 0x38, &[0x53, 0xef]) {
        return None;
    }
    let compatible = le32(head, EXT + 0x5c);
    let incompatible = le32(head, EXT + 0x60);
    let ro_compatible = le32(head, EXT + 0x64);
    if incompatible & EXT_JOURNAL_DEVICE != 0 {
        return None;
    }
    let newer = incompatible & !EXT3_INCOMPATIBLE != 0 || ro_compatible & !EXT3_RO_COMPATIBLE != 0;
    let kind = match (newer, compatible & EXT_HAS_JOURNAL != 0) {
        (true, _) => FsKind::Ext4,
        (false, true) => FsKind::Ext3,
        (false, false) => FsKind::Ext2,
    };
    let high = if incompatible & EXT_64BIT != 0 { u64::from(le32(head, EXT + 0x150)) } else { 0 };
    let blocks = high << 32 | u64::from(le32(head, EXT + 4));
    let block_size = 1024u64.checked_shl(le32(head, EXT + 0x18)).unwrap_or(0);
    // mke2fs and resize2fs drop a last group that could hold little more than its own tables.
    let granule = u64::from(le32(head, EXT + 0x20)).saturating_mul(block_size) / 8;
    let size = blocks.saturating_mul(block_size);
    Some(FoundFs { kind, uuid: uuid(head, EXT + 0x68), size, block_size, granule: granule.max(block_size) })
}

fn xfs(head: &[u8]) -> Option<FoundFs> {
    // A byte says that mkfs has not come to its end.
    (at(head, 0, b"XFSB") && at(head, 126, &[0])).then(|| FoundFs {
        kind: FsKind::Xfs,
        uuid: uuid(head, 32),
        size: u64::from(be32(head, 4)).saturating_mul(be64(head, 8)),
        block_size: u64::from(be32(head, 4)),
        granule: GRANULE,
    })
}

pub(super) const BTRFS: usize = 65536;
/// Both ways of btrfstune to change the UUID.
pub(super) const BTRFS_CHANGING_UUID: u64 = 3 << 35;

fn btrfs(head: &[u8]) -> Option<FoundFs> {
    // One that spans several disks is no volume of ours, and one that btrfstune was cut off in cannot be mounted; see
    // [`signature`].
    let whole = le64(head, BTRFS + 0x88) == 1 && le64(head, BTRFS + 0x38) & BTRFS_CHANGING_UUID == 0;
    (at(head, BTRFS + 0x40, b"_BHRfS_M") && whole).then(|| FoundFs {
        kind: FsKind::Btrfs,
        uuid: uuid(head, BTRFS + 0x20),
        size: le64(head, BTRFS + 0x70),
        block_size: u64::from(le32(head, BTRFS + 0x90)),
        granule: GRANULE,
    })
}

/// Xfs and btrfs mark what they have not finished; ext writes its superblock last.
fn unfinished(head: &[u8]) -> Option<FsKind> {
    if at(head, 0, b"XFSB") {
        Some(FsKind::Xfs)
    } else if at(head, BTRFS + 0x40, b"!BHRfS_M") {
        Some(FsKind::Btrfs)
    } else {
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A sparse disk in memory: zero but for the bytes put somewhere, unreadable where told.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct TestDisk {
        pub(crate) size: u64,
        pub(crate) bytes: BTreeMap<u64, u8>,
        pub(crate) unreadable: Option<u64>,
        /// (offset, length) of every read.
        pub(crate) reads: std::cell::RefCell<Vec<(u64, usize)>>,
    }

    impl TestDisk {
        pub(crate) fn blank(size: u64) -> Self {
            Self { size, ..Self::default() }
        }

        pub(crate) fn with(mut self, offset: u64, bytes: &[u8]) -> Self {
            self.bytes.extend(bytes.iter().enumerate().map(|(i, b)| (offset + i as u64, *b)));
            self
        }
    }

    impl ReadAt for TestDisk {
        fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.reads.borrow_mut().push((offset, buffer.len()));
            let end = offset + buffer.len() as u64;
            if end > self.size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if self.unreadable.is_some_and(|bad| (offset..end).contains(&bad)) {
                return Err(io::Error::from_raw_os_error(nix::libc::EIO));
            }
            buffer.fill(0);
            for (position, byte) in self.bytes.range(offset..end) {
                buffer[usize::try_from(position - offset).unwrap()] = *byte;
            }
            Ok(())
        }

        fn size(&self) -> u64 {
            self.size
        }
    }

    const GIB: u64 = 1 << 30;

    fn named(disk: TestDisk) -> String {
        match probe(&disk).unwrap() {
            Content::Other(name) => name,
            other @ (Content::Unrecognised | Content::Fs(_) | Content::Unfinished(_)) => panic!("{other:?}"),
        }
    }

    fn ext_disk(compatible: u32, incompatible: u32, ro_compatible: u32) -> TestDisk {
        TestDisk::blank(GIB)
            .with(1024 + 4, &262_144u32.to_le_bytes())
            .with(1024 + 0x18, &2u32.to_le_bytes())
            .with(1024 + 0x20, &32_768u32.to_le_bytes())
            .with(1024 + 0x38, &[0x53, 0xef])
            .with(1024 + 0x5c, &compatible.to_le_bytes())
            .with(1024 + 0x60, &incompatible.to_le_bytes())
            .with(1024 + 0x64, &ro_compatible.to_le_bytes())
    }

    fn fs(disk: &TestDisk) -> FoundFs {
        match probe(disk).unwrap() {
            Content::Fs(fs) => fs,
            other @ (Content::Unrecognised | Content::Unfinished(_) | Content::Other(_)) => {
                panic!("{other:?}")
            }
        }
    }

    #[test]
    fn ext_generations_are_told_apart_by_their_features() {
        assert_eq!(fs(&ext_disk(0, 0x2, 0x3)).kind, FsKind::Ext2);
        assert_eq!(fs(&ext_disk(0x4, 0x6, 0x3)).kind, FsKind::Ext3);
        assert_eq!(fs(&ext_disk(0x4, 0x2c2, 0x46b)).kind, FsKind::Ext4);
        // A journal device is no file system.
        assert_eq!(named(ext_disk(0x4, 0x8, 0)), "an ext journal device");
    }

    #[test]
    fn growth_is_seen_but_not_the_unusable_rest() {
        let found = fs(&ext_disk(0x4, 0x2, 0x3));
        assert_eq!(found.size, GIB);
        assert!(!found.can_grow_to(GIB) && !found.can_grow_to(GIB + (4 << 20)) && !found.can_grow_to(1));
        assert!(found.can_grow_to(GIB + (64 << 20)));
    }

    /// Bytes that mean nothing may say anything.
    #[test]
    fn numbers_that_no_file_system_has_are_no_surprise() {
        let odd = |shift: u32| {
            let disk = ext_disk(0x4, 0x2, 0x3).with(1024 + 0x18, &shift.to_le_bytes());
            probe(&disk.with(1024 + 0x20, &[0xff; 4])).unwrap()
        };
        for shift in [40, 50, 53, 54, 63, 64, u32::MAX] {
            match odd(shift) {
                Content::Fs(found) => assert!(!found.can_grow_to(GIB), "{shift}"),
                Content::Other(name) => assert_eq!(name, "a damaged ext3 superblock", "{shift}"),
                other @ (Content::Unrecognised | Content::Unfinished(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn zero_is_zero_to_the_last_byte() {
        assert!(is_zero(&[]) && is_zero(&[0]) && is_zero(&[0; 4096]));
        for place in 0..513 {
            let mut bytes = [0; 513];
            bytes[place] = 1;
            assert!(!is_zero(&bytes), "{place}");
        }
        assert!(!is_zero(&[7; 512]));
    }

    #[test]
    fn unfinished_file_systems_are_told_apart() {
        let probed = |disk| probe(&disk).unwrap();
        let xfs = TestDisk::blank(GIB).with(0, b"XFSB").with(126, &[1]);
        assert_eq!(probed(xfs), Content::Unfinished(FsKind::Xfs));
        let btrfs = TestDisk::blank(GIB).with(65536 + 64, b"!BHRfS_M");
        assert_eq!(probed(btrfs), Content::Unfinished(FsKind::Btrfs));
    }

    #[test]
    fn what_wraps_a_file_system_hides_it() {
        // A file system inside a RAID member shows at the usual place, and must not be used past the RAID.
        let md = 0xa92b_4efc_u32.to_le_bytes();
        assert_eq!(named(ext_disk(0x4, 0x2, 0x3).with(4096, &md)), "a member of a Linux software RAID");
        assert_eq!(
            named(ext_disk(0x4, 0x2, 0x3).with(0, b"XFSB\0\0\x10\0")),
            "signatures of ext3 and xfs at once"
        );
    }

    #[test]
    fn unknown_bytes_are_unrecognised_and_read_errors_are_errors() {
        assert_eq!(probe(&TestDisk::blank(GIB)).unwrap(), Content::Unrecognised);
        assert_eq!(probe(&TestDisk::blank(4096)).unwrap(), Content::Unrecognised);
        for unreadable in [0, 200_000, GIB - 1] {
            let disk = TestDisk { unreadable: Some(unreadable), ..TestDisk::blank(GIB) };
            assert!(probe(&disk).is_err(), "{unreadable}");
        }
    }
}
