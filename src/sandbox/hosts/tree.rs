//! What a guest would see of its disks: a directory that looks like the guest's `/sys/block` and `/dev`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::loop_device::LoopDevice;

/// The major number of loop devices.
const LOOP_MAJOR: u64 = 7;

/// One host's tree.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn make(&self) -> io::Result<()> {
        fs::create_dir_all(self.block())?;
        fs::create_dir_all(self.dev())?;
        fs::create_dir_all(self.root.join("sys/dev/block"))
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        missing_is_fine(fs::remove_dir_all(&self.root))
    }

    fn block(&self) -> PathBuf {
        self.root.join("sys/block")
    }

    fn dev(&self) -> PathBuf {
        self.root.join("dev")
    }

    fn by_number(&self, device: &LoopDevice) -> PathBuf {
        self.root.join(format!("sys/dev/block/{LOOP_MAJOR}:{}", device.number))
    }

    /// Shows a device. Its directory appears complete: a reader never meets a half-written one.
    pub(super) fn show(&self, kernel_name: &str, serial: &str, device: &LoopDevice) -> io::Result<()> {
        make_node(&self.dev().join(kernel_name), device)?;
        let draft = self.root.join(format!("sys/.{kernel_name}"));
        missing_is_fine(fs::remove_dir_all(&draft))?;
        fs::create_dir(&draft)?;
        // virtio-blk's serial has no newline; all other attributes do.
        fs::write(draft.join("serial"), serial)?;
        fs::write(draft.join("dev"), format!("{LOOP_MAJOR}:{}\n", device.number))?;
        fs::write(draft.join("ro"), "0\n")?;
        fs::write(draft.join("removable"), "0\n")?;
        fs::write(draft.join("size"), device.attribute("size")?)?;
        // Counts every set-up of any disk on this machine, so that a letter's new disk is told from its old one.
        fs::write(draft.join("diskseq"), device.attribute("diskseq")?)?;
        fs::rename(draft, self.block().join(kernel_name))?;
        let link = self.by_number(device);
        missing_is_fine(fs::remove_file(&link))?;
        symlink(format!("../../block/{kernel_name}"), link)
    }

    /// Takes it away, in one step as far as a reader of `sys/block` can tell.
    pub(super) fn hide(&self, kernel_name: &str, device: &LoopDevice) -> io::Result<()> {
        let trash = self.root.join(format!("sys/.{kernel_name}"));
        missing_is_fine(fs::remove_dir_all(&trash))?;
        missing_is_fine(fs::rename(self.block().join(kernel_name), &trash))?;
        missing_is_fine(fs::remove_file(self.dev().join(kernel_name)))?;
        missing_is_fine(fs::remove_file(self.by_number(device)))?;
        missing_is_fine(fs::remove_dir_all(trash))
    }

    /// Shows a device's new size.
    pub(super) fn resize(&self, kernel_name: &str, device: &LoopDevice) -> io::Result<()> {
        let draft = self.root.join(format!("sys/.{kernel_name}.size"));
        fs::write(&draft, device.attribute("size")?)?;
        fs::rename(draft, self.block().join(kernel_name).join("size"))
    }
}

/// Makes a device node, or a link where the file system of this directory allows none.
fn make_node(path: &Path, device: &LoopDevice) -> io::Result<()> {
    missing_is_fine(fs::remove_file(path))?;
    let made =
        mknod(path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, makedev(LOOP_MAJOR, device.number.into()));
    // On a file system mounted `nodev`, the node can be made but not opened.
    if made.is_ok() && fs::File::open(path).is_ok() {
        return Ok(());
    }
    missing_is_fine(fs::remove_file(path))?;
    symlink(device.node(), path)
}

pub(super) fn missing_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
