//! The proof that a disk is blank, against the plain words of the rule: every byte in its regions is zero.

use csi_udisk::node::linux::blank::{NotBlank, prove, regions};
use csi_udisk::node::linux::look::{Seen, look};
use csi_udisk::node::linux::note::PLACE;
use csi_udisk::node::linux::probe::Content;
use csi_udisk::node::linux::remains::only_remains;
use csi_udisk::node::noted::again;
use csi_udisk::volume::{BlankSectors, DiskId, FormatNote, FoundNote, FsType};

use super::image::Image;
use super::input::Input;

pub fn hold(data: &[u8]) {
    hold_for(&Image::parse(&mut Input::new(data)));
}

pub fn hold_for(image: &Image) {
    let regions = regions(image.size);
    let is_read = |offset: &u64| regions.iter().any(|(start, end)| (start..end).contains(&offset));
    let data: Vec<u64> = image.data().filter(is_read).collect();
    let hole = image.hole().filter(is_read);
    let seen = look(image);

    match prove(image, BlankSectors::Zero) {
        Ok(()) => {
            assert!(data.is_empty() && hole.is_none(), "data at {data:?}, unreadable at {hole:?}, and blank");
            // So the proof reads all that the prober does.
            let nothing = Seen {
                size: image.size,
                content: Content::Unrecognised,
                note: FoundNote::None,
                never_mounted: false,
            };
            assert_eq!(seen.expect("the proof could read it"), nothing);
        }
        Err(NotBlank::Data { offset }) => assert!(data.contains(&offset), "there are zeros at {offset}"),
        Err(NotBlank::Unreadable { .. }) => assert!(hole.is_some(), "all can be read"),
        Err(NotBlank::Note { offset, .. } | NotBlank::DamagedNote { offset }) => {
            assert!(offset == PLACE && data.contains(&offset));
        }
        Err(NotBlank::Backup { .. }) => assert!(!data.is_empty()),
        Err(NotBlank::NotNoise { offset }) => panic!("noise at {offset} was not allowed"),
    }

    if prove(image, BlankSectors::Noise).is_ok() {
        assert!(hole.is_none(), "unreadable at {hole:?}, and blank as noise");
        // Noise has all values in the smallest block that a disk has.
        assert!(data.is_empty() || data.len() > 200, "data at {data:?}, and blank as noise");
    }
    hold_for_remains(image, hole);
}

/// What a note licenses to remove.
fn hold_for_remains(image: &Image, hole: Option<u64>) {
    let disk = DiskId::parse("bs-1").expect("an id");
    let Ok(seen) = look(image) else { return };
    for fs in FsType::ALL {
        let note = FormatNote { disk: disk.clone(), fs };
        let licensed = again(&disk, fs, false, &seen) == Ok(Some(note.clone()));
        if licensed && only_remains(image, &note, BlankSectors::Zero).is_ok() {
            assert!(hole.is_none(), "unreadable at {hole:?}, and removed");
            assert!(note.encode().iter().zip(PLACE..).all(|(byte, place)| image.byte(place) == *byte));
            match &seen.content {
                Content::Fs(found) => {
                    let is_the_noted_one = found.uuid == note.uuid() && found.kind.is(fs);
                    assert!(
                        is_the_noted_one && seen.never_mounted,
                        "{found:?} is removed as remains of {fs}"
                    );
                }
                Content::Unfinished(kind) => assert!(kind.is(fs), "{kind} is removed as remains of {fs}"),
                Content::Other(name) => panic!("{name} is removed as remains of {fs}"),
                Content::Unrecognised => {}
            }
        }
    }
}
