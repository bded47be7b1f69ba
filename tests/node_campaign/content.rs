//! What disks and directories hold.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use nix::unistd::{Whence, fsync, lseek64};

use crate::common::Disk;

const PIECE: usize = 64 << 10;
/// A file that no disk has promised to keep: after a power cut it may be there, in part or not at all.
const UNSYNCED: &str = "unsynced";

/// The files of a directory that a volume must show.
pub(crate) fn of_directory(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file() && entry.file_name() != UNSYNCED)
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Writes a file as a database does: the disk has it, and its name.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    File::open(path.parent().unwrap()).unwrap().sync_all().unwrap();
}

pub(crate) fn write_unsynced(directory: &Path) {
    fs::write(directory.join(UNSYNCED), vec![7; 3 * PIECE]).unwrap();
}

/// The pieces of a disk that are not zero.
pub(crate) struct Picture(Vec<(u64, Vec<u8>)>);

impl Picture {
    /// Of a disk that nobody has mounted, as its device shows it.
    pub(crate) fn of(disk: &Disk) -> Self {
        let device = File::open(disk.device()).unwrap();
        // What is still only in the device's cache goes to the image, so that its holes are where nothing was written.
        fsync(&device).unwrap();
        Self::read(&device, &File::open(disk.image()).unwrap())
    }

    /// Of a disk in use, as it would be if its host had no power from now on: what is in the host's caches is lost.
    pub(crate) fn of_moment(disk: &Disk) -> Self {
        let image = File::open(disk.image()).unwrap();
        loop {
            let before = activity(disk);
            let picture = Self::read(&image, &image);
            // A write in between would make it a picture of two moments.
            if activity(disk) == before {
                return picture;
            }
        }
    }

    /// Where the image has holes, nothing was written.
    fn read(from: &File, image: &File) -> Self {
        // Compared as a whole, for a log may have written tens of megabytes of zeros.
        let zeros = vec![0; PIECE];
        let mut piece = vec![0; PIECE];
        let mut pieces = Vec::new();
        let mut offset = 0;
        while let Ok(data) = lseek64(image, offset, Whence::SeekData) {
            let hole = lseek64(image, data, Whence::SeekHole).unwrap();
            let mut at = u64::try_from(data).unwrap();
            let end = u64::try_from(hole).unwrap();
            while at < end {
                let length = PIECE.min(usize::try_from(end - at).unwrap());
                let bytes = &mut piece[..length];
                from.read_exact_at(bytes, at).unwrap();
                if *bytes != zeros[..length] {
                    pieces.push((at, bytes.to_vec()));
                }
                at += u64::try_from(length).unwrap();
            }
            offset = hole;
        }
        Self(pieces)
    }

    /// Makes the disk hold this and nothing else.
    pub(crate) fn put_on(&self, disk: &Disk) {
        let device = OpenOptions::new().write(true).open(disk.device()).unwrap();
        for (offset, bytes) in Self::of(disk).0 {
            device.write_all_at(&vec![0; bytes.len()], offset).unwrap();
        }
        for (offset, bytes) in &self.0 {
            device.write_all_at(bytes, *offset).unwrap();
        }
        device.sync_all().unwrap();
    }

    pub(crate) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (offset, bytes) in &self.0 {
            hasher.write_u64(*offset);
            hasher.write(bytes);
        }
        hasher.finish()
    }
}

/// The kernel's counts of what was asked of a disk, and of what it is doing.
fn activity(disk: &Disk) -> String {
    fs::read_to_string(Path::new("/sys/block").join(disk.name()).join("stat")).unwrap()
}
