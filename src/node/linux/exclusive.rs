//! A device that nobody else can mount or write a file system to, for the few writes that this driver makes itself, and
//! for the proofs that allow them.

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
pub struct ExclusiveDevice {
    file: File,
    path: PathBuf,
    size: u64,
    /// What a transfer is a multiple of.
    sector: u64,
}

impl ExclusiveDevice {
    /// Opens a proven device, if nothing on this host uses it.
    pub fn open(device: &OpenDevice) -> Result<Self, UseError> {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::process::Command;

    use super::super::sysfs::Sysfs;
    use super::*;

    struct Loop(String);

    impl Drop for Loop {
        fn drop(&mut self) {
            // Gone with its directory otherwise.
            let _ = Command::new("losetup").args(["-d", &self.0]).status();
        }
    }

    /// As xfs does: it knows nothing of the pages that the device itself has in memory.
    #[test]
    fn a_sector_is_written_without_the_old_ones_beside_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: loop devices need root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let image = path("image");
        fs::write(&image, vec![1; 1 << 20]).unwrap();
        let output = Command::new("losetup").args(["-f", "--show"]).arg(&image).output().unwrap();
        let device = Loop(String::from_utf8(output.stdout).unwrap().trim().to_owned());
        let name = device.0.trim_start_matches("/dev/");
        let block = path("sys/block/vdx");
        fs::create_dir_all(&block).unwrap();
        for attribute in ["dev", "size"] {
            symlink(Path::new("/sys/block").join(name).join(attribute), block.join(attribute)).unwrap();
        }
        fs::create_dir(path("dev")).unwrap();
        symlink(&device.0, path("dev/vdx")).unwrap();
        let sysfs = Sysfs::new(&path("sys"));
        let described = sysfs.device("vdx").unwrap().unwrap();
        let open = OpenDevice::open(&sysfs, &path("dev"), described).unwrap();

        let mut page = vec![0; 4096];
        open.read_exact_at(&mut page, 0).unwrap();
        let below = OpenOptions::new().write(true).open(&image).unwrap();
        below.write_all_at(&[2; 512], 512).unwrap();
        below.sync_all().unwrap();
        let disk = ExclusiveDevice::open(&open).unwrap();
        assert!(matches!(ExclusiveDevice::open(&open), Err(UseError::InUse { .. })));
        disk.write(0, &[3; 512]).unwrap();
        disk.write(1030, &[4; 10]).unwrap();
        disk.sync().unwrap();
        let mut bytes = [0; 10];
        disk.read_exact_at(&mut bytes, 1030).unwrap();
        assert_eq!(bytes, [4; 10]);
        let found = fs::read(&image).unwrap();
        let expected = [&[3; 512][..], &[2; 512], &[1; 6], &[4; 10], &[1; 496]].concat();
        assert!(found[..expected.len()] == expected, "old bytes were written beside what was meant");
        // Who reads the device sees what was written.
        open.read_exact_at(&mut page, 0).unwrap();
        assert_eq!(page[0], 3);
    }
}
