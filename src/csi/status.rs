//! The one place where errors become gRPC codes.
//!
//! What the sidecars make of a code decides whether disks leak: external-provisioner takes everything but
//! `Canceled`, `DeadlineExceeded`, `Unavailable` and `Aborted` as "nothing was created". So a mutating RPC
//! builds its status from [`Code`], which has no `Internal`, `Unknown` or `DataLoss` to offer, and each
//! operation's error enum is mapped by one exhaustive `match` (in the submodules).

pub mod controller;
pub mod node;
pub mod request;

use tonic::Status;

use super::operation::NoAnswer;

/// The codes that a mutating RPC may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Certain, permanent: the request is wrong.
    InvalidArgument,
    NotFound,
    AlreadyExists,
    OutOfRange,
    Unimplemented,
    /// Certain: refused in the present state.
    FailedPrecondition,
    PermissionDenied,
    /// Certain: nothing was made for lack of stock, quota or room on the host. The scheduler may choose another node.
    ResourceExhausted,
    /// It may have happened, or will be possible later; call again.
    Aborted,
    Unavailable,
    DeadlineExceeded,
}

/// Longest text of a status, in bytes. It travels in a header, which peers may limit, and texts can quote values of
/// any length; Kubernetes keeps one kilobyte of it in an event.
const LONGEST_TEXT: usize = 4096;

/// Builds the status of a mutating RPC.
pub fn status(code: Code, message: impl Into<String>) -> Status {
    let mut message = message.into();
    // Names and paths are quoted as they came, and the text becomes one line of an event.
    if message.contains(char::is_control) {
        message = message.replace(char::is_control, " ");
    }
    if message.len() > LONGEST_TEXT {
        message.truncate(message.floor_char_boundary(LONGEST_TEXT));
        message.push('…');
    }
    let code = match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Aborted => tonic::Code::Aborted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
    };
    Status::new(code, message)
}

impl From<NoAnswer> for Status {
    fn from(reason: NoAnswer) -> Self {
        let code = match &reason {
            NoAnswer::StillRunning { .. } => Code::DeadlineExceeded,
            NoAnswer::Busy { .. } | NoAnswer::Panicked { .. } => Code::Aborted,
            NoAnswer::Abandoned { .. } | NoAnswer::Stopping { .. } => Code::Unavailable,
        };
        status(code, reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "盘".repeat(2000);
        let status = status(Code::InvalidArgument, text);
        assert!(status.message().len() <= LONGEST_TEXT + '…'.len_utf8());
        assert!(status.message().ends_with("盘…"));
        assert_eq!(super::status(Code::Aborted, "short").message(), "short");
        assert_eq!(super::status(Code::Aborted, "a\nb\0c\u{1b}").message(), "a b c ");
    }
}
