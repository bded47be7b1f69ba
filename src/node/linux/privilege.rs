//! What this process may do.

use std::fs;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::error::HostError;

/// Bit of CAP_SYS_RESOURCE in the kernel's capability masks.
const SYS_RESOURCE: u64 = 1 << 24;

/// Whether the kernel lets this process grow a mounted ext4. Root in a container may lack it.
pub fn has_sys_resource() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & SYS_RESOURCE != 0)
}

/// Gives this thread, and those it starts, mounts that nobody else sees and that end with them.
pub fn own_mounts() -> Result<(), HostError> {
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .map_err(|errno| HostError::new("cannot have mounts of its own".to_owned(), errno))
}
