//! The prober: whatever is on a disk, it is looked at inside its bounds, and what is then to be done does no harm.

use csi_udisk::node::linux::journal::journal;
use csi_udisk::node::linux::look::look;
use csi_udisk::node::linux::note::PLACE;
use csi_udisk::node::linux::probe::{Content, ReadAt as _, probe_fs};
use csi_udisk::node::plan::{Plan, plan, plan_block};
use csi_udisk::volume::{Adoption, DiskId, FormatNote, FsType, Mark};

use super::image::Image;
use super::input::Input;

pub fn hold(data: &[u8]) {
    let mut input = Input::new(data);
    let wanted = input.choice(&FsType::ALL);
    let read_only = input.byte() & 1 != 0;
    hold_for(&Image::parse(&mut input), wanted, read_only);
}

pub fn hold_for(image: &Image, wanted: FsType, read_only: bool) {
    let volume = DiskId::parse("bs-1").expect("an id");
    let adoption = Adoption::default();
    let (Ok(seen), Ok(superblock)) = (look(image), probe_fs(image)) else {
        assert!(image.hole().is_some(), "all can be read");
        return;
    };
    if let Content::Fs(found) = seen.content {
        journal(image, found.kind).expect("what was read before can be read");
        assert!(found.size > 0 && !found.can_grow_to(found.size));
        assert_eq!(Some(found), superblock);
    }
    if plan_block(&volume, superblock, &adoption).is_ok() {
        assert!(superblock.is_none_or(|found| found.uuid.mark(&volume) != Mark::OtherDisk));
    }
    match plan(&volume, wanted, read_only, &seen, &adoption) {
        Err(_) => {}
        Ok(Plan::Format) => assert!(!read_only && superblock.is_none(), "{superblock:?} is formatted"),
        Ok(Plan::MakeAgain(note)) => {
            let mut sector = [0; FormatNote::LENGTH];
            image.read_exact_at(&mut sector, PLACE).expect("a note was read");
            assert!(!read_only && note.disk == volume && note.fs == wanted && note.encode() == sector);
            assert!(superblock.is_none_or(|found| found.uuid == note.uuid() && found.kind.is(wanted)));
        }
        Ok(Plan::Use(found)) => {
            assert!(found.kind.is(wanted) && found.size <= image.size);
            assert_ne!(found.uuid.mark(&volume), Mark::OtherDisk);
        }
        Ok(Plan::Adopt(found, _)) => panic!("{found:?} is adopted, which nobody asked for"),
    }
}
