//! CSI's volume capability as the driver's own.

use crate::volume::capability::{AskedAccess, CapabilityError};
use crate::volume::{Capability, FsType};

use super::proto::v1::VolumeCapability;
use super::proto::v1::volume_capability::AccessType;
use super::proto::v1::volume_capability::access_mode::Mode;

/// Checks one capability. `default_fs` is what an empty file-system type stands for.
pub fn capability(asked: &VolumeCapability, default_fs: FsType) -> Result<Capability, CapabilityError> {
    let mode = asked.access_mode.map(|mode| match Mode::try_from(mode.mode) {
        Ok(mode) => mode.as_str_name().to_owned(),
        // A mode of a newer CSI.
        Err(_) => mode.mode.to_string(),
    });
    let access = asked.access_type.as_ref().map(|access| match access {
        AccessType::Block(_) => AskedAccess::Block,
        AccessType::Mount(mount) => AskedAccess::Mount {
            fs_type: &mount.fs_type,
            flags: &mount.mount_flags,
            group: &mount.volume_mount_group,
        },
    });
    Capability::parse(mode.as_deref(), access, default_fs)
}

/// Whether the volume is used as a raw block device.
pub fn is_block(asked: &VolumeCapability) -> bool {
    matches!(asked.access_type, Some(AccessType::Block(_)))
}

#[cfg(test)]
mod tests {
    use super::super::proto::v1::volume_capability::{AccessMode, BlockVolume, MountVolume};
    use super::*;
    use crate::volume::{Access, MountAccess};

    fn asked(mode: i32, access_type: Option<AccessType>) -> VolumeCapability {
        VolumeCapability { access_mode: Some(AccessMode { mode }), access_type }
    }

    #[test]
    fn fields_arrive_where_they_belong() {
        let mount = MountVolume {
            fs_type: "xfs".to_owned(),
            mount_flags: vec!["noatime,nodiratime".to_owned(), "discard".to_owned()],
            volume_mount_group: String::new(),
        };
        let mount = capability(&asked(1, Some(AccessType::Mount(mount))), FsType::Ext4).unwrap();
        let flags = vec!["noatime,nodiratime".to_owned(), "discard".to_owned()];
        assert_eq!(
            mount,
            Capability {
                access: Access::Mount(MountAccess { fs: FsType::Xfs, flags }),
                mode: crate::volume::AccessMode::SingleNodeWriter,
            }
        );
        let block = capability(&asked(2, Some(AccessType::Block(BlockVolume {}))), FsType::Ext4).unwrap();
        assert_eq!(
            block,
            Capability { access: Access::Block, mode: crate::volume::AccessMode::SingleNodeReaderOnly }
        );
    }

    #[test]
    fn what_is_missing_or_from_a_newer_csi_is_refused() {
        let block = || Some(AccessType::Block(BlockVolume {}));
        let error = |asked: &VolumeCapability| capability(asked, FsType::Ext4).unwrap_err();
        assert_eq!(error(&VolumeCapability::default()), CapabilityError::NoMode);
        assert_eq!(error(&asked(1, None)), CapabilityError::NoAccess);
        assert_eq!(error(&asked(99, block())), CapabilityError::Mode { mode: "99".to_owned() });
        for mode in [0, 3, 4, 5, 6, 7] {
            assert!(matches!(error(&asked(mode, block())), CapabilityError::Mode { .. }), "{mode}");
        }
        let group = MountVolume { volume_mount_group: "1000".to_owned(), ..MountVolume::default() };
        assert_eq!(error(&asked(1, Some(AccessType::Mount(group)))), CapabilityError::Group);
    }
}
