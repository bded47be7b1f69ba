//! The API's actions that the driver uses, one file each: what goes in, what may be sent again, what comes out.

mod attach_udisk;
mod create_udisk;
mod delete_udisk;
mod describe_phost;
mod describe_udisk;
mod describe_udisk_price;
mod describe_uhost_instance;
mod detach_udisk;
mod resize_attached_disk;
mod resize_phost_attached_disk;
mod resize_udisk;

pub(crate) use attach_udisk::AttachUDisk;
pub(crate) use create_udisk::CreateUDisk;
pub(crate) use delete_udisk::DeleteUDisk;
pub(crate) use describe_phost::{DescribePHost, DescribePHosts};
pub(crate) use describe_udisk::{DescribeUDisk, DescribeUDisks};
pub(crate) use describe_udisk_price::DescribeUDiskPrice;
pub(crate) use describe_uhost_instance::{DescribeUHostInstance, DescribeUHostInstances};
pub(crate) use detach_udisk::DetachUDisk;
pub(crate) use resize_attached_disk::ResizeAttachedDisk;
pub(crate) use resize_phost_attached_disk::ResizePHostAttachedDisk;
pub(crate) use resize_udisk::ResizeUDisk;

use super::decode::{DecodeError, Fields};
use super::params::Params;
use super::retry::Facts;

/// The largest page that is asked for. The API's documentation gives this maximum for hosts and none for disks,
/// where its own SDK's tests use it.
const MAX_PAGE: usize = 100;

/// One request of one kind.
pub(crate) trait Action: Sync {
    const NAME: &'static str;
    const FACTS: Facts;
    type Answer: Send;

    /// The action's own parameters. Keys, region and project are added to all.
    fn params(&self, params: &mut Params);

    /// Reads the answer to a request that was done.
    fn answer(&self, fields: &Fields<'_>) -> Result<Self::Answer, DecodeError>;

    /// What a refusal says, where it is an answer and no failure.
    fn refused(&self, _ret_code: i64) -> Option<Self::Answer> {
        None
    }
}

fn page(params: &mut Params, offset: usize, limit: usize) {
    params.number("Offset", offset as u64);
    params.number("Limit", limit.clamp(1, MAX_PAGE) as u64);
}

#[cfg(test)]
mod mutation;

#[cfg(test)]
mod testing {
    use serde_json::Value;

    use super::*;

    /// The parameters of a request as one line, in the order in which they are sent.
    pub(super) fn sent<A: Action>(action: &A) -> String {
        let mut params = Params::default();
        action.params(&mut params);
        params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    /// What the action makes of an answer.
    pub(super) fn answer<A: Action>(action: &A, body: &Value) -> Result<A::Answer, DecodeError> {
        action.answer(&Fields::new(A::NAME, body.as_object().expect("an object")))
    }
}
