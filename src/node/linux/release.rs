//! Waits until a device is let go.

use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;

use super::Host;
use super::device::{UseError, open_exclusive};
use super::error::HostError;
use super::sysfs::BlockDevice;

/// After the last unmount the kernel needs moments, unless something else holds the device.
const LIMIT: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

impl Host {
    /// Waits until nothing on this host uses `device`: no file system in any mount namespace, no mapping. It opens
    /// the device exclusively, which all of these exclude. A device that is gone is free.
    pub async fn wait_until_free(&self, device: BlockDevice) -> Result<(), UseError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (this, described) = (self.clone(), device.clone());
            let busy = self.calls.run(move || this.is_busy(&described)).await?;
            if !busy {
                return Ok(());
            }
            if start.elapsed() >= LIMIT {
                let path = self.dev_root.join(&device.name);
                let users = format!("since it was unmounted {} s ago", LIMIT.as_secs());
                return Err(UseError::InUse { path, users });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_busy(&self, device: &BlockDevice) -> Result<bool, HostError> {
        // Gone, or another disk took its place: nothing of this one can be in use through that path.
        if !self.sysfs.device(&device.name)?.is_some_and(|now| now.is_same_attachment(device)) {
            return Ok(false);
        }
        let path = self.dev_root.join(&device.name);
        match open_exclusive(&path).map_err(|error| (error.raw_os_error().map(Errno::from_raw), error)) {
            Ok(_) => Ok(false),
            Err((Some(Errno::EBUSY), _)) => Ok(true),
            Err((Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV), _)) => Ok(false),
            // A dead disk, or one without a medium, is let go as much as it can be.
            Err((Some(Errno::EIO | Errno::ENOMEDIUM), _)) => Ok(false),
            Err((_, error)) => Err(HostError::new(format!("cannot open {}", path.display()), error)),
        }
    }
}
