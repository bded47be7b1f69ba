//! A simulated UCloud and its hosts, for every test and for people without an account.
//!
//! It is written from the API's documentation alone and knows nothing of the driver's own client: where the two
//! agree, both understood the documents alike. [`cloud`] is the account with its API, its metadata service and its
//! faults; [`hosts`] makes its disks real, as loop devices of this machine, or leaves them imaginary.

pub mod cloud;
pub mod hosts;
mod place;
mod serve;
mod tour;
mod world;

use crate::config::SandboxArgs;
use crate::node::linux::privilege;
use hosts::LoopHosts;
pub use world::SandboxError;

/// What this machine lets a volume do.
#[derive(Debug, Clone, Copy)]
struct Means {
    /// Growing a mounted ext4 asks for CAP_SYS_RESOURCE; growing one at the next stage does not.
    grows_mounted_ext4: bool,
    /// Block devices and mounts: root.
    devices: bool,
}

/// What has to happen before the first thread starts: the tour gets mounts of its own, so that whatever happens
/// to it, no mount of it is left on the host. A served sandbox shares its mounts with those who use it.
pub fn prepare(args: &SandboxArgs) {
    if !args.serve && LoopHosts::supported().is_ok() {
        // Without the right to do so the tour cleans up after itself all the same.
        let _ = privilege::own_mounts();
    }
}

/// Runs the tour, or serves until a signal.
pub async fn run(args: SandboxArgs) -> Result<(), SandboxError> {
    let means =
        Means { devices: LoopHosts::supported().is_ok(), grows_mounted_ext4: privilege::has_sys_resource() };
    if args.serve { serve::serve(&args, means.devices).await } else { tour::tour(&args, means).await }
}
