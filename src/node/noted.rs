//! What to do with a disk that bears the note of a format. Pure.
//!
//! The note stays on the disk until what mkfs made is there for good, and is gone before that is mounted. So beneath it
//! there is only what a mkfs that was cut off left; unless somebody else used the disk since.

use super::linux::look::Seen;
use super::linux::note::PLACE;
use super::linux::probe::Content;
use crate::volume::{Adoption, DiskId, FormatNote, FoundNote, FsType, VolumeContext};

/// Why a disk with a note is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteRefused {
    #[error(
        "it holds {found}, and at byte {PLACE} the note of this driver that {noted} was being made on it: somebody wrote to it \
         since. Nothing was changed; if what it holds is not needed, wipe its first and last MiB and 512 bytes at that byte"
    )]
    Other { noted: FsType, found: String },
    #[error(
        "making {noted} on it was cut off, says a note of this driver, but the volume is asked for as {wanted}; use a \
         PersistentVolume or StorageClass with fsType {noted}. Nothing was changed"
    )]
    WrongFs { noted: FsType, wanted: FsType },
    #[error(
        "making {0} on it was cut off, says a note of this driver, and it is wanted read-only; use it for writing once, which \
         makes it anew or confirms it. Nothing was changed"
    )]
    ReadOnly(FsType),
    #[error(
        "making {0} on it was cut off, says a note of this driver, and it is wanted as a block device: beneath the note its \
         data could be taken for what was cut off. Use it once as a volume with fsType {0}, or wipe 512 bytes at byte {PLACE}. \
         Nothing was changed"
    )]
    Block(FsType),
    #[error(
        "it holds, at byte {PLACE}, the note of this driver that {fs} was being made on it for UDisk {disk}: this is the wrong disk, \
         or a copy made outside Kubernetes, and {adoption}. It was not given out as a raw block volume, nor changed. If you made \
         this copy, give its PersistentVolume the volume attribute {key}: \"{disk}\"",
        key = VolumeContext::ADOPT
    )]
    OtherAsBlock { fs: FsType, disk: DiskId, adoption: Adoption },
    #[error(
        "its {fs} was being made for UDisk {disk}, says a note of this driver, and may lack parts: this is the wrong disk, or a \
         copy that was made too early. It was neither mounted nor changed"
    )]
    Copy { fs: FsType, disk: DiskId },
}

/// The note that was written for this very disk. Another's licenses nothing; it is bytes like any other.
pub fn own<'a>(volume: &DiskId, note: &'a FoundNote) -> Option<&'a FormatNote> {
    match note {
        FoundNote::Note(note) if note.disk == *volume => Some(note),
        FoundNote::Note(_) | FoundNote::Damaged | FoundNote::None => None,
    }
}

/// The note that licenses to remove what is there and to make the file system again. `None`: what is there is judged as
/// if there were no note.
pub fn again(
    volume: &DiskId,
    wanted: FsType,
    read_only: bool,
    seen: &Seen,
) -> Result<Option<FormatNote>, NoteRefused> {
    let Some(note) = own(volume, &seen.note) else {
        return whole(seen).map(|()| None);
    };
    let noted = note.fs;
    match &seen.content {
        _ if read_only => Err(NoteRefused::ReadOnly(noted)),
        Content::Other(name) => Err(NoteRefused::Other { noted, found: name.clone() }),
        Content::Unfinished(kind) if !kind.is(noted) => {
            Err(NoteRefused::Other { noted, found: format!("an unfinished {kind}") })
        }
        // A file system of the note that was never mounted holds nothing, and may lack parts after a power cut.
        Content::Fs(found) => {
            let unconfirmed = seen.never_mounted
                && found.kind.is(noted)
                && noted == wanted
                && found.uuid == note.uuid()
                && found.size <= seen.size;
            Ok(unconfirmed.then(|| note.clone()))
        }
        Content::Unrecognised | Content::Unfinished(_) if noted != wanted => {
            Err(NoteRefused::WrongFs { noted, wanted })
        }
        Content::Unrecognised | Content::Unfinished(_) => Ok(Some(note.clone())),
    }
}

/// A copy of another disk has all parts, for all that its note says.
fn whole(seen: &Seen) -> Result<(), NoteRefused> {
    match (&seen.note, &seen.content) {
        (FoundNote::Note(note), Content::Fs(found)) if seen.never_mounted && found.uuid == note.uuid() => {
            Err(NoteRefused::Copy { fs: note.fs, disk: note.disk.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether the disk of `volume` may become a raw block device. Another's note says whose disk it is, like another's mark;
/// and on that one's disk it would turn against what is written raw.
pub fn raw(volume: &DiskId, note: &FoundNote, adoption: &Adoption) -> Result<(), NoteRefused> {
    match note {
        FoundNote::Note(note) if note.disk == *volume => Err(NoteRefused::Block(note.fs)),
        FoundNote::Note(note) if adoption.mark() != Some(note.uuid()) => Err(NoteRefused::OtherAsBlock {
            fs: note.fs,
            disk: note.disk.clone(),
            adoption: adoption.clone(),
        }),
        FoundNote::Note(_) | FoundNote::Damaged | FoundNote::None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::linux::probe::{FoundFs, FsKind};
    use crate::volume::FsUuid;

    const SIZE: u64 = 10 << 30;
    const FOREIGN: FsUuid = FsUuid::from_bytes([7; 16]);

    fn disk(id: &str) -> DiskId {
        DiskId::parse(id).unwrap()
    }

    fn own_uuid() -> FsUuid {
        FsUuid::of_disk(&disk("bs-1"))
    }

    fn note(id: &str, fs: FsType) -> FormatNote {
        FormatNote { disk: disk(id), fs }
    }

    fn found(fs: FsType, uuid: FsUuid) -> Content {
        Content::Fs(FoundFs { kind: FsKind::from(fs), uuid, size: SIZE, block_size: 4096, granule: 1 << 20 })
    }

    fn decide(
        note: &FormatNote,
        wanted: FsType,
        content: Content,
        never_mounted: bool,
    ) -> Result<Option<FormatNote>, NoteRefused> {
        let seen = Seen { size: SIZE, content, note: FoundNote::Note(note.clone()), never_mounted };
        again(&disk("bs-1"), wanted, false, &seen)
    }

    fn other_than(fs: FsType) -> FsType {
        FsType::ALL.into_iter().find(|other| *other != fs).unwrap()
    }

    #[test]
    fn what_a_noted_mkfs_left_is_made_again() {
        for fs in FsType::ALL {
            let note = note("bs-1", fs);
            for content in [Content::Unrecognised, Content::Unfinished(FsKind::from(fs))] {
                assert_eq!(decide(&note, fs, content.clone(), false), Ok(Some(note.clone())));
                let wanted = other_than(fs);
                let refused = Err(NoteRefused::WrongFs { noted: fs, wanted });
                assert_eq!(decide(&note, wanted, content, false), refused);
            }
            // Its superblock is there; after a power cut that says nothing of the rest.
            assert_eq!(decide(&note, fs, found(fs, own_uuid()), true), Ok(Some(note)));
        }
    }

    #[test]
    fn file_systems_that_may_hold_data_are_not_made_again() {
        for fs in FsType::ALL {
            let own = note("bs-1", fs);
            for (uuid, never_mounted) in [(own_uuid(), false), (FOREIGN, true), (FOREIGN, false)] {
                assert_eq!(decide(&own, fs, found(fs, uuid), never_mounted), Ok(None));
            }
            // The note was for another kind than what was made since.
            assert_eq!(decide(&note("bs-1", other_than(fs)), fs, found(fs, own_uuid()), true), Ok(None));
            assert_eq!(decide(&own, other_than(fs), found(fs, own_uuid()), true), Ok(None));
        }
    }

    #[test]
    fn what_is_not_of_the_noted_mkfs_is_refused_with_both_names() {
        let note = note("bs-1", FsType::Xfs);
        for (content, name) in [
            (Content::Other("a LUKS encrypted volume".into()), "LUKS"),
            (Content::Unfinished(FsKind::Btrfs), "btrfs"),
        ] {
            let text = decide(&note, FsType::Xfs, content, true).unwrap_err().to_string();
            assert!(text.contains("xfs") && text.contains(name), "{text}");
        }
    }

    #[test]
    fn the_note_of_another_disk_licenses_nothing() {
        let note = note("bs-2", FsType::Ext4);
        for content in [
            Content::Unrecognised,
            Content::Unfinished(FsKind::Xfs),
            found(FsType::Ext4, own_uuid()),
            found(FsType::Ext4, FOREIGN),
        ] {
            assert_eq!(decide(&note, FsType::Ext4, content, true), Ok(None));
        }
        let raw = |adoption: &Adoption| raw(&disk("bs-1"), &FoundNote::Note(note.clone()), adoption);
        for adoption in [Adoption::Nothing, Adoption::parse("bs-3")] {
            assert!(matches!(raw(&adoption), Err(NoteRefused::OtherAsBlock { .. })));
        }
        assert_eq!(raw(&Adoption::parse("bs-2")), Ok(()));
        // Copied while it was being made.
        let content = found(FsType::Ext4, note.uuid());
        let refused = Err(NoteRefused::Copy { fs: FsType::Ext4, disk: disk("bs-2") });
        assert_eq!(decide(&note, FsType::Ext4, content.clone(), true), refused);
        assert_eq!(decide(&note, FsType::Ext4, content, false), Ok(None));
    }

    #[test]
    fn beneath_a_note_nothing_is_read_only_or_a_block_device() {
        let note = FoundNote::Note(note("bs-1", FsType::Btrfs));
        for content in
            [Content::Unrecognised, found(FsType::Btrfs, own_uuid()), Content::Other("swap space".into())]
        {
            let seen = Seen { size: SIZE, content, note: note.clone(), never_mounted: false };
            let refused = Err(NoteRefused::ReadOnly(FsType::Btrfs));
            assert_eq!(again(&disk("bs-1"), FsType::Btrfs, true, &seen), refused);
        }
        let raw = |note: &FoundNote| raw(&disk("bs-1"), note, &Adoption::parse("bs-1"));
        assert_eq!(raw(&note), Err(NoteRefused::Block(FsType::Btrfs)));
        for none in [FoundNote::Damaged, FoundNote::None] {
            assert_eq!(raw(&none), Ok(()));
        }
    }
}
