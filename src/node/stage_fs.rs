//! Stage of a volume with a file system.

use std::path::Path;
use std::sync::Arc;

use tracing::{info, warn};

use super::Node;
use super::format::Start;
use super::linux::device::{OpenDevice, UseError};
use super::linux::error::HostError;
use super::linux::fsck;
use super::linux::grow::grow_mounted;
use super::linux::journal::{Journal, journal};
use super::linux::look::{Seen, look};
use super::linux::mount;
use super::linux::mountinfo::{Mount, Mounts, as_listed};
use super::linux::options::translate;
use super::linux::probe::{Content, FoundFs, FsKind};
use super::linux::staged::Backing;
use super::noted;
use super::observe::Step;
use super::plan::{self, Plan};
use super::stage::{
    At, StageError, StageRequest, Staged, cannot_read, make_free, prove_mounted, prove_not_shown,
};
use super::unplaced::{Located, LocatedBy};
use crate::progress::Progress;
use crate::volume::{DiskId, FormatNote, FsType, Mark, MountAccess};

impl Node {
    pub(super) async fn stage_fs(
        &self,
        request: StageRequest,
        access: MountAccess,
        Located { device, by }: Located,
        progress: &Progress,
    ) -> Result<Staged, StageError> {
        let read_only = plan::read_only(&request.capability, &access)?;
        let backing = Backing::Fs(device.number());
        let (host, staging_path) = (self.host.clone(), request.staging_path.clone());
        let shown = Arc::clone(&device);
        let free = move || {
            let at = make_free(&host, &as_listed(&staging_path), backing)?;
            if at == At::Free {
                prove_not_shown(&host, &shown)?;
                // Before the disk is written to: where nothing can be mounted, nothing is formatted.
                mount::is_directory(&staging_path)?;
            }
            if let At::Volume(mount) = &at
                && read_only
                && mount.read_only()
                && mount.fs_read_only()
            {
                shown.refuse_writes()?;
            }
            Ok::<_, StageError>(at)
        };
        let at = self.host.calls.run(free).await?;
        let mut may_grow = !read_only;
        match at {
            At::Free => {
                let found = self.prepare(&request, access.fs, read_only, &device, by, progress).await?;
                progress.set(format!("mounting {} of {}", found.kind, device.path().display()));
                self.mount(&request, &access, read_only, &device, found.kind).await?;
            }
            At::Volume(mount) => {
                prove_compatible(&mount, &request.staging_path, access.fs, read_only)?;
                if !read_only && mount.fs_read_only() {
                    may_grow = false;
                    let path = request.staging_path.display();
                    warn!(volume = %request.volume, %path, "the file system went read-only after an error");
                }
            }
        }
        if may_grow {
            self.grow(&request, &access, &device, progress).await?;
        }
        Ok(Staged { source: as_listed(&request.staging_path), backing, read_only })
    }

    /// Grows what is mounted at the staging path, if its disk has room.
    ///
    /// The kernel does that so that it can be cut off. What `resize2fs` leaves of an unmounted ext when it is cut off, by the
    /// end of its container or a power cut, loses no data, but a person must repair it. So it is only for those that the
    /// kernel does not grow, or not for this process.
    async fn grow(
        &self,
        request: &StageRequest,
        access: &MountAccess,
        device: &Arc<OpenDevice>,
        progress: &Progress,
    ) -> Result<(), StageError> {
        let kind = FsKind::from(access.fs);
        let path = as_listed(&request.staging_path);
        progress.set(format!("growing {kind} of {}", device.path().display()));
        let (at, grown) = (path.clone(), Arc::clone(device));
        let error = match self.host.calls.run(move || grow_mounted(&at, kind, &grown)).await {
            Ok(()) => return Ok(()),
            Err(error) if kind.is_ext() && error.needs_unmount() => error,
            Err(error) => return Err(StageError::GrowMounted(error)),
        };
        let volume = &request.volume;
        let (host, staged, number) = (self.host.clone(), path.clone(), device.number());
        let in_use = move || Ok::<_, HostError>(host.others_of(&Mounts::read()?, number, &[&staged]));
        let in_use = self.host.calls.run(in_use).await?;
        if !in_use.is_empty() {
            warn!(%volume, %error, "the file system is smaller than its disk, and pods use it");
            return Ok(());
        }
        info!(%volume, %error, "the file system is unmounted to be grown");
        self.host.hold(device).await?;
        self.host.calls.run(move || mount::unmount_all(&path)).await?;
        self.host.wait_until_free(device.described().clone()).await?;
        let Content::Fs(found) = self.look(device).await?.content else {
            return Err(UseError::Exchanged(device.path().to_owned()).into());
        };
        let grown = self.host.grow_unmounted(Arc::clone(device), found, progress).await;
        grown.map_err(StageError::GrowUnmounted)?;
        progress.set(format!("mounting {kind} of {}", device.path().display()));
        self.mount(request, access, false, device, kind).await
    }

    /// Makes the device ready to be mounted: looks at it, formats it if it is blank, checks it.
    async fn prepare(
        &self,
        request: &StageRequest,
        wanted: FsType,
        read_only: bool,
        device: &Arc<OpenDevice>,
        by: LocatedBy,
        progress: &Progress,
    ) -> Result<FoundFs, StageError> {
        let path = device.path().display();
        let volume = &request.volume;
        progress.set(format!("waiting for the lock on {path}"));
        self.host.hold(device).await?;
        progress.set(format!("reading {path}"));
        let seen = self.look(device).await?;
        if let LocatedBy::Content(uuid) = by
            && !matches!(&seen.content, Content::Fs(found) if found.uuid == uuid)
        {
            return Err(UseError::Exchanged(device.path().to_owned()).into());
        }
        let refused = |reason| StageError::Content { device: device.path().to_owned(), reason };
        let adoption = &request.volume_context.adoption;
        let planned = plan::plan(volume, wanted, read_only, &seen, adoption);
        let sectors = request.volume_context.blank;
        let planned = planned.map_err(refused)?;
        if !read_only {
            self.prove_writable(device).await?;
        }
        let found = match planned {
            Plan::Format => {
                let note = FormatNote { disk: volume.clone(), fs: wanted };
                return self.format(device, Start::Blank, note, sectors, progress).await;
            }
            Plan::MakeAgain(note) => {
                warn!(%volume, device = %path, fs = %note.fs, "making the file system was cut off; it is made again");
                return self.format(device, Start::Noted, note, sectors, progress).await;
            }
            Plan::Use(found) | Plan::Adopt(found, _) => found,
        };
        // Gone for good before anything is mounted, so that it can never be turned against what is written then.
        if let Some(note) = noted::own(volume, &seen.note) {
            warn!(%volume, device = %path, fs = %found.kind, noted = %note.fs, "wiping the note of a format beneath a file system");
            self.wipe(device, note.clone()).await?;
        }
        let found = match planned {
            Plan::Adopt(found, from) => self.adopt(request, device, found, from, progress).await?,
            Plan::Format | Plan::MakeAgain(_) | Plan::Use(_) => found,
        };
        let uuid = found.uuid;
        match uuid.mark(volume) {
            Mark::Ours => {}
            Mark::OtherDisk => {
                info!(%volume, device = %path, %uuid, "a copy of another disk is used read-only, and keeps its mark");
            }
            Mark::None => {
                info!(%volume, device = %path, %uuid, "the file system was not made by this driver");
            }
        }
        if read_only {
            self.tell_what_is_not_replayed(volume, device, found.kind).await?;
        } else {
            let checking = self.time(Step::Check, found.kind);
            let repaired = fsck::check(found.kind, device, false, progress).await?;
            drop(checking);
            if let Some(words) = repaired {
                warn!(%volume, device = %path, %words, "the file system was repaired");
            }
        }
        Ok(found)
    }

    /// A read-only mount writes nothing, so a crash's last writes stay where they are.
    async fn tell_what_is_not_replayed(
        &self,
        volume: &DiskId,
        device: &Arc<OpenDevice>,
        kind: FsKind,
    ) -> Result<(), StageError> {
        let opened = Arc::clone(device);
        let read = self.host.calls.run(move || journal(opened.as_ref(), kind)).await;
        let path = device.path().display();
        match read.map_err(|error| cannot_read(device, error))? {
            Journal::Clean => {}
            Journal::Pending => warn!(
                %volume, device = %path, fs = %kind,
                "mounting read-only without replaying the journal: what was written last before the crash does not show \
                 until the volume is used for writing"
            ),
            Journal::Unknown => info!(
                %volume, device = %path, fs = %kind,
                "mounting read-only without replaying the log: should there be something in it, it does not show until the \
                 volume is used for writing"
            ),
        }
        Ok(())
    }

    /// A flag that a person set is not taken away, nor one that is left of a read-only use.
    async fn prove_writable(&self, device: &Arc<OpenDevice>) -> Result<(), StageError> {
        let opened = Arc::clone(device);
        if self.host.calls.run(move || opened.is_read_only()).await? {
            return Err(StageError::WriteProtected(device.path().to_owned()));
        }
        Ok(())
    }

    async fn look(&self, device: &Arc<OpenDevice>) -> Result<Seen, StageError> {
        let (host, device) = (self.host.clone(), Arc::clone(device));
        self.host
            .calls
            .run(move || {
                device.prove_unchanged()?;
                device.prove_unused()?;
                // Once more: it may have been given out raw while its lock was waited for.
                prove_not_shown(&host, &device)?;
                // A raw block volume may have one: kubelet makes it to hold the device.
                device.prove_no_loop()?;
                Ok(look(device.as_ref()).map_err(|error| cannot_read(&device, error))?)
            })
            .await
    }

    async fn mount(
        &self,
        request: &StageRequest,
        access: &MountAccess,
        read_only: bool,
        device: &Arc<OpenDevice>,
        kind: FsKind,
    ) -> Result<(), StageError> {
        let options = plan::options(access, kind, read_only)?;
        let _mounting = self.time(Step::Mount, kind);
        let older = (read_only && kind == FsKind::Btrfs).then(|| {
            let words = access.flags.iter().map(String::as_str).chain(["ro", plan::BTRFS_NO_REPLAY_OLD]);
            translate(words)
        });
        let older = older.transpose()?;
        let (host, device) = (self.host.clone(), Arc::clone(device));
        let (path, fs) = (request.staging_path.clone(), kind.to_string());
        self.host
            .calls
            .run(move || {
                mount::make_directory(&path)?;
                device.prove_unchanged()?;
                let mount = || {
                    let mounted = match (mount::mount_fs(device.path(), &path, &fs, &options), older) {
                        (Err(error), Some(older)) if error.is_invalid_argument() => {
                            mount::mount_fs(device.path(), &path, &fs, &older)
                        }
                        (mounted, _) => mounted,
                    };
                    mounted.map_err(StageError::Mount)?;
                    prove_mounted(&host, &as_listed(&path), Backing::Fs(device.number())).map(drop)
                };
                if !read_only {
                    return mount();
                }
                // The options alone do not keep ext4 from writing: it removes at the mount what was deleted while it was
                // open, and notes the errors that it meets later.
                let changed = device.refuse_writes()?;
                let mounted = mount();
                if mounted.is_err() && changed {
                    device.take_writes()?;
                }
                mounted
            })
            .await
    }
}

/// Whether what is staged is what is asked for.
fn prove_compatible(mount: &Mount, path: &Path, wanted: FsType, read_only: bool) -> Result<(), StageError> {
    let incompatible = |how: String| Err(StageError::Incompatible { path: path.to_owned(), how });
    if mount.fs_type != wanted.word() {
        return incompatible(format!("as {} and not as {wanted}", mount.fs_type));
    }
    match (mount.read_only(), read_only) {
        (true, false) => incompatible("read-only and not writable".to_owned()),
        (false, true) => incompatible("writable and not read-only".to_owned()),
        _ => Ok(()),
    }
}
