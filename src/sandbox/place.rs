//! The directory of a sandbox, and how it is left: without a mount, a loop device or a file of ours.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::node::linux::mount::unmount_top;
use crate::node::linux::mountinfo::{Mount, Mounts};

/// Where everything of a sandbox lies.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    origin: Origin,
    /// On the marker, so that no two sandboxes share a directory.
    _lock: Flock<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Nobody else knows it, so it goes with all that is in it.
    Temporary,
    /// Made for the caller, who may keep files of his own in it by now.
    Made,
    Found,
}

/// What a sandbox puts into its directory.
const FILES: [&str; 9] = [
    "cloud.url",
    "cloud.url.new",
    "controller.env",
    "node.env",
    "node-2.env",
    "controller.sock",
    "node.sock",
    "node-2.sock",
    "data",
];
/// Tells a directory that an earlier run was killed in from one with somebody else's files of those names. Goes last.
const MARKER: &str = ".csi-udisk-sandbox";
/// How the names of our own directories begin; six hexadecimal digits follow.
const TEMPORARY: &str = "csi-udisk-";

impl Place {
    /// The given directory, made if it is missing, or one of our own.
    pub(super) fn new(given: Option<PathBuf>) -> io::Result<Self> {
        if let Some(path) = given {
            let path = std::path::absolute(path)?;
            let origin = match fs::create_dir(&path) {
                Ok(()) => Origin::Made,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Origin::Found,
                Err(error) => return Err(error),
            };
            return Self::take(&path, origin);
        }
        loop {
            let name = format!("{TEMPORARY}{:06x}", fastrand::u32(..0x0100_0000));
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            match Self::take(&path, Origin::Temporary) {
                // A sandbox that starts at the same time took it for an abandoned one.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound) => {}
                taken => return taken,
            }
        }
    }

    /// Directories of our own making whose sandbox was killed: nobody else knows them, so nobody else cleans up there.
    pub(super) fn abandoned() -> Vec<Self> {
        Self::abandoned_in(&std::env::temp_dir())
    }

    fn abandoned_in(temporary: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir(temporary) else { return Vec::new() };
        let ours = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()?.strip_prefix(TEMPORARY));
            let named = name.is_some_and(|n| n.len() == 6 && n.bytes().all(|b| b.is_ascii_hexdigit()));
            // Anybody may make such a directory here, and lead us to anything by links in it.
            let made = path.symlink_metadata().is_ok_and(|m| m.is_dir() && m.uid() == geteuid().as_raw());
            named && made && path.join(MARKER).symlink_metadata().is_ok_and(|m| m.is_file())
        };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(ours);
        paths.filter_map(|path| Self::take(&path, Origin::Temporary).ok()).collect()
    }

    fn take(path: &Path, origin: Origin) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let marker = path.join(MARKER);
        let left_over = marker.exists();
        if !left_over && let Some(name) = FILES.iter().find(|name| path.join(name).symlink_metadata().is_ok())
        {
            let text = format!(
                "{} holds {name}, which no sandbox left there and which one would overwrite; give another --dir",
                path.display()
            );
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(marker)?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            let text = format!("another sandbox uses {}", path.display());
            io::Error::new(io::Error::from(error).kind(), text)
        })?;
        let place = Self { path, origin, _lock: lock };
        if left_over {
            // Of a run that was killed: its mounts would keep its loop devices alive.
            if let Some(left) = place.unmount().first() {
                return Err(io::Error::other(format!("an earlier sandbox was killed here: {left}")));
            }
        }
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The disks and the hosts' trees.
    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The kubelet directory of a host.
    pub(super) fn kubelet(&self, host: &str) -> PathBuf {
        self.data().join("kubelet").join(host)
    }

    /// The tree that stands for a host's /sys and /dev.
    pub(super) fn host(&self, host: &str) -> PathBuf {
        self.data().join("hosts").join(host)
    }

    /// Unmounts what still shows one of this sandbox's disks, wherever callers had it mounted.
    pub(super) fn unmount(&self) -> Vec<String> {
        // A pass can uncover what was mounted below.
        loop {
            let Ok(mounts) = Mounts::read() else {
                return vec!["/proc/self/mountinfo is not readable".into()];
            };
            let ours: Vec<&Mount> = mounts.iter().filter(|mount| self.shows_ours(mount)).collect();
            let left: Vec<String> = ours
                .iter()
                .rev()
                .filter_map(|mount| unmount_top(&mount.mount_point).err().map(|e| e.to_string()))
                .collect();
            if left.len() == ours.len() {
                return left;
            }
        }
    }

    fn shows_ours(&self, mount: &Mount) -> bool {
        // Below our directory, or of one of our loop devices, or one of our device nodes bound elsewhere.
        self.is_below(mount)
            || mount.source.starts_with(&self.path)
            || self.is_our_loop(&mount.source)
            || self.is_our_loop(Path::new(&format!("/sys/dev/block/{}", mount.device)))
            || mount.root.to_string_lossy().contains(&*self.path.join("data/hosts").to_string_lossy())
    }

    /// In a directory that was given only what is below our part of it: the rest may be anybody's.
    fn is_below(&self, mount: &Mount) -> bool {
        match self.origin {
            Origin::Temporary => mount.mount_point.starts_with(&self.path),
            Origin::Made | Origin::Found => mount.mount_point.starts_with(self.data()),
        }
    }

    fn is_our_loop(&self, device: &Path) -> bool {
        let Some(name) = device.canonicalize().ok().and_then(|path| path.file_name().map(|n| n.to_owned()))
        else {
            return false;
        };
        let backing = Path::new("/sys/class/block").join(name).join("loop/backing_file");
        fs::read_to_string(backing).is_ok_and(|file| Path::new(file.trim()).starts_with(&self.path))
    }

    /// Removes the directory, or our files in one that was there before. Never reaches into a mount.
    pub(super) fn remove(&self) -> io::Result<()> {
        if let Ok(mounts) = Mounts::read()
            && let Some(mount) = mounts.iter().find(|mount| self.is_below(mount))
        {
            let text = format!("{} is still mounted; nothing is removed", mount.mount_point.display());
            return Err(io::Error::other(text));
        }
        if self.origin == Origin::Temporary {
            return fs::remove_dir_all(&self.path);
        }
        for name in FILES.into_iter().chain([MARKER]) {
            let path = self.path.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        if self.origin == Origin::Found {
            return Ok(());
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_of_others_are_neither_overwritten_nor_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(dir.path().join("data/precious"), "x").unwrap();
        let refused = Place::new(Some(dir.path().to_owned())).unwrap_err().to_string();
        assert!(refused.contains("holds data"), "{refused}");
        assert_eq!(names(dir.path()), ["data"]);
        assert!(dir.path().join("data/precious").exists());
    }

    #[test]
    fn what_the_caller_keeps_in_the_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        for expected in [vec!["notes"], vec!["notes"]] {
            let place = Place::new(Some(made.clone())).unwrap();
            fs::create_dir(place.data()).unwrap();
            fs::write(place.path().join("cloud.url"), "x").unwrap();
            fs::write(made.join("notes"), "x").unwrap();
            place.remove().unwrap();
            assert_eq!(names(&made), expected);
        }
        fs::remove_dir_all(&made).unwrap();
        Place::new(Some(made.clone())).unwrap().remove().unwrap();
        assert!(!made.exists());
    }

    #[test]
    fn a_directory_serves_one_sandbox_at_a_time_and_again_after_a_kill() {
        let dir = tempfile::tempdir().unwrap();
        let first = Place::new(Some(dir.path().to_owned())).unwrap();
        fs::write(first.path().join("cloud.url"), "x").unwrap();
        let refused = Place::new(Some(dir.path().to_owned())).unwrap_err().to_string();
        assert!(refused.contains("another sandbox uses"), "{refused}");
        // A killed process leaves its files, and the kernel takes its lock away.
        drop(first);
        let second = Place::new(Some(dir.path().to_owned())).unwrap();
        second.remove().unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn only_directories_of_killed_sandboxes_are_taken_for_abandoned() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, marked: bool| {
            fs::create_dir(dir.path().join(name)).unwrap();
            if marked {
                fs::write(dir.path().join(name).join(MARKER), "").unwrap();
            }
        };
        make("csi-udisk-00000a", true);
        make("csi-udisk-00000b", true);
        make("csi-udisk-00000c", false);
        make("csi-udisk-notes1", true);
        make("csi-udisk-00000d-old", true);
        make("csi-udisk-00f", true);
        if geteuid().is_root() {
            // Another user's, perhaps laid out for us.
            make("csi-udisk-000010", true);
            std::os::unix::fs::chown(dir.path().join("csi-udisk-000010"), Some(65534), None).unwrap();
        }
        make("else", true);
        std::os::unix::fs::symlink(dir.path().join("else"), dir.path().join("csi-udisk-00000e")).unwrap();
        let alive = Place::take(&dir.path().join("csi-udisk-00000b"), Origin::Temporary).unwrap();
        let abandoned = Place::abandoned_in(dir.path());
        assert_eq!(
            abandoned.iter().map(|place| place.path().file_name().unwrap()).collect::<Vec<_>>(),
            ["csi-udisk-00000a"]
        );
        let before = names(dir.path());
        abandoned[0].remove().unwrap();
        drop(alive);
        assert_eq!(
            names(dir.path()),
            before.into_iter().filter(|n| n != "csi-udisk-00000a").collect::<Vec<_>>()
        );
    }
}
