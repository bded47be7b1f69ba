//! What a failed call means for the disk, without the cloud's numbers.

use std::fmt;

/// Whether a change that was asked for may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The cloud did not do it and will not do it: it said no, or it never received the request.
    NothingHappened,
    /// Unknown: only reading the disk tells.
    Unknown,
}

/// Why a call failed, in terms that a use case can act on. Only the client maps RetCodes to these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The reply was lost, late or unreadable, or the gateway or a backend gave up.
    NoAnswer,
    /// The cloud could not be reached at all.
    Unreachable,
    /// Too many requests; this one was not executed.
    Throttled,
    /// The driver's credentials are missing, wrong or expired.
    Credentials,
    /// The account or its IAM policy does not allow the call, or a source-address list blocks it.
    Denied,
    /// The account is frozen, in arrears or out of money.
    Payment,
    /// A quota of the account is used up.
    Quota,
    /// The product, type or zone is not sold here, or there is no stock.
    NoStock,
    /// The cloud does not know the disk (or host) that the request names.
    NotFound,
    /// Another operation on the disk or its host runs; it must end first.
    Busy,
    /// The disk is attached already, somewhere.
    AlreadyAttached,
    /// The disk is attached and the call needs it detached.
    InUse,
    /// Attach was refused or failed for a reason the cloud does not give (too many disks, wrong state).
    AttachFailed,
    /// Detach was refused or failed likewise; also the answer for a disk that is not attached.
    DetachFailed,
    /// Disk and host are in different RDMA clusters.
    RdmaMismatch,
    /// The size or another value is not acceptable.
    InvalidRequest,
    /// The host must be stopped first.
    HostMustStop,
    /// Any refusal that the driver has no special plan for.
    Refused,
}

/// A failed call, with all that a human needs to follow it up.
#[derive(Debug, Clone)]
pub struct CloudError {
    /// The API action, such as `AttachUDisk`.
    pub action: &'static str,
    pub cause: Cause,
    pub outcome: Outcome,
    /// The cloud's own number, for display only.
    pub ret_code: Option<i64>,
    /// What the cloud (or the transport) said, without secrets.
    pub message: String,
    /// What that number means and what to do about it, in plain words.
    pub advice: Option<&'static str>,
    /// The cloud's id of the failed request; its support asks for it.
    pub request_id: Option<String>,
    /// How often the request was sent.
    pub attempts: u32,
}

impl fmt::Display for CloudError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.action)?;
        if let Some(code) = self.ret_code {
            write!(f, " with RetCode {code}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(advice) = self.advice {
            write!(f, " ({advice})")?;
        }
        if self.attempts > 1 {
            write!(f, " after {} attempts", self.attempts)?;
        }
        if let Some(id) = &self.request_id {
            write!(f, " [request {id}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for CloudError {}

impl CloudError {
    /// Whether the cloud certainly did not do what was asked.
    pub fn nothing_happened(&self) -> bool {
        self.outcome == Outcome::NothingHappened
    }
}
