//! All of a disk that decides what is to be done with it.

use std::io;

use super::mounted::never_mounted;
use super::note;
use super::probe::{Content, ReadAt, probe};
use crate::volume::FoundNote;

/// What a disk shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub size: u64,
    pub content: Content,
    pub note: FoundNote,
    /// There are a note and a file system, and that was certainly never mounted for writing.
    pub never_mounted: bool,
}

/// Reads what there is. An error of a single read is an error. Blocking.
pub fn look(disk: &dyn ReadAt) -> io::Result<Seen> {
    let (content, note) = (probe(disk)?, note::read(disk)?);
    let never_mounted = match (&note, &content) {
        (FoundNote::Note(_), Content::Fs(found)) => never_mounted(disk, found)?,
        _ => false,
    };
    Ok(Seen { size: disk.size(), content, note, never_mounted })
}
