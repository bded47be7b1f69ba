//! Stage: the proven disk of the volume, mounted (or bound) at the staging path.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use super::Node;
use super::linux::Host;
use super::linux::blank::NotBlank;
use super::linux::candidates::is_disk;
use super::linux::device::{LocateError, OpenDevice, UseError};
use super::linux::error::HostError;
use super::linux::format::FormatError;
use super::linux::fsck::CheckError;
use super::linux::grow::GrowError;
use super::linux::mount::{self, PathError, UnmountError};
use super::linux::mountinfo::{Mount, Mounts, as_listed};
use super::linux::note;
use super::linux::options::OptionError;
use super::linux::probe::probe_fs;
use super::linux::remains::Foreign;
use super::linux::restamp::RestampError;
use super::linux::staged::{Backing, PathState};
use super::linux::sysfs::BlockDevice;
use super::lookup::LookupError;
use super::noted;
use super::observe::Step;
use super::paths::{self, PathRefused};
use super::plan::{self, ContentRefused};
use super::unplaced::{Located, LocatedBy, Unplaced};
use crate::progress::Progress;
use crate::volume::slot::SlotError;
use crate::volume::{Access, Capability, DiskId, FsType, Gib, PublishContext, Slot, VolumeContext};

/// What to stage where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageRequest {
    pub volume: DiskId,
    pub staging_path: PathBuf,
    pub capability: Capability,
    pub context: PublishContext,
    pub volume_context: VolumeContext,
}

/// Why a volume is not staged.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error(transparent)]
    Path(#[from] PathRefused),
    #[error(transparent)]
    Options(#[from] OptionError),
    #[error(transparent)]
    Unplaced(#[from] Unplaced),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("publish_context key {:?}: {reason}", PublishContext::DEVICE)]
    Slot { reason: SlotError },
    #[error(transparent)]
    Locate(#[from] LocateError),
    #[error(transparent)]
    Use(#[from] UseError),
    #[error("{path} has {what} mounted on it, which is not this volume; unmount it", path = .path.display())]
    Occupied { path: PathBuf, what: String },
    #[error("the volume is staged at {path} already, {how}; unstage it first", path = .path.display())]
    Incompatible { path: PathBuf, how: String },
    #[error("the disk {device} is not used: {reason}", device = .device.display())]
    Content { device: PathBuf, reason: ContentRefused },
    #[error("the disk {device} is not formatted: {reason}, so it is not blank, and holds nothing known", device = .device.display())]
    NotBlank { device: PathBuf, reason: NotBlank },
    #[error(
        "the disk {device} is not formatted: making {noted} on it was cut off, says a note of this driver, but {reason}; somebody \
         wrote to it since", device = .device.display()
    )]
    NotRemains { device: PathBuf, noted: FsType, reason: Foreign },
    #[error(
        "what the disk {device} holds was changed by somebody while it waited for its turn to be formatted; it was left as it \
         is, and the next attempt decides anew", device = .device.display()
    )]
    Changed { device: PathBuf },
    #[error(
        "the disk {device} refuses writes on this host, so the volume cannot be used for writing; if nobody wants that, run \
         blockdev --setrw {device} on this host, and look at the disk in the cloud's console if that does not help. Nothing was \
         changed", device = .0.display()
    )]
    WriteProtected(PathBuf),
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error(
        "the disk in slot {device} carries the mark of another UDisk, and the cloud says that the volume is in slot {slot} now; \
         the mark was not replaced, nor anything else changed. Delete the pod and its VolumeAttachment, so that the disk is \
         attached anew"
    )]
    OtherSlot { device: String, slot: Slot },
    #[error(transparent)]
    Restamp(#[from] RestampError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("before the mount: {0}")]
    GrowUnmounted(GrowError),
    #[error("after the mount: {0}")]
    GrowMounted(GrowError),
    #[error("{error}; {remedy}", error = .0, remedy = remedy(.0))]
    Mount(HostError),
    #[error("what was mounted on {path} is not the disk that was checked; it was unmounted again", path = .0.display())]
    MountedOther(PathBuf),
    /// Its caller must not take it that nothing is there, and detach the disk.
    #[error("{error}. A disk is mounted on {path} since an earlier call", path = .path.display())]
    StillMounted { path: PathBuf, error: Box<StageError> },
    #[error(transparent)]
    MountPoint(#[from] PathError),
    #[error(transparent)]
    Unmount(#[from] UnmountError),
    #[error(transparent)]
    Host(#[from] HostError),
}

fn remedy(error: &HostError) -> &'static str {
    if error.is_damage() {
        "the file system is damaged, and not mounted. Repair it by hand, with a snapshot of the disk to fall back on; \
         the kernel's log on this host says what is wrong with it"
    } else {
        "the kernel's log on this host says more"
    }
}

/// A staged volume, for publish.
#[derive(Debug)]
pub(super) struct Staged {
    /// What to bind to the target: the staging path, or the file in it with the device.
    pub(super) source: PathBuf,
    pub(super) backing: Backing,
    pub(super) read_only: bool,
}

/// Where the controller says that the disk is.
enum Place {
    Slot(Slot, Gib),
    /// It does not say it: another driver's attachment. This driver's carry both keys.
    Unknown {
        missing: &'static str,
    },
}

fn place(context: &PublishContext) -> Result<Place, StageError> {
    let Some(device) = context.device.as_deref() else {
        return Ok(Place::Unknown { missing: PublishContext::DEVICE });
    };
    let Some(size) = context.size else {
        return Ok(Place::Unknown { missing: PublishContext::SIZE });
    };
    Ok(Place::Slot(Slot::parse(device).map_err(|reason| StageError::Slot { reason })?, size))
}

impl Node {
    /// Stages a volume. Where that was done already, it proves that it still holds.
    pub async fn stage(&self, request: StageRequest, progress: &Progress) -> Result<(), StageError> {
        let volume = request.volume.clone();
        let file = paths::block_file(&request.staging_path, &volume);
        let left = [request.staging_path.clone(), file];
        let outcome = match self.ensure_staged(request, progress).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.with_what_is_left(error, &volume, left.into()).await),
        };
        self.failures.note(&volume, "NodeStageVolume", &outcome);
        outcome
    }

    /// Where one of `paths` shows a disk that can be the volume, an error says so that was found without regard to it.
    pub(super) async fn with_what_is_left(
        &self,
        error: StageError,
        volume: &DiskId,
        paths: Vec<PathBuf>,
    ) -> StageError {
        use StageError::{Locate, Lookup, Occupied, Unplaced, Use};
        let occupied = matches!(error, Occupied { .. });
        if !occupied && !matches!(error, Locate(_) | Lookup(_) | Unplaced(_) | Use(_)) {
            return error;
        }
        let host = self.host.clone();
        let look = move || {
            let mounts = Mounts::read()?;
            for path in paths.iter().map(|path| as_listed(path)) {
                match host.state_at(&mounts, &path)? {
                    PathState::Live { device, .. } => return Ok(Some((path, Some(device)))),
                    PathState::Dead(_) => return Ok(Some((path, None))),
                    PathState::Unmounted | PathState::Foreign(_) => {}
                }
            }
            Ok::<_, HostError>(None)
        };
        // The first error says more than a second one.
        let Ok(Some((path, device))) = self.host.calls.run(look).await else { return error };
        // That it is another disk than the attachment or the cloud says does not make it another volume.
        if occupied
            && let Some(device) = device
            && self.is_surely_other(&path, &device, volume).await
        {
            return error;
        }
        StageError::StillMounted { path, error: Box::new(error) }
    }

    /// Whether what is mounted on `path`, of `device`, is certainly not the volume: a disk of the host itself, or with
    /// another volume on it.
    async fn is_surely_other(&self, path: &Path, device: &BlockDevice, volume: &DiskId) -> bool {
        !is_disk(&device.name)
            || matches!(self.host.is_system_disk(&device.name).await, Ok(true))
            || matches!(self.other_volume_at(path, volume).await, Ok(Some(_)))
    }

    pub(super) async fn ensure_staged(
        &self,
        request: StageRequest,
        progress: &Progress,
    ) -> Result<Staged, StageError> {
        paths::check("staging_target_path", &request.staging_path)?;
        let place = place(&request.context)?;
        // Refused before the disk is waited for, let alone formatted.
        if let Access::Mount(access) = &request.capability.access {
            plan::read_only(&request.capability, access)?;
        }
        let waiting = self.time(Step::DeviceWait, "");
        let located = match place {
            Place::Slot(slot, size) => {
                progress.set(format!("waiting for the disk in slot {slot} to show up"));
                let device = Arc::new(self.host.locate(&slot, size).await?);
                Located { device, by: LocatedBy::Slot }
            }
            Place::Unknown { missing } => self.locate_unplaced(&request, missing, progress).await?,
        };
        drop(waiting);
        match request.capability.access.clone() {
            Access::Block => self.stage_block(request, located.device, progress).await,
            Access::Mount(access) => self.stage_fs(request, access, located, progress).await,
        }
    }

    async fn stage_block(
        &self,
        request: StageRequest,
        device: Arc<OpenDevice>,
        progress: &Progress,
    ) -> Result<Staged, StageError> {
        let file = paths::block_file(&request.staging_path, &request.volume);
        let backing = Backing::Block(device.number());
        let (host, at) = (self.host.clone(), file.clone());
        let mount = match self.host.calls.run(move || make_free(&host, &as_listed(&at), backing)).await? {
            At::Volume(mount) => mount,
            At::Free => {
                // Nothing else keeps a raw device from a volume that is being staged on the same one.
                progress.set(format!("waiting for the lock on {}", device.path().display()));
                self.host.hold(&device).await?;
                let (host, at) = (self.host.clone(), file.clone());
                self.host.calls.run(move || bind_device(&host, &request, &device, &at)).await?
            }
        };
        let source = self.host.calls.run(move || as_listed(&file)).await;
        Ok(Staged { source, backing, read_only: mount.read_only() })
    }
}

/// Binds a device whose lock is held to `file`, if its content does not show that it is another volume's. Blocking.
fn bind_device(
    host: &Host,
    request: &StageRequest,
    device: &OpenDevice,
    file: &Path,
) -> Result<Mount, StageError> {
    device.prove_unused()?;
    prove_not_shown(host, device)?;
    let cannot = |error| cannot_read(device, error);
    let refused = |reason| StageError::Content { device: device.path().to_owned(), reason };
    let adoption = &request.volume_context.adoption;
    let content = probe_fs(device).map_err(cannot)?;
    plan::plan_block(&request.volume, content, adoption).map_err(refused)?;
    let note = note::read(device).map_err(cannot)?;
    noted::raw(&request.volume, &note, adoption).map_err(|reason| refused(reason.into()))?;
    mount::make_file(file)?;
    device.prove_unchanged()?;
    mount::bind(device.path(), file).map_err(StageError::Mount)?;
    let mount = prove_mounted(host, &as_listed(file), Backing::Block(device.number()))?;
    info!(volume = %request.volume, device = %device.path().display(), "staged as a block device");
    Ok(mount)
}

pub(super) fn cannot_read(device: &OpenDevice, error: io::Error) -> HostError {
    HostError::new(format!("cannot read {}", device.path().display()), error)
}

/// What was found at a path that the volume is wanted at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At {
    Free,
    /// The volume itself.
    Volume(Mount),
}

/// Looks at `path`, and takes away the mount of a disk that has left the host: after a detach by hand and a new
/// attach, kubelet's retries must get a volume that works. Anything else in the way is refused.
pub(super) fn make_free(host: &Host, path: &Path, wanted: Backing) -> Result<At, StageError> {
    let occupied = |what: String| StageError::Occupied { path: path.to_owned(), what };
    take_away_the_dead(host, path)?;
    match host.state_at(&Mounts::read()?, path)? {
        PathState::Unmounted => Ok(At::Free),
        PathState::Live { mount, backing, .. } if backing == wanted && host.shows_all(&mount) => {
            Ok(At::Volume(mount))
        }
        PathState::Live { mount, device, .. } => Err(occupied(shown(&mount, &device))),
        PathState::Foreign(mount) | PathState::Dead(mount) => {
            Err(occupied(format!("{} {}", mount.fs_type, mount.source.display())))
        }
    }
}

/// Unmounts disks that have left this host from `path`, and nothing that they hide.
pub(super) fn take_away_the_dead(host: &Host, path: &Path) -> Result<(), UnmountError> {
    while let PathState::Dead(mount) = host.state_at(&Mounts::read()?, path)? {
        warn!(path = %path.display(), source = %mount.source.display(), "unmounting a disk that has left this host");
        mount::unmount_top(path)?;
    }
    Ok(())
}

/// What a mount shows, for a person who has to unmount it.
pub(super) fn shown(mount: &Mount, device: &BlockDevice) -> String {
    let part = match mount.root.as_path() {
        root if root == Path::new("/") => String::new(),
        root => format!("{} of the ", root.display()),
    };
    format!("{part}{} of disk {} ({})", mount.fs_type, device.name, device.number)
}

/// Proves that nothing on this host shows the device: no other staging path, no other volume and no pod that was left
/// behind, whose raw block device would be this one. No use of a raw device claims it, so the list of mounts has to tell.
pub(super) fn prove_not_shown(host: &Host, device: &OpenDevice) -> Result<(), StageError> {
    let shown = host.others_of(&Mounts::read()?, device.number(), &[]);
    if shown.is_empty() {
        return Ok(());
    }
    let users: Vec<String> = shown
        .iter()
        .map(|path| match paths::staged_volume(path) {
            Some(volume) => format!("staged at {} as volume {volume}", path.display()),
            None => format!("mounted on {}", path.display()),
        })
        .collect();
    Err(UseError::InUse { path: device.path().to_owned(), users: users.join(", ") }.into())
}

/// Proves that what was just mounted on `path` is what was meant, or takes it away again.
pub(super) fn prove_mounted(host: &Host, path: &Path, wanted: Backing) -> Result<Mount, StageError> {
    match Mounts::read()?.top(path) {
        Some(mount) if host.backing(mount) == wanted => Ok(mount.clone()),
        _ => {
            mount::unmount_top(path)?;
            Err(StageError::MountedOther(path.to_owned()))
        }
    }
}
