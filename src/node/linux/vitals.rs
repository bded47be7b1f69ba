//! Signs of life of a mounted disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::libc::{EIO, O_CLOEXEC, O_DIRECT};

use super::Host;
use super::mountinfo::Mount;
use super::staged::Backing;
use super::sysfs::BlockDevice;

/// What is read of a disk to see whether it answers; a multiple of every sector size.
const PIECE: usize = 4096;

/// What a look at a disk and at a mount of it showed.
#[derive(Debug)]
pub struct Vitals {
    /// A read that the disk itself answered, and no cache.
    pub read: io::Result<()>,
    /// A look at the root of the mount, which some file systems that have given up refuse.
    pub root: io::Result<()>,
    /// The kernel takes no writes for the disk.
    pub read_only: bool,
    pub recorded: Option<Recorded>,
}

impl Vitals {
    /// Whether the file system has given up. Xfs says so by this error; the disk may be well again.
    pub fn gave_up(&self) -> bool {
        self.root.as_ref().is_err_and(|error| error.raw_os_error() == Some(EIO))
    }
}

/// Errors that a file system keeps count of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub count: u64,
    /// Which, such as `write_errs 3`.
    pub words: String,
}

impl Host {
    /// Looks at a disk and at one mount of it. Blocking, for as long as the disk does not answer.
    pub fn vitals(&self, mount: &Mount, backing: Backing, device: &BlockDevice) -> Vitals {
        let recorded = match backing {
            Backing::Fs(_) => self.recorded(mount, device),
            Backing::Block(_) | Backing::Lost | Backing::NoDevice => None,
        };
        Vitals {
            read: read_directly(&self.dev_root.join(&device.name), device.size),
            root: fs::metadata(&mount.mount_point).map(drop),
            read_only: self.sysfs.is_read_only(&device.name),
            recorded,
        }
    }

    fn recorded(&self, mount: &Mount, device: &BlockDevice) -> Option<Recorded> {
        match mount.fs_type.as_str() {
            "ext2" | "ext3" | "ext4" => ext(&self.sysfs.of_file_systems("ext4").join(&device.name)),
            "btrfs" => {
                let number = device.number.to_string();
                let all = fs::read_dir(self.sysfs.of_file_systems("btrfs")).ok()?;
                let mut all = all.filter_map(|entry| entry.ok().map(|entry| entry.path()));
                all.find(|one| has_device(one, &number)).and_then(|one| btrfs(&one))
            }
            _ => None,
        }
    }
}

/// Reads the end of a disk, past all caches: it shows, too, whether the disk is as large as it says.
fn read_directly(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(O_DIRECT | O_CLOEXEC).open(path)?;
    let end = size - size % PIECE as u64;
    let mut memory = vec![0; 2 * PIECE];
    let start = memory.as_ptr().align_offset(PIECE);
    file.read_exact_at(&mut memory[start..start + PIECE], end.saturating_sub(PIECE as u64))
}

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// Ext keeps them in its superblock until it is checked.
fn ext(directory: &Path) -> Option<Recorded> {
    let count = text(&directory.join("errors_count"))?.parse().ok().filter(|count| *count > 0)?;
    let place = text(&directory.join("last_error_func")).unwrap_or_default();
    let when = text(&directory.join("last_error_time"))
        .and_then(|seconds| seconds.parse().ok())
        .and_then(|seconds| {
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).ok()
        })
        .map_or_else(String::new, |ago| format!(" {} s ago", ago.as_secs()));
    Some(Recorded { count, words: format!("the last one in {place}{when}") })
}

fn has_device(file_system: &Path, number: &str) -> bool {
    let Ok(devices) = fs::read_dir(file_system.join("devices")) else { return false };
    devices.filter_map(Result::ok).any(|device| text(&device.path().join("dev")).as_deref() == Some(number))
}

/// Btrfs keeps them for ever, until a person resets them. Known since Linux 5.14.
fn btrfs(file_system: &Path) -> Option<Recorded> {
    let devices = fs::read_dir(file_system.join("devinfo")).ok()?;
    let lines: Vec<String> = devices
        .filter_map(|device| text(&device.ok()?.path().join("error_stats")))
        .flat_map(|stats| stats.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let counts = |line: &str| line.split_whitespace().nth(1).and_then(|count| count.parse::<u64>().ok());
    let count = lines.iter().filter_map(|line| counts(line)).sum();
    let words: Vec<&str> =
        lines.iter().filter(|line| counts(line).is_some_and(|n| n > 0)).map(String::as_str).collect();
    (count > 0).then(|| Recorded { count, words: words.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_btrfs_are_added_up_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("devices/vdb")).unwrap();
        fs::create_dir_all(path.join("devinfo/1")).unwrap();
        fs::write(path.join("devices/vdb/dev"), "253:16\n").unwrap();
        assert!(has_device(path, "253:16") && !has_device(path, "253:1"));
        let stats = path.join("devinfo/1/error_stats");
        fs::write(&stats, "write_errs 0\nread_errs 0\n").unwrap();
        assert_eq!(btrfs(path), None);
        fs::write(&stats, "write_errs 2\nread_errs 0\nflush_errs 1\n").unwrap();
        assert_eq!(btrfs(path), Some(Recorded { count: 3, words: "write_errs 2, flush_errs 1".to_owned() }));
    }

    #[test]
    fn the_end_of_an_odd_size_is_read_and_what_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        fs::write(&path, vec![0; 3 * PIECE]).unwrap();
        read_directly(&path, 2 * PIECE as u64 + 512).unwrap();
        read_directly(&path, 3 * PIECE as u64).unwrap();
        assert!(read_directly(&path, 4 * PIECE as u64).is_err());
    }
}
