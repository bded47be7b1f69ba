//! Loop devices. The only unsafe code of the sandbox: the kernel takes these orders through ioctl(2) alone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// `struct loop_info64` of the kernel's `linux/loop.h`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the same header.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

// The kernel reads exactly so many bytes; padding would shift every field.
const _: () = assert!(size_of::<LoopInfo>() == 232 && size_of::<LoopConfig>() == 304);

/// These numbers predate the scheme that encodes direction and size, hence `_bad`.
mod raw {
    use super::LoopConfig;

    nix::ioctl_none_bad!(control_get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, LoopConfig);
    nix::ioctl_none_bad!(clear, 0x4C01);
    nix::ioctl_none_bad!(set_capacity, 0x4C07);
    nix::ioctl_write_ptr_bad!(set_read_only, 0x125D, nix::libc::c_int);
}

/// Other users of this machine take loop devices too: a free number may be gone when it is used.
const ATTEMPTS: u32 = 100;

static TAKES_WRITES: nix::libc::c_int = 0;

/// A loop device over a file. It outlives this value: only [`LoopDevice::clear`] ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoopDevice {
    pub(super) number: u32,
    /// As the kernel names it, to tell ours from others'.
    backing: PathBuf,
}

impl LoopDevice {
    /// Sets up the next free device.
    pub(super) fn over(backing: &Path) -> io::Result<Self> {
        let file = open(backing)?;
        let control = open(Path::new("/dev/loop-control"))?;
        for _ in 0..ATTEMPTS {
            // SAFETY: the descriptor is open for the whole call, which takes no memory of ours.
            let number = unsafe { raw::control_get_free(control.as_raw_fd()) }?;
            let number = u32::try_from(number).map_err(io::Error::other)?;
            let device = open(&node(number))?;
            match configure(&device, &file) {
                Ok(()) => {
                    // A number that was made to refuse writes does so for its next user too; a new disk of a cloud takes them.
                    // SAFETY: the descriptor is open for the whole call, which reads one `int`.
                    unsafe { raw::set_read_only(device.as_raw_fd(), &raw const TAKES_WRITES) }?;
                    return Ok(Self { number, backing: backing.to_owned() });
                }
                Err(Errno::EBUSY) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "every free loop device was taken by somebody else"))
    }

    /// Whether the device still is over our file, and not somebody else's by now.
    pub(super) fn is_ours(&self) -> bool {
        backing_of(self.number).is_some_and(|path| path == self.backing)
    }

    /// Ends it; while something has it open, the kernel ends it at the last close.
    pub(super) fn clear(&self) -> io::Result<()> {
        if !self.is_ours() {
            return Ok(());
        }
        let device = open(&node(self.number))?;
        // SAFETY: the descriptor is open for the whole call, which takes no memory of ours.
        match unsafe { raw::clear(device.as_raw_fd()) } {
            // ENXIO: nothing was set up any more.
            Ok(_) | Err(Errno::ENXIO) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over the file's new size.
    pub(super) fn grow(&self) -> io::Result<()> {
        if !self.is_ours() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the loop device is not ours any more"));
        }
        let device = open(&node(self.number))?;
        // SAFETY: the descriptor is open for the whole call, which takes no memory of ours.
        unsafe { raw::set_capacity(device.as_raw_fd()) }?;
        Ok(())
    }

    pub(super) fn node(&self) -> PathBuf {
        node(self.number)
    }

    /// One attribute of the real device.
    pub(super) fn attribute(&self, name: &str) -> io::Result<String> {
        std::fs::read_to_string(format!("/sys/block/loop{}/{name}", self.number))
    }

    /// All devices over files below `dir`, such as a killed run leaves behind.
    pub(super) fn below(dir: &Path) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/sys/block")? {
            let name = entry?.file_name();
            let Some(number) = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse().ok()) else {
                continue;
            };
            if let Some(backing) = backing_of(number).filter(|backing| backing.starts_with(dir)) {
                found.push(Self { number, backing });
            }
        }
        Ok(found)
    }
}

fn node(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn open(path: &Path) -> io::Result<File> {
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("opening {}: {error}", path.display()));
    OpenOptions::new().read(true).write(true).open(path).map_err(named)
}

/// The file behind a device, as the kernel names it; it appends a mark when the file was deleted.
fn backing_of(number: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/sys/block/loop{number}/loop/backing_file")).ok()?;
    let text = text.trim_end_matches('\n');
    Some(PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)))
}

fn configure(device: &File, backing: &File) -> Result<(), Errno> {
    let config = LoopConfig {
        fd: u32::try_from(backing.as_raw_fd()).map_err(|_| Errno::EBADF)?,
        block_size: 512,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: both descriptors are open for the whole call, and `config` is a live value of the layout and size that
    // the kernel reads (checked above).
    unsafe { raw::configure(device.as_raw_fd(), &raw const config) }.map(|_| ())
}
