//! How a volume is used: as a file system or a raw device, by one node.

use std::fmt;

use super::Quoted;

/// How the volume is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As a raw block device.
    Block,
    /// With a file system, mounted.
    Mount(MountAccess),
}

/// The file system and how to mount it.
#[derive(Clone, PartialEq, Eq)]
pub struct MountAccess {
    pub fs: FsType,
    /// One entry is one option as the StorageClass lists it; it may hold commas (an SELinux context) and is never
    /// split.
    pub flags: Vec<String>,
}

/// Mount options may hold credentials, says CSI; so only their number shows.
impl fmt::Debug for MountAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MountAccess")
            .field("fs", &self.fs)
            .field("flags", &format_args!("{} entries", self.flags.len()))
            .finish()
    }
}

/// The file systems that the driver makes and mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum FsType {
    Ext3,
    /// What is made when nobody asks for another: UCloud's own example of a static volume names none, and the
    /// plugin we replace takes ext4 for it.
    #[default]
    Ext4,
    Xfs,
    Btrfs,
}

impl FsType {
    pub const ALL: [Self; 4] = [Self::Ext3, Self::Ext4, Self::Xfs, Self::Btrfs];

    pub fn word(self) -> &'static str {
        match self {
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fs| fs.word() == word)
    }
}

impl fmt::Display for FsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Who may use the volume: one node, for writing or only for reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessMode {
    SingleNodeWriter,
    SingleNodeReaderOnly,
}

impl AccessMode {
    pub const ALL: [Self; 2] = [Self::SingleNodeWriter, Self::SingleNodeReaderOnly];

    /// CSI's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::SingleNodeWriter => "SINGLE_NODE_WRITER",
            Self::SingleNodeReaderOnly => "SINGLE_NODE_READER_ONLY",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// One checked volume capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    pub access: Access,
    pub mode: AccessMode,
}

/// The access type as the caller wrote it.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "the flags may hold credentials")]
pub enum AskedAccess<'a> {
    Block,
    Mount { fs_type: &'a str, flags: &'a [String], group: &'a str },
}

/// Why a capability is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CapabilityError {
    #[error("volume_capability.access_mode is required; allowed: {}", Modes)]
    NoMode,
    #[error(
        "volume_capability.access_mode is {mode}; allowed: {} (in Kubernetes ReadWriteOnce), because a UDisk is \
         attached to one host at a time",
        Modes
    )]
    Mode { mode: String },
    #[error("volume_capability.access_type is required; allowed: block, mount")]
    NoAccess,
    #[error("volume_capability.mount.fs_type is {}; allowed: {FileSystems}", Quoted(.fs_type))]
    FileSystem { fs_type: String },
    #[error(
        "volume_capability.mount.mount_flags entry {index} (counted from 0) {reason}; \
         write one mount option per entry"
    )]
    Flag { index: usize, reason: &'static str },
    #[error(
        "volume_capability.mount.volume_mount_group is set, but the driver does not offer VOLUME_MOUNT_GROUP; \
         leave it empty, kubelet applies fsGroup itself"
    )]
    Group,
}

impl Capability {
    /// Checks a capability. `mode` is CSI's word for the access mode; `default_fs` is what an empty file-system
    /// type stands for.
    pub fn parse(
        mode: Option<&str>,
        access: Option<AskedAccess<'_>>,
        default_fs: FsType,
    ) -> Result<Self, CapabilityError> {
        let mode = mode.ok_or(CapabilityError::NoMode)?;
        let mode =
            AccessMode::from_word(mode).ok_or_else(|| CapabilityError::Mode { mode: mode.to_owned() })?;
        let access = match access.ok_or(CapabilityError::NoAccess)? {
            AskedAccess::Block => Access::Block,
            AskedAccess::Mount { fs_type, flags, group } => {
                if !group.is_empty() {
                    return Err(CapabilityError::Group);
                }
                let fs = match fs_type {
                    "" => default_fs,
                    word => FsType::from_word(word)
                        .ok_or_else(|| CapabilityError::FileSystem { fs_type: word.to_owned() })?,
                };
                for (index, flag) in flags.iter().enumerate() {
                    check_flag(flag).map_err(|reason| CapabilityError::Flag { index, reason })?;
                }
                Access::Mount(MountAccess { fs, flags: flags.to_vec() })
            }
        };
        Ok(Self { access, mode })
    }
}

/// What no mount option can be. Which options exist is the kernel's to say.
fn check_flag(flag: &str) -> Result<(), &'static str> {
    if flag.is_empty() {
        return Err("is empty");
    }
    if flag.chars().any(char::is_control) {
        return Err("holds a control character");
    }
    Ok(())
}

struct Modes;

impl fmt::Display for Modes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&AccessMode::ALL.map(AccessMode::word).join(", "))
    }
}

struct FileSystems;

impl fmt::Display for FileSystems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&FsType::ALL.map(FsType::word).join(", "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WRITER: Option<&str> = Some("SINGLE_NODE_WRITER");

    fn mount<'a>(fs_type: &'a str, flags: &'a [String]) -> Option<AskedAccess<'a>> {
        Some(AskedAccess::Mount { fs_type, flags, group: "" })
    }

    fn error(mode: Option<&str>, access: Option<AskedAccess<'_>>) -> String {
        Capability::parse(mode, access, FsType::Ext4).unwrap_err().to_string()
    }

    #[test]
    fn block_and_every_file_system_are_taken_in_both_modes() {
        for mode in AccessMode::ALL {
            let block = Capability::parse(Some(mode.word()), Some(AskedAccess::Block), FsType::Ext4);
            assert_eq!(block, Ok(Capability { access: Access::Block, mode }));
            for fs in FsType::ALL {
                let capability = Capability::parse(Some(mode.word()), mount(fs.word(), &[]), FsType::Ext4);
                let access = Access::Mount(MountAccess { fs, flags: vec![] });
                assert_eq!(capability, Ok(Capability { access, mode }));
            }
        }
    }

    #[test]
    fn an_empty_file_system_is_the_default() {
        for default in FsType::ALL {
            let capability = Capability::parse(WRITER, mount("", &[]), default).unwrap();
            assert_eq!(capability.access, Access::Mount(MountAccess { fs: default, flags: vec![] }));
        }
        assert_eq!(FsType::default(), FsType::Ext4);
    }

    #[test]
    fn a_flag_with_commas_stays_one_flag_and_never_prints() {
        let flags = vec!["noatime".to_owned(), r#"context="system_u:object_r:x_t:s0:c1,c2""#.to_owned()];
        let capability = Capability::parse(WRITER, mount("xfs", &flags), FsType::Ext4).unwrap();
        let print = format!("{capability:?}");
        let Access::Mount(mount) = capability.access else { panic!("not a mount") };
        assert_eq!(mount.flags, flags);
        assert!(print.contains("2 entries") && !print.contains("noatime"), "{print}");
    }

    #[test]
    fn errors_name_what_is_allowed() {
        for (mode, text) in [
            (
                None,
                "volume_capability.access_mode is required; allowed: SINGLE_NODE_WRITER, SINGLE_NODE_READER_ONLY",
            ),
            (
                Some("MULTI_NODE_MULTI_WRITER"),
                "volume_capability.access_mode is MULTI_NODE_MULTI_WRITER; allowed: SINGLE_NODE_WRITER, \
                 SINGLE_NODE_READER_ONLY (in Kubernetes ReadWriteOnce), because a UDisk is attached to one host \
                 at a time",
            ),
        ] {
            assert_eq!(error(mode, Some(AskedAccess::Block)), text);
        }
        assert_eq!(error(WRITER, None), "volume_capability.access_type is required; allowed: block, mount");
        assert_eq!(
            error(WRITER, mount("ntfs", &[])),
            r#"volume_capability.mount.fs_type is "ntfs"; allowed: ext3, ext4, xfs, btrfs"#
        );
        let group = Some(AskedAccess::Mount { fs_type: "", flags: &[], group: "1000" });
        assert!(error(WRITER, group).contains("volume_mount_group"));
        for (flag, reason) in [("", "is empty"), ("a\0b", "holds a control character")] {
            let flags = ["ro".to_owned(), flag.to_owned()];
            let text = error(WRITER, mount("ext4", &flags));
            assert!(text.contains("entry 1") && text.contains(reason) && !text.contains("a\0b"), "{text}");
        }
        for mode in [
            "UNKNOWN",
            "MULTI_NODE_READER_ONLY",
            "MULTI_NODE_SINGLE_WRITER",
            "SINGLE_NODE_SINGLE_WRITER",
            "SINGLE_NODE_MULTI_WRITER",
        ] {
            assert!(error(Some(mode), Some(AskedAccess::Block)).contains(mode));
        }
    }

    proptest! {
        #[test]
        fn flags_come_through_unchanged_or_are_refused(
            flags in proptest::collection::vec("(?s).{0,30}", 0..5),
            fs_type in prop_oneof![Just(String::new()), Just("ext4".to_owned()), "\\PC{0,10}"],
        ) {
            match Capability::parse(WRITER, mount(&fs_type, &flags), FsType::Ext4) {
                Ok(Capability { access: Access::Mount(mount), .. }) => prop_assert_eq!(mount.flags, flags),
                Ok(_) => prop_assert!(false, "not a mount"),
                Err(CapabilityError::Flag { index, .. }) => prop_assert!(check_flag(&flags[index]).is_err()),
                Err(CapabilityError::FileSystem { fs_type }) => {
                    prop_assert!(FsType::from_word(&fs_type).is_none());
                }
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
