//! Copies of disks: refused as what they are, adopted where that was permitted, and never mounted half-way.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod kills;
mod source;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{file_systems, on_a_host, refused, report, run};
use csi_udisk::node::StageError;
use csi_udisk::node::linux::mount::unmount_all;
use csi_udisk::node::linux::probe::{FsKind, ReadAt as _};
use csi_udisk::node::linux::restamp::{self, Unable, Write};
use csi_udisk::node::lookup::{Answer, Lookup, Sighting, State};
use csi_udisk::node::plan::ContentRefused;
use csi_udisk::volume::{Adoption, DiskId, FsType, FsUuid, Gib, HostId};
use source::{Image, Source, content, copy, judge, size};

#[test]
fn a_copy_is_refused_with_the_attribute_to_set_and_adopted_once_it_is_set() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let source = Source::make(&host, fs).await;
            let node = host.node();
            for (image, letter, expected) in
                [(&source.clean, 'c', &source.before), (&source.crashed, 'd', &source.after)]
            {
                let name = format!("copy-{letter}");
                let (disk, mut volume) = source.copied(&host, image, &name, letter);
                let mark = source.mark().to_string();
                let error = refused(&node, &volume, &disk).await;
                assert!(error.to_string().contains(&format!("adoptMarkOf: {mark:?};")), "{error}");
                // Another mark than the one found, and what is no mark, widen nothing.
                for (word, said) in [
                    ("bs-other", "permits only the mark"),
                    ("all of them", "permits nothing"),
                    ("", "permits nothing"),
                ] {
                    volume.volume_context.adoption = Adoption::parse(word);
                    let error = refused(&node, &volume, &disk).await;
                    let is = matches!(
                        &error,
                        StageError::Content { reason: ContentRefused::OtherDisk { .. }, .. }
                    );
                    assert!(is, "{error}");
                    let text = error.to_string();
                    assert!(
                        text.contains(&format!("{word:?}")) && text.contains(said) && text.contains(&mark),
                        "{text}"
                    );
                }

                // The value is the one that the refusal showed.
                volume.volume_context.adoption = Adoption::parse(&mark);
                for _ in 0..2 {
                    volume.publish(&node, false).await.unwrap();
                    assert!(content(&volume.target) == *expected, "{fs}");
                    fs::write(volume.target.join("own"), "of the copy").unwrap();
                    volume.unpublish(&node).await.unwrap();
                    volume.unstage(&node).await.unwrap();
                    assert_eq!(Image::open(disk.image()).uuid(), FsUuid::of_disk(&volume.id));
                    judge(fs, disk.image());
                    volume.stage(&node).await.unwrap();
                    fs::remove_file(volume.staging.join("own")).unwrap();
                    volume.unstage(&node).await.unwrap();
                }
                // It is the volume of its own disk now, with the attribute and without it.
                volume.volume_context.adoption = Adoption::Nothing;
                volume.stage(&node).await.unwrap();
                volume.unstage(&node).await.unwrap();
            }
        });
    }
}

/// A copy of a copy that was adopted, and one that is back on the disk that the first was made on.
#[test]
fn copies_of_copies_are_adopted_too() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let source = Source::make(&host, fs).await;
            let node = host.node();
            let (disk, volume) = source.copied(&host, &source.clean, "first", 'c');
            let volume = source.adopted(volume);
            volume.stage(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            let (second_disk, mut second) = source.copied(&host, disk.image(), "second", 'd');
            second.volume_context.adoption = Adoption::parse(source.volume.id.as_str());
            assert!(refused(&node, &second, &second_disk).await.to_string().contains("permits only"));
            second.volume_context.adoption = Adoption::parse(volume.id.as_str());
            second.stage(&node).await.unwrap();
            assert!(content(&second.staging) == source.before);
            second.unstage(&node).await.unwrap();
            judge(fs, second_disk.image());

            let (back_disk, mut back) = source.copied(&host, second_disk.image(), "back", 'e');
            host.unplug("vdb");
            back.id = source.volume.id.clone();
            back.volume_context.adoption = Adoption::parse(second.id.as_str());
            back.stage(&node).await.unwrap();
            assert!(content(&back.staging) == source.before);
            back.unstage(&node).await.unwrap();
            assert_eq!(Image::open(back_disk.image()).uuid(), source.mark());
            judge(fs, back_disk.image());
        });
    }
}

#[test]
fn a_copy_is_adopted_beside_its_mounted_source() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let source = Source::make(&host, fs).await;
            let node = host.node();
            source.volume.publish(&node, false).await.unwrap();
            for (image, letter, expected) in
                [(&source.clean, 'c', &source.before), (&source.crashed, 'd', &source.after)]
            {
                let (disk, volume) = source.copied(&host, image, &format!("copy-{letter}"), letter);
                if fs == FsType::Btrfs {
                    // As udev does with every disk that shows up.
                    let scan = ["device", "scan", disk.device().to_str().unwrap()];
                    // Refused or taken, as the kernel likes: its source is mounted.
                    let _ = std::process::Command::new("btrfs").args(scan).output().unwrap();
                }
                let volume = source.adopted(volume);
                volume.publish(&node, false).await.unwrap();
                assert!(content(&volume.target) == *expected, "{fs}");
                fs::write(volume.target.join("only in the copy"), "x").unwrap();
                fs::write(source.volume.target.join("only in the source"), "y").unwrap();
                assert!(!source.volume.target.join("only in the copy").exists());
                assert!(!volume.target.join("only in the source").exists());
                fs::remove_file(source.volume.target.join("only in the source")).unwrap();
            }
            assert!(content(&source.volume.target) == source.after);
            source.volume.unpublish(&node).await.unwrap();
            source.volume.unstage(&node).await.unwrap();
            judge(fs, source.disk.image());
            assert_eq!(Image::open(source.disk.image()).uuid(), source.mark());
            // And again, while the copies are mounted.
            source.volume.stage(&node).await.unwrap();
            assert!(content(&source.volume.staging) == source.after);
        });
    }
}

#[test]
fn a_read_only_use_of_a_copy_writes_nothing() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let source = Source::make(&host, fs).await;
            let node = host.node();
            for (image, letter) in [(&source.clean, 'c'), (&source.crashed, 'd')] {
                let (disk, volume) = source.copied(&host, image, &format!("copy-{letter}"), letter);
                let reader = source.adopted(volume).reader();
                if fs == FsType::Btrfs {
                    let error = refused(&node, &reader, &disk).await;
                    let reason = matches!(
                        &error,
                        StageError::Content { reason: ContentRefused::CopyOfBtrfs { .. }, .. }
                    );
                    assert!(reason && error.to_string().contains("for writing once"), "{error}");
                    continue;
                }
                let before = disk.content();
                reader.publish(&node, false).await.unwrap();
                let found = content(&reader.target);
                assert!(source.before.iter().all(|(name, bytes)| found.get(name) == Some(bytes)), "{fs}");
                reader.unpublish(&node).await.unwrap();
                reader.unstage(&node).await.unwrap();
                assert!(disk.content() == before, "{fs}: a read-only use wrote");
            }
        });
    }
}

/// The states of a disk between and in the middle of the writes: after each write, and, where a write spans several
/// sectors, with any of them alone.
fn cut_off(image: &Image, steps: &[Vec<Write>]) -> Vec<Vec<Write>> {
    const SECTOR: usize = 512;
    let writes: Vec<&Write> = steps.iter().flatten().collect();
    let mut states = Vec::new();
    for (done, next) in writes.iter().enumerate() {
        let before: Vec<Write> = writes[..done].iter().copied().cloned().collect();
        states.push(before.clone());
        let sectors: Vec<Write> = next
            .bytes
            .chunks(SECTOR)
            .enumerate()
            .map(|(index, bytes)| Write {
                offset: next.offset + (index * SECTOR) as u64,
                bytes: bytes.to_vec(),
            })
            .filter(|sector| {
                let mut there = vec![0; sector.bytes.len()];
                image.read_exact_at(&mut there, sector.offset).unwrap();
                there != sector.bytes
            })
            .collect();
        if sectors.len() > 1 {
            for cut in 1..sectors.len() {
                states.push([&before[..], &sectors[..cut]].concat());
                states.push([&before[..], &sectors[cut..]].concat());
            }
        }
    }
    states.push(writes.into_iter().cloned().collect());
    states
}

#[test]
fn a_change_of_the_mark_that_was_cut_off_anywhere_is_done_again_before_the_mount() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let source = Source::make(&host, fs).await;
            let clean = Image::open(&source.clean);
            let volume = source.copied(&host, &source.clean, "copy", 'c').1;
            host.unplug("vdc");
            let volume = source.adopted(volume);
            let (from, to) = (source.mark(), FsUuid::of_disk(&volume.id));
            let steps = restamp::steps(&clean, FsKind::from(fs), from, to).unwrap().unwrap();
            let states = cut_off(&clean, &steps);
            let mut halves = 0;
            for (number, writes) in states.iter().enumerate() {
                let image = host.path("images").join(format!("state-{number}"));
                copy(&source.clean, &image);
                let written = Image::open(&image);
                writes.iter().for_each(|write| written.write(write));
                let uuid = written.uuid();
                assert!(uuid == from || uuid == to, "{fs}, state {number}: {uuid}");
                // Nobody but the driver is to find it half-way: it is refused, or it is whole.
                let mount = host.path("kubelet/by hand");
                fs::create_dir_all(&mount).unwrap();
                let disk = host.disk_of(&image);
                let arguments = ["-o", "ro,noload", disk.device().to_str().unwrap(), mount.to_str().unwrap()];
                let arguments =
                    if matches!(fs, FsType::Ext3 | FsType::Ext4) { &arguments[..] } else { &arguments[2..] };
                let by_hand = std::process::Command::new("mount").args(arguments).output().unwrap();
                if by_hand.status.success() {
                    assert!(content(&mount) == source.before, "{fs}, state {number}");
                    unmount_all(&mount).unwrap();
                } else {
                    halves += 1;
                }
                // On another host, under another name; and a driver without the permission refuses or is right.
                host.plug("vdq", "UCLOUD_DISK_VDC", &disk);
                let mut plain = volume.clone();
                plain.volume_context.adoption = Adoption::Nothing;
                if uuid == from {
                    refused(&host.node(), &plain, &disk).await;
                }
                let node = host.node();
                volume.stage(&node).await.unwrap();
                assert!(content(&volume.staging) == source.before, "{fs}, state {number}");
                volume.unstage(&node).await.unwrap();
                assert_eq!(Image::open(&image).uuid(), to, "{fs}, state {number}");
                judge(fs, &image);
                if fs == FsType::Btrfs {
                    // The judge does not look at it.
                    let mut copy = [0; 16];
                    Image::open(&image).read_exact_at(&mut copy, (64 << 20) + 0x20).unwrap();
                    assert_eq!(FsUuid::from_bytes(copy), to, "{fs}, state {number}");
                }
                host.unplug("vdq");
                fs::remove_file(&image).unwrap();
            }
            report(&format!("re-stamp of {fs}, {} states, {halves} of which nothing mounts", states.len()));
            // A single sector of ext3 has no middle; the other halves are those that only the checksum tells.
            let least = match fs {
                FsType::Ext3 => (2, 0),
                FsType::Ext4 => (4, 2),
                FsType::Xfs => (7, 0),
                FsType::Btrfs => (6, 2),
            };
            assert!((states.len(), halves) >= least, "{fs}: {} states, {halves}", states.len());
        });
    }
}

/// A cloud that names one slot, and counts.
#[derive(Debug)]
struct Told {
    slot: &'static str,
    asked: AtomicUsize,
}

impl Lookup for Told {
    fn this_host(&self) -> Result<HostId, String> {
        Ok(HostId::parse("uhost-here").unwrap())
    }

    fn disk<'a>(&'a self, _: &'a DiskId) -> Answer<'a, Result<Option<Sighting>, String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let sighting = Sighting {
            host: Some(HostId::parse("uhost-here").unwrap()),
            state: State::Attached,
            device: Some(self.slot.to_owned()),
            size: Gib::new(1),
            is_boot: false,
        };
        Box::pin(std::future::ready(Ok(Some(sighting))))
    }
}

/// An old attachment names a slot that has the very disk which was copied by now.
#[test]
fn where_the_cloud_may_be_asked_it_confirms_the_slot_before_a_mark_is_replaced() {
    on_a_host(false, |host| async move {
        let source = Source::make(&host, FsType::Ext4).await;
        let (disk, volume) = source.copied(&host, &source.clean, "copy", 'c');
        let volume = source.adopted(volume);
        let told = |slot| Arc::new(Told { slot, asked: AtomicUsize::new(0) });
        let elsewhere = told("vdd");
        let asking = Arc::clone(&elsewhere);
        let error = refused(&host.node().asking(asking), &volume, &disk).await;
        assert!(matches!(&error, StageError::OtherSlot { .. }), "{error}");
        assert!(error.to_string().contains("in slot vdd now"), "{error}");
        assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 1);
        let here = told("VDC");
        for _ in 0..2 {
            let asking = Arc::clone(&here);
            let node = host.node().asking(asking);
            volume.stage(&node).await.unwrap();
            assert!(content(&volume.staging) == source.before);
            volume.unstage(&node).await.unwrap();
        }
        // Once it is done, nobody is asked.
        assert_eq!(here.asked.load(Ordering::SeqCst), 1);
    });
}

/// The shapes that file systems come in, and disks with large sectors.
#[test]
fn copies_of_every_shape_are_adopted() {
    const SHAPES: &[(FsType, u32, &[&str], &[&str])] = &[
        (FsType::Ext3, 512, &["-q", "-b", "1024"], &[]),
        (FsType::Ext4, 512, &["-q", "-b", "1024", "-O", "^64bit"], &[]),
        (FsType::Ext4, 512, &["-q", "-b", "4096", "-O", "inline_data,ea_inode"], &[]),
        (FsType::Ext4, 512, &["-q", "-O", "metadata_csum_seed,orphan_file,bigalloc"], &[]),
        (FsType::Ext4, 512, &["-q", "-O", "^metadata_csum,^uninit_bg"], &[]),
        (FsType::Ext4, 4096, &["-q"], &[]),
        (FsType::Xfs, 4096, &["-q"], &[]),
        (FsType::Xfs, 512, &["-q", "-s", "size=4096", "-d", "agcount=3"], &["logbsize=256k"]),
        (FsType::Xfs, 512, &["-q", "-b", "size=1024", "-l", "version=2,su=64k", "-i", "nrext64=0"], &[]),
        (FsType::Xfs, 512, &["-q", "-m", "rmapbt=1,reflink=1,finobt=1"], &["logbsize=64k"]),
        (FsType::Btrfs, 4096, &["-q"], &[]),
        (FsType::Btrfs, 512, &["-q", "-n", "4096", "-m", "single"], &["compress=zstd"]),
        (FsType::Btrfs, 512, &["-q", "--mixed"], &[]),
    ];
    let here = file_systems();
    for (fs, sector, mkfs, flags) in SHAPES.iter().filter(|(fs, ..)| here.contains(fs)) {
        on_a_host(false, |host| async move {
            let source = Source::made(&host, *fs, *sector, mkfs, flags).await;
            let node = host.node();
            for (image, letter, expected) in
                [(&source.clean, 'c', &source.before), (&source.crashed, 'd', &source.after)]
            {
                let (disk, volume) = source.copied(&host, image, &format!("copy-{letter}"), letter);
                let volume = source.adopted(volume);
                for _ in 0..2 {
                    volume.stage(&node).await.unwrap();
                    assert!(content(&volume.staging) == *expected, "{fs} {mkfs:?}");
                    volume.unstage(&node).await.unwrap();
                    assert_eq!(
                        Image::open(disk.image()).uuid(),
                        FsUuid::of_disk(&volume.id),
                        "{fs} {mkfs:?}"
                    );
                    judge(*fs, disk.image());
                }
            }
        });
    }
}

/// Disks whose change by hand was cut off, or whose kind this driver does not change.
#[test]
fn what_cannot_be_changed_is_refused_with_what_to_do() {
    on_a_host(false, |host| async move {
        let source = host.disk("a", size(FsType::Xfs));
        let from = FsUuid::of_disk(&csi_udisk::volume::DiskId::parse("bs-source").unwrap());
        let to = FsUuid::of_disk(&csi_udisk::volume::DiskId::parse("bs-copy").unwrap());
        let device = source.device().to_str().unwrap();
        let image = Image::open(source.image());
        let able = |kind| restamp::steps(&image, kind, from, to).unwrap();
        for (features, what) in [
            ("^metadata_csum,uninit_bg", "group checksums"),
            ("^metadata_csum,^uninit_bg,ea_inode", "large attributes"),
            ("encrypt,stable_inodes", "encryption"),
        ] {
            run("mkfs.ext4", &["-q", "-F", "-O", features, "-U", &from.to_string(), device]);
            run("sync", &["-f", source.image().to_str().unwrap()]);
            let Err(Unable::ByHand { what: found, remedy }) = able(FsKind::Ext4) else {
                panic!("{features}")
            };
            assert!(found.contains(what) && remedy.contains(&to.to_string()), "{found}: {remedy}");
        }
        // An xfs whose last record has one operation, which is no unmount.
        run("mkfs.xfs", &["-q", "-f", "-m", &format!("uuid={from}"), device]);
        run("sync", &["-f", source.image().to_str().unwrap()]);
        let record = able(FsKind::Xfs).unwrap()[0][0].offset;
        image.write(&Write { offset: record + 512 + 9, bytes: vec![0] });
        assert_eq!(able(FsKind::Xfs), Err(Unable::Dirty));
        // And one whose checksum, of which there is none yet, does not fit.
        image.write(&Write { offset: record + 512 + 9, bytes: vec![0x20] });
        assert!(able(FsKind::Xfs).is_ok());
        image.write(&Write { offset: record + 32, bytes: vec![1] });
        assert!(matches!(able(FsKind::Xfs), Err(Unable::Damaged(_))));
        run("wipefs", &["-qa", device]);
        // Nothing of it depends on the UUID.
        run("mkfs.ext4", &["-q", "-F", "-O", "^metadata_csum,^uninit_bg", "-U", &from.to_string(), device]);
        run("sync", &["-f", source.image().to_str().unwrap()]);
        assert_eq!(able(FsKind::Ext4).unwrap().concat().len(), 1);
    });
}
