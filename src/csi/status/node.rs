//! The node's errors as gRPC codes.
//!
//! After a final code of NodeStageVolume kubelet takes it that nothing is staged, and never asks to unstage. So a
//! final code is only for what left nothing behind; what may have left a mount is `Aborted` or `Unavailable`.

use tonic::Status;

use super::{Code, status};
use crate::csi::operation::NoAnswer;
use crate::node::linux::device::{LocateError, OpenError, UseError};
use crate::node::linux::exec::ToolError;
use crate::node::linux::format::FormatError;
use crate::node::linux::fsck::CheckError;
use crate::node::linux::grow::GrowError;
use crate::node::linux::mount::{PathError, UnmountError};
use crate::node::linux::replay::ReplayError;
use crate::node::linux::restamp::RestampError;
use crate::node::lookup::LookupError;
use crate::node::unplaced::UnplacedReason;
use crate::node::{
    ExpandError, HealthError, PublishError, StageError, StatsError, UnpublishError, UnstageError,
};
use crate::volume::DiskId;

/// An error of a node operation.
pub trait NodeError: std::fmt::Display {
    fn code(&self) -> Code;

    /// The status, whose text begins with the volume.
    fn status(&self, volume: &DiskId) -> Status {
        status(self.code(), format!("volume {volume}: {self}"))
    }
}

impl NodeError for StageError {
    fn code(&self) -> Code {
        match self {
            Self::Path(_) | Self::Options(_) => Code::InvalidArgument,
            Self::Incompatible { .. } => Code::AlreadyExists,
            Self::Unplaced(error) => match &error.reason {
                UnplacedReason::Silent { .. } => Code::Unavailable,
                // As with a disk in use: it may be this very volume that is mounted.
                UnplacedReason::InUse { .. } | UnplacedReason::Several { .. } => Code::Aborted,
                UnplacedReason::Block | UnplacedReason::None { .. } => Code::FailedPrecondition,
            },
            Self::Lookup(error) => lookup(error),
            Self::Slot { .. }
            | Self::Occupied { .. }
            | Self::Content { .. }
            | Self::NotBlank { .. }
            | Self::NotRemains { .. }
            | Self::OtherSlot { .. }
            | Self::WriteProtected(_)
            | Self::Mount(_) => Code::FailedPrecondition,
            Self::Locate(error) => match error {
                LocateError::Absent { .. } | LocateError::Host(_) => Code::Unavailable,
                LocateError::Wrong { .. } => Code::FailedPrecondition,
            },
            Self::Use(error) => in_use(error),
            Self::Format(error) => match error {
                FormatError::Tool(error) => tool(error),
                FormatError::Use(error) => in_use(error),
                FormatError::NotThere { .. } | FormatError::NoteGone { .. } | FormatError::Host(_) => {
                    Code::Aborted
                }
            },
            Self::Restamp(error) => match error {
                RestampError::Unable { .. } | RestampError::OldKernel { .. } => Code::FailedPrecondition,
                RestampError::Replay(error) => match error {
                    ReplayError::Mount { .. } => Code::FailedPrecondition,
                    ReplayError::Check(error) => check(error),
                    ReplayError::Use(error) => in_use(error),
                },
                RestampError::NotThere { .. } => Code::Aborted,
                RestampError::Use(error) => in_use(error),
                RestampError::Host(_) => Code::Unavailable,
            },
            Self::Check(error) => check(error),
            Self::GrowUnmounted(error) => grow(error),
            // The file system may be mounted by now.
            Self::GrowMounted(_)
            | Self::MountedOther(_)
            | Self::StillMounted { .. }
            | Self::Changed { .. } => Code::Aborted,
            Self::MountPoint(error) => mount_point(error),
            Self::Unmount(error) => unmount(error),
            Self::Host(_) => Code::Unavailable,
        }
    }
}

impl NodeError for PublishError {
    fn code(&self) -> Code {
        match self {
            Self::Path(_) => Code::InvalidArgument,
            Self::Stage(error) => error.code(),
            Self::Occupied { .. } | Self::OtherwiseElsewhere { .. } | Self::WriteProtected(_) => {
                Code::FailedPrecondition
            }
            Self::Incompatible { .. } => Code::AlreadyExists,
            Self::Gone(_) | Self::Device(_) => Code::Unavailable,
            // The bind may be there, and still writable.
            Self::Mount(_) | Self::MountedOther(_) => Code::Aborted,
            Self::MountPoint(error) => mount_point(error),
            Self::Unmount(error) => unmount(error),
            Self::Host(_) => Code::Unavailable,
        }
    }
}

impl NodeError for UnpublishError {
    fn code(&self) -> Code {
        match self {
            Self::Path(_) => Code::InvalidArgument,
            Self::OtherVolume(_) => Code::FailedPrecondition,
            Self::Host(_) => Code::Unavailable,
            Self::Unmount(error) => unmount(error),
            Self::Leftover(error) => mount_point(error),
        }
    }
}

impl NodeError for UnstageError {
    fn code(&self) -> Code {
        match self {
            Self::Path(_) => Code::InvalidArgument,
            Self::OtherVolume(_) | Self::Published(_) => Code::FailedPrecondition,
            Self::Unmount(error) => unmount(error),
            Self::Leftover(error) => mount_point(error),
            Self::InUse(_) => Code::Aborted,
            Self::Host(_) => Code::Unavailable,
        }
    }
}

impl NodeError for ExpandError {
    fn code(&self) -> Code {
        match self {
            Self::NotMounted(_) => Code::NotFound,
            Self::DiskSmall { .. } | Self::Unsupported { .. } => Code::FailedPrecondition,
            Self::Grow(error) => grow(error),
            Self::Gone(_) | Self::Open(OpenError::Mismatch(_) | OpenError::Host(_)) | Self::Host(_) => {
                Code::Unavailable
            }
        }
    }
}

impl NodeError for StatsError {
    fn code(&self) -> Code {
        match self {
            Self::NotMounted(_) => Code::NotFound,
            Self::Gone(_) | Self::Hung { .. } | Self::Host(_) => Code::Unavailable,
        }
    }
}

impl NodeError for HealthError {
    fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::NotFound,
            Self::NoThread | Self::Host(_) => Code::Unavailable,
        }
    }
}

/// A reading of statistics that gave no answer of its own.
pub fn unanswered_stats(volume: &DiskId, reason: &NoAnswer) -> Status {
    let text = match reason {
        NoAnswer::StillRunning { age, .. } | NoAnswer::Busy { age, .. } => format!(
            "volume {volume}: its file system has not answered for {:.0} s; the disk may hang",
            age.as_secs_f64()
        ),
        NoAnswer::Panicked { .. } | NoAnswer::Abandoned { .. } | NoAnswer::Stopping { .. } => {
            format!("volume {volume}: {reason}")
        }
    };
    status(Code::Unavailable, text)
}

/// A look after a volume that gave no answer of its own.
pub fn unanswered_health(volume: &DiskId, reason: &NoAnswer) -> Status {
    status(Code::Unavailable, format!("volume {volume}: {reason}"))
}

fn lookup(error: &LookupError) -> Code {
    match error {
        LookupError::NoAnswer { .. } | LookupError::Unsettled { .. } | LookupError::NoSlot { .. } => {
            Code::Unavailable
        }
        LookupError::Unknown(_) => Code::NotFound,
        LookupError::System(_)
        | LookupError::Elsewhere { .. }
        | LookupError::Detached { .. }
        | LookupError::Slot { .. } => Code::FailedPrecondition,
    }
}

fn in_use(error: &UseError) -> Code {
    match error {
        // Who uses it may be a mount of this very volume in a namespace that does not show here.
        UseError::InUse { .. } | UseError::Exchanged(_) | UseError::Held(_) => Code::Aborted,
        UseError::Host(_) => Code::Unavailable,
    }
}

fn tool(error: &ToolError) -> Code {
    match error {
        ToolError::Missing(_) => Code::FailedPrecondition,
        ToolError::NotRun { .. } => Code::Unavailable,
        ToolError::Failed { .. } => Code::Aborted,
    }
}

fn check(error: &CheckError) -> Code {
    match error {
        CheckError::Uncorrected { .. } => Code::FailedPrecondition,
        CheckError::Tool(error) => tool(error),
    }
}

fn grow(error: &GrowError) -> Code {
    match error {
        GrowError::Check(error) => check(error),
        GrowError::Tool(error) => tool(error),
        GrowError::NoCapability(_) | GrowError::ReadOnly(_) => Code::FailedPrecondition,
        GrowError::StillSmall { .. } | GrowError::NoSuperblock(_) => Code::Aborted,
        GrowError::Host(_) => Code::Unavailable,
    }
}

fn mount_point(error: &PathError) -> Code {
    match error {
        PathError::Occupied { .. }
        | PathError::Foreign { .. }
        | PathError::NotEmpty(_)
        | PathError::Below { .. } => Code::FailedPrecondition,
        PathError::Host(_) => Code::Unavailable,
    }
}

fn unmount(error: &UnmountError) -> Code {
    match error {
        UnmountError::Busy(_) | UnmountError::Holds { .. } => Code::Aborted,
        UnmountError::Hidden { .. } | UnmountError::Foreign { .. } => Code::FailedPrecondition,
        UnmountError::Host(_) => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::node::linux::HostError;
    use crate::node::linux::exec::Tool;
    use crate::node::linux::probe::FsKind;

    fn volume() -> DiskId {
        DiskId::parse("bs-1").unwrap()
    }

    fn host_error() -> HostError {
        HostError::new("cannot bind", io::Error::from_raw_os_error(5))
    }

    /// Kubelet asks to unstage only after codes that are not final.
    #[test]
    fn what_may_have_left_a_mount_is_not_final() {
        for error in [
            StageError::GrowMounted(GrowError::ReadOnly("/x".into())),
            StageError::MountedOther(PathBuf::from("/x")),
            StageError::Unmount(UnmountError::Busy(PathBuf::from("/x"))),
            StageError::Use(UseError::InUse {
                path: PathBuf::from("/dev/vdb"),
                users: "by the system".into(),
            }),
        ] {
            assert_eq!(error.status(&volume()).code(), tonic::Code::Aborted, "{error}");
        }
        assert_eq!(PublishError::Mount(host_error()).code(), Code::Aborted);
        assert_eq!(UnstageError::Host(host_error()).code(), Code::Unavailable);
    }

    #[test]
    fn what_a_person_must_change_is_final_and_named() {
        let tool = Tool { name: "mkfs.xfs", package: "xfsprogs" };
        let error = StageError::Format(FormatError::Tool(ToolError::Missing(tool)));
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.status(&volume()).message().contains("volume bs-1: mkfs.xfs is not installed"));
        let error = ExpandError::Grow(GrowError::NoCapability(FsKind::Ext4));
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.to_string().contains("CAP_SYS_RESOURCE"));
    }

    #[test]
    fn a_hung_file_system_is_unavailable_with_its_time() {
        let reason = NoAnswer::StillRunning {
            what: "NodeGetVolumeStats of bs-1".into(),
            age: Duration::from_secs(70),
            phase: String::new(),
        };
        let status = unanswered_stats(&volume(), &reason);
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("has not answered for 70 s"), "{status}");
    }
}
