//! Paths that a caller gives.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::volume::{DiskId, Quoted};

/// The kernel's limits, without the closing NUL.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;

/// Why a path is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    #[error("{field} is {}; it must be an absolute path", quoted(.path))]
    Relative { field: &'static str, path: PathBuf },
    #[error("{field} is {}; it must not lead upwards by \"..\"", quoted(.path))]
    Upwards { field: &'static str, path: PathBuf },
    #[error("{field} is {}; nothing can be mounted there", quoted(.path))]
    Root { field: &'static str, path: PathBuf },
    #[error("{field} is {}; it must not hold control characters", quoted(.path))]
    Character { field: &'static str, path: PathBuf },
    #[error(
        "target_path is {} and staging_target_path {}; neither can be in the other",
        quoted(.target), quoted(.staging)
    )]
    Nested { target: PathBuf, staging: PathBuf },
    #[error("{field} has {length} bytes, longer than the {MAX_PATH} bytes that the kernel takes")]
    TooLong { field: &'static str, length: usize },
    #[error("{field} holds a name of {length} bytes, longer than the {MAX_NAME} bytes that the kernel takes")]
    NameTooLong { field: &'static str, length: usize },
}

/// A path in a text.
pub(super) fn quoted(path: &Path) -> String {
    Quoted(&path.to_string_lossy()).to_string()
}

/// Checks a path that something will be mounted at or removed from.
pub fn check(field: &'static str, path: &Path) -> Result<(), PathRefused> {
    let path_buf = || path.to_owned();
    if !path.is_absolute() {
        return Err(PathRefused::Relative { field, path: path_buf() });
    }
    let bytes = path.as_os_str().as_bytes();
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(PathRefused::Character { field, path: path_buf() });
    }
    if bytes.len() > MAX_PATH {
        return Err(PathRefused::TooLong { field, length: bytes.len() });
    }
    if let Some(name) = path.iter().find(|name| name.len() > MAX_NAME) {
        return Err(PathRefused::NameTooLong { field, length: name.len() });
    }
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(PathRefused::Upwards { field, path: path_buf() });
    }
    if path.file_name().is_none() {
        return Err(PathRefused::Root { field, path: path_buf() });
    }
    Ok(())
}

/// Checks where a staged volume is to appear. At its own staging path there would be nothing to unpublish without
/// unstaging, above it the staging path would be hidden, and below it in the volume's data. Both as mountinfo lists them.
pub fn check_apart(target: &Path, staging: &Path) -> Result<(), PathRefused> {
    if target.starts_with(staging) || staging.starts_with(target) {
        return Err(PathRefused::Nested { target: target.to_owned(), staging: staging.to_owned() });
    }
    Ok(())
}

/// The file inside the staging directory that a raw block volume's device is bound to. It keeps the device known
/// without asking the cloud.
pub fn block_file(staging_path: &Path, volume: &DiskId) -> PathBuf {
    staging_path.join(volume.as_str())
}

/// Whose device is bound to `path`, if that is such a file: they are named after UDisk ids, which all begin alike.
/// Nothing else that kubelet names does.
pub fn staged_volume(path: &Path) -> Option<DiskId> {
    let name = path.file_name()?.to_str()?;
    let is_id = name.starts_with("bs-") || name.starts_with("bsm-");
    is_id.then(|| DiskId::parse(name).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_below_the_root_are_used() {
        assert_eq!(check("target_path", Path::new("/var/lib/kubelet/pods/x/mount")), Ok(()));
        let refused = |path: &str| check("target_path", Path::new(path)).unwrap_err().to_string();
        assert_eq!(refused("some/path"), r#"target_path is "some/path"; it must be an absolute path"#);
        assert_eq!(refused("/a/../etc"), r#"target_path is "/a/../etc"; it must not lead upwards by "..""#);
        assert_eq!(refused("/"), r#"target_path is "/"; nothing can be mounted there"#);
        assert_eq!(refused("/a\0b"), r#"target_path is "/a\0b"; it must not hold control characters"#);
        for (target, staging, apart) in [
            ("/k/pods/a", "/k/staging", true),
            ("/k/staging-2", "/k/staging", true),
            ("/k/staging", "/k/staging/", false),
            ("/k/staging/./a", "/k//staging", false),
            ("/k", "/k/staging", false),
        ] {
            assert_eq!(check_apart(Path::new(target), Path::new(staging)).is_ok(), apart, "{target}");
        }
        assert!(refused(&"/x".repeat(2048)).contains("4096 bytes, longer than the 4095"));
        assert!(refused(&format!("/{}", "x".repeat(256))).contains("256 bytes, longer than the 255"));
    }

    #[test]
    fn the_file_of_a_raw_block_volume_tells_whose_it_is() {
        let id = DiskId::parse("bsm-abc").unwrap();
        assert_eq!(staged_volume(&block_file(Path::new("/staging"), &id)), Some(id));
        for other in ["/publish/pvc-1/4d0b7e4a-3f0c-4c0e-9d9c-2f8e5a5f8a01", "/x/globalmount", "/"] {
            assert_eq!(staged_volume(Path::new(other)), None);
        }
    }
}
