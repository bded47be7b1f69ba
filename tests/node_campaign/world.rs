//! What happens to the disks and the hosts without the driver's doing.

use std::path::PathBuf;

use csi_udisk::node::linux::mountinfo::Mounts;
use csi_udisk::volume::{FsType, Gib, PublishContext};
use nix::mount::{MntFlags, umount2};

use crate::content::{self, Picture};
use crate::{HOSTS, History, SLOTS, Truth, VOLUMES, common};

impl History {
    /// The cloud attaches a disk that is free.
    pub(crate) fn attach(&mut self, volume: usize) {
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
        self.tally.slots_used_again += u64::from(used.is_some());
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
    pub(crate) fn detach(&mut self, volume: usize) {
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
    pub(crate) fn rename(&mut self) {
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

    /// Somebody clones one disk onto another with dd.
    pub(crate) fn copy(&mut self, from: usize) {
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
        Picture::of(&self.volumes[from].disk).put_on(&self.volumes[to].disk);
        let target = &mut self.volumes[to];
        target.copy_of = Some(from);
        target.files = None;
    }

    /// The driver forgets everything.
    pub(crate) fn restart(&mut self) {
        let host = self.rng.usize(..HOSTS);
        self.say(format!("restart the driver of host {host}"));
        self.tally.restarts += 1;
        self.restart_of(host);
    }

    /// The host forgets everything, mounts too, and one that loses its power all that its disks had not promised.
    pub(crate) fn reboot(&mut self) {
        let host = self.rng.usize(..HOSTS);
        let power_cut = self.rng.bool();
        self.say(format!("reboot host {host}{}", if power_cut { " by a power cut" } else { "" }));
        let staged: Vec<usize> = (0..VOLUMES)
            .filter(|number| self.volumes[*number].staged.is_some_and(|(at, _)| at == host))
            .collect();
        let mut left = Vec::new();
        if power_cut {
            for number in staged.iter().copied() {
                content::write_unsynced(&self.volume(number, host, PublishContext::default()).staging);
                left.push((number, Picture::of_moment(&self.volumes[number].disk)));
            }
        }
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
        for number in staged {
            self.volumes[number].staged = None;
        }
        for (number, picture) in left {
            self.tally.power_cuts += 1;
            let truth = &self.volumes[number];
            picture.put_on(&truth.disk);
            if truth.fs == FsType::Btrfs {
                // The kernel of this machine did not reboot, and remembers a newer state of it.
                common::run("btrfs", &["device", "scan", "--forget", truth.disk.device().to_str().unwrap()]);
            }
        }
        self.restart_of(host);
    }

    fn restart_of(&mut self, host: usize) {
        let place = &mut self.hosts[host];
        place.node = place.host.node();
    }
}
