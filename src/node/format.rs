//! From a blank disk to a file system that may be mounted, in an order that can be cut off anywhere.
//!
//! Proof that the disk is blank, note, mkfs, everything on the disk for good, no note, mount. Each step ends on the disk
//! before the next begins. So whoever finds a note knows that mkfs had not come to its end, or not for good, and that
//! nothing was mounted; and whoever finds none knows that there is nothing to be made again.

use std::sync::Arc;

use tracing::info;

use super::Node;
use super::linux::blank::{BlankDevice, ProofError};
use super::linux::device::OpenDevice;
use super::linux::exclusive::ExclusiveDevice;
use super::linux::look::look;
use super::linux::note::{self, NotedDevice};
use super::linux::probe::FoundFs;
use super::linux::remains::{self, ClearError};
use super::noted;
use super::observe::Step;
use super::plan::ContentRefused;
use super::stage::{StageError, cannot_read};
use crate::progress::Progress;
use crate::volume::{BlankSectors, FormatNote};

/// What a format starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Blank,
    /// The note is there, and what an earlier mkfs left.
    Noted,
}

impl Node {
    /// Makes the file system of `note`. The lock on the device is held.
    pub(super) async fn format(
        &self,
        device: &Arc<OpenDevice>,
        start: Start,
        note: FormatNote,
        sectors: BlankSectors,
        progress: &Progress,
    ) -> Result<FoundFs, StageError> {
        let path = device.path().display();
        progress.set(format!("waiting for a turn to make {} on {path}", note.fs));
        let turn = self.host.turn_to_format().await;
        progress.set(format!("proving that {path} is blank"));
        let noted = match start {
            Start::Blank => {
                let blank = self.prove_blank(device, sectors).await?;
                self.note(blank, note.clone()).await?
            }
            Start::Noted => self.clear(device, note.clone(), sectors).await?,
        };
        progress.set(format!("making {} on {path}", note.fs));
        let making = self.time(Step::Format, note.fs);
        let found = self.host.make(&noted).await?;
        drop(making);
        self.wipe(device, note).await?;
        drop(turn);
        info!(volume = %noted.note().disk, device = %path, fs = %found.kind, uuid = %found.uuid, "made a file system");
        Ok(found)
    }

    /// Takes the note off the disk, for good.
    pub(super) async fn wipe(&self, device: &Arc<OpenDevice>, note: FormatNote) -> Result<(), StageError> {
        let device = Arc::clone(device);
        self.host.calls.run(move || Ok(note::wipe(&device, &note)?)).await
    }

    async fn prove_blank(
        &self,
        device: &Arc<OpenDevice>,
        sectors: BlankSectors,
    ) -> Result<BlankDevice, StageError> {
        let path = device.path().to_owned();
        let device = Arc::clone(device);
        let proof = self.host.calls.run(move || BlankDevice::prove(device, sectors)).await;
        proof.map_err(|error| match error {
            ProofError::NotBlank(reason) => StageError::NotBlank { device: path, reason },
            ProofError::Use(error) => error.into(),
        })
    }

    async fn note(&self, blank: BlankDevice, note: FormatNote) -> Result<NotedDevice, StageError> {
        self.host.calls.run(move || Ok(NotedDevice::write(blank, note)?)).await
    }

    /// Much may have happened while this waited for its turn, and a lock on a node keeps nobody from mounting. So what
    /// there is is looked at once more, by a claim that does, and must still be what may be removed.
    async fn clear(
        &self,
        device: &Arc<OpenDevice>,
        note: FormatNote,
        sectors: BlankSectors,
    ) -> Result<NotedDevice, StageError> {
        let device = Arc::clone(device);
        let clear = move || {
            let path = device.path().to_owned();
            let claim = ExclusiveDevice::open(&device)?;
            let seen = look(&claim).map_err(|error| cannot_read(&device, error))?;
            match noted::again(&note.disk, note.fs, false, &seen) {
                Ok(Some(still)) if still == note => {}
                Ok(_) => return Err(StageError::Changed { device: path }),
                Err(reason) => {
                    let reason = ContentRefused::Noted(reason);
                    return Err(StageError::Content { device: path, reason });
                }
            }
            let noted = note.fs;
            remains::clear(device, &claim, note, sectors).map_err(|error| match error {
                ClearError::Foreign(reason) => StageError::NotRemains { device: path, noted, reason },
                ClearError::NotBlank(reason) => StageError::NotBlank { device: path, reason },
                ClearError::Host(error) => error.into(),
            })
        };
        self.host.calls.run(clear).await
    }
}
