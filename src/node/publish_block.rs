//! Publish of a raw block volume.
//!
//! Linux has no read-only view of a device: a read-only bind of a device node takes writes, and so does a node without
//! the right to write, from a root that may override that. What refuses writes is the disk itself, as a whole and on
//! this host. So a read-only publish makes the disk read-only, which is sound as long as nobody has it published
//! writable; and while it is published read-only, nobody can have it writable. The kernel keeps this: the disk's flag,
//! and the list of mounts that shows it.

use std::path::{Path, PathBuf};

use tracing::info;

use super::linux::Host;
use super::linux::device::{OpenDevice, OpenError};
use super::linux::device_number::DeviceNumber;
use super::linux::mountinfo::Mounts;
use super::publish::PublishError;

/// What becomes of the disk's flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flag {
    Keep,
    Set { read_only: bool },
}

/// Decides it. `elsewhere`: whether the disk is published at other paths, which then have it as the flag is.
fn decide(is_read_only: bool, elsewhere: bool, wanted_read_only: bool) -> Option<Flag> {
    match (is_read_only == wanted_read_only, elsewhere) {
        (true, _) => Some(Flag::Keep),
        (false, false) => Some(Flag::Set { read_only: wanted_read_only }),
        (false, true) => None,
    }
}

fn open(host: &Host, number: DeviceNumber, target: &Path) -> Result<OpenDevice, PublishError> {
    match host.open_number(number) {
        Ok(Some(device)) => Ok(device),
        Ok(None) => Err(PublishError::Gone(target.to_owned())),
        Err(OpenError::Mismatch(reason)) => Err(PublishError::Device(reason)),
        Err(OpenError::Host(error)) => Err(error.into()),
    }
}

/// Whether a disk that is published at `target` already refuses writes.
pub(super) fn is_read_only(host: &Host, number: DeviceNumber, target: &Path) -> Result<bool, PublishError> {
    Ok(open(host, number, target)?.is_read_only()?)
}

/// Makes the disk take or refuse writes, as it is to be published at `target`. Blocking.
pub(super) fn prepare(
    host: &Host,
    number: DeviceNumber,
    staged: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), PublishError> {
    let device = open(host, number, target)?;
    let elsewhere = host.others_of(&Mounts::read()?, number, &[staged, target]);
    let name = || device.path().display().to_string();
    match decide(device.is_read_only()?, !elsewhere.is_empty(), read_only) {
        Some(Flag::Keep) => Ok(()),
        Some(Flag::Set { read_only }) => {
            device.set_read_only(read_only)?;
            if device.is_read_only()? != read_only {
                return Err(PublishError::WriteProtected(name()));
            }
            info!(device = %name(), read_only, "the disk as a whole was made read-only or writable on this host");
            Ok(())
        }
        None => Err(PublishError::OtherwiseElsewhere { read_only, elsewhere }),
    }
}

/// How a disk is published, in words.
pub(super) fn how(read_only: bool) -> &'static str {
    if read_only { "read-only" } else { "writable" }
}

pub(super) fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_changes_only_for_a_disk_that_nobody_else_has() {
        for elsewhere in [false, true] {
            for read_only in [false, true] {
                assert_eq!(decide(read_only, elsewhere, read_only), Some(Flag::Keep));
            }
        }
        assert_eq!(decide(false, false, true), Some(Flag::Set { read_only: true }));
        assert_eq!(decide(true, false, false), Some(Flag::Set { read_only: false }));
        assert_eq!(decide(false, true, true), None);
        assert_eq!(decide(true, true, false), None);
    }
}
