//! From a slot to an open block device that was proven to be the one in it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_EXCL};
use tokio::time::Instant;

use super::Host;
use super::device_number::DeviceNumber;
use super::error::{Doing as _, HostError};
use super::ioctl;
use super::mountinfo::Mounts;
use super::patience::while_busy;
use super::probe::ReadAt;
use super::sysfs::{BlockDevice, Serial, Sysfs};
use crate::volume::slot::SERIAL_PREFIX;
use crate::volume::{Gib, Slot};

/// How long a disk that the cloud calls attached may take to show up.
const ABSENT_LIMIT: Duration = Duration::from_secs(60);
/// How long another may hold the lock; udev does for moments.
const HELD_LIMIT: Duration = Duration::from_secs(5);
/// How long a disk in the slot may be the wrong one: the previous one may still be leaving.
const WRONG_LIMIT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What is in the slot and cannot be the volume.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error("{} devices call themselves {serial} ({})", .names.len(), .names.join(", "))]
    Ambiguous { serial: String, names: Vec<String> },
    #[error("{path} is no block device", path = .0.display())]
    NotBlock(PathBuf),
    #[error("{path} is device {found}, but sysfs says {expected}", path = .path.display())]
    Number { path: PathBuf, found: DeviceNumber, expected: DeviceNumber },
    #[error("{path} has {found} bytes, but sysfs says {expected}", path = .path.display())]
    SizesDisagree { path: PathBuf, found: u64, expected: u64 },
    #[error("{path} has {found} bytes, less than the {wanted} it was attached with", path = .path.display())]
    TooSmall { path: PathBuf, found: u64, wanted: Gib },
}

/// Why the disk of a slot was not found.
#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error(
        "no disk with serial {serial} showed up within {} s; this host has {seen}. If the disk was detached by hand, delete \
         the pod and let it be scheduled again", .waited.as_secs()
    )]
    Absent { serial: String, waited: Duration, seen: String },
    #[error("the disk in slot {slot} is not the volume's: {reason}; nothing was written to it")]
    Wrong { slot: Slot, reason: Mismatch },
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Why a device that was proven a moment ago is not used.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    #[error("{path} is in use on this host ({users}); it was not touched", path = .path.display())]
    InUse { path: PathBuf, users: String },
    #[error("{path} was exchanged for another disk while it was being prepared; it was not mounted", path = .0.display())]
    Exchanged(PathBuf),
    #[error(
        "{path} is being prepared by another process of this driver, or by a program such as mkfs or e2fsck that an \
         earlier one started and that is still at work; wait for it to end", path = .0.display()
    )]
    Held(PathBuf),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// An open block device. While it is open the kernel gives neither its number nor its name to another disk.
#[derive(Debug)]
pub struct OpenDevice {
    file: File,
    path: PathBuf,
    described: BlockDevice,
    sysfs: Sysfs,
}

impl OpenDevice {
    /// Opens the device that sysfs describes and proves that the node below the device root is that one.
    pub(super) fn open(sysfs: &Sysfs, dev_root: &Path, described: BlockDevice) -> Result<Self, OpenError> {
        let path = dev_root.join(&described.name);
        let file = OpenOptions::new().read(true).custom_flags(O_CLOEXEC).open(&path).doing("open", &path)?;
        let metadata = file.metadata().doing("look at", &path)?;
        if !metadata.file_type().is_block_device() {
            return Err(Mismatch::NotBlock(path).into());
        }
        let found = DeviceNumber::from_raw(metadata.rdev());
        if found != described.number {
            return Err(Mismatch::Number { path, found, expected: described.number }.into());
        }
        let found = ioctl::block_device_size(&file).doing("ask the size of", &path)?;
        if found != described.size {
            return Err(Mismatch::SizesDisagree { path, found, expected: described.size }.into());
        }
        Ok(Self { file, path, described, sysfs: sysfs.clone() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn number(&self) -> DeviceNumber {
        self.described.number
    }

    /// What sysfs said of it when it was opened.
    pub fn described(&self) -> &BlockDevice {
        &self.described
    }

    /// The size when it was opened.
    pub fn size(&self) -> u64 {
        self.described.size
    }

    /// The size now.
    pub fn current_size(&self) -> Result<u64, HostError> {
        ioctl::block_device_size(&self.file).doing("ask the size of", &self.path)
    }

    /// Whether the kernel refuses writes to the disk.
    pub fn is_read_only(&self) -> Result<bool, HostError> {
        ioctl::is_read_only(&self.file).doing("ask whether writes are refused by", &self.path)
    }

    /// Makes the kernel refuse writes to the disk, by whomever and wherever on this host, or take them again.
    pub fn set_read_only(&self, read_only: bool) -> Result<(), HostError> {
        ioctl::set_read_only(&self.file, read_only).doing("set whether writes are refused by", &self.path)
    }

    /// The same, where it is not so already. Returns whether it was changed.
    pub fn refuse_writes(&self) -> Result<bool, HostError> {
        let changes = !self.is_read_only()?;
        if changes {
            self.set_read_only(true)?;
        }
        Ok(changes)
    }

    /// Takes the flag away from a disk that nobody uses any more: whoever gets it next finds it as it came.
    pub fn take_writes(&self) -> Result<(), HostError> {
        if self.is_read_only()? { self.set_read_only(false) } else { Ok(()) }
    }

    /// Takes the lock on the device's node that everybody who prepares it holds; `false`: somebody else has it. It is
    /// held until this device is closed here and in all programs that were started with [`Self::handed_on`].
    pub fn try_hold(&self) -> Result<bool, HostError> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error).doing("lock", &self.path),
        }
    }

    /// The same open device, with its lock, for a program that works on it. Such a program may outlive this process,
    /// and then the lock lives with it: the next process does not start a second one beside it.
    pub fn handed_on(&self) -> Result<File, HostError> {
        self.file.try_clone().doing("hand on", &self.path)
    }

    /// Proves that the path still leads to this very disk.
    pub fn prove_unchanged(&self) -> Result<(), UseError> {
        let now = self.sysfs.device(&self.described.name)?;
        let same = now.is_some_and(|now| now.is_same_attachment(&self.described));
        let rdev = std::fs::metadata(&self.path).map(|m| m.rdev());
        if same && rdev.is_ok_and(|rdev| DeviceNumber::from_raw(rdev) == self.described.number) {
            Ok(())
        } else {
            Err(UseError::Exchanged(self.path.clone()))
        }
    }

    /// Proves that nothing on this host uses the disk: no mount in any namespace, partition, swap, RAID or mapping.
    /// All of these claim it exclusively.
    pub fn prove_unused(&self) -> Result<(), UseError> {
        match while_busy(|| open(&exclusive(), &self.path)) {
            Ok(file) => {
                // The very same device, or the proof is about another one.
                let rdev = file.metadata().doing("look at", &self.path)?.rdev();
                if DeviceNumber::from_raw(rdev) == self.described.number {
                    Ok(())
                } else {
                    Err(UseError::Exchanged(self.path.clone()))
                }
            }
            Err(Errno::EBUSY) => Err(UseError::InUse { path: self.path.clone(), users: self.users()? }),
            Err(errno) => Err(HostError::new(format!("cannot open {}", self.path.display()), errno).into()),
        }
    }

    /// Proves that no loop device shows the disk a second time: they do not claim what they are made of. One that is for
    /// a file is not looked at, because that may be on a file system that does not answer.
    pub fn prove_no_loop(&self) -> Result<(), UseError> {
        for (name, backing) in self.sysfs.loops()? {
            if self.is_node_of(&backing) {
                let users = format!("shown a second time as {name}; losetup -d takes that away");
                return Err(UseError::InUse { path: self.path.clone(), users });
            }
        }
        Ok(())
    }

    /// Whether `path` leads to this device. Only paths of device nodes are followed.
    fn is_node_of(&self, path: &Path) -> bool {
        let is_node = path.starts_with("/dev") || self.path.parent().is_some_and(|dev| path.starts_with(dev));
        is_node
            && std::fs::metadata(path)
                .is_ok_and(|m| DeviceNumber::from_raw(m.rdev()) == self.described.number)
    }

    fn is_swap(&self) -> Result<bool, HostError> {
        let path = Path::new("/proc/swaps");
        let swaps = std::fs::read_to_string(path).doing("read", path)?;
        Ok(swaps
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .any(|swap| self.is_node_of(Path::new(swap))))
    }

    fn users(&self) -> Result<String, HostError> {
        let mut users = self.sysfs.users(&self.described.name)?;
        users.extend(
            Mounts::read()?
                .iter()
                .filter(|mount| mount.device == self.described.number || mount.source == self.path)
                .map(|mount| format!("mounted on {}", mount.mount_point.display())),
        );
        if self.is_swap()? {
            users.push("as swap space".to_owned());
        }
        if users.is_empty() {
            users.push("by the system or in another mount namespace".to_owned());
        }
        Ok(users.join(", "))
    }

    /// Writes what is cached for the device itself, as raw block users leave it, to the disk.
    pub fn sync(&self) -> Result<(), HostError> {
        self.file.sync_all().doing("write out", &self.path)
    }
}

impl ReadAt for OpenDevice {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.described.size
    }
}

pub(super) fn open_exclusive(path: &Path) -> io::Result<File> {
    exclusive().open(path)
}

fn exclusive() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_EXCL | O_CLOEXEC);
    options
}

pub(super) fn open(options: &OpenOptions, path: &Path) -> nix::Result<File> {
    // Whatever fails here, the kernel said so.
    options.open(path).map_err(|error| error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw))
}

/// Why a described device could not be opened as that.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error(transparent)]
    Host(#[from] HostError),
}

enum Look {
    Found(OpenDevice),
    Wrong(Mismatch),
    /// With the serials that are there.
    Absent(String),
}

impl Host {
    /// Waits for the disk in `slot` and opens it. `at_least` is the size that the cloud gave when it attached it; a
    /// disk may have grown since, never shrunk. No udev is needed.
    pub async fn locate(&self, slot: &Slot, at_least: Gib) -> Result<OpenDevice, LocateError> {
        let start = Instant::now();
        let mut wrong_since = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.look(slot, at_least).await? {
                Look::Found(device) => return Ok(device),
                Look::Wrong(reason) => {
                    let since = *wrong_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= WRONG_LIMIT {
                        return Err(LocateError::Wrong { slot: slot.clone(), reason });
                    }
                }
                Look::Absent(seen) => {
                    wrong_since = None;
                    let waited = start.elapsed();
                    if waited >= ABSENT_LIMIT {
                        return Err(LocateError::Absent { serial: slot.serial(), waited, seen });
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the lock on a device that is to be prepared.
    pub async fn hold(&self, device: &Arc<OpenDevice>) -> Result<(), UseError> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let this = Arc::clone(device);
            if self.calls.run(move || this.try_hold()).await? {
                return Ok(());
            }
            if start.elapsed() >= HELD_LIMIT {
                return Err(UseError::Held(device.path.clone()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn look(&self, slot: &Slot, at_least: Gib) -> Result<Look, HostError> {
        let serials = self.serials.read_all().await?;
        let wanted = slot.serial();
        let mut names: Vec<String> = serials
            .iter()
            .filter(|(_, serial)| matches!(serial, Serial::Text(text) if text.eq_ignore_ascii_case(&wanted)))
            .map(|(name, _)| name.clone())
            .collect();
        let name = match (names.pop(), names.is_empty()) {
            (Some(name), true) => name,
            (Some(name), false) => {
                names.push(name);
                return Ok(Look::Wrong(Mismatch::Ambiguous { serial: wanted, names }));
            }
            (None, _) => return Ok(Look::Absent(list(&serials))),
        };
        let (sysfs, dev_root) = (self.sysfs.clone(), self.dev_root.clone());
        self.calls
            .run(move || {
                let Some(described) = sysfs.device(&name)? else {
                    return Ok(Look::Absent(format!("{name}, which has just left")));
                };
                match OpenDevice::open(&sysfs, &dev_root, described) {
                    Ok(device) if device.size() < at_least.bytes() => Ok(Look::Wrong(Mismatch::TooSmall {
                        path: device.path,
                        found: device.described.size,
                        wanted: at_least,
                    })),
                    Ok(device) => Ok(Look::Found(device)),
                    Err(OpenError::Mismatch(reason)) => Ok(Look::Wrong(reason)),
                    // The node is made after sysfs shows the device, and removed before sysfs forgets it.
                    Err(OpenError::Host(error)) if is_not_there(&error) => {
                        Ok(Look::Absent(format!("{wanted} in sysfs, but {error}")))
                    }
                    Err(OpenError::Host(error)) => Err(error),
                }
            })
            .await
    }
}

fn is_not_there(error: &HostError) -> bool {
    matches!(error.errno(), Some(Errno::ENOENT | Errno::ENXIO | Errno::ENODEV))
}

/// The cloud's disks of this host, for a human.
fn list(serials: &[(String, Serial)]) -> String {
    let disks: Vec<String> = serials
        .iter()
        .filter_map(|(name, serial)| match serial {
            Serial::Text(text) if text.starts_with(SERIAL_PREFIX) => Some(text.clone()),
            Serial::Silent => Some(format!("{name}, which does not answer")),
            Serial::Text(_) | Serial::Unknown => None,
        })
        .collect();
    if disks.is_empty() { "none".to_owned() } else { disks.join(", ") }
}
