//! What must hold of every answer, and of the account at the end.

use csi_udisk::sandbox::cloud::{Disk, SimCloud};
use tonic::{Code, Status};

use crate::call::Call;
use crate::world::{STRANGER, named};

/// What is wrong with a refusal, whatever its reason.
pub fn refusal(call: Call, status: &Status, name: &str, id: &str) -> Vec<String> {
    let text = status.message();
    let mut faults = Vec::new();
    if matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok | Code::Cancelled) {
        faults.push(format!("answers {:?}: {text}", status.code()));
    }
    let names_volume = text.contains(name) || (!id.is_empty() && text.contains(id));
    if !names_volume {
        faults.push(format!("does not name the volume: {text}"));
    }
    if let Call::Publish(node) | Call::Unpublish(node) = call
        && !is_busy(status)
        && !text.contains(node)
        && !text.contains(crate::call::host_of(node))
    {
        faults.push(format!("does not name the node: {text}"));
    }
    if text.contains("with RetCode") && !text.contains("[request ") {
        faults.push(format!("quotes the cloud without its request id: {text}"));
    }
    faults
}

/// Whether the call was not begun because another one runs, which is named instead.
pub fn is_busy(status: &Status) -> bool {
    status.message().starts_with("waiting for another operation")
}

/// What a final refusal must not leave behind: its caller forgets the call.
pub fn finality(call: Call, cloud: &SimCloud, name: &str, id: &str) -> Option<String> {
    match call {
        Call::Create(_) => {
            let disks = named(cloud, name);
            (!disks.is_empty()).then(|| format!("a final refusal, and there is {}", ids(&disks)))
        }
        Call::Publish(node) => {
            let disk = cloud.disk(id)?;
            let there = disk.host() == Some(crate::call::host_of(node));
            there.then(|| format!("a final refusal, and the disk is {} there", disk.status.word()))
        }
        // Their callers come again whatever the code.
        Call::Delete | Call::Unpublish(_) | Call::Expand(_) => None,
    }
}

/// What must not have been touched.
pub fn stranger(before: &Option<Disk>, cloud: &SimCloud) -> Option<String> {
    let now = self::find_stranger(cloud);
    (now != *before).then(|| format!("somebody else's disk was {before:?} and is {now:?}"))
}

pub fn find_stranger(cloud: &SimCloud) -> Option<Disk> {
    named(cloud, STRANGER).pop()
}

pub fn ids(disks: &[Disk]) -> String {
    disks.iter().map(|disk| disk.id.as_str()).collect::<Vec<_>>().join(", ")
}
