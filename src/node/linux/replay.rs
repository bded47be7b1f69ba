//! Replays the journal or log of a file system that is not mounted.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{self, SYS_fsconfig, SYS_fsopen, c_int, c_long, c_uint, syscall};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::Host;
use super::device::{OpenDevice, UseError};
use super::fsck::{self, CheckError};
use super::probe::FsKind;
use crate::progress::Progress;

/// Why it could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(
        "the log of the {kind} on {device} must be replayed before its UUID can be changed, for which it was mounted where nobody \
         sees it, and that failed: {source}; the kernel's log on this host says more, and xfs_repair -n, run by hand, too"
    )]
    Mount { kind: FsKind, device: String, source: io::Error },
    #[error(transparent)]
    Use(#[from] UseError),
}

impl Host {
    /// Brings the file system into the state in which an unmount leaves it, and its device into that in which nobody
    /// uses it.
    pub async fn replay(
        &self,
        device: &Arc<OpenDevice>,
        kind: FsKind,
        progress: &Progress,
    ) -> Result<(), ReplayError> {
        match kind {
            FsKind::Ext2 | FsKind::Ext3 | FsKind::Ext4 => {
                fsck::check(kind, device, false, progress).await?;
            }
            FsKind::Xfs | FsKind::Btrfs => {
                let (this, fs) = (Arc::clone(device), kind.to_string());
                let mounted = self.calls.run(move || by_mounting(this.path(), &fs)).await;
                let path = device.path().display();
                mounted.map_err(|source| ReplayError::Mount { kind, device: path.to_string(), source })?;
                self.wait_until_free(device.described().clone()).await?;
            }
        }
        Ok(())
    }
}

/// Of `linux/mount.h`.
const FSOPEN_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;

/// Beside the mounted disk that this one is a copy of.
const OPTION: &CStr = c"nouuid";

/// Mounts the file system of `device` for writing and unmounts it again.
fn by_mounting(device: &Path, fs: &str) -> io::Result<()> {
    match without_a_place(device, fs) {
        // Before Linux 5.2, or forbidden by a filter of system calls.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            in_a_namespace(device, fs)
        }
        done => done,
    }
}

/// Makes the kernel's object of a mounted file system, which has no place in any tree. Closing it unmounts it.
fn without_a_place(device: &Path, fs: &str) -> io::Result<()> {
    let (device, fs) = (CString::new(device.as_os_str().as_bytes())?, CString::new(fs)?);
    // SAFETY: the name is a C string that outlives the call.
    let fd = check(unsafe { syscall(SYS_fsopen, fs.as_ptr(), FSOPEN_CLOEXEC) })?;
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    let context = unsafe { OwnedFd::from_raw_fd(fd) };
    configure(&context, FSCONFIG_SET_STRING, Some(c"source"), Some(&device))?;
    configure(&context, FSCONFIG_SET_FLAG, Some(OPTION), None)?;
    configure(&context, FSCONFIG_CMD_CREATE, None, None)
}

fn configure(context: &OwnedFd, what: c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the descriptor is open, and key and value are null or C strings that outlive the call.
    check(unsafe { syscall(SYS_fsconfig, context.as_raw_fd(), what, pointer(key), pointer(value), 0) })
        .map(drop)
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(Errno::last().into()) } else { Ok(result) }
}

/// A thread with mounts of its own, which end with it. It holds copies of all other mounts as long.
fn in_a_namespace(device: &Path, fs: &str) -> io::Result<()> {
    let mounting = || -> nix::Result<()> {
        const NONE: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        // A directory that every system has.
        let place = "/proc";
        mount(Some(device), place, Some(fs), MsFlags::empty(), OPTION.to_str().ok())?;
        umount2(place, MntFlags::UMOUNT_NOFOLLOW)
    };
    let thread = std::thread::scope(|scope| scope.spawn(mounting).join());
    Ok(thread.map_err(|_| io::Error::other("the mounting thread panicked"))??)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use super::super::mount::unmount_all;
    use super::*;

    fn run(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    struct Loop(String);

    impl Loop {
        fn over(image: &Path) -> Self {
            Self(run("losetup", &["-f", "--show", image.to_str().unwrap()]).trim().to_owned())
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            run("losetup", &["-d", &self.0]);
        }
    }

    /// Mounts it as it is, and says whether `file` is there.
    fn shows(device: &str, place: &Path, options: &str, file: &str) -> bool {
        run("mount", &["-o", options, device, place.to_str().unwrap()]);
        let found = place.join(file).exists();
        unmount_all(place).unwrap();
        found
    }

    /// Both ways, of which newer kernels need only the first.
    #[test]
    fn a_mount_that_nobody_sees_replays_the_log() {
        if !nix::unistd::geteuid().is_root() || super::super::exec::find(XFS).is_none() {
            eprintln!("SKIPPED: replaying a log needs root and xfsprogs");
            return;
        }
        let ways: [fn(&Path, &str) -> io::Result<()>; 2] = [without_a_place, in_a_namespace];
        for way in ways {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    unshare(CloneFlags::CLONE_NEWNS).unwrap();
                    let none: Option<&str> = None;
                    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
                    let directory = tempfile::tempdir().unwrap();
                    let path = |name: &str| -> PathBuf { directory.path().join(name) };
                    let (image, crashed, place) = (path("image"), path("crashed"), path("place"));
                    fs::create_dir(&place).unwrap();
                    fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
                    let source = Loop::over(&image);
                    run("mkfs.xfs", &["-q", &source.0]);
                    run("mount", &[&source.0, place.to_str().unwrap()]);
                    fs::write(place.join("late"), "x").unwrap();
                    fs::File::open(place.join("late")).unwrap().sync_all().unwrap();
                    run("cp", &["--sparse=always", image.to_str().unwrap(), crashed.to_str().unwrap()]);
                    // The source stays mounted, with the same UUID.
                    let copy = Loop::over(&crashed);
                    let other = path("other");
                    fs::create_dir(&other).unwrap();
                    let unplayed = "ro,norecovery,nouuid";
                    assert!(!shows(&copy.0, &other, unplayed, "late"));
                    let before = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
                    way(Path::new(&copy.0), "xfs").unwrap();
                    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before);
                    assert!(shows(&copy.0, &other, unplayed, "late"));
                    assert!(way(Path::new("/dev/null"), "xfs").is_err());
                    unmount_all(&place).unwrap();
                });
            });
        }
    }

    const XFS: super::super::exec::Tool = super::super::exec::Tool { name: "mkfs.xfs", package: "xfsprogs" };
}
