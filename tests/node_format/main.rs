//! The note of a format: where it is, what it licenses, and what it does not.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod mounted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use common::{
    Disk, GIB, SMALL, SMALL_GIB, TestHost, Volume, check, file_systems, make, on_a_host, refused, report,
};
use csi_udisk::node::linux::blank::NotBlank;
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::linux::note::{LEAST_DISK, PLACE};
use csi_udisk::node::linux::remains::Foreign;
use csi_udisk::node::noted::NoteRefused;
use csi_udisk::node::plan::ContentRefused;
use csi_udisk::node::{Node, StageError};
use csi_udisk::volume::{Access, Adoption, BlankSectors, DiskId, FormatNote, FoundNote, FsType, Gib};

const MIB: u64 = 1 << 20;

fn plugged(host: &TestHost, fs: FsType, size: u64) -> (Disk, Volume) {
    let disk = host.disk("a", size);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB))
}

fn note_of(volume: &Volume, fs: FsType) -> FormatNote {
    FormatNote { disk: volume.id.clone(), fs }
}

fn has_note(disk: &Disk) -> bool {
    let found = disk.content().get(&PLACE).map(|block| FormatNote::decode(block[..512].try_into().unwrap()));
    matches!(found, Some(FoundNote::Note(_)))
}

/// Puts a note where it is while mkfs runs.
fn put(disk: &Disk, note: &FormatNote) {
    disk.write(PLACE, &note.encode());
}

/// The same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut generator = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| generator.u8(..)).take(length).collect()
}

async fn staged_holds(node: &Node, volume: &Volume, name: &str) {
    volume.stage(node).await.unwrap();
    assert_eq!(fs::read_to_string(volume.staging.join(name)).unwrap(), "content");
    volume.unstage(node).await.unwrap();
}

/// All around the note is filled, and mkfs and the first mount leave it as it was.
#[test]
fn no_mkfs_writes_at_the_place_of_the_note() {
    const AROUND: u64 = MIB;
    let noise = noise(1, 1 << 20);
    for fs in file_systems() {
        for gib in sizes(fs) {
            on_a_host(false, |host| {
                let noise = noise.clone();
                async move {
                    let (disk, volume) = plugged(&host, fs, gib * GIB);
                    disk.write(PLACE - AROUND, &noise);
                    disk.write(PLACE + 4096, &noise);
                    let around = |disk: &Disk| {
                        let mut content = disk.content();
                        content.retain(|offset, _| (PLACE - AROUND..PLACE + 4096 + AROUND).contains(offset));
                        content
                    };
                    let before = around(&disk);
                    assert_eq!(before.len() as u64, 2 * AROUND / 4096);
                    let node = host.node();
                    volume.stage(&node).await.unwrap();
                    volume.unstage(&node).await.unwrap();
                    assert!(around(&disk) == before, "{fs} of {gib} GiB");
                }
            });
        }
    }
}

/// Every size up to the usual ones, where the places of groups move most, and some large ones.
fn sizes(fs: FsType) -> Vec<u64> {
    let mut sizes: Vec<u64> = (3..=10).collect();
    // Ext3 writes all its inode tables, so the larger ones take long.
    let larger: &[u64] = if fs == FsType::Ext3 { &[20] } else { &[20, 100, 1024] };
    sizes.extend(larger);
    sizes
}

/// Polls a call a number of times and then drops it, as a process that is killed drops it between two system calls.
async fn cut_off<T>(call: impl Future<Output = T>, after: usize) -> Option<T> {
    let mut call = pin!(call);
    let mut polls = 0;
    std::future::poll_fn(move |context| {
        if polls == after {
            return Poll::Ready(None);
        }
        polls += 1;
        call.as_mut().poll(context).map(Some)
    })
    .await
}

/// Stages as kubelet does, with a driver that was started anew for each call.
async fn stage_until_done(host: &TestHost, volume: &Volume) {
    let start = tokio::time::Instant::now();
    while let Err(error) = volume.stage(&host.node()).await {
        assert!(start.elapsed() < Duration::from_secs(60), "does not converge: {error}");
    }
}

/// What the driver had begun ends, as it does when the process is killed in a system call; and so does its mkfs.
fn wait_for_lock(disk: &Disk) {
    let file = fs::File::open(disk.device()).unwrap();
    file.lock().unwrap();
}

#[test]
fn a_format_cut_off_between_any_two_steps_is_done_again_and_data_stays() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            // (a note, more than a note), where nothing was mounted yet.
            let mut seen = BTreeSet::new();
            let all = BTreeSet::from([(false, false), (true, false), (true, true), (false, true)]);
            // How often a call is polled differs from call to call, so some states come only with luck.
            let (mut polls, mut rounds) = (1, 0);
            while seen != all && rounds < 100 {
                rounds += 1;
                let disk = host.disk(&format!("a{rounds}"), SMALL);
                host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
                let volume = Volume::fs(&host, &format!("bs-{rounds}"), fs, "vdc", SMALL_GIB);
                let finished = cut_off(volume.stage(&host.node()), polls).await.is_some();
                polls = if finished { 1 } else { polls + 1 };
                wait_for_lock(&disk);
                if Mounts::read().unwrap().top(&volume.staging).is_none() {
                    let content = disk.content();
                    seen.insert((has_note(&disk), content.keys().any(|place| *place != PLACE)));
                }
                stage_until_done(&host, &volume).await;
                assert!(!has_note(&disk), "{fs}: mounted beneath a note");
                fs::write(volume.staging.join("file"), "content").unwrap();
                volume.unstage(&host.node()).await.unwrap();
                check(fs, &disk);
                staged_holds(&host.node(), &volume, "file").await;
                host.unplug("vdb");
            }
            report(&format!("mkfs of {fs}, cut off {rounds} times"));
            assert_eq!(seen, all, "{fs}");
        });
    }
}

/// All that a mkfs by hand writes, and of it what `keep` says.
fn make_parts(host: &TestHost, disk: &Disk, volume: &Volume, fs: FsType, keep: impl Fn(u64) -> bool) {
    let whole = host.passing_disk(SMALL);
    make(fs, whole.device(), Some(&note_of(volume, fs).uuid().to_string()));
    for (offset, block) in whole.content() {
        if keep(offset) {
            disk.write(offset, &block);
        }
    }
}

async fn is_made_again(host: &TestHost, disk: &Disk, volume: &Volume, fs: FsType) {
    volume.stage(&host.node()).await.unwrap();
    assert!(!has_note(disk));
    fs::write(volume.staging.join("file"), "content").unwrap();
    volume.unstage(&host.node()).await.unwrap();
    check(fs, disk);
    staged_holds(&host.node(), volume, "file").await;
}

/// What a power cut leaves of a mkfs that had come to its end: with the superblock, or without it.
#[test]
fn remains_of_a_noted_mkfs_are_made_again() {
    for fs in file_systems() {
        for (odd, sector) in [(0, 512), (1, 512), (0, 4096), (1, 4096)] {
            on_a_host(false, |host| async move {
                let image = host.disk("a", SMALL).image().to_owned();
                let disk = host.disk_with_sectors(&image, sector);
                host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
                let volume = Volume::fs(&host, "bs-1", fs, "vdc", SMALL_GIB);
                make_parts(&host, &disk, &volume, fs, |offset| offset / 4096 % 2 == odd);
                put(&disk, &note_of(&volume, fs));
                is_made_again(&host, &disk, &volume, fs).await;
            });
        }
    }
}

/// The zeros of an earlier removal lie among the noise, and what mkfs left.
#[test]
fn remains_are_made_again_where_blank_sectors_read_as_noise() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, mut volume) = plugged(&host, fs, SMALL);
            for part in 0..16 {
                disk.write(part * 4 * MIB, &noise(part, 4 << 20));
            }
            disk.write(PLACE, &noise(99, 4096));
            disk.write(MIB, &vec![0; 1 << 20]);
            make_parts(&host, &disk, &volume, fs, |offset| offset / 4096 % 3 > 0);
            put(&disk, &note_of(&volume, fs));
            let error = refused(&host.node(), &volume, &disk).await;
            let noise = matches!(error, StageError::NotRemains { reason: Foreign::Noise { .. }, .. });
            assert!(noise, "{error}");

            volume.volume_context.blank = BlankSectors::Noise;
            is_made_again(&host, &disk, &volume, fs).await;
        });
    }
}

#[test]
fn a_file_system_of_somebody_else_beneath_a_note_loses_only_the_note() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, SMALL);
            make(fs, disk.device(), None);
            // Never mounted; but not of the mkfs that was noted.
            let before = disk.content();
            put(&disk, &note_of(&volume, fs));
            for wanted in FsType::ALL.into_iter().filter(|wanted| *wanted != fs) {
                let error = refused(&host.node(), &volume.clone().with_fs(wanted), &disk).await;
                let named =
                    matches!(error, StageError::Content { reason: ContentRefused::WrongFs { .. }, .. });
                assert!(named, "{error}");
            }
            volume.stage(&host.node()).await.unwrap();
            assert!(!has_note(&disk));
            volume.unstage(&host.node()).await.unwrap();
            let uuid = |offset: u64, place: usize, content: &BTreeMap<u64, Vec<u8>>| {
                content[&offset][place..place + 16].to_vec()
            };
            let (offset, place) = match fs {
                FsType::Ext3 | FsType::Ext4 => (0, 1024 + 0x68),
                FsType::Xfs => (0, 32),
                FsType::Btrfs => (65536, 0x20),
            };
            assert_eq!(uuid(offset, place, &before), uuid(offset, place, &disk.content()), "{fs}: made anew");
        });
    }
}

#[test]
fn wrong_notes_license_nothing() {
    for fs in file_systems() {
        let other_fs = FsType::ALL.into_iter().find(|other| *other != fs).unwrap();
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, SMALL);
            let node = host.node();
            let own = note_of(&volume, fs);
            let other = FormatNote { disk: DiskId::parse("bs-other").unwrap(), fs };
            for with_remains in [false, true] {
                if with_remains {
                    // Without what names it.
                    make_parts(&host, &disk, &volume, fs, |offset| offset > 0 && offset != 65536);
                }
                put(&disk, &other);
                let error = refused(&node, &volume, &disk).await;
                let StageError::NotBlank { reason: NotBlank::Note { disk: named, .. }, .. } = &error else {
                    panic!("{error}")
                };
                assert_eq!(named, "bs-other");

                put(&disk, &note_of(&volume, other_fs));
                let error = refused(&node, &volume, &disk).await;
                let StageError::Content {
                    reason: ContentRefused::Noted(NoteRefused::WrongFs { noted, wanted }),
                    ..
                } = &error
                else {
                    panic!("{error}")
                };
                assert_eq!((*noted, *wanted), (other_fs, fs));

                for place in [0, 17, 30, 45, 300, 500] {
                    let mut damaged = own.encode();
                    damaged[place] ^= 0x10;
                    disk.write(PLACE, &damaged);
                    let error = refused(&node, &volume, &disk).await;
                    let StageError::NotBlank { reason, .. } = &error else { panic!("{error}") };
                    let named = match reason {
                        NotBlank::DamagedNote { .. } => place >= 16,
                        NotBlank::Data { .. } | NotBlank::Backup { .. } => place < 16,
                        NotBlank::Note { .. } | NotBlank::NotNoise { .. } | NotBlank::Unreadable { .. } => {
                            false
                        }
                    };
                    assert!(named, "{place}: {error}");
                }
            }
        });
    }
}

#[test]
fn what_somebody_wrote_beneath_a_note_is_named_and_left_alone() {
    on_a_host(false, |host| async move {
        let fs = FsType::Ext4;
        let (disk, volume) = plugged(&host, fs, SMALL);
        let node = host.node();
        put(&disk, &note_of(&volume, fs));
        let signatures: [(u64, &[u8], &str); 3] =
            [(0, b"LUKS\xba\xbe\0\x02", "LUKS"), (512, b"EFI PART", "GPT"), (510, &[0x55, 0xaa], "MBR")];
        for (offset, bytes, name) in signatures {
            disk.write(offset, bytes);
            let error = refused(&node, &volume, &disk).await;
            let other = matches!(
                &error,
                StageError::Content { reason: ContentRefused::Noted(NoteRefused::Other { .. }), .. }
            );
            let text = error.to_string();
            assert!(other && text.contains(name) && text.contains("ext4"), "{text}");
            disk.write(0, &[0; 4096]);
        }
        let text = b"a line of somebody's log\n".repeat(200);
        let mut used = vec![0; 4096];
        used[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        used[0x4c] = 1;
        used[0x68..0x78].copy_from_slice(&note_of(&volume, fs).uuid().to_bytes());
        used[0x34] = 1;
        let mut other = used.clone();
        other[0x68] ^= 1;
        type Is = fn(&Foreign) -> bool;
        let cases: [(u64, &[u8], Is); 6] = [
            (12 * 1024, &text[..4096], |reason| matches!(reason, Foreign::Text { .. })),
            (SMALL - 4096, &noise(3, 4096), |reason| matches!(reason, Foreign::Noise { .. })),
            (128 * MIB, &used, |reason| matches!(reason, Foreign::Mounted { .. })),
            (128 * MIB, &other, |reason| matches!(reason, Foreign::Copy { .. })),
            (SMALL / 4, b"XFSB", |reason| matches!(reason, Foreign::Copy { .. })),
            (64 * MIB + 64, b"_BHRfS_M", |reason| matches!(reason, Foreign::Copy { .. })),
        ];
        for (offset, bytes, is) in cases {
            disk.write(offset, bytes);
            let error = refused(&node, &volume, &disk).await;
            let StageError::NotRemains { reason, .. } = &error else { panic!("{offset}: {error}") };
            assert!(is(reason), "{offset}: {error}");
            disk.write(offset, &vec![0; bytes.len()]);
        }
        volume.stage(&node).await.unwrap();
    });
}

#[test]
fn beneath_a_note_nothing_is_staged_read_only_or_raw() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs, SMALL);
            let node = host.node();
            let mut raw = volume.clone();
            raw.capability.access = Access::Block;
            for with_fs in [false, true] {
                if with_fs {
                    make_parts(&host, &disk, &volume, fs, |_| true);
                }
                put(&disk, &note_of(&volume, fs));
                let error = refused(&node, &raw, &disk).await;
                let block = matches!(
                    &error,
                    StageError::Content { reason: ContentRefused::Noted(NoteRefused::Block(_)), .. }
                );
                assert!(block && error.to_string().contains(&format!("fsType {fs}")), "{error}");
                let error = refused(&node, &volume.clone().reader(), &disk).await;
                let read = matches!(
                    &error,
                    StageError::Content { reason: ContentRefused::Noted(NoteRefused::ReadOnly(_)), .. }
                );
                assert!(read, "{error}");
            }
            // The way out that both name.
            volume.stage(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            volume.clone().reader().stage(&node).await.unwrap();
            volume.unstage(&node).await.unwrap();
            // Another's note is as good as its mark: what is written here would be removed as remains.
            put(&disk, &FormatNote { disk: DiskId::parse("bs-other").unwrap(), fs });
            let error = refused(&node, &raw, &disk).await;
            let other = matches!(
                &error,
                StageError::Content { reason: ContentRefused::Noted(NoteRefused::OtherAsBlock { .. }), .. }
            );
            assert!(other && error.to_string().contains("adoptMarkOf: \"bs-other\""), "{error}");
            raw.volume_context.adoption = Adoption::parse("bs-other");
            raw.stage(&node).await.unwrap();
        });
    }
}

#[test]
fn a_disk_without_room_for_the_note_is_not_formatted() {
    on_a_host(false, |host| async move {
        let (disk, mut volume) = plugged(&host, FsType::Ext4, LEAST_DISK - MIB);
        volume.context.size = Some(Gib::new(2));
        let error = refused(&host.node(), &volume, &disk).await;
        assert!(
            matches!(error, StageError::Content { reason: ContentRefused::TooSmall { .. }, .. }),
            "{error}"
        );
        // What is there is used all the same.
        make(FsType::Ext4, disk.device(), None);
        volume.stage(&host.node()).await.unwrap();
    });
}
