//! DeleteVolume.

use crate::cloud::{Cause, Cloud, Deadline, DiskStatus, Outcome};
use crate::progress::Progress;
use crate::volume::{DiskId, Zone};

use super::recent::{Change, Trust};
use super::view::{Backoff, Sight, View, place, state};
use super::{CallError, Controller, Unresolved};

/// How often a refusal that contradicts what was read is tried again.
const TRIES: u32 = 4;

/// Why the disk is not deleted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeleteError {
    #[error("UDisk {disk} is a system disk and is never touched by this driver")]
    SystemDisk { disk: DiskId },
    #[error(
        "UDisk {disk} is attached to host {host}; it can be deleted when it is detached. If Kubernetes holds no \
         VolumeAttachment for it, it was attached by hand: detach it in the console"
    )]
    Attached { disk: DiskId, host: String },
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
}

enum Step {
    Gone,
    Send(Zone),
    Wait(String),
    Refuse(DeleteError),
}

impl<C: Cloud> Controller<C> {
    pub async fn delete(
        &self,
        id: &DiskId,
        deadline: Deadline,
        progress: &Progress,
    ) -> Result<(), DeleteError> {
        let inner = &self.inner;
        let mut view = View::new(self, id, format!("delete UDisk {id}"), deadline, progress);
        let mut backoff = Backoff::new();
        let mut refusals = 0;
        let mut asked = false;
        let mut sight = view.read().await?;
        loop {
            let name = sight.disk.as_ref().map(|disk| disk.name.clone());
            let step = step(id, &sight);
            if sight.listed && !matches!(step, Step::Wait(_)) {
                sight = view.read().await?;
                continue;
            }
            match step {
                Step::Gone => {
                    inner.names.deleted(id, name.as_deref());
                    return Ok(());
                }
                Step::Refuse(error) => return Err(error),
                Step::Wait(phase) => {
                    let still = asked && sight.trust == Trust::Stale && sight.disk.is_some();
                    let phase = match still {
                        true => {
                            format!("the cloud still shows UDisk {id}; it is asked again if that stays so")
                        }
                        false => phase,
                    };
                    sight = view.again(phase).await?;
                }
                Step::Send(zone) => {
                    view.phase(String::from("the cloud is asked to delete it"));
                    match inner.cloud.delete_disk(&zone, id, deadline).await {
                        Ok(()) => {
                            inner.recent.note(id, Change::Deleted);
                            inner.names.deleted(id, name.as_deref());
                            tracing::info!(disk = %id, "UDisk deleted");
                            return Ok(());
                        }
                        Err(error) if error.outcome == Outcome::Unknown => {
                            inner.recent.note_uncertain(id, Change::Deleted);
                            asked = true;
                            view.trouble(error);
                            view.restart(None);
                            sight = view.again(String::from("whether it is deleted is not known")).await?;
                        }
                        Err(error) => {
                            refusals += 1;
                            if error.cause == Cause::InUse {
                                inner.recent.note(id, Change::Bound);
                            }
                            // "Unknown disk" is also said of a disk in another zone: only a read without a
                            // zone that finds nothing proves that the disk is gone.
                            let look_again = matches!(error.cause, Cause::NotFound | Cause::InUse)
                                && refusals < TRIES
                                || error.cause == Cause::Busy;
                            if !look_again {
                                return Err(CallError::new(view.what.clone(), error).into());
                            }
                            if refusals > 1 || error.cause == Cause::Busy {
                                view.pause(&mut backoff, error).await?;
                            }
                            sight = view.read().await?;
                        }
                    }
                }
            }
        }
    }
}

fn step(id: &DiskId, sight: &Sight) -> Step {
    if sight.trust == Trust::Stale {
        return Step::Wait(String::from("the cloud's answers contradict a change made a moment ago"));
    }
    let Some(disk) = &sight.disk else {
        if sight.trust == Trust::Young {
            // A predecessor may have made it a moment before it died; called gone, it would stay for ever.
            return Step::Wait(format!(
                "UDisk {id} is not known; making sure, because the driver has just begun its work"
            ));
        }
        return Step::Gone;
    };
    if disk.is_boot {
        return Step::Refuse(DeleteError::SystemDisk { disk: id.clone() });
    }
    match disk.status {
        DiskStatus::Available | DiskStatus::Failed | DiskStatus::RestoreFailed => {
            Step::Send(disk.zone.clone())
        }
        DiskStatus::InUse => {
            let host = place(disk).unwrap_or_else(|| String::from("(the cloud does not say which)"));
            Step::Refuse(DeleteError::Attached { disk: id.clone(), host })
        }
        DiskStatus::Initializing
        | DiskStatus::Attaching
        | DiskStatus::Detaching
        | DiskStatus::Cloning
        | DiskStatus::Restoring
        | DiskStatus::Other(_) => Step::Wait(state(disk)),
    }
}
