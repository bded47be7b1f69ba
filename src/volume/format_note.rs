//! The note on a disk that says: this disk was proven blank, and a file system is being made on it.
//!
//! It is there from before mkfs starts until what mkfs made is on the disk for good, and then never again. So where it
//! is found, mkfs was cut off, and what lies around it is not data.
//!
//! One sector, because a sector is what a disk writes as a whole or not at all: a power cut leaves a note or none.
//!
//! | bytes | |
//! |---|---|
//! | 0..16 | the magic, which a person can read in a dump |
//! | 16 | the version of this layout |
//! | 17 | the length of the UDisk id |
//! | 18..24 | the file system by name, then zeros |
//! | 24..40 | the UUID that it is made with |
//! | 40..168 | the UDisk id, then zeros |
//! | 168..492 | zeros |
//! | 492..512 | SHA-1 of all before |

use sha1::{Digest as _, Sha1};

use super::id::MAX_ID_LENGTH;
use super::{DiskId, FsType, FsUuid};

const MAGIC: &[u8; 16] = b"csi-udisk-format";
const VERSION: u8 = 1;
const ID: usize = 40;
const SUM: usize = FormatNote::LENGTH - 20;
const _: () = assert!(ID + MAX_ID_LENGTH <= SUM);

/// Which file system is being made on which disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatNote {
    pub disk: DiskId,
    pub fs: FsType,
}

/// What is at the note's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundNote {
    /// No note. Zeros, or anything.
    None,
    /// It begins like a note and is not one, or one of a later version.
    Damaged,
    Note(FormatNote),
}

impl FormatNote {
    pub const LENGTH: usize = 512;

    /// The UUID that the file system is made with.
    pub fn uuid(&self) -> FsUuid {
        FsUuid::of_disk(&self.disk)
    }

    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let id = self.disk.as_str().as_bytes();
        let word = self.fs.word().as_bytes();
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16] = VERSION;
        // At most `MAX_ID_LENGTH`.
        bytes[17] = u8::try_from(id.len()).unwrap_or_default();
        bytes[18..18 + word.len()].copy_from_slice(word);
        bytes[24..ID].copy_from_slice(&self.uuid().to_bytes());
        bytes[ID..ID + id.len()].copy_from_slice(id);
        let sum = Sha1::digest(&bytes[..SUM]);
        bytes[SUM..].copy_from_slice(&sum);
        bytes
    }

    /// Reads a sector. Only what [`Self::encode`] writes is a note, to the last byte.
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> FoundNote {
        if &bytes[..16] != MAGIC {
            return FoundNote::None;
        }
        match Self::parse(bytes) {
            Some(note) if note.encode() == *bytes => FoundNote::Note(note),
            _ => FoundNote::Damaged,
        }
    }

    fn parse(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let id = bytes.get(ID..ID + usize::from(bytes[17]))?;
        let word = std::str::from_utf8(&bytes[18..24]).ok()?.trim_end_matches('\0');
        let disk = DiskId::parse(std::str::from_utf8(id).ok()?).ok()?;
        Some(Self { disk, fs: FsType::from_word(word)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(id: &str, fs: FsType) -> FormatNote {
        FormatNote { disk: DiskId::parse(id).unwrap(), fs }
    }

    /// Disks carry this: a change needs a new version, and both must be read.
    #[test]
    fn the_layout_is_stable() {
        let bytes = note("bsm-abc123", FsType::Btrfs).encode();
        assert_eq!(&bytes[..24], b"csi-udisk-format\x01\x0abtrfs\0");
        assert_eq!(&bytes[40..51], b"bsm-abc123\0");
        let sum: String = bytes[SUM..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(sum, "a888393c8e42a92f4511d2e2f81b5f5b8c4c7791");
    }

    #[test]
    fn what_is_no_note_is_none_and_a_later_version_is_damaged() {
        assert_eq!(FormatNote::decode(&[0; 512]), FoundNote::None);
        assert_eq!(FormatNote::decode(&[0xa5; 512]), FoundNote::None);
        let mut later = note("bs-1", FsType::Xfs).encode();
        later[16] = 2;
        let sum = Sha1::digest(&later[..SUM]);
        later[SUM..].copy_from_slice(&sum);
        assert_eq!(FormatNote::decode(&later), FoundNote::Damaged);
    }

    fn notes() -> impl Strategy<Value = FormatNote> {
        ("[A-Za-z0-9_.-]{1,128}", prop::sample::select(FsType::ALL.to_vec()))
            .prop_map(|(id, fs)| note(&id, fs))
    }

    proptest! {
        #[test]
        fn a_note_is_read_as_it_was_written(note in notes()) {
            prop_assert_eq!(FormatNote::decode(&note.encode()), FoundNote::Note(note));
        }

        #[test]
        fn a_damaged_byte_leaves_no_note(note in notes(), place in 0..FormatNote::LENGTH, change in 1u8..) {
            let mut bytes = note.encode();
            bytes[place] ^= change;
            prop_assert!(!matches!(FormatNote::decode(&bytes), FoundNote::Note(_)));
        }

        #[test]
        fn no_bytes_are_too_odd(mut bytes in prop::array::uniform32(any::<[u8; 16]>()), like in any::<bool>()) {
            if like {
                bytes[0] = *MAGIC;
            }
            let bytes: [u8; 512] = bytes.concat().try_into().unwrap();
            prop_assert!(!matches!(FormatNote::decode(&bytes), FoundNote::Note(_)));
        }
    }
}
