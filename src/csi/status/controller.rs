//! The codes of the controller's errors.
//!
//! A final code on CreateVolume makes external-provisioner forget the claim, so it is given only where no disk of
//! the name exists; on ControllerPublishVolume it says that nothing is attached and nothing is under way.

use tonic::Status;

use super::{Code, status};
use crate::cloud::{Cause, CloudError};
use crate::controller::{
    AttachError, CallError, CreateError, DeleteError, DetachError, ExpandError, HostError, ListError,
    PlacementError, Unresolved, Verdict,
};

/// The answer of CreateVolume.
pub fn create(error: CreateError) -> Status {
    let code = match &error {
        CreateError::Placement { source, .. } => placement(source),
        CreateError::Incompatible { .. } => Code::AlreadyExists,
        // A disk exists, or may exist, or will be made at the next call.
        CreateError::Unsettled { .. }
        | CreateError::Failed { .. }
        | CreateError::Vanished { .. }
        | CreateError::Foreign { .. } => Code::Aborted,
        CreateError::Call(error) => call(error),
        CreateError::Unresolved(error) => unresolved(error),
    };
    status(code, error.to_string())
}

/// The answer of DeleteVolume.
pub fn delete(error: DeleteError) -> Status {
    let code = match &error {
        DeleteError::SystemDisk { .. } | DeleteError::Attached { .. } => Code::FailedPrecondition,
        DeleteError::Call(error) => call(error),
        DeleteError::Unresolved(error) => unresolved(error),
    };
    status(code, error.to_string())
}

/// The answer of ControllerPublishVolume.
pub fn attach(error: AttachError) -> Status {
    let code = match &error {
        AttachError::NoDisk { .. } | AttachError::NoHost { .. } => Code::NotFound,
        AttachError::Node { source, .. } => host(source),
        AttachError::SystemDisk { .. }
        | AttachError::Elsewhere { .. }
        | AttachError::Unusable { .. }
        | AttachError::WrongZone { .. }
        | AttachError::OtherRdmaCluster { .. } => Code::FailedPrecondition,
        AttachError::HostFull { .. } => Code::ResourceExhausted,
        // It may be attached by the time of the next call, or is already.
        AttachError::FellBack { .. } | AttachError::Contradiction { .. } | AttachError::NoDevice { .. } => {
            Code::Aborted
        }
        AttachError::Call(error) => call(error),
        AttachError::Unresolved(error) => unresolved(error),
    };
    status(code, error.to_string())
}

/// The answer of ControllerUnpublishVolume.
pub fn detach(error: DetachError) -> Status {
    let code = match &error {
        DetachError::SystemDisk { .. } => Code::FailedPrecondition,
        // Still attached, for a reason that only the cloud knows.
        DetachError::Stays { .. } => Code::Aborted,
        DetachError::Call(error) => call(error),
        DetachError::Unresolved(error) => unresolved(error),
    };
    status(code, error.to_string())
}

/// The answer of ControllerExpandVolume.
pub fn expand(error: ExpandError) -> Status {
    let code = match &error {
        ExpandError::NoDisk { .. } => Code::NotFound,
        ExpandError::Capacity { source, .. } => super::request::capacity(source),
        ExpandError::OverLimit { .. } => Code::OutOfRange,
        ExpandError::SystemDisk { .. } | ExpandError::Unusable { .. } | ExpandError::HostMustStop { .. } => {
            Code::FailedPrecondition
        }
        ExpandError::Call(error) => call(error),
        ExpandError::Unresolved(error) => unresolved(error),
    };
    status(code, error.to_string())
}

/// The answer of ControllerGetVolume and ValidateVolumeCapabilities.
pub fn read(error: Unresolved) -> Status {
    let code = match &error {
        Unresolved::Unreadable { source, .. } => unreadable(source),
        Unresolved::TimedOut { .. } => Code::DeadlineExceeded,
    };
    status(code, error.to_string())
}

/// The answer of ListVolumes.
pub fn list(error: ListError) -> Status {
    status(unreadable(&error.source), error.to_string())
}

fn placement(error: &PlacementError) -> Code {
    match error {
        // The scheduler takes the pod to another node, whose region or machine type may do.
        PlacementError::WrongRegion { .. } | PlacementError::Unsuitable { .. } => Code::ResourceExhausted,
        PlacementError::NoZone => Code::FailedPrecondition,
    }
}

fn host(error: &HostError) -> Code {
    match error {
        HostError::Unknown { .. } => Code::NotFound,
        HostError::Ambiguous { .. } => Code::FailedPrecondition,
        HostError::Unreadable { .. } => Code::Unavailable,
    }
}

fn call(error: &CallError) -> Code {
    match error.verdict {
        Verdict::Uncertain => Code::Aborted,
        Verdict::Later => Code::Unavailable,
        Verdict::Denied => Code::PermissionDenied,
        Verdict::Exhausted => Code::ResourceExhausted,
        Verdict::Invalid => Code::InvalidArgument,
        Verdict::Refused => Code::FailedPrecondition,
    }
}

/// Whatever the reason: nothing is known of the disk, so the answer to a change is never final.
fn unresolved(error: &Unresolved) -> Code {
    match error {
        Unresolved::Unreadable { .. } => Code::Unavailable,
        Unresolved::TimedOut { .. } => Code::DeadlineExceeded,
    }
}

/// A read that only reads may say more plainly what is wrong.
fn unreadable(error: &CloudError) -> Code {
    match error.cause {
        Cause::Credentials | Cause::Denied => Code::PermissionDenied,
        Cause::NoAnswer
        | Cause::Unreachable
        | Cause::Throttled
        | Cause::Payment
        | Cause::Quota
        | Cause::NoStock
        | Cause::NotFound
        | Cause::Busy
        | Cause::AlreadyAttached
        | Cause::InUse
        | Cause::AttachFailed
        | Cause::DetachFailed
        | Cause::RdmaMismatch
        | Cause::InvalidRequest
        | Cause::HostMustStop
        | Cause::Refused => Code::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code::{
        Aborted, AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, OutOfRange,
        PermissionDenied, ResourceExhausted, Unavailable,
    };

    use super::*;
    use crate::cloud::Outcome;
    use crate::volume::capacity::CapacityError;
    use crate::volume::{DiskId, DiskName, DiskType, Gib, HostId, NodeRef, Zone};

    fn disk() -> DiskId {
        DiskId::parse("bs-1").unwrap()
    }

    fn host_id() -> HostId {
        HostId::parse("uhost-1").unwrap()
    }

    fn name() -> DiskName {
        DiskName::for_volume("pvc-12345")
    }

    fn cloud(cause: Cause) -> CloudError {
        CloudError {
            action: "AttachUDisk",
            cause,
            outcome: Outcome::NothingHappened,
            ret_code: Some(17055),
            message: "the cloud's own words".to_owned(),
            advice: None,
            request_id: Some("req-1".to_owned()),
            attempts: 1,
        }
    }

    fn failed(verdict: Verdict) -> CallError {
        CallError { what: "do it".to_owned(), verdict, source: cloud(Cause::Refused) }
    }

    fn unread(cause: Cause) -> Unresolved {
        Unresolved::Unreadable { what: "do it".to_owned(), source: cloud(cause) }
    }

    fn late() -> Unresolved {
        let phase = "waiting".to_owned();
        let waited = Duration::from_secs(300);
        Unresolved::TimedOut { what: "do it".to_owned(), phase, waited, source: None }
    }

    const VERDICTS: [(Verdict, tonic::Code); 6] = [
        (Verdict::Uncertain, Aborted),
        (Verdict::Later, Unavailable),
        (Verdict::Denied, PermissionDenied),
        (Verdict::Exhausted, ResourceExhausted),
        (Verdict::Invalid, InvalidArgument),
        (Verdict::Refused, FailedPrecondition),
    ];

    /// Calls that fail and reads that fail mean the same for every change, and the cloud's words arrive.
    #[test]
    fn every_change_answers_failed_calls_and_reads_alike() {
        for (verdict, code) in VERDICTS {
            for status in [
                create(failed(verdict).into()),
                delete(failed(verdict).into()),
                attach(failed(verdict).into()),
                detach(failed(verdict).into()),
                expand(failed(verdict).into()),
            ] {
                assert_eq!(status.code(), code, "{status}");
                assert!(status.message().contains("the cloud's own words"), "{status}");
                assert!(status.message().contains("req-1"), "{status}");
            }
        }
        // Also without rights: what was sent before may have happened, so the answer is never final.
        for (error, code) in [
            (unread(Cause::Denied), Unavailable),
            (unread(Cause::NoAnswer), Unavailable),
            (late(), DeadlineExceeded),
        ] {
            for status in [
                create(error.clone().into()),
                delete(error.clone().into()),
                attach(error.clone().into()),
                detach(error.clone().into()),
                expand(error.clone().into()),
            ] {
                assert_eq!(status.code(), code, "{status}");
            }
        }
    }

    #[test]
    fn a_create_is_final_only_where_no_disk_can_be() {
        let unsettled = CreateError::Unsettled {
            name: name(),
            since: Duration::from_secs(3),
            wait: Duration::from_secs(57),
            source: None,
        };
        let failed = |removed| CreateError::Failed {
            name: name(),
            disk: disk(),
            status: "Failed".to_owned(),
            removed,
            source: None,
        };
        let differences = "it is of type ssd".to_owned();
        let nowhere = |source| CreateError::Placement { name: name(), source };
        for (error, code) in [
            (unsettled, Aborted),
            (failed(true), Aborted),
            (failed(false), Aborted),
            (CreateError::Vanished { name: name(), disk: disk() }, Aborted),
            (CreateError::Foreign { name: name(), disk: disk(), found: "other".to_owned() }, Aborted),
            (CreateError::Incompatible { name: name(), disk: disk(), differences }, AlreadyExists),
            (nowhere(PlacementError::NoZone), FailedPrecondition),
            (
                nowhere(PlacementError::WrongRegion {
                    asked: "cn-sh2".to_owned(),
                    region: "cn-bj2".to_owned(),
                }),
                ResourceExhausted,
            ),
            (
                nowhere(PlacementError::Unsuitable {
                    host: "host uhost-1".to_owned(),
                    disk_type: DiskType::Rssd,
                    reason: "it has no RDMA".to_owned(),
                }),
                ResourceExhausted,
            ),
        ] {
            let text = error.to_string();
            assert_eq!(create(error).code(), code, "{text}");
        }
    }

    #[test]
    fn a_delete_of_a_disk_in_use_is_refused() {
        let attached = DeleteError::Attached { disk: disk(), host: "uhost-1".to_owned() };
        assert_eq!(delete(attached).code(), FailedPrecondition);
        assert_eq!(delete(DeleteError::SystemDisk { disk: disk() }).code(), FailedPrecondition);
    }

    #[test]
    fn attachments_tell_a_wrong_node_from_a_full_one() {
        let address = "10.0.0.1".parse().unwrap();
        let node = |source| AttachError::Node { disk: disk(), node: NodeRef::Address(address), source };
        let zone = |name| Zone::parse(name).unwrap();
        for (error, code) in [
            (AttachError::NoDisk { disk: disk(), node: NodeRef::Address(address) }, NotFound),
            (AttachError::NoHost { disk: disk(), host: host_id(), source: cloud(Cause::NotFound) }, NotFound),
            (node(HostError::Unknown { address }), NotFound),
            (node(HostError::Ambiguous { address, hosts: "a, b".to_owned() }), FailedPrecondition),
            (node(HostError::Unreadable { address, source: cloud(Cause::NoAnswer) }), Unavailable),
            (AttachError::SystemDisk { disk: disk() }, FailedPrecondition),
            (
                AttachError::Elsewhere { disk: disk(), host: "uhost-2".to_owned(), wanted: host_id() },
                FailedPrecondition,
            ),
            (
                AttachError::Unusable {
                    disk: disk(),
                    node: NodeRef::Address(address),
                    status: "Failed".to_owned(),
                },
                FailedPrecondition,
            ),
            (
                AttachError::WrongZone {
                    disk: disk(),
                    zone: zone("cn-bj2-04"),
                    host: host_id(),
                    host_zone: zone("cn-bj2-05"),
                    source: cloud(Cause::AttachFailed),
                },
                FailedPrecondition,
            ),
            (
                AttachError::OtherRdmaCluster {
                    disk: disk(),
                    disk_cluster: "r1".to_owned(),
                    host: host_id(),
                    host_cluster: "r2".to_owned(),
                    source: cloud(Cause::RdmaMismatch),
                },
                FailedPrecondition,
            ),
            (
                AttachError::HostFull {
                    disk: disk(),
                    host: host_id(),
                    count: 26,
                    source: cloud(Cause::AttachFailed),
                },
                ResourceExhausted,
            ),
            (
                AttachError::FellBack {
                    disk: disk(),
                    host: host_id(),
                    times: 3,
                    source: Some(cloud(Cause::NoAnswer)),
                },
                Aborted,
            ),
            (
                AttachError::Contradiction {
                    disk: disk(),
                    host: host_id(),
                    source: cloud(Cause::AlreadyAttached),
                },
                Aborted,
            ),
            (AttachError::NoDevice { disk: disk(), host: host_id() }, Aborted),
        ] {
            let text = error.to_string();
            assert_eq!(attach(error).code(), code, "{text}");
        }
    }

    #[test]
    fn detachments_are_tried_again() {
        let stays = DetachError::Stays { disk: disk(), host: host_id(), source: failed(Verdict::Refused) };
        assert_eq!(detach(stays).code(), Aborted);
        assert_eq!(detach(DetachError::SystemDisk { disk: disk() }).code(), FailedPrecondition);
    }

    #[test]
    fn growths_that_cannot_be_are_infeasible() {
        let too_large = CapacityError::TooLarge { required: u64::MAX, max: Gib::new(8000), disk_type: None };
        let unusable = ExpandError::Unusable { disk: disk(), status: "Failed".to_owned() };
        let host = "uhost-1".to_owned();
        for (error, code) in [
            (ExpandError::NoDisk { disk: disk() }, NotFound),
            (ExpandError::Capacity { disk: disk(), source: too_large }, OutOfRange),
            (ExpandError::OverLimit { disk: disk(), size: Gib::new(30), limit: 1 }, OutOfRange),
            (ExpandError::SystemDisk { disk: disk() }, FailedPrecondition),
            (unusable, FailedPrecondition),
            (
                ExpandError::HostMustStop { disk: disk(), host, source: cloud(Cause::HostMustStop) },
                FailedPrecondition,
            ),
        ] {
            let text = error.to_string();
            assert_eq!(expand(error).code(), code, "{text}");
        }
    }

    #[test]
    fn reads_say_when_the_keys_are_at_fault() {
        assert_eq!(read(unread(Cause::Denied)).code(), PermissionDenied);
        assert_eq!(read(unread(Cause::Throttled)).code(), Unavailable);
        assert_eq!(read(late()).code(), DeadlineExceeded);
        assert_eq!(list(ListError { source: cloud(Cause::Credentials) }).code(), PermissionDenied);
        assert_eq!(list(ListError { source: cloud(Cause::NoAnswer) }).code(), Unavailable);
    }
}
