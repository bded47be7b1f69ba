//! The directory of a sandbox, and how it is left: without a mount, a loop device or a file of ours.

use std::io;
use std::path::{Path, PathBuf};

use crate::node::linux::mount::unmount_top;
use crate::node::linux::mountinfo::{Mount, Mounts};

/// Where everything of a sandbox lies.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Made here, so it goes as a whole.
    ours: bool,
}

/// What a sandbox puts into its directory.
const FILES: [&str; 8] = [
    "cloud.url",
    "controller.env",
    "node.env",
    "node-2.env",
    "controller.sock",
    "node.sock",
    "node-2.sock",
    "data",
];

impl Place {
    /// The given directory, made if it is missing, or one of our own.
    pub(super) fn new(given: Option<PathBuf>) -> io::Result<Self> {
        if let Some(path) = given {
            let path = std::path::absolute(path)?;
            let ours = match std::fs::create_dir(&path) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            return Ok(Self { path: path.canonicalize()?, ours });
        }
        loop {
            let name = format!("csi-udisk-{:06x}", fastrand::u32(..0x0100_0000));
            let path = std::env::temp_dir().join(name);
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path: path.canonicalize()?, ours: true }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
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
        let mut left = Vec::new();
        // A pass can uncover what was mounted below; the kernel lists at most so many stacked on one point.
        for _ in 0..16 {
            let Ok(mounts) = Mounts::read() else {
                return vec!["/proc/self/mountinfo is not readable".into()];
            };
            let ours: Vec<&Mount> = mounts.iter().filter(|mount| self.shows_ours(mount)).collect();
            if ours.is_empty() {
                return Vec::new();
            }
            left = ours
                .iter()
                .rev()
                .filter_map(|mount| unmount_top(&mount.mount_point).err().map(|e| e.to_string()))
                .collect();
        }
        left
    }

    fn shows_ours(&self, mount: &Mount) -> bool {
        // Below our directory, or of one of our loop devices, or one of our device nodes bound elsewhere.
        mount.mount_point.starts_with(&self.path)
            || mount.source.starts_with(&self.path)
            || self.is_our_loop(&mount.source)
            || self.is_our_loop(Path::new(&format!("/sys/dev/block/{}", mount.device)))
            || mount.root.to_string_lossy().contains(&*self.path.join("data/hosts").to_string_lossy())
    }

    fn is_our_loop(&self, device: &Path) -> bool {
        let Some(name) = device.canonicalize().ok().and_then(|path| path.file_name().map(|n| n.to_owned()))
        else {
            return false;
        };
        let backing = Path::new("/sys/class/block").join(name).join("loop/backing_file");
        std::fs::read_to_string(backing).is_ok_and(|file| Path::new(file.trim()).starts_with(&self.path))
    }

    /// Removes the directory, or our files in one that was there before. Never reaches into a mount.
    pub(super) fn remove(&self) -> io::Result<()> {
        if let Ok(mounts) = Mounts::read()
            && let Some(mount) = mounts.iter().find(|m| m.mount_point.starts_with(&self.path))
        {
            let text = format!("{} is still mounted; nothing is removed", mount.mount_point.display());
            return Err(io::Error::other(text));
        }
        if self.ours {
            return std::fs::remove_dir_all(&self.path);
        }
        for name in FILES {
            let path = self.path.join(name);
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}
