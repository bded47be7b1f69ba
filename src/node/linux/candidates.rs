//! The disks of this host that a volume could be on, and what their superblocks say of it.
//!
//! Nothing here writes, and nothing claims a disk: another volume may be mounting it at this moment. A disk that does
//! not answer costs one thread, however often it is asked, and is reported as silent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Host;
use super::device::{OpenDevice, OpenError};
use super::error::HostError;
use super::mountinfo::Mounts;
use super::probe::{FoundFs, probe_fs};
use super::sysfs::{BlockDevice, Serial};
use crate::volume::slot::SYSTEM_SERIAL;

/// For opening a disk and reading its superblocks, which takes milliseconds.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// One look at a disk at a time: those that come while it hangs wait without a thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>);

impl Turns {
    fn of(&self, device: &str) -> Arc<tokio::sync::Mutex<()>> {
        // Names are few, for the kernel gives them out again.
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(device.to_owned()).or_default())
    }
}

/// A disk of this host that is no part of another one.
#[derive(Debug)]
pub struct Candidate {
    /// The kernel's name, `vdb`.
    pub name: String,
    pub serial: Serial,
    pub seen: Seen,
}

/// What a look at a disk showed.
#[derive(Debug)]
pub enum Seen {
    /// The system disk, by its serial. Not read.
    System,
    /// By whom, so it is not free to be staged; and what is on it, for it could be the volume of which a free one is a copy.
    InUse(String, Option<(Arc<OpenDevice>, FoundFs)>),
    /// With its size in bytes. Not read.
    TooSmall(u64),
    /// An open disk with a file system.
    Fs(Arc<OpenDevice>, FoundFs),
    /// Blank, or anything.
    NoFs,
    /// It did not answer in time.
    Silent,
    /// It answered with an error.
    Failed(String),
}

impl Seen {
    /// What the look at a disk showed that is in use.
    fn used_by(self, users: String) -> Self {
        match self {
            Self::Fs(device, found) => Self::InUse(users, Some((device, found))),
            Self::NoFs => Self::InUse(users, None),
            Self::System | Self::InUse(..) | Self::TooSmall(_) | Self::Silent | Self::Failed(_) => self,
        }
    }
}

/// Whether this is the kernel's name of a whole disk of the kinds that the cloud attaches: virtio or NVMe.
pub fn is_disk(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let virtio = |letters: &str| !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_lowercase());
    let nvme = |rest: &str| {
        rest.split_once('n').is_some_and(|(controller, space)| digits(controller) && digits(space))
    };
    name.strip_prefix("vd").is_some_and(virtio) || name.strip_prefix("nvme").is_some_and(nvme)
}

fn is_system(serial: &Serial) -> bool {
    matches!(serial, Serial::Text(text) if text.eq_ignore_ascii_case(SYSTEM_SERIAL))
}

impl Host {
    /// Whether this is the disk that the host runs from, as far as its serial tells.
    pub async fn is_system_disk(&self, name: &str) -> Result<bool, HostError> {
        let serials = self.serials.read_all().await?;
        Ok(serials.iter().any(|(of, serial)| of == name && is_system(serial)))
    }

    /// Looks at every disk of this host that could hold a volume of `at_least` bytes.
    pub async fn candidates(&self, at_least: u64) -> Result<Vec<Candidate>, HostError> {
        let serials: HashMap<String, Serial> = self.serials.read_all().await?.into_iter().collect();
        let this = self.clone();
        let disks = self.calls.run(move || this.disks_with_users()).await?;
        let mut looks = JoinSet::new();
        for (disk, users) in disks {
            let this = self.clone();
            let serial = serials.get(&disk.name).cloned().unwrap_or(Serial::Unknown);
            looks.spawn(async move {
                let name = disk.name.clone();
                let seen = if is_system(&serial) {
                    Seen::System
                } else if !users.is_empty() {
                    this.look_at(disk).await.used_by(users.join(", "))
                } else if disk.size < at_least {
                    Seen::TooSmall(disk.size)
                } else {
                    this.look_at(disk).await
                };
                Candidate { name, serial, seen }
            });
        }
        let mut candidates = looks.join_all().await;
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(candidates)
    }

    /// Opens a disk and reads its superblocks, in limited time.
    pub async fn look_at(&self, disk: BlockDevice) -> Seen {
        let name = disk.name.clone();
        let look = move |host: &Self| match OpenDevice::open(&host.sysfs, &host.dev_root, disk) {
            Ok(device) => match probe_fs(&device) {
                Ok(Some(fs)) => Seen::Fs(Arc::new(device), fs),
                Ok(None) => Seen::NoFs,
                Err(error) => Seen::Failed(format!("cannot be read: {error}")),
            },
            Err(OpenError::Mismatch(reason)) => Seen::Failed(reason.to_string()),
            Err(OpenError::Host(error)) => Seen::Failed(error.to_string()),
        };
        self.peek(&name, look).await.unwrap_or(Seen::Silent)
    }

    /// Runs a blocking look at a disk. `None`: it did not end in time; its thread goes on, and nobody else's is spent on
    /// that disk until it ends.
    pub(super) async fn peek<T: Send + 'static>(
        &self,
        name: &str,
        look: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Option<T> {
        let (this, turn) = (self.clone(), self.turns.of(name));
        let peek = async move {
            let turn = turn.lock_owned().await;
            // Whose disk this is, is not known: its call is nobody's.
            let calls = this.calls.for_purpose(None);
            calls
                .run(move || {
                    let seen = look(&this);
                    drop(turn);
                    seen
                })
                .await
        };
        tokio::time::timeout(LOOK_LIMIT, peek).await.ok()
    }

    /// What is there and who uses it, without asking any disk.
    fn disks_with_users(&self) -> Result<Vec<(BlockDevice, Vec<String>)>, HostError> {
        let mounts = Mounts::read()?;
        let mut disks = Vec::new();
        for name in self.sysfs.names()?.into_iter().filter(|name| is_disk(name)) {
            let Some(disk) = self.sysfs.device(&name)? else { continue };
            let mut users = self.sysfs.users(&name)?;
            let paths = self.others_of(&mounts, disk.number, &[]);
            users.extend(paths.iter().map(|path| format!("mounted on {}", path.display())));
            disks.push((disk, users));
        }
        Ok(disks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::OpenOptions;
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn only_whole_virtio_and_nvme_disks_are_candidates() {
        for name in ["vda", "vdz", "vdaa", "nvme0n1", "nvme12n3"] {
            assert!(is_disk(name), "{name}");
        }
        for name in ["vd", "vda1", "sda", "loop0", "dm-0", "md0", "nvme0", "nvme0n1p1", "nvme0c0n1", "nvmen1"]
        {
            assert!(!is_disk(name), "{name}");
        }
    }

    fn disk(root: &Path, name: &str) -> BlockDevice {
        let directory = root.join("sys/block").join(name);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("dev"), "253:16").unwrap();
        std::fs::write(directory.join("size"), "2048").unwrap();
        super::super::Sysfs::new(&root.join("sys")).device(name).unwrap().unwrap()
    }

    /// Opening a FIFO without a writer hangs as a disk that died under its driver does.
    #[tokio::test]
    async fn a_silent_disk_is_reported_in_time_and_costs_one_thread_however_often_it_is_asked() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("dev")).unwrap();
        let (hung, other) = (disk(root.path(), "vdb"), disk(root.path(), "vdc"));
        let fifo = root.path().join("dev/vdb");
        mkfifo(&fifo, Mode::S_IRWXU).unwrap();
        std::fs::write(root.path().join("dev/vdc"), "").unwrap();
        let host = Host::new(&root.path().join("sys"), &root.path().join("dev"));
        let before = host.calls.available();
        let mut looks = JoinSet::new();
        for _ in 0..4 {
            let (host, hung) = (host.clone(), hung.clone());
            looks.spawn(async move { host.look_at(hung).await });
        }
        while let Some(seen) = looks.join_next().await {
            assert!(matches!(seen.unwrap(), Seen::Silent));
        }
        assert_eq!(host.calls.available(), before - 1);
        // A disk beside it is looked at.
        assert!(matches!(host.look_at(other).await, Seen::Failed(_)));
        // A writer ends the hang, and the turn comes back with the thread.
        let answering = OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
        assert!(matches!(host.look_at(hung).await, Seen::Failed(_)));
        while host.calls.available() != before {
            tokio::task::yield_now().await;
        }
        drop(answering);
    }
}
