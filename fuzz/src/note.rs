//! The note of a format: only what was written as one is read as one.

use csi_udisk::node::linux::note::{self, PLACE};
use csi_udisk::volume::{DiskId, FormatNote, FoundNote, FsType};

use super::image::Image;
use super::input::Input;

pub fn hold(data: &[u8]) {
    any_sector(data);
    let mut input = Input::new(data);
    let (place, change) = (usize::try_from(input.number::<2>()).unwrap_or_default(), input.byte());
    let fs = input.choice(&FsType::ALL);
    let id = String::from_utf8_lossy(input.bytes(256));
    if let Ok(disk) = DiskId::parse(&id) {
        one_change(FormatNote { disk, fs }, place % FormatNote::LENGTH, change);
    }
}

fn on_disk(sector: &[u8]) -> FoundNote {
    note::read(&Image::blank(note::LEAST_DISK).with(PLACE, sector)).expect("all can be read")
}

fn any_sector(data: &[u8]) {
    let mut sector = [0; FormatNote::LENGTH];
    let length = data.len().min(sector.len());
    sector[..length].copy_from_slice(&data[..length]);
    let found = FormatNote::decode(&sector);
    if let FoundNote::Note(note) = &found {
        assert_eq!(note.encode(), sector);
    }
    assert_eq!(on_disk(&sector), found);
}

/// A note is read as it was written, and with any byte changed it is none.
pub fn one_change(note: FormatNote, place: usize, change: u8) {
    let mut sector = note.encode();
    sector[place] ^= change;
    let found = on_disk(&sector);
    if change == 0 {
        assert_eq!(found, FoundNote::Note(note));
    } else {
        assert!(!matches!(found, FoundNote::Note(_)), "{place}: {found:?}");
    }
}
