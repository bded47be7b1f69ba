//! A device that nobody else can mount or write a file system to, for the few writes that this driver makes itself.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_DIRECT, O_EXCL};

use super::device::{OpenDevice, UseError, open};
use super::device_number::DeviceNumber;
use super::error::{Doing as _, HostError};
use super::ioctl;
use super::patience::while_busy;
use super::probe::ReadAt;

/// What every disk's direct transfers may start at in memory.
const ALIGNMENT: usize = 4096;

/// Reads and writes past the page cache: xfs does too, so a cached page of it can be old, and writing one sector of such a
/// page would write the old ones beside it. And what goes to the disk in one piece cannot be cut in two by a signal.
#[derive(Debug)]
pub(super) struct ExclusiveDevice {
    file: File,
    path: PathBuf,
    size: u64,
    /// What a transfer is a multiple of.
    sector: u64,
}

impl ExclusiveDevice {
    /// Opens a proven device, if nothing on this host uses it.
    pub(super) fn open(device: &OpenDevice) -> Result<Self, UseError> {
        let path = device.path().to_owned();
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(O_EXCL | O_DIRECT | O_CLOEXEC);
        let file = match while_busy(|| open(&options, &path)) {
            Ok(file) => file,
            Err(Errno::EBUSY) => {
                // Says who, unless it is over by now.
                device.prove_unused()?;
                return Err(UseError::InUse { path, users: "by the system".to_owned() });
            }
            Err(errno) => {
                return Err(
                    HostError::new(format!("cannot open {} for writing", path.display()), errno).into()
                );
            }
        };
        let rdev = file.metadata().doing("look at", &path)?.rdev();
        if DeviceNumber::from_raw(rdev) != device.number() {
            return Err(UseError::Exchanged(path));
        }
        device.prove_unchanged()?;
        let sector = ioctl::logical_block_size(&file).doing("ask the sector size of", &path)?;
        let size = ioctl::block_device_size(&file).doing("ask the size of", &path).map_err(UseError::Host)?;
        Ok(Self { file, path, size, sector })
    }

    /// Writes bytes that lie in one sector, or fill some, in one transfer.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), HostError> {
        self.transfer(offset, bytes.len(), |aligned, within, start| {
            if within.len() != aligned.len() {
                self.file.read_exact_at(aligned, start)?;
            }
            aligned[within].copy_from_slice(bytes);
            self.file.write_all_at(aligned, start)
        })
        .doing("write to", &self.path)
    }

    /// Waits until all that was written is on the disk.
    pub(super) fn sync(&self) -> Result<(), HostError> {
        self.file.sync_all().doing("write out", &self.path)
    }

    /// Calls with an aligned buffer of whole sectors, where in it the wanted bytes are, and its place on the disk.
    fn transfer(
        &self,
        offset: u64,
        length: usize,
        act: impl FnOnce(&mut [u8], std::ops::Range<usize>, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let start = offset - offset % self.sector;
        let too_long = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let before = usize::try_from(offset - start).map_err(too_long)?;
        let sector = usize::try_from(self.sector).map_err(too_long)?;
        let whole = (before + length).next_multiple_of(sector);
        let mut memory = vec![0; whole + ALIGNMENT];
        let aligned = memory.as_ptr().align_offset(ALIGNMENT);
        act(&mut memory[aligned..aligned + whole], before..before + length, start)
    }
}

impl ReadAt for ExclusiveDevice {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.transfer(offset, buffer.len(), |aligned, within, start| {
            self.file.read_exact_at(aligned, start)?;
            buffer.copy_from_slice(&aligned[within]);
            Ok(())
        })
    }

    fn size(&self) -> u64 {
        self.size
    }
}
