//! The wrong-disk campaign: random histories of four volumes on two hosts with three slots each. Disks move behind the
//! driver's back, slots are used again, kernel names change, attachments are out of date, disks are copied by hand,
//! drivers restart and hosts reboot. Whatever happens, a volume shows its own files or is refused, and no byte of a
//! refused disk changes.
//!
//! `CSI_UDISK_CAMPAIGN=2000` runs as many histories, `CSI_UDISK_CAMPAIGN_SEED=7` begins with that seed.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{Disk, SMALL, TestHost, Volume, file_systems, on_a_host};
use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::node::{Node, StageError};
use csi_udisk::volume::{FsType, Gib, PublishContext};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const MIB: u64 = 1 << 20;
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
            tally.add(&history);
        });
    }
    println!("{histories} histories from seed {first}: {tally:?}");
    if tally.histories == 0 {
        return;
    }
    assert!(tally.slots_used_again * 2 >= tally.histories, "too few slots were used again: {tally:?}");
    assert!(
        tally.staged > tally.histories && tally.refused > 0 && tally.verified > tally.histories,
        "{tally:?}"
    );
}

/// What the histories held, so that a campaign that tries nothing does not pass.
#[derive(Debug, Default)]
struct Tally {
    histories: u64,
    slots_used_again: u64,
    staged: u64,
    refused: u64,
    verified: u64,
    restarts: u64,
    unknowable: u64,
    /// Stagings that met the disk of another volume, or a copy of one, with a file system of the wanted kind.
    mistakable: u64,
}

impl Tally {
    fn add(&mut self, history: &History) {
        self.histories += 1;
        self.slots_used_again += u64::from(history.slot_used_again);
        self.staged += history.staged;
        self.refused += history.refused;
        self.verified += history.verified;
        self.restarts += history.restarts;
        self.unknowable += history.unknowable;
        self.mistakable += history.mistakable;
    }
}

/// A volume as the test knows it to be.
struct Truth {
    disk: Disk,
    fs: FsType,
    id: String,
    /// What its file system must hold; `None` before the first stage.
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
    slot_used_again: bool,
    staged: u64,
    refused: u64,
    verified: u64,
    restarts: u64,
    unknowable: u64,
    mistakable: u64,
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
        Self {
            seed,
            rng,
            hosts,
            volumes,
            log: Vec::new(),
            slot_used_again: false,
            staged: 0,
            refused: 0,
            verified: 0,
            restarts: 0,
            unknowable: 0,
            mistakable: 0,
        }
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
            95..98 => self.restart(),
            _ => self.reboot(),
        }
    }

    /// The cloud attaches a disk that is free.
    fn attach(&mut self, volume: usize) {
        if self.volumes[volume].at.is_some() {
            return;
        }
        let host = self.rng.usize(..HOSTS);
        // The slot that another volume has just left is the interesting one.
        let free: Vec<usize> =
            (0..SLOTS.len()).filter(|slot| self.hosts[host].slots[*slot].is_none()).collect();
        let used =
            free.iter().copied().find(|slot| self.hosts[host].held[*slot].is_some_and(|held| held != volume));
        let Some(slot) = used.or_else(|| free.first().copied()) else { return };
        self.slot_used_again |= used.is_some();
        let name = self.free_name(host);
        self.say(format!("attach {volume} to host {host}, slot {}, as {name}", SLOTS[slot]));
        let place = &mut self.hosts[host];
        let serial = format!("UCLOUD_DISK_{}", SLOTS[slot].to_uppercase());
        place.host.plug(&name, &serial, &self.volumes[volume].disk);
        place.slots[slot] = Some((name, volume));
        place.held[slot] = Some(volume);
        let truth = &mut self.volumes[volume];
        truth.at = Some((host, slot));
        let context = PublishContext { device: Some(SLOTS[slot].to_owned()), size: Some(Gib::new(0)) };
        truth.contexts.push((host, context));
    }

    /// The kernel's letters follow no rule.
    fn free_name(&mut self, host: usize) -> String {
        let taken: Vec<&str> =
            self.hosts[host].slots.iter().flatten().map(|(name, _)| name.as_str()).collect();
        let free: Vec<char> = ('b'..'i').filter(|c| !taken.contains(&format!("vd{c}").as_str())).collect();
        format!("vd{}", free[self.rng.usize(..free.len())])
    }

    /// The cloud, or somebody in its console, takes a disk away that is not staged.
    fn detach(&mut self, volume: usize) {
        let truth = &self.volumes[volume];
        let (Some((host, slot)), None) = (truth.at, truth.staged) else { return };
        self.say(format!("detach {volume} from host {host}"));
        self.pull(host, slot);
    }

    fn pull(&mut self, host: usize, slot: usize) {
        let (name, volume) = self.hosts[host].slots[slot].take().unwrap();
        self.hosts[host].host.unplug(&name);
        self.volumes[volume].at = None;
    }

    /// After a restart of the host, for example.
    fn rename(&mut self) {
        let host = self.rng.usize(..HOSTS);
        for (slot, letter) in SLOTS.into_iter().enumerate() {
            let Some((name, volume)) = self.hosts[host].slots[slot].clone() else { continue };
            if self.volumes[volume].staged.is_some() {
                continue;
            }
            let new = self.free_name(host);
            self.say(format!("{name} on host {host} becomes {new}"));
            let place = &mut self.hosts[host];
            place.host.unplug(&name);
            place.host.plug(
                &new,
                &format!("UCLOUD_DISK_{}", letter.to_uppercase()),
                &self.volumes[volume].disk,
            );
            place.slots[slot] = Some((new, volume));
        }
    }

    /// Kubelet's call, with the context of this attachment or of an older one.
    async fn stage(&mut self, number: usize) {
        let truth = &self.volumes[number];
        if truth.contexts.is_empty() {
            return;
        }
        let newest = truth.contexts.len() - 1;
        let chosen = if self.rng.bool() { self.rng.usize(..=newest) } else { newest };
        let (host, context) = truth.contexts[chosen].clone();
        if truth.staged.is_some_and(|(other, _)| other != host) {
            // Kubernetes does not stage on a second host before the first is done.
            return;
        }
        let slot = SLOTS.iter().position(|slot| context.device.as_deref() == Some(*slot)).unwrap();
        let inside = self.hosts[host].slots[slot].as_ref().map(|(_, volume)| *volume);
        let volume = self.volume(number, host, context);
        match inside {
            // A blank disk in the slot of another blank disk: no node can tell them apart, and the README says so.
            Some(other) if other != number && self.blank(other) => {
                self.unknowable += 1;
                return;
            }
            // A copy in the slot of its source has the mark and the size of its source: the same.
            Some(other) if other != number && self.volumes[other].copy_of == Some(number) => {
                self.unknowable += 1;
                return;
            }
            // It waits for the disk; that is tried with a clock that need not be waited for.
            None if truth.staged.is_none() => {
                self.say(format!("stage {number} on host {host}, whose {} is empty", SLOTS[slot]));
                tokio::time::pause();
                let refused = volume.stage(&self.hosts[host].node).await;
                tokio::time::resume();
                assert!(refused.is_err(), "{number} was staged without a disk");
                self.refused += 1;
                return;
            }
            _ => {}
        }
        self.say(format!("stage {number} on host {host} by {}, which holds {inside:?}", SLOTS[slot]));
        let truth = &self.volumes[number];
        let alike = |other: usize| self.volumes[other].fs == truth.fs && self.volumes[other].files.is_some();
        let met = inside.is_some_and(|other| other != number && alike(other));
        self.mistakable += u64::from(truth.staged.is_none() && (met || truth.copy_of.is_some()));
        let before: Vec<Option<u64>> = (0..VOLUMES).map(|other| self.fingerprint(other)).collect();
        match volume.stage(&self.hosts[host].node).await {
            Ok(()) => self.check_staged(number, host, inside, &volume).await,
            Err(error) => self.check_refused(number, inside, &error, &before),
        }
    }

    async fn check_staged(&mut self, number: usize, host: usize, inside: Option<usize>, volume: &Volume) {
        self.staged += 1;
        let truth = &mut self.volumes[number];
        // Staged before, it may stay so whatever the slot of a stale attachment holds.
        if truth.staged.is_none() {
            assert_eq!(inside, Some(number), "{number} was staged from another's slot");
            assert_eq!(truth.copy_of, None, "{number} was staged with another's files");
        }
        let published = truth.staged.is_some_and(|(_, published)| published);
        truth.staged = Some((host, published));
        let first = truth.files.is_none();
        let files = truth.files.get_or_insert_default();
        if first {
            let text = truth.id.clone().into_bytes();
            fs::write(volume.staging.join("whose"), &text).unwrap();
            files.insert("whose".to_owned(), text);
        }
        if !published && self.rng.bool() {
            volume.publish(&self.hosts[host].node, false).await.unwrap();
            self.volumes[number].staged = Some((host, true));
        }
        self.verify(number, host);
    }

    fn check_refused(
        &mut self,
        number: usize,
        inside: Option<usize>,
        error: &StageError,
        before: &[Option<u64>],
    ) {
        self.refused += 1;
        let truth = &self.volumes[number];
        assert!(
            inside != Some(number) || truth.copy_of.is_some(),
            "{number} is in its slot, whole, and was refused: {error}"
        );
        for (other, before) in before.iter().enumerate() {
            assert_eq!(
                self.fingerprint(other),
                *before,
                "disk {other} changed although {number} was refused: {error}"
            );
        }
        self.say(format!("refused: {error}"));
    }

    /// What the file system shows is what was written to this volume.
    fn verify(&mut self, number: usize, host: usize) {
        self.verified += 1;
        let published = self.volumes[number].staged.is_some_and(|(_, published)| published);
        let volume = self.volume(number, host, PublishContext::default());
        let path = if published { &volume.target } else { &volume.staging };
        assert_eq!(&read_files(path), self.volumes[number].files.as_ref().unwrap(), "the files of {number}");
    }

    fn write(&mut self, number: usize) {
        let Some((host, _)) = self.volumes[number].staged else { return };
        let volume = self.volume(number, host, PublishContext::default());
        let name = format!("file-{}", self.rng.u32(..6));
        let mut bytes = vec![0; self.rng.usize(1..20_000)];
        self.rng.fill(&mut bytes);
        self.say(format!("write {name} of {number}"));
        fs::write(volume.staging.join(&name), &bytes).unwrap();
        self.volumes[number].files.as_mut().unwrap().insert(name, bytes);
        self.verify(number, host);
    }

    async fn unstage(&mut self, number: usize) {
        let Some((host, published)) = self.volumes[number].staged else { return };
        self.say(format!("unstage {number} on host {host}"));
        let volume = self.volume(number, host, PublishContext::default());
        let node = self.hosts[host].node.clone();
        if published {
            volume.unpublish(&node).await.unwrap();
        }
        volume.unstage(&node).await.unwrap();
        fs::create_dir_all(&volume.staging).unwrap();
        self.volumes[number].staged = None;
    }

    /// Somebody clones one disk onto another with dd.
    fn copy(&mut self, from: usize) {
        let to = self.rng.usize(..VOLUMES);
        let idle = |volume: &Truth| volume.staged.is_none();
        let (source, target) = (&self.volumes[from], &self.volumes[to]);
        // On one kernel, the members of one btrfs on two devices are its own affair, which other tests look at.
        if from == to
            || !idle(source)
            || !idle(target)
            || source.files.is_none()
            || source.fs == FsType::Btrfs
        {
            return;
        }
        if source.copy_of.is_some() || target.size != source.size {
            return;
        }
        self.say(format!("copy disk {from} over disk {to}"));
        let image = fs::OpenOptions::new().write(true).open(self.volumes[to].disk.device()).unwrap();
        for (offset, bytes) in blocks(self.volumes[to].disk.device()) {
            image.write_all_at(&vec![0; bytes.len()], offset).unwrap();
        }
        for (offset, bytes) in blocks(self.volumes[from].disk.device()) {
            image.write_all_at(&bytes, offset).unwrap();
        }
        image.sync_all().unwrap();
        let target = &mut self.volumes[to];
        target.copy_of = Some(from);
        target.files = None;
    }

    async fn grow(&mut self, number: usize) {
        if self.volumes[number].size > SIZE {
            return;
        }
        let size = SIZE + 128 * MIB;
        self.say(format!("grow {number}"));
        self.volumes[number].disk.grow(size);
        self.volumes[number].size = size;
        // Grown while it is mounted only where that needs no right that this machine may lack; else at the next stage.
        let (Some((host, true)), FsType::Xfs | FsType::Btrfs) =
            (self.volumes[number].staged, self.volumes[number].fs)
        else {
            return;
        };
        let volume = self.volume(number, host, PublishContext::default());
        volume.expand(&self.hosts[host].node, size).await.unwrap();
        self.verify(number, host);
    }

    /// The driver forgets everything.
    fn restart(&mut self) {
        let host = self.rng.usize(..HOSTS);
        self.say(format!("restart the driver of host {host}"));
        self.restarts += 1;
        let place = &mut self.hosts[host];
        place.node = place.host.node();
    }

    /// The host forgets everything, mounts too.
    fn reboot(&mut self) {
        let host = self.rng.usize(..HOSTS);
        self.say(format!("reboot host {host}"));
        let dir = self.hosts[host].host.dir().to_owned();
        let mounts: Vec<PathBuf> = Mounts::read()
            .unwrap()
            .iter()
            .map(|mount| mount.mount_point.clone())
            .filter(|path| path.starts_with(dir.join("kubelet")))
            .collect();
        for path in mounts.iter().rev() {
            umount2(path, MntFlags::empty()).unwrap();
        }
        for volume in &mut self.volumes {
            if volume.staged.is_some_and(|(at, _)| at == host) {
                volume.staged = None;
            }
        }
        self.restart_of(host);
    }

    fn restart_of(&mut self, host: usize) {
        let place = &mut self.hosts[host];
        place.node = place.host.node();
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
            let found = read_files(&at);
            umount2(&at, MntFlags::empty()).unwrap();
            self.verified += 1;
            assert_eq!(found, files, "the files of {number} at the end");
        }
    }

    fn blank(&self, number: usize) -> bool {
        let truth = &self.volumes[number];
        truth.files.is_none() && truth.copy_of.is_none()
    }

    /// Of a disk that nobody has mounted.
    fn fingerprint(&self, number: usize) -> Option<u64> {
        let truth = &self.volumes[number];
        if truth.staged.is_some() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        for (offset, bytes) in blocks(truth.disk.device()) {
            hasher.write_u64(offset);
            hasher.write(&bytes);
        }
        Some(hasher.finish())
    }

    fn volume(&self, number: usize, host: usize, context: PublishContext) -> Volume {
        let truth = &self.volumes[number];
        let place = &self.hosts[host].host;
        let mut volume = Volume::fs(place, &format!("bs-{number}"), truth.fs, "vdb", Gib::new(0));
        volume.id = csi_udisk::volume::DiskId::parse(&truth.id).unwrap();
        volume.context = context;
        volume
    }
}

fn read_files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// The pieces of a disk that are not zero, read from the device. Where its image has holes, nothing was written.
fn blocks(device: &Path) -> Vec<(u64, Vec<u8>)> {
    const BLOCK: usize = 64 << 10;
    let name = device.file_name().unwrap().to_str().unwrap();
    let image = fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap();
    let device = fs::File::open(device).unwrap();
    let image = fs::File::open(image.trim()).unwrap();
    // What is still only in the device's cache goes to the image, so that its holes are where nothing was written.
    nix::unistd::fsync(&device).unwrap();
    let mut pieces = Vec::new();
    let mut offset = 0;
    while let Ok(data) = nix::unistd::lseek64(&image, offset, nix::unistd::Whence::SeekData) {
        let hole = nix::unistd::lseek64(&image, data, nix::unistd::Whence::SeekHole).unwrap();
        let mut at = u64::try_from(data).unwrap();
        let end = u64::try_from(hole).unwrap();
        while at < end {
            let mut bytes = vec![0; BLOCK.min(usize::try_from(end - at).unwrap())];
            device.read_exact_at(&mut bytes, at).unwrap();
            let length = bytes.len();
            if bytes.iter().any(|byte| *byte != 0) {
                pieces.push((at, bytes));
            }
            at += u64::try_from(length).unwrap();
        }
        offset = hole;
    }
    pieces
}
