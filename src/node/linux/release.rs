//! Waits until a device is let go.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Host;
use super::device::{OpenDevice, OpenError, UseError, open_exclusive};
use super::error::{Doing as _, HostError};
use super::mountinfo::Mounts;
use super::probe::probe_fs;
use super::sysfs::{BlockDevice, Serial};
use crate::volume::slot::SERIAL_PREFIX;
use crate::volume::{DiskId, FsUuid, Mark};

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

    /// Lets a device that was let go take writes again, if the kernel refuses them. One that has left, that another process
    /// prepares, or that is in use again is left alone: the refusal may be theirs by now.
    pub async fn take_writes(&self, device: BlockDevice) -> Result<(), HostError> {
        let this = self.clone();
        self.calls
            .run(move || {
                let opened = match this.open_number(device.number) {
                    Ok(Some(opened)) if opened.described().is_same_attachment(&device) => opened,
                    Ok(_) | Err(OpenError::Mismatch(_)) => return Ok(()),
                    Err(OpenError::Host(error)) => return Err(error),
                };
                if !opened.is_read_only()? || !opened.try_hold()? {
                    return Ok(());
                }
                match open_exclusive(opened.path()) {
                    // No use of a raw device claims it.
                    Ok(_claim) if !this.others_of(&Mounts::read()?, device.number, &[]).is_empty() => Ok(()),
                    Ok(_claim) => opened.take_writes(),
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
                    Err(error) => Err(error).doing("open", opened.path()),
                }
            })
            .await
    }

    /// The cloud's disks on this host whose file system carries the mark of `volume`. A disk that does not answer is
    /// passed over: it must not hold up another volume.
    pub async fn marked(&self, volume: &DiskId) -> Result<Vec<BlockDevice>, HostError> {
        let mut reads = JoinSet::new();
        for (name, serial) in self.serials.read_all().await? {
            if !matches!(&serial, Serial::Text(text) if text.starts_with(SERIAL_PREFIX)) {
                continue;
            }
            let (this, volume, device) = (self.clone(), volume.clone(), name.clone());
            reads.spawn(async move {
                this.peek(&name, move |host| host.if_marked(&device, &volume)).await.flatten()
            });
        }
        Ok(reads.join_all().await.into_iter().flatten().collect())
    }

    /// The UUID of the file system on a disk. `None` as well when the disk does not answer, or has left.
    pub async fn uuid_of(&self, disk: &BlockDevice) -> Option<FsUuid> {
        let described = disk.clone();
        let look = move |host: &Self| {
            let device = OpenDevice::open(&host.sysfs, &host.dev_root, described).ok()?;
            probe_fs(&device).ok()?.map(|found| found.uuid)
        };
        self.peek(&disk.name, look).await.flatten()
    }

    /// The device, if it can be read and is marked.
    fn if_marked(&self, name: &str, volume: &DiskId) -> Option<BlockDevice> {
        let described = self.sysfs.device(name).ok()??;
        let device = OpenDevice::open(&self.sysfs, &self.dev_root, described.clone()).ok()?;
        let found = probe_fs(&device).ok()??;
        (found.uuid.mark(volume) == Mark::Ours).then_some(described)
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
