//! Kubelet's calls, and what must hold after each of them.

use std::fs;

use csi_udisk::node::StageError;
use csi_udisk::volume::{FsType, Gib, PublishContext};

use crate::common::Volume;
use crate::content::{self, Picture};
use crate::{History, SIZE, SLOTS, VOLUMES};

const MIB: u64 = 1 << 20;

impl History {
    /// Kubelet's call, with the context of this attachment or of an older one.
    pub(crate) async fn stage(&mut self, number: usize) {
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
                self.tally.unknowable += 1;
                return;
            }
            // A copy in the slot of its source has the mark and the size of its source: the same.
            Some(other) if other != number && self.volumes[other].copy_of == Some(number) => {
                self.tally.unknowable += 1;
                return;
            }
            _ => {}
        }
        self.say(format!("stage {number} on host {host} by {}, which holds {inside:?}", SLOTS[slot]));
        let truth = &self.volumes[number];
        let alike = |other: usize| self.volumes[other].fs == truth.fs && self.volumes[other].files.is_some();
        let met = inside.is_some_and(|other| other != number && alike(other));
        self.tally.mistakable += u64::from(truth.staged.is_none() && (met || truth.copy_of.is_some()));
        let before: Vec<Option<u64>> = (0..VOLUMES).map(|other| self.fingerprint(other)).collect();
        // It waits for a disk to appear, and nobody needs to wait with it.
        if inside.is_none() {
            tokio::time::pause();
        }
        let answer = volume.stage(&self.hosts[host].node).await;
        if inside.is_none() {
            tokio::time::resume();
        }
        match answer {
            Ok(()) => self.check_staged(number, host, inside, &volume).await,
            Err(error) => self.check_refused(number, inside, &error, &before),
        }
    }

    async fn check_staged(&mut self, number: usize, host: usize, inside: Option<usize>, volume: &Volume) {
        self.tally.staged += 1;
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
            content::write_synced(&volume.staging.join("whose"), &text);
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
        self.tally.refused += 1;
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
        self.tally.verified += 1;
        let published = self.volumes[number].staged.is_some_and(|(_, published)| published);
        let volume = self.volume(number, host, PublishContext::default());
        let path = if published { &volume.target } else { &volume.staging };
        assert_eq!(
            &content::of_directory(path),
            self.volumes[number].files.as_ref().unwrap(),
            "the files of {number}"
        );
    }

    pub(crate) fn write(&mut self, number: usize) {
        let Some((host, _)) = self.volumes[number].staged else { return };
        let volume = self.volume(number, host, PublishContext::default());
        let name = format!("file-{}", self.rng.u32(..6));
        let mut bytes = vec![0; self.rng.usize(1..20_000)];
        self.rng.fill(&mut bytes);
        self.say(format!("write {name} of {number}"));
        content::write_synced(&volume.staging.join(&name), &bytes);
        self.volumes[number].files.as_mut().unwrap().insert(name, bytes);
        self.verify(number, host);
    }

    pub(crate) async fn unstage(&mut self, number: usize) {
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

    pub(crate) async fn grow(&mut self, number: usize) {
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

    pub(crate) fn volume(&self, number: usize, host: usize, context: PublishContext) -> Volume {
        let truth = &self.volumes[number];
        let place = &self.hosts[host].host;
        let mut volume = Volume::fs(place, &format!("bs-{number}"), truth.fs, "vdb", Gib::new(0));
        volume.id = csi_udisk::volume::DiskId::parse(&truth.id).unwrap();
        volume.context = context;
        volume
    }

    fn blank(&self, number: usize) -> bool {
        let truth = &self.volumes[number];
        truth.files.is_none() && truth.copy_of.is_none()
    }

    /// Of a disk that nobody has mounted.
    fn fingerprint(&self, number: usize) -> Option<u64> {
        let truth = &self.volumes[number];
        truth.staged.is_none().then(|| Picture::of(&truth.disk).hash())
    }
}
