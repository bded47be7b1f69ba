//! Block devices as sysfs shows them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::blocking::Blocking;
use super::device_number::DeviceNumber;
use super::error::{Doing as _, HostError};

/// A serial is read in microseconds; a disk that has not answered after this does not answer.
const SERIAL_TIME: Duration = Duration::from_secs(1);

/// What sysfs says about a block device. Two equal values mean the same disk in the same attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDevice {
    /// The kernel's name, `vdb`.
    pub name: String,
    pub number: DeviceNumber,
    /// Given anew whenever a disk takes the name; `None` before Linux 5.15.
    pub sequence: Option<u64>,
    /// In bytes.
    pub size: u64,
}

impl BlockDevice {
    /// Whether `other` is the same attachment, whatever its size is now.
    pub fn is_same_attachment(&self, other: &Self) -> bool {
        self.name == other.name && self.number == other.number && self.sequence == other.sequence
    }
}

/// `block/` and `fs/` below the sysfs root.
#[derive(Debug, Clone)]
pub struct Sysfs {
    block: PathBuf,
    fs: PathBuf,
}

impl Sysfs {
    pub fn new(root: &Path) -> Self {
        Self { block: root.join("block"), fs: root.join("fs") }
    }

    /// Where file systems of a type tell about themselves.
    pub(super) fn of_file_systems(&self, of_type: &str) -> PathBuf {
        self.fs.join(of_type)
    }

    /// Whether the kernel takes no writes for a device. Not known is no.
    pub(super) fn is_read_only(&self, name: &str) -> bool {
        self.read(name, "ro").is_ok_and(|word| word.as_deref() == Some("1"))
    }

    fn attribute(&self, device: &str, attribute: &str) -> PathBuf {
        self.block.join(device).join(attribute)
    }

    /// The names of all block devices.
    pub fn names(&self) -> Result<Vec<String>, HostError> {
        let entries = fs::read_dir(&self.block).doing("list", &self.block)?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.doing("list", &self.block)?;
            // The kernel's names are plain ASCII.
            names.extend(entry.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Reads one device; `None` when there is none of this name (any more).
    pub fn device(&self, name: &str) -> Result<Option<BlockDevice>, HostError> {
        let (Some(number), Some(sectors)) = (self.read(name, "dev")?, self.read(name, "size")?) else {
            return Ok(None);
        };
        let bad = |what: &str, text: &str| {
            let text = format!("{what} of {name} in sysfs is {text:?}");
            HostError::new(text, io::Error::from(io::ErrorKind::InvalidData))
        };
        let number = DeviceNumber::parse(&number).ok_or_else(|| bad("device number", &number))?;
        // In units of 512 bytes, whatever the disk's own sector is.
        let size = sectors
            .parse::<u64>()
            .ok()
            .and_then(|sectors| sectors.checked_mul(512))
            .ok_or_else(|| bad("size", &sectors))?;
        let sequence = self.read(name, "diskseq")?.and_then(|text| text.parse().ok());
        Ok(Some(BlockDevice { name: name.to_owned(), number, sequence, size }))
    }

    /// The device of this number, if it is there.
    pub fn by_number(&self, number: DeviceNumber) -> Result<Option<BlockDevice>, HostError> {
        let text = number.to_string();
        for name in self.names()? {
            if self.read(&name, "dev")?.as_deref() == Some(text.as_str())
                && let Some(device) = self.device(&name)?
                && device.number == number
            {
                return Ok(Some(device));
            }
        }
        Ok(None)
    }

    /// Whether a partition that is there has this number.
    pub fn has_partition(&self, number: DeviceNumber) -> Result<bool, HostError> {
        let text = number.to_string();
        for name in self.names()? {
            for entry in read_dir_if_there(&self.block.join(&name))? {
                let is_partition = entry.join("partition").exists();
                if is_partition && read_attribute(&entry.join("dev"))?.as_deref() == Some(text.as_str()) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Loop devices, with the file or device that each one shows.
    pub fn loops(&self) -> Result<Vec<(String, PathBuf)>, HostError> {
        let mut loops = Vec::new();
        for name in self.names()? {
            let backing = self.read(&name, "loop/backing_file")?;
            loops.extend(backing.map(|backing| (name, PathBuf::from(backing))));
        }
        Ok(loops)
    }

    /// Partitions of a device, and device-mapper or RAID devices built on it.
    pub fn users(&self, name: &str) -> Result<Vec<String>, HostError> {
        let directory = self.block.join(name);
        let mut users = Vec::new();
        for entry in read_dir_if_there(&directory)? {
            if entry.join("partition").exists() {
                users.extend(file_name(&entry).map(|partition| format!("partition {partition}")));
            }
        }
        for holder in read_dir_if_there(&directory.join("holders"))? {
            users.extend(file_name(&holder));
        }
        users.sort();
        Ok(users)
    }

    /// One attribute without the newline; `None` when the device or the attribute is not there.
    fn read(&self, device: &str, attribute: &str) -> Result<Option<String>, HostError> {
        read_attribute(&self.attribute(device, attribute))
    }
}

fn read_attribute(path: &Path) -> Result<Option<String>, HostError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim_matches(['\0', '\n', ' ']).to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(HostError::new(format!("cannot read {}", path.display()), error)),
    }
}

/// What a device that leaves while it is looked at answers.
fn is_gone(error: &io::Error) -> bool {
    use nix::libc::{ENODEV, ENXIO};
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(ENODEV | ENXIO))
}

fn read_dir_if_there(path: &Path) -> Result<Vec<PathBuf>, HostError> {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry.doing("list", path)?.path())).collect(),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(HostError::new(format!("cannot list {}", path.display()), error)),
    }
}

fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// A device's serial, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    Text(String),
    /// The disk did not answer in time.
    Silent,
    /// Being read by another operation, or the device has left.
    Unknown,
}

/// Reads the serials of disks.
///
/// Reading the serial of a virtio disk sends a request to the disk, so on a hung disk it does not return. Each
/// device is therefore read on a thread of its own, with a time limit, and never by two threads at a time: a
/// hung disk costs one thread and is passed over by whoever looks for another one.
#[derive(Debug, Clone)]
pub struct Serials {
    sysfs: Sysfs,
    calls: Blocking,
    /// Reads that run now, with their start.
    running: Arc<Mutex<HashMap<PathBuf, Instant>>>,
}

impl Serials {
    pub fn new(sysfs: Sysfs, calls: Blocking) -> Self {
        Self { sysfs, calls, running: Arc::default() }
    }

    /// The serials of all devices that have one, by device name.
    pub async fn read_all(&self) -> Result<Vec<(String, Serial)>, HostError> {
        let sysfs = self.sysfs.clone();
        let names = self
            .calls
            .run(move || -> Result<Vec<String>, HostError> {
                let mut names = sysfs.names()?;
                // Asks only for the attribute's existence, which the disk is not needed for.
                names.retain(|name| sysfs.attribute(name, "serial").exists());
                Ok(names)
            })
            .await?;
        let mut reads = tokio::task::JoinSet::new();
        for name in names {
            let this = self.clone();
            reads.spawn(async move {
                let serial = this.read(&name).await;
                (name, serial)
            });
        }
        let mut serials = Vec::new();
        while let Some(read) = reads.join_next().await {
            // A panic in there is a device whose serial was not read.
            serials.extend(read);
        }
        serials.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(serials)
    }

    async fn read(&self, name: &str) -> Serial {
        let path = self.sysfs.attribute(name, "serial");
        {
            let mut running = self.running();
            if let Some(since) = running.get(&path) {
                return if since.elapsed() < SERIAL_TIME { Serial::Unknown } else { Serial::Silent };
            }
            running.insert(path.clone(), Instant::now());
        }
        let done = Done { reads: self.clone(), path: path.clone() };
        let calls = self.calls.clone();
        let read = async move {
            calls
                .run(move || {
                    let serial = read_attribute(&path);
                    drop(done);
                    serial
                })
                .await
        };
        // Detached: a read that is too late must still take itself off the list.
        match tokio::time::timeout(SERIAL_TIME, tokio::spawn(read)).await {
            Ok(Ok(Ok(Some(text)))) => Serial::Text(text),
            Ok(_) => Serial::Unknown,
            Err(_) => Serial::Silent,
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Done {
    reads: Serials,
    path: PathBuf,
}

impl Drop for Done {
    fn drop(&mut self) {
        self.reads.running().remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::linux::Calls;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    fn device(root: &Path, name: &str, attributes: &[(&str, &str)]) {
        let directory = root.join("block").join(name);
        fs::create_dir_all(&directory).unwrap();
        for (attribute, text) in attributes {
            fs::write(directory.join(attribute), text).unwrap();
        }
    }

    #[test]
    fn attributes_are_read_with_and_without_newline_and_diskseq() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "vdb", &[("dev", "253:16\n"), ("size", "20971520\n"), ("diskseq", "9\n")]);
        device(root.path(), "vdc", &[("dev", "253:32"), ("size", "2")]);
        device(root.path(), "odd", &[("dev", "x"), ("size", "2")]);
        let sysfs = Sysfs::new(root.path());
        let vdb = sysfs.device("vdb").unwrap().unwrap();
        assert_eq!((vdb.size, vdb.sequence), (10 << 30, Some(9)));
        let number = DeviceNumber { major: 253, minor: 32 };
        let vdc = sysfs.by_number(number).unwrap().unwrap();
        assert_eq!((vdc.name.as_str(), vdc.size, vdc.sequence), ("vdc", 1024, None));
        assert_eq!(sysfs.device("vdz").unwrap(), None);
        assert!(sysfs.device("odd").is_err());
        assert!(!vdb.is_same_attachment(&vdc));
    }

    #[test]
    fn partitions_and_holders_are_users() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "vdb", &[("dev", "253:16"), ("size", "2")]);
        device(root.path(), "vdb/vdb1", &[("partition", "1"), ("dev", "253:17")]);
        device(root.path(), "vdb/holders/dm-0", &[]);
        let sysfs = Sysfs::new(root.path());
        assert_eq!(sysfs.users("vdb").unwrap(), ["dm-0", "partition vdb1"]);
        assert!(sysfs.users("vdc").unwrap().is_empty());
        assert!(sysfs.has_partition(DeviceNumber { major: 253, minor: 17 }).unwrap());
        assert!(!sysfs.has_partition(DeviceNumber { major: 253, minor: 16 }).unwrap());
    }

    /// A FIFO without a writer stands for a disk that does not answer.
    #[tokio::test]
    async fn a_silent_disk_hides_no_other_and_costs_one_thread() {
        let root = tempfile::tempdir().unwrap();
        device(root.path(), "vdb", &[]);
        device(root.path(), "vdc", &[("serial", "UCLOUD_DISK_VDC")]);
        let fifo = root.path().join("block/vdb/serial");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        let calls = Blocking::new(3, SERIAL_TIME, Calls::default());
        let serials = Serials::new(Sysfs::new(root.path()), calls.clone());
        for _ in 0..3 {
            let found = serials.read_all().await.unwrap();
            let expected = [
                ("vdb".to_owned(), Serial::Silent),
                ("vdc".to_owned(), Serial::Text("UCLOUD_DISK_VDC".into())),
            ];
            assert_eq!(found, expected);
            assert_eq!(calls.available(), 2);
        }
        // Lets the thread end, so that the runtime can.
        fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    }
}
