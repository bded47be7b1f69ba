//! Patience with a device or a mount that is busy for a moment only.
//!
//! A program that is being started anywhere in this process has copies of all open files until it runs, those that claim
//! a device among them; and the host's own scanners look into every mount and device. Who stays longer uses it.

use std::thread;
use std::time::Duration;

use nix::errno::Errno;

/// Between tries; together about a second.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(512);

/// Calls again as long as the kernel says that something is busy. Blocking.
#[allow(
    clippy::disallowed_methods,
    reason = "the thread is one for blocking calls, and the call itself may block it for longer"
)]
pub(super) fn while_busy<T>(call: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        match call() {
            Err(Errno::EBUSY) if pause <= LONGEST_PAUSE => thread::sleep(pause),
            other => return other,
        }
        pause *= 2;
    }
}
