//! What must hold for any disk, any note and any list of mounts. The fuzz targets look for counterexamples to the same
//! functions for as long as somebody lets them; here each gets some random inputs, and those that once were one.
#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/lib.rs"]
#[allow(clippy::expect_used, dead_code, missing_debug_implementations, unreachable_pub)]
mod fuzz;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use csi_udisk::node::linux::DeviceNumber;
use csi_udisk::node::linux::blank::{NotBlank, prove, regions};
use csi_udisk::node::linux::mountinfo::{Mount, Mounts};
use csi_udisk::volume::BlankSectors;
use fuzz::image::Image;
use proptest::collection::vec;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

#[test]
fn inputs_that_once_broke_something_break_nothing() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, hold) in TARGETS {
        let mut count = 0;
        for seed in fs::read_dir(seeds.join(target)).unwrap() {
            hold(&fs::read(seed.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target}");
    }
}

type Hold = fn(&[u8]);
const TARGETS: [(&str, Hold); 4] = [
    ("blank", fuzz::blank::hold),
    ("mountinfo", fuzz::mountinfo::hold),
    ("note", fuzz::note::hold),
    ("probe", fuzz::probe::hold),
];

fn is_data_at(disk: &Image, offset: u64) {
    let zero = prove(disk, BlankSectors::Zero);
    assert!(
        matches!(zero, Err(NotBlank::Data { offset: found }) if found == offset),
        "byte {offset} of {}: {zero:?}",
        disk.size
    );
}

/// The first and the last byte of every region, and its neighbours inside: what a wrong bound would miss.
#[test]
fn no_byte_at_the_bounds_of_any_region_is_missed() {
    for size in [512, MIB + 512, 10 * GIB] {
        let blank = Image::blank(size);
        prove(&blank, BlankSectors::Zero).unwrap();
        for (start, end) in regions(size) {
            for offset in [start, start + 1, end - 2, end - 1] {
                is_data_at(&blank.clone().with(offset, &[1]), offset);
            }
        }
    }
}

/// What somebody stored at either end of a disk of any size is seen, be it one byte.
#[test]
fn no_byte_at_the_ends_of_a_disk_of_any_size_is_missed() {
    for size in (1..=64).map(|sectors| sectors * 512).chain([4 * MIB - 512, 8 * MIB + 512, 40_000 * GIB]) {
        for offset in [0, 511, size / 2 / 512 * 512, size - 512, size - 1] {
            if offset < 4 * MIB || offset >= size - MIB {
                let disk = Image::blank(size).with(offset, &[0x80]);
                is_data_at(&disk, offset);
                assert!(prove(&disk, BlankSectors::Noise).is_err(), "byte {offset} of {size}, as noise");
            }
        }
    }
}

/// A disk that has something in places of interest, of which some can be there together.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let magic = prop::sample::select(vec![
        (0u8, 0u16, b"XFSB\0\0\x10\0".to_vec()),
        (0, 1024 + 0x38, vec![0x53, 0xef]),
        (0, 1024 + 0x18, vec![50]),
        (0, 1024 + 0x20, vec![0xff; 4]),
        (0, 1024 + 4, vec![0xff; 4]),
        (0, 1024 + 0x5c, vec![4, 0, 0, 0, 0x82]),
        (3, 0x40, b"_BHRfS_M".to_vec()),
        (3, 0x88, vec![1]),
        (3, 0x70, vec![0, 0, 0, 0x10]),
        (0, 510, vec![0x55, 0xaa]),
        (4, 8192, b"SKUL\xba\xbe".to_vec()),
        (9, 1, vec![]),
        (8, 0, b"csi-udisk-format".to_vec()),
    ]);
    let known = magic.prop_map(|(kind, place, bytes)| piece(kind, place, &bytes));
    let random = (any::<u8>(), any::<u16>(), vec(any::<u8>(), 0..24))
        .prop_map(|(kind, place, bytes)| piece(kind, place, &bytes));
    (vec(any::<u8>(), 3), vec(prop_oneof![known, random], 0..6))
        .prop_map(|(head, pieces)| [head, pieces.concat()].concat())
}

fn piece(kind: u8, place: u16, bytes: &[u8]) -> Vec<u8> {
    let mut piece = vec![kind];
    piece.extend(place.to_le_bytes());
    piece.push(u8::try_from(bytes.len()).unwrap());
    piece.extend(bytes);
    piece
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_disk_is_blank_only_where_all_that_is_read_is_zero(content in content()) {
        fuzz::blank::hold(&content);
    }

    #[test]
    fn no_byte_inside_a_region_is_missed(
        size in 512u64..40_000 * GIB, region in any::<prop::sample::Index>(), place in any::<u64>(), byte in 1u8..
    ) {
        let regions = regions(size);
        let (start, end) = regions[region.index(regions.len())];
        let disk = Image::blank(size).with(start + place % (end - start), &[byte]);
        is_data_at(&disk, start + place % (end - start));
        prop_assert!(prove(&disk, BlankSectors::Noise).is_err());
    }

    /// A region that cannot be read is not blank either.
    #[test]
    fn no_unreadable_byte_is_missed(size in 512u64..10 * GIB, region in any::<prop::sample::Index>(), place in any::<u64>()) {
        let regions = regions(size);
        let (start, end) = regions[region.index(regions.len())];
        let disk = Image::blank(size).unreadable_at(start + place % (end - start));
        for sectors in [BlankSectors::Zero, BlankSectors::Noise] {
            let found = prove(&disk, sectors);
            prop_assert!(matches!(found, Err(NotBlank::Unreadable { .. })), "{:?}", found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_a_disk_holds_is_looked_at_inside_its_bounds_and_does_no_harm(content in content()) {
        fuzz::probe::hold(&content);
    }

    #[test]
    fn only_what_was_written_as_a_note_is_read_as_one(data in vec(any::<u8>(), 0..512), id in "[A-Za-z0-9_.-]{1,128}") {
        fuzz::note::hold(&data);
        fuzz::note::hold(&[&data[..data.len().min(4)], id.as_bytes()].concat());
    }

    #[test]
    fn random_mounts_are_found_again_and_cut_off_lists_add_none(mounts in vec(mount(), 0..6), cut in any::<usize>()) {
        fuzz::mountinfo::these(&mounts, cut);
    }

    /// Some bytes of a list are others than the kernel wrote.
    #[test]
    fn what_is_found_in_a_damaged_list_is_in_its_lines(
        mounts in vec(mount(), 1..6), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)
    ) {
        let mut text = fuzz::mountinfo::list(&mounts);
        for (place, byte) in damage {
            let place = place.index(text.len());
            text[place] = byte;
        }
        fuzz::mountinfo::any_text(&text);
    }

    #[test]
    fn garbage_is_no_mount(text in vec(any::<u8>(), 0..200), words in "[ -:0-9a-z/\n\\\\]{0,200}") {
        fuzz::mountinfo::hold(&text);
        fuzz::mountinfo::any_text(&text);
        fuzz::mountinfo::any_text(words.as_bytes());
        fuzz::mountinfo::any_text(format!("{words}\n").as_bytes());
    }
}

/// Any bytes but a zero, and text that people and scripts name directories with.
fn path() -> impl Strategy<Value = PathBuf> {
    let bytes = vec(1u8.., 0..24)
        .prop_map(|bytes| PathBuf::from(OsString::from_vec([b"/".to_vec(), bytes].concat())));
    let text = r"/(\PC| |\t|\n|\\|\\040|#|//deleted|é|\u{202e}|磁盘|💾){0,12}".prop_map(PathBuf::from);
    prop_oneof![bytes, text]
}

fn mount() -> impl Strategy<Value = Mount> {
    let numbers = (any::<u32>(), any::<u32>(), 0u64..1 << 12, 0u64..1 << 20);
    let options = "(rw|ro)(,[a-z_]{1,8}(=[a-z0-9:.-]{0,8})?){0,4}";
    let names = (r"[a-z0-9]{1,8}(\.[a-z \\#]{1,8})?", options, options);
    (numbers, (path(), path(), path()), any::<bool>(), names).prop_map(
        |(
            (id, parent, major, minor),
            (root, mount_point, source),
            shared,
            (fs_type, options, super_options),
        )| Mount {
            id: id.into(),
            parent: parent.into(),
            device: DeviceNumber { major, minor },
            root,
            mount_point,
            options,
            shared,
            fs_type,
            source,
            super_options,
        },
    )
}

/// Where the line of a mount is lost, so is the mount; where a line is cut, nothing is taken for known.
#[test]
fn a_list_that_ends_early_is_refused() {
    let whole = b"28 1 253:0 / / rw - ext4 /dev/vda rw\n29 28 253:16 / /a rw - ext4 /dev/vdb rw\n";
    assert_eq!(Mounts::parse(whole).unwrap().iter().count(), 2);
    for cut in 1..whole.len() {
        let found = Mounts::parse(&whole[..cut]);
        assert_eq!(found.is_ok(), whole[cut - 1] == b'\n', "{cut}: {found:?}");
    }
}
