//! The newer mount calls, for which nix has no wrappers: a mount can be made out of sight, given its flags, and then
//! be put in its place.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{
    AT_EMPTY_PATH, AT_FDCWD, MOVE_MOUNT_F_EMPTY_PATH, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, SYS_mount_setattr,
    SYS_move_mount, SYS_open_tree, c_int, c_long, c_uint, syscall,
};

/// Of `linux/mount.h`.
const MOUNT_ATTR_RDONLY: u64 = 1;

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes `source` appear at `target`, read-only from its first moment on and in every namespace that it is passed on
/// to. `ENOSYS` before Linux 5.12.
pub(super) fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    let mount = clone(source)?;
    make_read_only(&mount)?;
    put(&mount, target)
}

/// Whether this kernel, and who confines this process, know these calls.
pub(super) fn is_supported() -> bool {
    // SAFETY: no descriptor has this number, and the kernel refuses the empty structure before it looks further.
    let result =
        unsafe { syscall(SYS_mount_setattr, -1, c"".as_ptr(), 0, std::ptr::null::<MountAttributes>(), 0) };
    result >= 0 || !matches!(Errno::last(), Errno::ENOSYS | Errno::EPERM)
}

fn clone(source: &Path) -> io::Result<OwnedFd> {
    let source = c_path(source)?;
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string that outlives the call, and nothing is written to it.
    let fd = unsafe { syscall(SYS_open_tree, AT_FDCWD, source.as_ptr(), flags) };
    let fd = c_int::try_from(check(fd)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn make_read_only(mount: &OwnedFd) -> io::Result<()> {
    let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };
    // SAFETY: the descriptor is open, the path is a C string, and the kernel reads as many bytes of the structure as
    // the last argument says, which is its size.
    check(unsafe {
        syscall(
            SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            AT_EMPTY_PATH as c_uint,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

fn put(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the descriptor is open, and both paths are C strings that outlive the call.
    check(unsafe {
        syscall(
            SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(Errno::last().into()) } else { Ok(result) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
