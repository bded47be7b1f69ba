//! What tests on both sides of the trait need.

use super::{Cause, CloudError, Outcome, Unreadable};
use crate::volume::DiskId;

/// A data disk of which the cloud says something that nobody understands.
pub(crate) fn odd(id: &str, name: Option<&str>) -> Unreadable {
    let source = CloudError {
        action: "DescribeUDisk",
        cause: Cause::NoAnswer,
        outcome: Outcome::NothingHappened,
        ret_code: None,
        message: "RetCode 0, but DataSet[0].Size is missing".into(),
        advice: None,
        request_id: Some("req-1".into()),
        attempts: 1,
    };
    let id = DiskId::parse(id).unwrap();
    Unreadable { id, name: name.map(str::to_owned), is_boot: false, source: Box::new(source) }
}
