//! What counts as blank on a real disk, and what does not.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::FileExt as _;

use common::{Disk, SMALL, TestHost, Volume, file_systems, on_a_host, refused};
use csi_udisk::node::StageError;
use csi_udisk::node::linux::blank::NotBlank;
use csi_udisk::volume::{BlankSectors, FsType, Gib};

const MIB: u64 = 1 << 20;
/// What is filled of a disk.
const FILLED: u64 = 64 * MIB;

fn plugged(host: &TestHost, fs: FsType) -> (Disk, Volume) {
    let disk = host.disk("a", SMALL);
    host.plug("vdb", "UCLOUD_DISK_VDC", &disk);
    (disk, Volume::fs(host, "bs-1", fs, "vdc", Gib::new(0)))
}

/// A megabyte at the start is lost, as by a careless dd: the copies of the superblock are what is left to see.
#[test]
fn a_volume_that_lost_its_start_is_named_and_never_formatted() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, mut volume) = plugged(&host, fs);
            let node = host.node();
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            volume.unstage(&node).await.unwrap();
            disk.write(0, &vec![0; 1 << 20]);
            for sectors in [BlankSectors::Zero, BlankSectors::Noise] {
                volume.volume_context.blank = sectors;
                let error = refused(&node, &volume, &disk).await;
                let StageError::NotBlank { reason: NotBlank::Backup { name, .. }, .. } = &error else {
                    panic!("{fs}: {error}")
                };
                let kind = if matches!(fs, FsType::Ext3 | FsType::Ext4) { "ext" } else { fs.word() };
                assert!(name.contains(kind), "{fs}: {error}");
            }
        });
    }
}

/// A file system or a mapping wrote past the memory that the kernel has for the device, which stays while it is open.
#[test]
fn what_is_on_the_disk_counts_and_not_what_the_kernel_remembers() {
    on_a_host(false, |host| async move {
        let (disk, volume) = plugged(&host, FsType::Ext4);
        let place = 128 * MIB;
        let open = fs::File::open(disk.device()).unwrap();
        let mut remembered = [1; 4096];
        open.read_exact_at(&mut remembered, place).unwrap();
        let below = fs::OpenOptions::new().write(true).open(disk.image()).unwrap();
        below.write_all_at(b"somebody's", place).unwrap();
        below.sync_all().unwrap();
        open.read_exact_at(&mut remembered, place).unwrap();
        assert_eq!(remembered, [0; 4096], "the kernel's memory is not old");
        let error = refused(&host.node(), &volume, &disk).await;
        let StageError::NotBlank { reason: NotBlank::Data { offset }, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*offset, place);
    });
}

/// The same bytes on every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    bytes
}

#[test]
fn an_encrypted_disk_that_reads_as_noise_is_formatted_only_where_the_volume_says_so() {
    for fs in file_systems() {
        on_a_host(false, |host| async move {
            let (disk, volume) = plugged(&host, fs);
            let noise_of_a_disk = noise(4 << 20);
            for part in 0..FILLED / (4 * MIB) {
                disk.write(part * 4 * MIB, &noise_of_a_disk);
            }
            let node = host.node();
            let error = refused(&node, &volume, &disk).await;
            assert!(
                matches!(error, StageError::NotBlank { reason: NotBlank::Data { offset: 0 }, .. }),
                "{error}"
            );

            let mut volume = volume;
            volume.volume_context.blank = BlankSectors::Noise;
            // One readable block among the noise, and it is somebody's.
            disk.write(512 * 1024, &b"words of somebody ".repeat(228)[..4096]);
            let error = refused(&node, &volume, &disk).await;
            let text = matches!(error, StageError::NotBlank { reason: NotBlank::NotNoise { .. }, .. });
            assert!(text, "{error}");
            // A signature is never overridden.
            disk.write(512 * 1024, &noise(4096));
            disk.write(0, b"LUKS\xba\xbe\0\x02");
            let error = refused(&node, &volume, &disk).await;
            assert!(error.to_string().contains("LUKS"), "{error}");

            disk.write(0, &noise(4096));
            volume.stage(&node).await.unwrap();
            fs::write(volume.staging.join("file"), "content").unwrap();
            volume.unstage(&node).await.unwrap();
            volume.stage(&node).await.unwrap();
            assert_eq!(fs::read_to_string(volume.staging.join("file")).unwrap(), "content");
        });
    }
}
