//! Where the cloud says that a disk is, for attachments that do not say it themselves.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::volume::slot::SlotError;
use crate::volume::{DiskId, Gib, HostId, Slot};

/// A disk as the cloud sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The host that it is attached, attaching or detaching to.
    pub host: Option<HostId>,
    pub state: State,
    /// The slot on that host, as the API names it.
    pub device: Option<String>,
    pub size: Gib,
    /// A system disk, which is never used as a volume.
    pub is_boot: bool,
}

/// The state of a disk, as far as a node cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Attached,
    /// On no host and not on its way to one, in the cloud's word.
    Free(String),
    /// Whatever else, in the cloud's word. Nothing is concluded from it.
    Other(String),
}

/// A boxed future, since the trait below is used as an object.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The cloud, as far as a node may ask it: for one disk at a time, reading only.
pub trait Lookup: fmt::Debug + Send + Sync + 'static {
    /// The id of this host, or why it is not known yet.
    fn this_host(&self) -> Result<HostId, String>;

    /// Reads a disk. `None`: the cloud says that it has none of this id. An error is for humans.
    fn disk<'a>(&'a self, disk: &'a DiskId) -> Answer<'a, Result<Option<Sighting>, String>>;
}

/// Why the cloud's answer gives no slot of this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    #[error("the cloud cannot be asked where UDisk {disk} is attached: {reason}")]
    NoAnswer { disk: DiskId, reason: String },
    #[error("the cloud has no UDisk {0}")]
    Unknown(DiskId),
    #[error("UDisk {0} is a system disk and is never touched by this driver")]
    System(DiskId),
    #[error(
        "the cloud says that UDisk {disk} is attached to host {host}, and this is host {here}; it is not used here. Delete the \
         pod and its VolumeAttachment, so that the disk is detached there and attached anew"
    )]
    Elsewhere { disk: DiskId, host: HostId, here: HostId },
    #[error(
        "the cloud says that UDisk {disk} is attached to no host (it is {state}); delete the pod and its VolumeAttachment, so \
         that the disk is attached anew"
    )]
    Detached { disk: DiskId, state: String },
    #[error("UDisk {disk} is {state} in the cloud, so its place on this host is not settled yet")]
    Unsettled { disk: DiskId, state: String },
    #[error("UDisk {disk} is attached to this host, but the cloud does not name its slot yet")]
    NoSlot { disk: DiskId },
    #[error(
        "UDisk {disk} is attached to this host, but the slot that the cloud names is of no use: {reason}"
    )]
    Slot { disk: DiskId, reason: SlotError },
}

/// The slot of this host that `disk` is in, and its size.
pub async fn slot_of(lookup: &dyn Lookup, disk: &DiskId) -> Result<(Slot, Gib), LookupError> {
    let no_answer = |reason| LookupError::NoAnswer { disk: disk.clone(), reason };
    let here = lookup.this_host().map_err(no_answer)?;
    let sighting = lookup.disk(disk).await.map_err(no_answer)?;
    judge(disk, here, sighting)
}

fn judge(disk: &DiskId, here: HostId, sighting: Option<Sighting>) -> Result<(Slot, Gib), LookupError> {
    let disk = || disk.clone();
    let Some(Sighting { host, state, device, size, is_boot }) = sighting else {
        return Err(LookupError::Unknown(disk()));
    };
    if is_boot {
        return Err(LookupError::System(disk()));
    }
    match (host, state) {
        (Some(host), State::Attached | State::Other(_)) if host != here => {
            Err(LookupError::Elsewhere { disk: disk(), host, here })
        }
        (Some(_), State::Attached) => {
            let device = device.ok_or_else(|| LookupError::NoSlot { disk: disk() })?;
            let slot = Slot::parse(&device).map_err(|reason| LookupError::Slot { disk: disk(), reason })?;
            Ok((slot, size))
        }
        (_, State::Free(state)) => Err(LookupError::Detached { disk: disk(), state }),
        (_, State::Other(state)) => Err(LookupError::Unsettled { disk: disk(), state }),
        (None, State::Attached) => {
            let state = "attached to a host that is not named".to_owned();
            Err(LookupError::Unsettled { disk: disk(), state })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_disk_that_is_attached_to_this_very_host_has_a_slot() {
        let disk = DiskId::parse("bs-1").unwrap();
        let (here, other) = (HostId::parse("uhost-a").unwrap(), HostId::parse("uhost-b").unwrap());
        let seen = |host: Option<&HostId>, state: State, device: Option<&str>| Sighting {
            host: host.cloned(),
            state,
            device: device.map(str::to_owned),
            size: Gib::new(20),
            is_boot: false,
        };
        let judge = |sighting| {
            judge(&disk, here.clone(), sighting)
                .map(|(slot, size)| format!("{slot} {}", size.get()))
                .map_err(|error| error.to_string())
        };
        let moving = || State::Other("Detaching".into());
        assert_eq!(judge(Some(seen(Some(&here), State::Attached, Some("vdc")))).unwrap(), "vdc 20");
        for (sighting, text) in [
            (None, "no UDisk bs-1"),
            (Some(seen(Some(&other), State::Attached, Some("vdc"))), "attached to host uhost-b"),
            (Some(seen(Some(&other), moving(), Some("vdc"))), "attached to host uhost-b"),
            (Some(seen(Some(&here), moving(), Some("vdc"))), "is Detaching in the cloud"),
            (Some(seen(None, State::Attached, Some("vdc"))), "a host that is not named"),
            (Some(seen(None, State::Free("Available".into()), None)), "to no host (it is Available)"),
            (Some(seen(Some(&here), State::Free("Available".into()), Some("vdc"))), "to no host"),
            (Some(seen(Some(&here), State::Attached, None)), "does not name its slot"),
            (Some(seen(Some(&here), State::Attached, Some("vda"))), "the system disk"),
            (
                Some(Sighting { is_boot: true, ..seen(Some(&here), State::Attached, Some("vdc")) }),
                "is a system disk",
            ),
        ] {
            let error = judge(sighting.clone()).unwrap_err();
            assert!(error.contains(text), "{sighting:?}: {error}");
        }
    }
}
