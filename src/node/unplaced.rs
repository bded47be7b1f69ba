//! The disk of an attachment that does not say where it is.
//!
//! The plugin that this driver replaces left no slot with its VolumeAttachments, and those stay until their pods leave
//! the node. What is left to go by, best first:
//!
//! 1. A file system that is mounted at the staging path now. The kernel keeps a mounted disk's device, so as long as
//!    sysfs lists that device it is the disk that was mounted. Whether that was the right one, the mark on it tells. An
//!    unmarked one, which the other plugin mounted, proves less: that kubelet calls this path the volume's, and that the
//!    pods have been using this disk as the volume ever since. Refusing it would protect nothing and take a volume
//!    from its pods, so it is taken over, unless the cloud can be asked and says otherwise.
//! 2. The cloud's word, where the node may ask for it.
//! 3. This driver's mark on exactly one of the host's disks. A disk that does not answer could be a second one, copied by
//!    hand, so it must answer or leave. A blank disk has no mark and is never chosen, and neither is one for raw use.

use std::sync::Arc;

use tracing::info;

use super::Node;
use super::linux::candidates::{Candidate, Seen, is_disk};
use super::linux::device::OpenDevice;
use super::linux::error::HostError;
use super::linux::mountinfo::{Mounts, as_listed};
use super::linux::probe::FoundFs;
use super::linux::staged::{Backing, PathState};
use super::linux::sysfs::Serial;
use super::lookup::slot_of;
use super::plan::ContentRefused;
use super::stage::{StageError, StageRequest};
use crate::progress::Progress;
use crate::volume::{Access, DiskId, FsUuid, Gib, Mark};

/// The disk to stage.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) device: Arc<OpenDevice>,
    pub(super) by: LocatedBy,
}

/// What says that a disk is the volume's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocatedBy {
    /// Its place, by the cloud's word. It may be blank.
    Slot,
    /// The file system that was on it when it was found, so that must be there still.
    Content(FsUuid),
}

/// Why the disk of such an attachment is not used.
#[derive(Debug, thiserror::Error)]
#[error(
    "publish_context has no {missing:?}, so the attachment was made by another driver and does not say which disk of this \
     host is the volume's; {reason}. Nothing was written. {REMEDY}"
)]
pub struct Unplaced {
    pub missing: &'static str,
    pub reason: UnplacedReason,
}

const REMEDY: &str = "Delete the pod and its VolumeAttachment, so that this driver attaches the disk anew, or run the node \
                      plugin with --node-cloud-lookup, so that it asks the cloud";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnplacedReason {
    #[error("a raw block volume holds nothing that would tell its disk from others")]
    Block,
    #[error("no disk carries the mark of this driver for this volume (looked at: {looked})")]
    None { looked: String },
    /// It may be this very volume, at another path.
    #[error(
        "the mark of this driver for this volume is on {used} and nowhere else; it is staged once nothing uses it"
    )]
    InUse { used: String },
    #[error("{names} all carry the mark of this volume: all but one are copies, which must leave this host")]
    Several { names: String },
    #[error("{silent} did not answer and could be the volume's too (looked at: {looked})")]
    Silent { silent: String, looked: String },
}

impl Node {
    /// Finds the disk without a slot in the publish context, which lacks `missing`.
    pub(super) async fn locate_unplaced(
        &self,
        request: &StageRequest,
        missing: &'static str,
        progress: &Progress,
    ) -> Result<Located, StageError> {
        let mut mounted = None;
        if matches!(request.capability.access, Access::Mount(_)) {
            progress.set(format!("looking at what is mounted on {}", request.staging_path.display()));
            mounted = self.mounted_at_staging(request).await?;
            if let Some((device, uuid)) = &mounted
                && uuid.mark(&request.volume) == Mark::Ours
            {
                return Ok(Located { device: Arc::clone(device), by: LocatedBy::Content(*uuid) });
            }
        }
        if let Some(lookup) = &self.lookup {
            progress.set("asking the cloud where the disk is attached");
            let (slot, size) = slot_of(lookup.as_ref(), &request.volume).await?;
            info!(volume = %request.volume, %slot, "the cloud was asked for the place of a disk that another driver attached");
            progress.set(format!("waiting for the disk in slot {slot} to show up"));
            let device = Arc::new(self.host.locate(&slot, size).await?);
            return Ok(Located { device, by: LocatedBy::Slot });
        }
        if let Some((device, uuid)) = mounted {
            info!(
                volume = %request.volume, device = %device.path().display(), path = %request.staging_path.display(),
                "taking over what another driver mounted; its file system has no mark that proves whose it is"
            );
            return Ok(Located { device, by: LocatedBy::Content(uuid) });
        }
        let chosen = match request.capability.access {
            Access::Block => Err(UnplacedReason::Block),
            Access::Mount(_) => {
                progress.set("looking for the volume's mark on the disks of this host");
                let at_least = request.context.size.map_or(0, Gib::bytes);
                choose(&request.volume, self.host.candidates(at_least).await?)
            }
        };
        let device = chosen.map_err(|reason| Unplaced { missing, reason })?;
        info!(volume = %request.volume, device = %device.path().display(), "found by its mark alone");
        Ok(Located { device, by: LocatedBy::Content(FsUuid::of_disk(&request.volume)) })
    }

    /// The disk whose file system is mounted at the staging path, with that file system's UUID, which carries our mark or
    /// none. `None`: nothing is mounted there, or a disk that has left.
    async fn mounted_at_staging(
        &self,
        request: &StageRequest,
    ) -> Result<Option<(Arc<OpenDevice>, FsUuid)>, StageError> {
        let (host, path) = (self.host.clone(), request.staging_path.clone());
        let state = self.host.calls.run(move || host.state_at(&Mounts::read()?, &as_listed(&path))).await?;
        let PathState::Live { mount, backing: Backing::Fs(_), device } = state else { return Ok(None) };
        let occupied = |what: String| Err(StageError::Occupied { path: request.staging_path.clone(), what });
        let (name, fs) = (device.name.clone(), &mount.fs_type);
        if mount.root != std::path::Path::new("/") {
            return occupied(format!("{} of the {fs} on {name}", mount.root.display()));
        }
        if !is_disk(&name) || self.host.is_system_disk(&name).await? {
            return occupied(format!("{fs} of {name}, which is no disk that volumes are on,"));
        }
        match self.host.look_at(device).await {
            Seen::Fs(device, found) => {
                let adoption = &request.volume_context.adoption;
                let uuid = found.uuid;
                // A copy that is used read-only keeps its foreign mark.
                if uuid.mark(&request.volume) == Mark::OtherDisk && adoption.mark() != Some(uuid) {
                    let reason =
                        ContentRefused::OtherDisk { found: found.kind, uuid, adoption: adoption.clone() };
                    return Err(StageError::Content { device: device.path().to_owned(), reason });
                }
                Ok(Some((device, uuid)))
            }
            seen @ (Seen::Silent | Seen::Failed(_)) => {
                let error = std::io::Error::other(format!("{name} {}", shown(&request.volume, &seen)));
                let doing = format!("cannot look at what is mounted on {}", request.staging_path.display());
                Err(HostError::new(doing, error).into())
            }
            Seen::NoFs | Seen::System | Seen::InUse(..) | Seen::TooSmall(_) => {
                occupied(format!("{fs} of {name}, which shows no superblock of it,"))
            }
        }
    }
}

/// The one disk that carries the mark of `volume`.
fn choose(volume: &DiskId, candidates: Vec<Candidate>) -> Result<Arc<OpenDevice>, UnplacedReason> {
    let looked = looked(volume, &candidates);
    let is_ours = |found: &FoundFs| found.uuid.mark(volume) == Mark::Ours;
    let (mut ours, mut used, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for candidate in candidates {
        match candidate.seen {
            Seen::Fs(device, found) if is_ours(&found) => ours.push(device),
            Seen::InUse(users, Some((device, found))) if is_ours(&found) => {
                used.push(format!("{}, which is in use ({users}),", device.path().display()));
            }
            // An error is no answer either.
            Seen::Silent | Seen::Failed(_) => silent.push(candidate.name),
            Seen::Fs(..) | Seen::NoFs | Seen::System | Seen::InUse(..) | Seen::TooSmall(_) => {}
        }
    }
    let names = || {
        let free = ours.iter().map(|device| device.path().display().to_string());
        free.chain(used.iter().cloned()).collect::<Vec<_>>().join(" and ")
    };
    match (ours.as_slice(), used.is_empty(), silent.is_empty()) {
        ([device], true, true) => Ok(Arc::clone(device)),
        ([] | [_], true, false) | ([], false, false) => {
            Err(UnplacedReason::Silent { silent: silent.join(" and "), looked })
        }
        ([], true, true) => Err(UnplacedReason::None { looked }),
        ([], false, true) if used.len() == 1 => Err(UnplacedReason::InUse { used: names() }),
        ([_, ..], ..) | ([], false, true) => Err(UnplacedReason::Several { names: names() }),
    }
}

/// What was looked at, for a human.
fn looked(volume: &DiskId, candidates: &[Candidate]) -> String {
    let line = |candidate: &Candidate| {
        let serial = match &candidate.serial {
            Serial::Text(text) if !text.is_empty() => format!(" ({text})"),
            Serial::Text(_) | Serial::Silent | Serial::Unknown => String::new(),
        };
        format!("{}{serial} {}", candidate.name, shown(volume, &candidate.seen))
    };
    let lines: Vec<_> = candidates.iter().map(line).collect();
    if lines.is_empty() { "this host has no virtio or NVMe disk".to_owned() } else { lines.join("; ") }
}

fn shown(volume: &DiskId, seen: &Seen) -> String {
    match seen {
        Seen::System => "is the system disk".to_owned(),
        Seen::InUse(users, _) => format!("is in use: {users}"),
        Seen::TooSmall(bytes) => format!("has only {bytes} bytes"),
        Seen::Fs(_, found) => match found.uuid.mark(volume) {
            Mark::Ours => format!("holds {} with the mark of this volume", found.kind),
            Mark::OtherDisk => format!("holds {} with the mark of another volume", found.kind),
            Mark::None => format!("holds {} without a mark", found.kind),
        },
        Seen::NoFs => "holds no file system".to_owned(),
        Seen::Silent => "does not answer".to_owned(),
        Seen::Failed(reason) => reason.clone(),
    }
}
