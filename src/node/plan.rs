//! What to do with a disk, by what is on it and what is wanted. Pure.

use super::linux::look::Seen;
use super::linux::note;
use super::linux::options::{MountOptions, OptionError, translate};
use super::linux::probe::{Content, FoundFs, FsKind};
use super::noted::{self, NoteRefused};
use crate::volume::{
    AccessMode, Adoption, Capability, DiskId, FormatNote, FsType, FsUuid, Mark, MountAccess, VolumeContext,
};

/// What is to be done before the mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Prove that the disk is blank, and make the file system. If it is not blank, refuse.
    Format,
    /// Remove what a mkfs that was cut off left, and make the file system anew. If there is more than that, refuse.
    MakeAgain(FormatNote),
    /// Use what is there.
    Use(FoundFs),
    /// Use what is there, once it carries the mark of its own disk instead of this one.
    Adopt(FoundFs, FsUuid),
}

/// Why the content of a disk is not used as the volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentRefused {
    #[error(
        "it holds {found}, but the volume is asked for as {wanted}; use a PersistentVolume or StorageClass with fsType \
         {found}. Nothing was changed"
    )]
    WrongFs { found: FsKind, wanted: FsType },
    #[error(
        "its {found} has the UUID {uuid}, by which this driver marks volumes of another UDisk: this is the wrong disk, or a \
         copy made outside Kubernetes, and {adoption}. It was neither mounted nor changed. If you made this copy, give its \
         PersistentVolume the volume attribute {key}: \"{uuid}\"; the mark is then replaced at the first writable use",
        key = VolumeContext::ADOPT
    )]
    OtherDisk { found: FsKind, uuid: FsUuid, adoption: Adoption },
    #[error(
        "its {found} has the UUID {uuid}, by which this driver marks volumes of another UDisk: this is the wrong disk, or a \
         copy made outside Kubernetes, and {adoption}. It was not given out as a raw block volume, nor changed. If you made \
         this copy, give its PersistentVolume the volume attribute {key}: \"{uuid}\"",
        key = VolumeContext::ADOPT
    )]
    OtherDiskAsBlock { found: FsKind, uuid: FsUuid, adoption: Adoption },
    #[error(
        "it is wanted read-only, and is a copy of a btrfs with the UUID {uuid}, which the kernel would take for the original. Use \
         it for writing once, then its UUID is replaced. It was neither mounted nor changed"
    )]
    CopyOfBtrfs { uuid: FsUuid },
    #[error(
        "its {found} has {size} bytes, but the disk only {device_size}: this is the wrong disk, or part of it is lost. It was \
         neither mounted nor changed"
    )]
    LargerThanDisk { found: FsKind, size: u64, device_size: u64 },
    #[error("it holds {0}, which cannot be mounted as a volume. Nothing was changed")]
    Other(String),
    #[error(
        "it holds {0}, whose making was cut off, and no note of this driver says that it was blank before. Nothing was changed"
    )]
    Unfinished(FsKind),
    #[error("it is wanted read-only and holds no file system; only a writable use makes one")]
    NothingToRead,
    #[error(
        "it has {size} bytes, and this driver formats disks of {least} bytes and more. It was not changed", least = note::LEAST_DISK
    )]
    TooSmall { size: u64 },
    #[error(transparent)]
    Noted(#[from] NoteRefused),
}

/// Decides what happens to the disk of `volume`.
pub fn plan(
    volume: &DiskId,
    wanted: FsType,
    read_only: bool,
    seen: &Seen,
    adoption: &Adoption,
) -> Result<Plan, ContentRefused> {
    if let Some(note) = noted::again(volume, wanted, read_only, seen)? {
        return Ok(Plan::MakeAgain(note));
    }
    match seen.content.clone() {
        Content::Unrecognised if read_only => Err(ContentRefused::NothingToRead),
        Content::Unrecognised if seen.size < note::LEAST_DISK => {
            Err(ContentRefused::TooSmall { size: seen.size })
        }
        Content::Unrecognised => Ok(Plan::Format),
        Content::Other(name) => Err(ContentRefused::Other(name)),
        Content::Unfinished(kind) => Err(ContentRefused::Unfinished(kind)),
        Content::Fs(found) if is_foreign(found, volume, adoption) => {
            Err(ContentRefused::OtherDisk { found: found.kind, uuid: found.uuid, adoption: adoption.clone() })
        }
        Content::Fs(found) if !found.kind.is(wanted) => {
            Err(ContentRefused::WrongFs { found: found.kind, wanted })
        }
        Content::Fs(found) if found.size > seen.size => {
            let device_size = seen.size;
            Err(ContentRefused::LargerThanDisk { found: found.kind, size: found.size, device_size })
        }
        Content::Fs(found) => match (found.uuid.mark(volume), adoption.mark()) {
            // Nothing is written. That it is a copy only matters to btrfs, which knows its disks by their UUID: another
            // one with it that is mounted, or comes later, would be mixed up with this one.
            (Mark::OtherDisk, _) if read_only && found.kind == FsKind::Btrfs => {
                Err(ContentRefused::CopyOfBtrfs { uuid: found.uuid })
            }
            // Its own it may have got a moment before the power went.
            (Mark::OtherDisk | Mark::Ours, Some(from)) if !read_only => Ok(Plan::Adopt(found, from)),
            (Mark::Ours | Mark::OtherDisk | Mark::None, _) => Ok(Plan::Use(found)),
        },
    }
}

/// Decides whether the disk of `volume`, with this file system on it, is given out as it is: to a raw block volume, whose
/// content is nobody's business but that of a volume which this driver made on another disk.
pub fn plan_block(
    volume: &DiskId,
    content: Option<FoundFs>,
    adoption: &Adoption,
) -> Result<(), ContentRefused> {
    match content {
        Some(found) if is_foreign(found, volume, adoption) => Err(ContentRefused::OtherDiskAsBlock {
            found: found.kind,
            uuid: found.uuid,
            adoption: adoption.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Whether it carries the mark of another disk, other than the one that may be adopted.
fn is_foreign(found: FoundFs, volume: &DiskId, adoption: &Adoption) -> bool {
    found.uuid.mark(volume) == Mark::OtherDisk && adoption.mark() != Some(found.uuid)
}

/// Whether nothing may be written: by the access mode, or by a mount option.
pub fn read_only(capability: &Capability, access: &MountAccess) -> Result<bool, OptionError> {
    let asked = translate(access.flags.iter().map(String::as_str))?.read_only();
    Ok(asked || capability.mode == AccessMode::SingleNodeReaderOnly)
}

/// The options to mount with.
///
/// A read-only mount still replays the journal, which writes; so it is told not to. What was not written out
/// before is then missing from the view, as it must be.
pub fn options(access: &MountAccess, fs: FsKind, read_only: bool) -> Result<MountOptions, OptionError> {
    let mut words: Vec<&str> = access.flags.iter().map(String::as_str).collect();
    if read_only {
        words.push("ro");
        words.push(match fs {
            FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => "noload",
            FsKind::Xfs => "norecovery",
            FsKind::Btrfs => BTRFS_NO_REPLAY,
        });
    }
    // xfs refuses a second mount of one UUID, and a disk that was pulled under its mount and came back is one, as long
    // as a process keeps the dead mount. Which disk this is was proven otherwise.
    if fs == FsKind::Xfs {
        words.push("nouuid");
    }
    translate(words)
}

pub const BTRFS_NO_REPLAY: &str = "rescue=nologreplay";
/// The same before Linux 5.9.
pub const BTRFS_NO_REPLAY_OLD: &str = "nologreplay";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Access, FoundNote};

    fn volume() -> DiskId {
        DiskId::parse("bs-1").unwrap()
    }

    fn found(kind: FsKind, uuid: FsUuid) -> FoundFs {
        FoundFs { kind, uuid, size: SIZE, block_size: 4096, granule: 1 << 20 }
    }

    const SIZE: u64 = 10 << 30;

    /// On a disk without a note.
    fn plan_of(
        wanted: FsType,
        read_only: bool,
        content: Content,
        size: u64,
        adoption: &Adoption,
    ) -> Result<Plan, ContentRefused> {
        let seen = Seen { size, content, note: FoundNote::None, never_mounted: false };
        plan(&volume(), wanted, read_only, &seen, adoption)
    }

    const FOREIGN: FsUuid = FsUuid::from_bytes([7; 16]);

    #[test]
    fn only_the_unrecognised_is_ever_formatted_and_only_for_writing() {
        assert_eq!(
            plan_of(FsType::Ext4, false, Content::Unrecognised, SIZE, &Adoption::Nothing),
            Ok(Plan::Format)
        );
        assert_eq!(
            plan_of(FsType::Ext4, true, Content::Unrecognised, SIZE, &Adoption::Nothing),
            Err(ContentRefused::NothingToRead)
        );
        for read_only in [false, true] {
            let content = Content::Other("swap space".into());
            let refused = Err(ContentRefused::Other("swap space".into()));
            assert_eq!(plan_of(FsType::Ext4, read_only, content, SIZE, &Adoption::Nothing), refused);
        }
    }

    #[test]
    fn a_file_system_is_used_when_it_is_the_wanted_one_and_not_of_another_disk() {
        let kinds = [FsKind::Ext2, FsKind::Ext3, FsKind::Ext4, FsKind::Xfs, FsKind::Btrfs];
        let other = FsUuid::of_disk(&DiskId::parse("bs-2").unwrap());
        for wanted in FsType::ALL {
            for kind in kinds {
                for uuid in [FsUuid::of_disk(&volume()), FOREIGN] {
                    let fs = found(kind, uuid);
                    let expected = if kind.to_string() == wanted.word() {
                        Ok(Plan::Use(fs))
                    } else {
                        Err(ContentRefused::WrongFs { found: kind, wanted })
                    };
                    assert_eq!(plan_of(wanted, false, Content::Fs(fs), SIZE, &Adoption::Nothing), expected);
                }
                let refused =
                    Err(ContentRefused::OtherDisk { found: kind, uuid: other, adoption: Adoption::Nothing });
                assert_eq!(
                    plan_of(wanted, true, Content::Fs(found(kind, other)), SIZE, &Adoption::Nothing),
                    refused
                );
            }
        }
    }

    #[test]
    fn a_copy_is_adopted_for_writing_where_its_very_mark_was_named() {
        let source = FsUuid::of_disk(&DiskId::parse("bs-2").unwrap());
        let own = FsUuid::of_disk(&volume());
        let named = Adoption::parse("bs-2");
        for (fs, kind) in
            [(FsType::Ext4, FsKind::Ext4), (FsType::Xfs, FsKind::Xfs), (FsType::Btrfs, FsKind::Btrfs)]
        {
            let decide = |uuid, read_only, adoption: &Adoption| {
                plan_of(fs, read_only, Content::Fs(found(kind, uuid)), SIZE, adoption)
            };
            assert_eq!(decide(source, false, &named), Ok(Plan::Adopt(found(kind, source), source)));
            assert_eq!(decide(own, false, &named), Ok(Plan::Adopt(found(kind, own), source)));
            assert_eq!(decide(own, true, &named), Ok(Plan::Use(found(kind, own))));
            assert_eq!(decide(FOREIGN, false, &named), Ok(Plan::Use(found(kind, FOREIGN))));
            let read_only = decide(source, true, &named);
            if kind == FsKind::Btrfs {
                assert_eq!(read_only, Err(ContentRefused::CopyOfBtrfs { uuid: source }));
            } else {
                assert_eq!(read_only, Ok(Plan::Use(found(kind, source))));
            }
            for adoption in [Adoption::Nothing, Adoption::parse("bs-3"), Adoption::parse("*")] {
                for read_only in [false, true] {
                    let refused = decide(source, read_only, &adoption);
                    let expected =
                        ContentRefused::OtherDisk { found: kind, uuid: source, adoption: adoption.clone() };
                    assert_eq!(refused, Err(expected));
                }
            }
            // A permission is none to take another file system, or one that is cut off.
            let other = if kind == FsKind::Xfs { FsKind::Ext4 } else { FsKind::Xfs };
            let content = Content::Fs(found(other, source));
            let refused = plan_of(fs, false, content, SIZE, &named);
            assert_eq!(refused, Err(ContentRefused::WrongFs { found: other, wanted: fs }));
            let content = Content::Fs(found(kind, source));
            let refused = plan_of(fs, false, content, SIZE - 1, &named);
            assert!(matches!(refused, Err(ContentRefused::LargerThanDisk { .. })));
        }
    }

    #[test]
    fn a_raw_block_volume_gets_no_disk_with_the_mark_of_another_volume() {
        let source = FsUuid::of_disk(&DiskId::parse("bs-2").unwrap());
        let own = FsUuid::of_disk(&volume());
        let decide =
            |uuid, adoption: &Adoption| plan_block(&volume(), Some(found(FsKind::Xfs, uuid)), adoption);
        for adoption in [Adoption::Nothing, Adoption::parse("bs-3"), Adoption::parse("*")] {
            assert!(matches!(decide(source, &adoption), Err(ContentRefused::OtherDiskAsBlock { .. })));
            assert_eq!(decide(own, &adoption), Ok(()));
            assert_eq!(decide(FOREIGN, &adoption), Ok(()));
            assert_eq!(plan_block(&volume(), None, &adoption), Ok(()));
        }
        assert_eq!(decide(source, &Adoption::parse("bs-2")), Ok(()));
    }

    #[test]
    fn a_file_system_larger_than_its_disk_is_refused() {
        let content = Content::Fs(found(FsKind::Xfs, FOREIGN));
        assert!(matches!(
            plan_of(FsType::Xfs, false, content, SIZE - 1, &Adoption::Nothing),
            Err(ContentRefused::LargerThanDisk { .. })
        ));
    }

    #[test]
    fn a_disk_without_room_for_the_note_is_not_formatted() {
        let least = note::LEAST_DISK;
        let planned = |size| plan_of(FsType::Ext4, false, Content::Unrecognised, size, &Adoption::Nothing);
        assert_eq!(planned(least - 1), Err(ContentRefused::TooSmall { size: least - 1 }));
        assert_eq!(planned(least), Ok(Plan::Format));
    }

    #[test]
    fn a_note_decides_before_what_is_beside_it() {
        let note = FormatNote { disk: volume(), fs: FsType::Xfs };
        let seen = |content, never_mounted| {
            let note = FoundNote::Note(note.clone());
            Seen { size: SIZE, content, note, never_mounted }
        };
        let planned = |wanted, seen| plan(&volume(), wanted, false, &seen, &Adoption::Nothing);
        let unfinished = || seen(Content::Unfinished(FsKind::Xfs), false);
        assert_eq!(planned(FsType::Xfs, unfinished()), Ok(Plan::MakeAgain(note.clone())));
        assert!(matches!(planned(FsType::Ext4, unfinished()), Err(ContentRefused::Noted(_))));
        // What is no matter of the note is planned as ever.
        let used = found(FsKind::Xfs, FOREIGN);
        assert_eq!(planned(FsType::Xfs, seen(Content::Fs(used), false)), Ok(Plan::Use(used)));
        let other = found(FsKind::Xfs, FsUuid::of_disk(&DiskId::parse("bs-2").unwrap()));
        let refused = planned(FsType::Xfs, seen(Content::Fs(other), true));
        assert!(matches!(refused, Err(ContentRefused::OtherDisk { .. })));
    }

    #[test]
    fn read_only_comes_from_the_mode_or_an_option() {
        let access = |flags: &[&str]| MountAccess {
            fs: FsType::Ext4,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        let asked = |mode, flags: &[&str]| {
            let capability = Capability { access: Access::Mount(access(flags)), mode };
            read_only(&capability, &access(flags)).unwrap()
        };
        assert!(!asked(AccessMode::SingleNodeWriter, &["noatime"]));
        assert!(asked(AccessMode::SingleNodeWriter, &["ro"]));
        assert!(asked(AccessMode::SingleNodeReaderOnly, &["rw"]));
    }

    #[test]
    fn read_only_mounts_do_not_replay_journals() {
        let access = MountAccess { fs: FsType::Ext4, flags: vec!["rw".into(), "noatime".into()] };
        let data = |fs, read_only| options(&access, fs, read_only).unwrap();
        assert_eq!(data(FsKind::Ext4, true).data(), "noload");
        assert_eq!(data(FsKind::Xfs, true).data(), "norecovery,nouuid");
        assert_eq!(data(FsKind::Xfs, false).data(), "nouuid");
        assert_eq!(data(FsKind::Btrfs, true).data(), "rescue=nologreplay");
        assert!(data(FsKind::Ext4, true).read_only());
        assert_eq!(data(FsKind::Ext4, false).data(), "");
        assert!(!data(FsKind::Ext4, false).read_only());
    }
}
