//! The wrong-disk campaign: random histories of four volumes on two hosts with three slots each. Disks move behind the
//! driver's back, slots are used again, kernel names change, attachments are out of date, disks are copied by hand,
//! drivers restart, hosts reboot and lose their power. Whatever happens, a volume shows its own files or is refused, and
//! no byte of a refused disk changes.
//!
//! `CSI_UDISK_CAMPAIGN=2000` runs as many histories, `CSI_UDISK_CAMPAIGN_SEED=7` begins with that seed.
#![allow(clippy::unwrap_used)]

mod calls;
#[path = "../common/mod.rs"]
mod common;
mod content;
mod world;

use std::collections::BTreeMap;
use std::fs;

use common::{Disk, SMALL, TestHost, Volume, file_systems, on_a_host, report};
use csi_udisk::node::Node;
use csi_udisk::volume::{FsType, Gib, PublishContext};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const SIZE: u64 = SMALL;
const VOLUMES: usize = 4;
const HOSTS: usize = 2;
const SLOTS: [&str; 3] = ["vdb", "vdc", "vdd"];
const STEPS: usize = 60;
/// In every run of the tests; a long run is asked for by the variable.
const SHORT: u64 = 16;

#[allow(clippy::disallowed_methods, reason = "the settings of this test")]
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_history_shows_a_volume_the_files_of_another() {
    let (histories, first) = (setting("CSI_UDISK_CAMPAIGN", SHORT), setting("CSI_UDISK_CAMPAIGN_SEED", 1));
    let here = file_systems();
    let mut tally = Tally::default();
    for seed in first..first + histories {
        let (here, tally) = (here.clone(), &mut tally);
        on_a_host(false, move |host| async move {
            let mut history = History::new(seed, host, &here);
            for _ in 0..STEPS {
                history.step().await;
            }
            history.end().await;
            tally.add(&history.tally);
        });
    }
    report(&format!("wrong disk, {histories} histories from seed {first}: {tally:?}"));
    if tally.histories == 0 {
        return;
    }
    assert!(tally.slots_used_again * 2 >= tally.histories, "too few slots were used again: {tally:?}");
    assert!(
        tally.staged > tally.histories && tally.refused > 0 && tally.verified > tally.histories,
        "{tally:?}"
    );
    assert!(histories < SHORT || tally.power_cuts > 0, "no host lost its power: {tally:?}");
}

/// What the histories held, so that a campaign that tries nothing does not pass.
#[derive(Debug, Default)]
struct Tally {
    histories: u64,
    /// Histories in which a slot was used again for another volume.
    slots_used_again: u64,
    staged: u64,
    refused: u64,
    verified: u64,
    restarts: u64,
    /// Disks that were mounted for writing when their host lost its power.
    power_cuts: u64,
    unknowable: u64,
    /// Stagings that met the disk of another volume, or a copy of one, with a file system of the wanted kind.
    mistakable: u64,
}

impl Tally {
    fn add(&mut self, of: &Self) {
        self.histories += 1;
        self.slots_used_again += of.slots_used_again.min(1);
        self.staged += of.staged;
        self.refused += of.refused;
        self.verified += of.verified;
        self.restarts += of.restarts;
        self.power_cuts += of.power_cuts;
        self.unknowable += of.unknowable;
        self.mistakable += of.mistakable;
    }
}

/// A volume as the test knows it to be.
struct Truth {
    disk: Disk,
    fs: FsType,
    id: String,
    /// What its file system must hold, since its disk has promised to keep it; `None` before the first stage.
    files: Option<BTreeMap<String, Vec<u8>>>,
    /// The volume whose disk was copied over this one's.
    copy_of: Option<usize>,
    /// Host and slot.
    at: Option<(usize, usize)>,
    /// The publish contexts of this volume so far, the newest last, each with its host.
    contexts: Vec<(usize, PublishContext)>,
    /// The host on which it is staged, and whether it is published there.
    staged: Option<(usize, bool)>,
    size: u64,
}

struct Place {
    host: TestHost,
    node: Node,
    /// Kernel name and volume in each slot.
    slots: [Option<(String, usize)>; SLOTS.len()],
    /// The volume that each slot held last.
    held: [Option<usize>; SLOTS.len()],
}

struct History {
    seed: u64,
    rng: fastrand::Rng,
    hosts: Vec<Place>,
    volumes: Vec<Truth>,
    log: Vec<String>,
    tally: Tally,
}

impl Drop for History {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "CSI_UDISK_CAMPAIGN=1 CSI_UDISK_CAMPAIGN_SEED={} replays it:\n{}",
                self.seed,
                self.log.join("\n")
            );
        }
    }
}

impl History {
    fn new(seed: u64, first: TestHost, here: &[FsType]) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        // In memory, since every step waits for its writes. It is unmounted with the rest of the host.
        let none: Option<&str> = None;
        let options = Some("size=2g");
        mount(none, &first.path("images"), Some("tmpfs"), MsFlags::empty(), options).unwrap();
        // Disks with one file system are the easiest to mistake for each other.
        let all_alike = rng.u32(..3) > 0;
        let common_fs = here[rng.usize(..here.len())];
        let volumes = (0..VOLUMES)
            .map(|number| Truth {
                disk: first.disk(&format!("disk-{number}"), SIZE),
                fs: if all_alike { common_fs } else { here[rng.usize(..here.len())] },
                id: Volume::fs(&first, &format!("bs-{number}"), FsType::Ext4, "vdb", Gib::new(0))
                    .id
                    .to_string(),
                files: None,
                copy_of: None,
                at: None,
                contexts: Vec::new(),
                staged: None,
                size: SIZE,
            })
            .collect();
        let mut hosts = vec![first];
        hosts.extend((1..HOSTS).map(|_| TestHost::new()));
        let hosts = hosts
            .into_iter()
            .map(|host| Place {
                node: host.node(),
                host,
                slots: Default::default(),
                held: Default::default(),
            })
            .collect();
        Self { seed, rng, hosts, volumes, log: Vec::new(), tally: Tally::default() }
    }

    fn say(&mut self, what: String) {
        self.log.push(what);
    }

    async fn step(&mut self) {
        let volume = self.rng.usize(..VOLUMES);
        match self.rng.u32(..100) {
            0..24 => self.attach(volume),
            24..52 => self.stage(volume).await,
            52..58 => self.write(volume),
            58..62 => self.unstage(volume).await,
            62..66 => self.detach(volume),
            66..86 => {
                self.unstage(volume).await;
                self.detach(volume);
            }
            86..89 => self.rename(),
            89..93 => self.copy(volume),
            93..95 => self.grow(volume).await,
            95..97 => self.restart(),
            _ => self.reboot(),
        }
    }

    /// Everything is unmounted, and each disk is read by itself.
    async fn end(&mut self) {
        for number in 0..VOLUMES {
            self.unstage(number).await;
            let truth = &self.volumes[number];
            let Some(files) = truth.files.clone() else { continue };
            let at = self.hosts[0].host.path("look");
            fs::create_dir_all(&at).unwrap();
            let options: &str = if truth.fs == FsType::Xfs { "ro,nouuid" } else { "ro" };
            let (device, path) = (truth.disk.device().to_str().unwrap(), at.to_str().unwrap());
            common::run("mount", &["-t", truth.fs.word(), "-o", options, device, path]);
            let found = content::of_directory(&at);
            umount2(&at, MntFlags::empty()).unwrap();
            self.tally.verified += 1;
            assert_eq!(found, files, "the files of {number} at the end");
        }
    }
}
