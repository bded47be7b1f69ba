//! What the errors of all operations have in common. Each operation adds its own enum beside its code.
//!
//! The protocol edge turns every variant into one code, so a variant says one thing only: either it certainly
//! did not happen, or nobody knows.

use std::fmt;
use std::time::Duration;

use crate::cloud::{Cause, CloudError, Outcome};

/// There is no result yet: nothing may be concluded about the disk.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unresolved {
    /// The cloud could not be asked how things stand.
    #[error("cannot {what}, because the state in the cloud cannot be read: {source}")]
    Unreadable { what: String, source: CloudError },
    /// The time of the operation is over. What it sent may still take effect.
    #[error("cannot {what} yet: after {} {phase}{}", Seconds(*.waited), After(.source))]
    TimedOut { what: String, phase: String, waited: Duration, source: Option<CloudError> },
}

/// A call that the cloud did not carry out as asked, and what follows for the operation.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct CallError {
    pub what: String,
    pub verdict: Verdict,
    pub source: CloudError,
}

/// What a failed change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may have happened.
    Uncertain,
    /// Nothing happened, and the same call can succeed later without anybody doing anything.
    Later,
    /// Nothing happened: the driver's keys or their rights do not allow it.
    Denied,
    /// Nothing happened: stock or quota is used up.
    Exhausted,
    /// Nothing happened: the request's values are not acceptable.
    Invalid,
    /// Nothing happened: not possible in the present state of disk, host or account.
    Refused,
}

impl Verdict {
    pub(super) fn of(error: &CloudError) -> Self {
        if error.outcome == Outcome::Unknown {
            return Self::Uncertain;
        }
        match error.cause {
            Cause::NoAnswer | Cause::Unreachable | Cause::Throttled | Cause::Busy => Self::Later,
            Cause::Credentials | Cause::Denied => Self::Denied,
            Cause::Quota | Cause::NoStock => Self::Exhausted,
            Cause::InvalidRequest => Self::Invalid,
            Cause::Payment
            | Cause::NotFound
            | Cause::AlreadyAttached
            | Cause::InUse
            | Cause::AttachFailed
            | Cause::DetachFailed
            | Cause::RdmaMismatch
            | Cause::HostMustStop
            | Cause::Refused => Self::Refused,
        }
    }
}

impl CallError {
    pub(super) fn new(what: impl Into<String>, source: CloudError) -> Self {
        Self { what: what.into(), verdict: Verdict::of(&source), source }
    }
}

/// Whether reading again can help; the rights of the driver's keys do not change by waiting.
pub(super) fn reading_again_helps(error: &CloudError) -> bool {
    match error.cause {
        Cause::Credentials | Cause::Denied | Cause::Payment | Cause::InvalidRequest => false,
        Cause::NoAnswer
        | Cause::Unreachable
        | Cause::Throttled
        | Cause::Quota
        | Cause::NoStock
        | Cause::NotFound
        | Cause::Busy
        | Cause::AlreadyAttached
        | Cause::InUse
        | Cause::AttachFailed
        | Cause::DetachFailed
        | Cause::RdmaMismatch
        | Cause::HostMustStop
        | Cause::Refused => true,
    }
}

pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} s", self.0.as_secs_f64())
    }
}

struct After<'a>(&'a Option<CloudError>);

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(f, "; last answer of the cloud: {error}"),
            None => Ok(()),
        }
    }
}

/// The cause of an error at the end of its text, where there is one.
pub(super) struct Because<'a>(pub(super) &'a Option<CloudError>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}
