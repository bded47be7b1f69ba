//! The power goes at any moment of a format: what the disk had not yet promised to keep is there or not, as it likes.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/faulty.rs"]
mod faulty;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use common::{Disk, SMALL, SMALL_GIB, TestHost, Volume, check, file_systems, make, on_a_host, report, run};
use csi_udisk::node::linux::note::PLACE;
use csi_udisk::volume::{FormatNote, FoundNote, FsType};
use faulty::{Faulty, Kept};
use nix::fcntl::{FallocateFlags, fallocate};

/// Moments at which the power goes, of each recorded format, beside those around the note.
const MOMENTS: usize = 4;
/// What file systems expect to be there whole or not at all.
const BLOCK: usize = 4096;

#[test]
fn a_faulty_disk_does_what_it_is_told() {
    if faulty::serve_if_asked() || !faulty::is_possible() {
        return;
    }
    on_a_host(false, |host| async move {
        let (faulty, disk) = Faulty::recorded(&host, "a", SMALL);
        let start = faulty.record().len();
        disk.write(8192, &[7; BLOCK]);
        disk.write(0, &[9; BLOCK]);
        let write = |offset, byte| Kept::Write { offset, bytes: vec![byte; BLOCK] };
        let expected = [write(8192, 7), Kept::Flush, write(0, 9), Kept::Flush];
        assert!(faulty.record()[start..] == expected, "the record is another");
    });
}

fn write_sparse(image: &File, offset: u64, bytes: &[u8]) {
    if bytes.iter().any(|byte| *byte != 0) {
        return image.write_all_at(bytes, offset).unwrap();
    }
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(image, hole, i64::try_from(offset).unwrap(), i64::try_from(bytes.len()).unwrap()).unwrap();
}

/// A blank image of a disk.
fn image(path: &Path) -> File {
    let image = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    image.set_len(SMALL).unwrap();
    image
}

/// What was recorded of a volume's first stage.
struct Recorded {
    volume: Volume,
    all: Vec<Kept>,
    /// Where the stage begins.
    start: usize,
    /// From here on a file is on the disk for good.
    promised: usize,
}

/// Stages a blank disk, or what an earlier mkfs left on one, and uses the volume.
async fn recorded(host: &TestHost, fs: FsType, again: bool) -> Recorded {
    let (faulty, disk) = Faulty::recorded(host, "recorded", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    let volume = Volume::fs(host, "bs-1", fs, "vdc", SMALL_GIB);
    if again {
        let note = FormatNote { disk: volume.id.clone(), fs };
        let earlier = host.passing_disk(SMALL);
        make(fs, earlier.device(), Some(&note.uuid().to_string()));
        for (offset, block) in earlier.content() {
            if offset / 4096 % 3 > 0 {
                disk.write(offset, &block);
            }
        }
        disk.write(PLACE, &note.encode());
    }
    let start = faulty.record().len();
    let node = host.node();
    volume.stage(&node).await.unwrap();
    fs::write(volume.staging.join("file"), "content").unwrap();
    File::open(volume.staging.join("file")).unwrap().sync_all().unwrap();
    File::open(&volume.staging).unwrap().sync_all().unwrap();
    let promised = faulty.record().len();
    volume.unstage(&node).await.unwrap();
    let all = faulty.record();
    host.unplug("vdb");
    faulty.end();
    Recorded { volume, all, start, promised }
}

fn has_note(disk: &Disk) -> bool {
    let mut sector = [0; FormatNote::LENGTH];
    File::open(disk.image()).unwrap().read_exact_at(&mut sector, PLACE).unwrap();
    matches!(FormatNote::decode(&sector), FoundNote::Note(_))
}

/// What the disk has when the power goes at each of some moments, which `judge` is given with that moment.
async fn when_the_power_goes(
    host: &TestHost,
    of: &Recorded,
    rng: &mut fastrand::Rng,
    mut judge: impl AsyncFnMut(usize, &Path),
) {
    let all = of.all.len();
    let is_note = |kept: &Kept| matches!(kept, Kept::Write { offset, .. } if *offset == PLACE);
    // Right before and after the note comes and goes, before that is promised.
    let notes = (of.start..all).filter(|at| is_note(&of.all[*at])).flat_map(|at| [at, at + 1]);
    let mut moments: BTreeSet<usize> = notes.collect();
    for _ in 0..MOMENTS {
        let moment = rng.usize(of.start..=all);
        // Half of them right before a promise, when most is open.
        let flush = of.all[moment..].iter().position(|kept| *kept == Kept::Flush).unwrap_or(0);
        moments.insert(if rng.bool() { moment } else { moment + flush });
    }
    let sure = image(&host.path("images/sure"));
    let mut applied = 0;
    for moment in moments {
        let flushed = of.all[..moment].iter().rposition(|kept| *kept == Kept::Flush).unwrap_or(0);
        for kept in &of.all[applied..flushed.max(applied)] {
            if let Kept::Write { offset, bytes } = kept {
                write_sparse(&sure, *offset, bytes);
            }
        }
        applied = flushed.max(applied);
        let path = host.path("images/cut");
        run("cp", &["--sparse=always", host.path("images/sure").to_str().unwrap(), path.to_str().unwrap()]);
        let cut = OpenOptions::new().write(true).open(&path).unwrap();
        // Nothing of it, all of it, or any of it.
        let chance = *rng.choice(&[0.0, 0.2, 0.8, 1.0]).unwrap();
        for kept in &of.all[flushed..moment] {
            let Kept::Write { offset, bytes } = kept else { continue };
            for (block, offset) in bytes.chunks(BLOCK).zip((*offset..).step_by(BLOCK)) {
                if rng.f64() < chance {
                    write_sparse(&cut, offset, block);
                }
            }
        }
        judge(moment, &path).await;
    }
}

#[test]
fn whenever_the_power_goes_the_format_is_done_again_and_what_was_promised_is_there() {
    if !faulty::is_possible() {
        return;
    }
    for fs in file_systems() {
        for again in [false, true] {
            let seed = fastrand::u64(..);
            on_a_host(false, |host| async move {
                let of = recorded(&host, fs, again).await;
                let (host, volume) = (&host, &of.volume);
                let mut noted = 0;
                let judge = async |moment: usize, path: &Path| {
                    let what = format!(
                        "{fs}, again: {again}, seed {seed}, moment {moment} of {}..{}",
                        of.start,
                        of.all.len()
                    );
                    let disk = TestHost::passing_disk_of(path);
                    noted += u32::from(has_note(&disk));
                    // Another host, another name.
                    host.plug("vdq", "UCLOUD_DISK_VDC", &disk);
                    let node = host.node();
                    // mkfs.btrfs refuses a UUID that it was told of in the last two seconds, also of a device that was.
                    let start = tokio::time::Instant::now();
                    while let Err(error) = volume.stage(&node).await {
                        assert!(start.elapsed() < Duration::from_secs(60), "{what}: {error}");
                        assert!(error.to_string().contains("non-unique UUID"), "{what}: {error}");
                    }
                    assert!(!has_note(&disk), "{what}: mounted beneath a note");
                    if moment >= of.promised {
                        assert_eq!(
                            fs::read_to_string(volume.staging.join("file")).unwrap(),
                            "content",
                            "{what}"
                        );
                    }
                    volume.unstage(&node).await.unwrap();
                    check(fs, &disk);
                    host.unplug("vdq");
                };
                let mut rng = fastrand::Rng::with_seed(seed);
                when_the_power_goes(host, &of, &mut rng, judge).await;
                report(&format!(
                    "power cut in a format, {fs}, again: {again}: {} writes and flushes, {noted} moments with a note, seed {seed}",
                    of.all.len() - of.start
                ));
            });
        }
    }
}
