//! Adopts the copy of another disk: gives its file system the mark of the disk that it is on.

use std::sync::Arc;

use tracing::info;

use super::Node;
use super::linux::device::OpenDevice;
use super::linux::probe::FoundFs;
use super::linux::restamp::{RestampError, Restamped, Unable};
use super::lookup::slot_of;
use super::stage::{StageError, StageRequest};
use crate::progress::Progress;
use crate::volume::{FsUuid, Slot};

impl Node {
    /// A mark is what tells a wrong disk, and a foreign one is about to be replaced on somebody's word that the disk in
    /// this volume's slot is a copy. So where the cloud may be asked, it must say too that this is the volume's slot: an
    /// attachment can be old, and its slot have another disk by now, such as the one that was copied.
    async fn prove_slot(&self, request: &StageRequest) -> Result<(), StageError> {
        let (Some(lookup), Some(device)) = (&self.lookup, &request.context.device) else {
            return Ok(());
        };
        let (slot, _) = slot_of(lookup.as_ref(), &request.volume).await?;
        match Slot::parse(device) {
            Ok(attached) if attached == slot => Ok(()),
            _ => Err(StageError::OtherSlot { device: device.clone(), slot }),
        }
    }

    /// Replaces the mark `from` of a file system that is not mounted and whose lock is held. One that was replaced
    /// already is left as it is, and one that was being replaced when the power went is put right.
    pub(super) async fn adopt(
        &self,
        request: &StageRequest,
        device: &Arc<OpenDevice>,
        found: FoundFs,
        from: FsUuid,
        progress: &Progress,
    ) -> Result<FoundFs, StageError> {
        let path = device.path().display();
        let volume = &request.volume;
        let to = FsUuid::of_disk(volume);
        let kind = found.kind;
        if found.uuid != to {
            self.prove_slot(request).await?;
        }
        progress.set(format!("replacing the mark of another disk on {kind} of {path}"));
        let mut restamped = self.host.restamp(device, kind, from, to).await;
        if matches!(restamped, Ok(Restamped::NeedsReplay)) {
            progress.set(format!("replaying the journal of {kind} of {path} before its mark is replaced"));
            self.host.replay(device, kind, progress).await.map_err(RestampError::from)?;
            restamped = self.host.restamp(device, kind, from, to).await;
        }
        match restamped {
            Ok(Restamped::Done(new)) if found.uuid == to => Ok(new),
            Ok(Restamped::Done(new)) => {
                info!(%volume, device = %path, fs = %kind, %from, %to, "the copy carries the mark of its own disk now");
                Ok(new)
            }
            Ok(Restamped::NeedsReplay) => {
                let device = path.to_string();
                Err(RestampError::Unable { device, reason: Unable::Dirty }.into())
            }
            // What else is wrong with it is not for here.
            Err(RestampError::Unable { .. }) if found.uuid == to => Ok(found),
            Err(error) => Err(error.into()),
        }
    }
}
