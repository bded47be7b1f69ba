//! mount(2) and umount2(2), and the files and directories that mounts sit on.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::detached;
use super::error::{Doing as _, HostError};
use super::mountinfo::{Mount, Mounts};
use super::options::{MountOptions, flags_of_mount};
use super::patience::while_busy;

/// Mounts on one path that are taken off in one go; more than that is a loop of somebody who mounts again.
const MAX_STACK: usize = 64;

const NONE: Option<&str> = None;

/// Mounts a file system.
pub fn mount_fs(device: &Path, path: &Path, fs: &str, options: &MountOptions) -> Result<(), HostError> {
    let data = options.data();
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    while_busy(|| mount(Some(device), path, Some(fs), options.flags, data)).map_err(|errno| {
        let names = options.names();
        let with =
            if names.is_empty() { String::new() } else { format!(" with option {}", names.join(", ")) };
        let doing = format!("cannot mount {} as {fs}{with} on {}", device.display(), path.display());
        HostError::new(doing, errno)
    })
}

/// Makes `source` appear at `target`, writable like the source.
pub fn bind(source: &Path, target: &Path) -> Result<(), HostError> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .doing(&format!("bind {} to", source.display()), target)
}

/// Makes `source` appear at `target`, refusing writes.
///
/// In one step, where the kernel can: then the copies that mount propagation makes, among them the host's, from which
/// the container runtime takes the volume, refuse them too. On older kernels a bind is made and then remounted, as
/// `MS_BIND | MS_RDONLY` in one call is taken and ignored; that leaves the copies writable, and it is the runtime's own
/// read-only bind that keeps the container from writing.
pub fn bind_read_only(source: &Path, target: &Path) -> Result<(), HostError> {
    match detached::bind_read_only(source, target) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            bind(source, target)?;
            remount_read_only(target)
        }
        Err(error) => Err(HostError::new(
            format!("cannot bind {} read-only to {}", source.display(), target.display()),
            error,
        )),
    }
}

/// Whether [`bind_read_only`] takes one step, so that no bind is ever seen writable which was meant to be read-only.
pub fn binds_read_only_at_once() -> bool {
    detached::is_supported()
}

/// A remount drops the flags that it does not repeat.
fn remount_read_only(target: &Path) -> Result<(), HostError> {
    let mounts = Mounts::read()?;
    let top = mounts
        .top(target)
        .ok_or_else(|| HostError::new(format!("{} is not mounted", target.display()), Errno::EINVAL))?;
    let flags = flags_of_mount(&top.options) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, flags, NONE).doing("make read-only:", target)
}

/// Why a path could not be freed of its mounts.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    #[error("{path} is in use by a process", path = .0.display())]
    Busy(PathBuf),
    #[error(
        "{path} cannot be unmounted while something is mounted in it, at {below}; unmount that first",
        path = .path.display(), below = .below.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Holds { path: PathBuf, below: Vec<PathBuf> },
    #[error(
        "{path} cannot be unmounted, because {by} was mounted over it later and hides it; unmount that first",
        path = .path.display(), by = .by.display()
    )]
    Hidden { path: PathBuf, by: PathBuf },
    #[error("{path} has {what} mounted on it, which is no volume of this driver; it was left as it is", path = .path.display())]
    Foreign { path: PathBuf, what: String },
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Takes off all mounts at `path`, topmost first, and returns them. The path itself is never looked at, since a
/// mount of a dead disk answers with an error; the list of mounts is.
///
/// Never lazily: that would hide a mount which still writes, and the disk would be detached under it.
pub fn unmount_all(path: &Path) -> Result<Vec<Mount>, UnmountError> {
    let mut done = Vec::new();
    for _ in 0..MAX_STACK {
        let mounts = Mounts::read()?;
        let Some(top) = mounts.top(path) else {
            return Ok(done);
        };
        match patient_umount(path) {
            Ok(()) => done.push(top.clone()),
            // Somebody else was faster; the list tells.
            Err(Errno::EINVAL | Errno::ENOENT) if Mounts::read()?.top(path) != Some(top) => {}
            Err(errno) => return Err(not_unmounted(path, errno)?),
        }
    }
    Err(HostError::new(format!("{} is mounted again and again", path.display()), Errno::EBUSY).into())
}

fn patient_umount(path: &Path) -> nix::Result<()> {
    while_busy(|| umount2(path, MntFlags::UMOUNT_NOFOLLOW))
}

/// Takes off the topmost mount at `path` only.
pub fn unmount_top(path: &Path) -> Result<(), UnmountError> {
    match patient_umount(path) {
        Ok(()) => Ok(()),
        Err(errno) => Err(not_unmounted(path, errno)?),
    }
}

/// Why the topmost mount at `path` was not unmounted.
fn not_unmounted(path: &Path, errno: Errno) -> Result<UnmountError, HostError> {
    let mounts = Mounts::read()?;
    let top = mounts.top(path);
    let hiding = top.and_then(|top| mounts.hiding(top)).map(|mount| mount.mount_point.clone());
    let below = top.map(|top| mounts.within(top)).unwrap_or_default();
    let at = path.to_owned();
    Ok(match (errno, hiding) {
        (Errno::EINVAL | Errno::ENOENT, Some(by)) => UnmountError::Hidden { path: at, by },
        (Errno::EBUSY, _) if below.is_empty() => UnmountError::Busy(at),
        (Errno::EBUSY, _) => UnmountError::Holds { path: at, below },
        (errno, _) => HostError::new(format!("cannot unmount {}", path.display()), errno).into(),
    })
}

/// Writes what the file system at `path` holds in memory to its disk. unmount does it too, but swallows the errors.
pub fn sync_fs(path: &Path) -> Result<(), HostError> {
    let root = open_directory(path)?;
    nix::unistd::syncfs(&root).doing("write out", path)
}

pub(super) fn open_directory(path: &Path) -> Result<File, HostError> {
    use nix::libc::{O_CLOEXEC, O_DIRECTORY, O_NOFOLLOW};
    let flags = O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path).doing("open", path)
}

/// Why a mount point could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    #[error("{path} is {found}, and {wanted} is needed there; remove it", path = .path.display())]
    Occupied { path: PathBuf, found: &'static str, wanted: &'static str },
    #[error("{path} is {found}, which no volume leaves behind; it was left as it is", path = .path.display())]
    Foreign { path: PathBuf, found: &'static str },
    #[error("{path} is not empty; it was left as it is, look at what wrote below it", path = .0.display())]
    NotEmpty(PathBuf),
    #[error("{path} cannot be made, because {above} is not a directory", path = .path.display(), above = .above.display())]
    Below { path: PathBuf, above: PathBuf },
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Whether a directory is there; an error if none could be made. Changes nothing.
pub fn is_directory(path: &Path) -> Result<bool, PathError> {
    match kind(path)? {
        Some(Kind::Directory) => Ok(true),
        Some(other) => Err(occupied(path, other, "a directory")),
        None => below_directories(path).map(|()| false),
    }
}

/// Makes a directory, and what is missing above it.
pub fn make_directory(path: &Path) -> Result<(), PathError> {
    if !is_directory(path)? {
        DirBuilder::new().recursive(true).mode(0o750).create(path).doing("make directory", path)?;
    }
    Ok(())
}

/// What is above a path is directories as far as it exists; links to directories are as good.
fn below_directories(path: &Path) -> Result<(), PathError> {
    let above = path.ancestors().skip(1).find_map(|above| Some((above, fs::metadata(above).ok()?)));
    match above {
        Some((above, found)) if !found.is_dir() => {
            Err(PathError::Below { path: path.to_owned(), above: above.to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// Makes an empty file for a device to be bound to, and the directories missing above it.
pub fn make_file(path: &Path) -> Result<(), PathError> {
    match kind(path)? {
        Some(Kind::File) => Ok(()),
        Some(other) => Err(occupied(path, other, "a file for the block device")),
        None => {
            below_directories(path)?;
            if let Some(parent) = path.parent() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o750)
                    .create(parent)
                    .doing("make directory", parent)?;
            }
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
                Ok(_) => Ok(()),
                Err(error) => Err(HostError::new(format!("cannot make {}", path.display()), error).into()),
            }
        }
    }
}

/// Removes an unmounted mount point. What holds data is left and named: it was written to the host's own disk.
pub fn remove_mount_point(path: &Path) -> Result<(), PathError> {
    let removed = match kind(path)? {
        None => return Ok(()),
        Some(Kind::Directory) => fs::remove_dir(path),
        Some(Kind::File) if fs::symlink_metadata(path).doing("look at", path)?.len() > 0 => {
            return Err(PathError::NotEmpty(path.to_owned()));
        }
        Some(Kind::File) => fs::remove_file(path),
        Some(other) => return Err(PathError::Foreign { path: path.to_owned(), found: other.words() }),
    };
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Err(PathError::NotEmpty(path.to_owned()))
        }
        Err(error) => Err(HostError::new(format!("cannot remove {}", path.display()), error).into()),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Directory,
    File,
    Link,
    Other,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Directory => "a directory",
            Self::File => "a file",
            Self::Link => "a symbolic link",
            Self::Other => "neither file nor directory",
        }
    }
}

fn occupied(path: &Path, found: Kind, wanted: &'static str) -> PathError {
    PathError::Occupied { path: path.to_owned(), found: found.words(), wanted }
}

/// What is at `path`, without following a symbolic link.
fn kind(path: &Path) -> Result<Option<Kind>, HostError> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(match found.file_type() {
            t if t.is_dir() => Kind::Directory,
            t if t.is_file() => Kind::File,
            t if t.is_symlink() => Kind::Link,
            _ => Kind::Other,
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A parent that is a file: nothing can be there.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        Err(error) => Err(HostError::new(format!("cannot look at {}", path.display()), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::thread;
    use std::time::Duration;

    /// Runs on a thread with mounts of its own, or says why not.
    fn in_a_namespace(test: impl FnOnce(&Path) + Send) {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: mounts need root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
                test(directory.path());
            });
        });
    }

    fn tmpfs(path: &Path, flags: MsFlags) {
        make_directory(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, NONE).unwrap();
    }

    /// What kernels before 5.12 get.
    #[test]
    fn a_remount_makes_a_bind_read_only_and_keeps_its_other_flags() {
        in_a_namespace(|directory| {
            let (source, target) = (directory.join("a b"), directory.join("target"));
            tmpfs(&source, MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME);
            make_directory(&target).unwrap();
            bind(&source, &target).unwrap();
            remount_read_only(&target).unwrap();
            let mounts = Mounts::read().unwrap();
            assert_eq!(mounts.top(&target).unwrap().options, "ro,nosuid,nodev,noatime");
            assert!(!mounts.top(&source).unwrap().read_only());
            unmount_all(&target).unwrap();
            unmount_all(&source).unwrap();
        });
    }

    #[allow(clippy::disallowed_methods, reason = "what is waited for shows only after it")]
    #[test]
    fn a_mount_that_is_busy_for_a_moment_is_waited_for() {
        in_a_namespace(|directory| {
            let path = directory.join("mount");
            tmpfs(&path, MsFlags::empty());
            let file = File::create(path.join("file")).unwrap();
            assert!(matches!(unmount_all(&path), Err(UnmountError::Busy(busy)) if busy == path));
            assert!(matches!(unmount_top(&path), Err(UnmountError::Busy(busy)) if busy == path));
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    thread::sleep(Duration::from_millis(30));
                    drop(file);
                });
                assert_eq!(unmount_all(&path).unwrap().len(), 1);
            });
        });
    }

    #[test]
    fn a_mount_that_holds_others_is_busy_with_their_names() {
        in_a_namespace(|directory| {
            let (path, within) = (directory.join("mount"), directory.join("mount/within"));
            tmpfs(&path, MsFlags::empty());
            tmpfs(&within, MsFlags::empty());
            let error = unmount_all(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mounted in it, at {}", within.display())), "{error}");
            unmount_all(&within).unwrap();
            unmount_all(&path).unwrap();
        });
    }

    /// Kubelet's directory was moved to another disk while volumes were mounted below it.
    #[test]
    fn a_mount_that_is_hidden_says_by_what() {
        in_a_namespace(|directory| {
            let (above, path) = (directory.join("kubelet"), directory.join("kubelet/pods/mount"));
            tmpfs(&path, MsFlags::empty());
            tmpfs(&above, MsFlags::empty());
            let hidden =
                |error: &UnmountError| matches!(error, UnmountError::Hidden { by, .. } if *by == above);
            for empty in [false, true] {
                if empty {
                    make_directory(&path).unwrap();
                }
                let error = unmount_all(&path).unwrap_err();
                assert!(hidden(&error), "{error}");
            }
            unmount_all(&above).unwrap();
            assert_eq!(unmount_all(&path).unwrap().len(), 1);
        });
    }

    #[test]
    fn what_was_unmounted_is_told_and_mount_points_are_only_removed_when_empty() {
        in_a_namespace(|directory| {
            let path = directory.join("mount");
            tmpfs(&path, MsFlags::empty());
            tmpfs(&path, MsFlags::empty());
            assert_eq!(unmount_all(&path).unwrap().len(), 2);
            assert!(unmount_all(&path).unwrap().is_empty());
            fs::write(path.join("file"), "data").unwrap();
            assert!(matches!(remove_mount_point(&path), Err(PathError::NotEmpty(_))));
            assert!(matches!(remove_mount_point(&path.join("file")), Err(PathError::NotEmpty(_))));
            assert!(matches!(make_directory(&path.join("file")), Err(PathError::Occupied { .. })));
            assert!(matches!(make_file(&path), Err(PathError::Occupied { .. })));
            for make in [make_directory, make_file] {
                assert!(matches!(make(&path.join("file/x/y")), Err(PathError::Below { .. })));
            }
            fs::remove_file(path.join("file")).unwrap();
            for _ in 0..2 {
                remove_mount_point(&path).unwrap();
            }
        });
    }
}
