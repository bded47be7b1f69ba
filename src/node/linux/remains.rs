//! What a mkfs that was cut off left on a disk with its note, and its removal.
//!
//! The note says that the disk was blank when mkfs started. So what is there is mkfs's work, unless it shows that it
//! cannot be: then somebody wrote to the disk since, and nothing is removed.

use std::io;
use std::sync::Arc;

use super::backup::{regions, superblocks};
use super::blank::{NotBlank, prove, read_all};
use super::device::OpenDevice;
use super::error::HostError;
use super::exclusive::ExclusiveDevice;
use super::mounted::shows_no_mount;
use super::noise::is_even;
use super::note::{NotedDevice, PLACE, Unnoted};
use super::probe::{ReadAt, is_zero};
use crate::volume::{BlankSectors, FormatNote};

/// What no mkfs of the noted kind leaves.
#[derive(Debug, thiserror::Error)]
pub enum Foreign {
    #[error("it holds {name} near byte {offset} that is not of the file system that was being made")]
    Copy { name: &'static str, offset: u64 },
    #[error("it holds {name} near byte {offset}, whose file system was mounted")]
    Mounted { name: &'static str, offset: u64 },
    #[error("it holds text at byte {offset}")]
    Text { offset: u64 },
    #[error("it holds compressed or encrypted data at byte {offset}")]
    Noise { offset: u64 },
    #[error("it could not be read at byte {offset}: {source}")]
    Unreadable { offset: u64, source: io::Error },
}

/// Why a disk with a note was not cleared for another mkfs.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    #[error(transparent)]
    Foreign(#[from] Foreign),
    #[error(transparent)]
    NotBlank(NotBlank),
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Proves that nothing but remains is there, zeroes all that the proof of a blank disk reads, and gives that proof. The
/// note, which the caller saw through this very claim, stays through all of it, so this can be cut off and done again.
/// Blocking.
pub fn clear(
    device: Arc<OpenDevice>,
    claim: &ExclusiveDevice,
    note: FormatNote,
    sectors: BlankSectors,
) -> Result<NotedDevice, ClearError> {
    only_remains(claim, &note, sectors)?;
    for (start, end) in regions(claim.size()) {
        for (start, end) in beside_the_note(start, end) {
            // A region has 4 MiB at most.
            let zeros = vec![0; usize::try_from(end - start).unwrap_or_default()];
            claim.write(start, &zeros)?;
        }
    }
    claim.sync()?;
    let rest = Unnoted { disk: claim, note: &note };
    prove(&rest, BlankSectors::Zero).map_err(ClearError::NotBlank)?;
    Ok(NotedDevice::cleared(device, note))
}

/// A range without the note's sector.
fn beside_the_note(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let after = PLACE + FormatNote::LENGTH as u64;
    [(start, end.min(PLACE)), (start.max(after), end)].into_iter().filter(|(start, end)| start < end)
}

/// A block of a file system.
const BLOCK: usize = 4096;

/// Whether nothing shows that what is on `disk` is more than what a mkfs left that was cut off.
pub fn only_remains(disk: &dyn ReadAt, note: &FormatNote, sectors: BlankSectors) -> Result<(), Foreign> {
    let rest = Unnoted { disk, note };
    let unreadable = |offset, source| Foreign::Unreadable { offset, source };
    read_all(&rest, unreadable, |bytes, start| {
        let offsets = (start..).step_by(BLOCK);
        bytes
            .chunks(BLOCK)
            .zip(offsets)
            .try_for_each(|(block, offset)| judge(&rest, block, offset, note, sectors))
    })
}

/// Tables, bitmaps and trees are sparse or regular. What is neither is not mkfs's, nor is another superblock. Other
/// bytes pass: the work of a mkfs that was cut off has no mark that every piece of it would carry.
fn judge(
    disk: &dyn ReadAt,
    block: &[u8],
    offset: u64,
    note: &FormatNote,
    sectors: BlankSectors,
) -> Result<(), Foreign> {
    if is_zero(block) {
        return Ok(());
    }
    for found in superblocks(block) {
        let name = found.name();
        if found.uuid() != note.uuid() || !found.is_of(note.fs) {
            return Err(Foreign::Copy { name, offset });
        }
        if !shows_no_mount(disk, found).map_err(|source| Foreign::Unreadable { offset, source })? {
            return Err(Foreign::Mounted { name, offset });
        }
    }
    if is_text(block) {
        Err(Foreign::Text { offset })
    } else if sectors == BlankSectors::Zero && is_even(block) {
        Err(Foreign::Noise { offset })
    } else {
        Ok(())
    }
}

fn is_text(block: &[u8]) -> bool {
    let printable = |byte: &&u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\r');
    block.iter().filter(printable).count() > block.len() / 2
}
