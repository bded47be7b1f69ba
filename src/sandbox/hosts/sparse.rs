//! Copies of sparse files that stay sparse: a disk of a terabyte with a megabyte of content is copied as a megabyte.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek64};

/// Makes `to` a copy of `from` in the given size.
pub(super) fn copy(from: &Path, to: &Path, size: u64) -> io::Result<()> {
    let source = File::open(from)?;
    let target = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    target.set_len(size)?;
    let mut position = 0;
    while let Some(start) = seek(&source, position, Whence::SeekData)? {
        // After data there is a hole, if only the one at the end.
        let end = seek(&source, start, Whence::SeekHole)?.unwrap_or(start);
        (&source).seek(SeekFrom::Start(start))?;
        (&target).seek(SeekFrom::Start(start))?;
        io::copy(&mut (&source).take(end.min(size).saturating_sub(start)), &mut &target)?;
        if end <= start || end >= size {
            break;
        }
        position = end;
    }
    Ok(())
}

fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek64(file, from, whence) {
        Ok(position) => Ok(u64::try_from(position).ok()),
        // No data beyond this point.
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn content_is_copied_and_holes_stay_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"middle", 500 << 20).unwrap();
        copy(&from, &to, 2 << 30).unwrap();
        let copied = File::open(&to).unwrap();
        let mut bytes = [0; 6];
        copied.read_exact_at(&mut bytes, 500 << 20).unwrap();
        assert_eq!(&bytes, b"middle");
        copied.read_exact_at(&mut bytes[..5], 0).unwrap();
        assert_eq!(&bytes[..5], b"begin");
        let data = copied.metadata().unwrap();
        assert_eq!(data.len(), 2 << 30);
        assert!(data.blocks() * 512 < 1 << 20, "the copy is not sparse");
    }
}
