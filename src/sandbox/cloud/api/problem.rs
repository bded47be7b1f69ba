//! Errors of the API: a RetCode and a message.

use crate::sandbox::cloud::config::Quirks;
use crate::sandbox::cloud::model::{Refusal, Status};

/// An error as the API answers it, always with HTTP 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) code: i64,
    pub(crate) message: String,
}

/// What an action tried to do, as far as its RetCodes differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    Attach,
    Detach,
    Delete,
    Update,
    Resize,
    /// Through the hosts' own API, which has RetCodes of its own.
    ResizeAttached,
    Clone,
    CloneSnapshot,
    Snapshot,
    DeleteSnapshot,
    Restore,
}

impl Verb {
    /// The code that says no more than that it failed.
    fn failed(self) -> i64 {
        match self {
            Self::Create => 17000,
            Self::Attach => 17055,
            Self::Detach => 17060,
            Self::Delete => 17030,
            Self::Update => 17050,
            Self::Resize => 17025,
            Self::ResizeAttached => 8024,
            Self::Clone => 17015,
            Self::CloneSnapshot => 17020,
            Self::Snapshot => 17010,
            Self::DeleteSnapshot => 17031,
            Self::Restore => 17095,
        }
    }
}

impl Problem {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn missing(name: &str) -> Self {
        Self::new(220, format!("Missing params [{name}]"))
    }

    pub(crate) fn not_available(name: &str) -> Self {
        Self::new(230, format!("Params [{name}] not available"))
    }

    /// The RetCode for what the model refused.
    pub(crate) fn refused(verb: Verb, refusal: &Refusal, quirks: &Quirks) -> Self {
        let code = match refusal {
            Refusal::NoSuchDisk if verb == Verb::ResizeAttached => 8906,
            Refusal::NoSuchDisk => 17041,
            Refusal::NoSuchHost if quirks.unknown_host == 230 => return Self::not_available("HostId"),
            Refusal::NoSuchHost => quirks.unknown_host,
            Refusal::NoSuchRdmaCluster => return Self::not_available("RdmaClusterId"),
            Refusal::NotGrowing if verb == Verb::Resize => return Self::not_available("Size"),
            Refusal::NotGrowing => 8107,
            Refusal::Attaching
            | Refusal::Detaching
            | Refusal::AttachedHere
            | Refusal::AttachedElsewhere
            | Refusal::NotAttached
            | Refusal::Updating
                if verb == Verb::ResizeAttached =>
            {
                8982
            }
            Refusal::Attaching | Refusal::AttachedHere if verb == Verb::Delete => quirks.delete_attached,
            Refusal::Attaching | Refusal::AttachedHere if matches!(verb, Verb::Resize | Verb::Clone) => 17026,
            Refusal::Attaching if verb == Verb::Restore => 17097,
            Refusal::Attaching => 17056,
            Refusal::Detaching => 17061,
            Refusal::AttachedHere if verb == Verb::Restore => 17096,
            Refusal::AttachedHere => 17057,
            Refusal::AttachedElsewhere => quirks.attached_elsewhere,
            Refusal::Updating => 17050,
            Refusal::NotReady(Status::Restoring) if verb == Verb::Restore => 17098,
            Refusal::OtherRdmaCluster => return Self::new(17218, "Command failed: add_udisk.py failed"),
            Refusal::HostUnsettled(_) if verb == Verb::ResizeAttached => 8905,
            Refusal::HostAttaching | Refusal::HostDetaching | Refusal::HostResizing
                if verb == Verb::ResizeAttached =>
            {
                8980
            }
            Refusal::HostAttaching | Refusal::HostResizing => 17101,
            Refusal::HostDetaching => 17061,
            Refusal::OutOfStock => quirks.stock_out,
            Refusal::NotSold => 240,
            Refusal::Quota => 17067,
            Refusal::SnapshotQuota => 17011,
            Refusal::SnapshotCreating => 17085,
            Refusal::Cloning => 17086,
            Refusal::NotAttached
            | Refusal::NoSuchSnapshot
            | Refusal::NotReady(_)
            | Refusal::SystemDisk
            | Refusal::OtherZone
            | Refusal::WrongMachine(_)
            | Refusal::HostFull
            | Refusal::HostUnsettled(_)
            | Refusal::NoSnapshotService
            | Refusal::SnapshotServiceOpen => verb.failed(),
        };
        Self::new(code, refusal.to_string())
    }
}
