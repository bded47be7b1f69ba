//! Requests that are refused before anything is done.

use tonic::Status;

use super::{Code, status};
use crate::volume::FsType;
use crate::volume::capability::CapabilityError;
use crate::volume::capacity::CapacityError;
use crate::volume::context::ContextError;
use crate::volume::id::IdError;
use crate::volume::list_token::TokenError;
use crate::volume::name::NameError;
use crate::volume::parameters::ParameterError;
use crate::volume::topology::TopologyError;

/// Why a request is refused as it stands. Nothing was sent anywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("{0} is required")]
    Required(&'static str),
    /// A field for something that the driver does not offer. Leaving it out silently would be a wrong answer.
    #[error("{field} is not supported: {reason}")]
    Unsupported { field: &'static str, reason: &'static str },
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Capability(#[from] CapabilityError),
    #[error("volume_capabilities ask for the file systems {one} and {other}; a volume has one")]
    FileSystems { one: FsType, other: FsType },
    #[error(transparent)]
    Capacity(#[from] CapacityError),
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("max_entries is {0}; it must not be negative, and 0 means all")]
    MaxEntries(i32),
    #[error(transparent)]
    Token(#[from] TokenError),
    /// No disk can have such an id, so none has.
    #[error("volume {id:?} does not exist: the id {reason}")]
    NoSuchVolume { id: String, reason: IdError },
    #[error("node {id:?} does not exist: the id {reason}")]
    NoSuchNode { id: String, reason: IdError },
}

impl RequestError {
    pub fn code(&self) -> Code {
        match self {
            Self::Required(_)
            | Self::Unsupported { .. }
            | Self::Name(_)
            | Self::Capability(_)
            | Self::FileSystems { .. }
            | Self::Parameter(_)
            | Self::Topology(_)
            | Self::Context(_)
            | Self::MaxEntries(_) => Code::InvalidArgument,
            Self::Capacity(error) => capacity(error),
            // CSI: the caller starts over.
            Self::Token(_) => Code::Aborted,
            Self::NoSuchVolume { .. } | Self::NoSuchNode { .. } => Code::NotFound,
        }
    }
}

/// A range that makes no sense is a wrong request; one that no disk fits is a size that cannot be had.
pub(super) fn capacity(error: &CapacityError) -> Code {
    match error {
        CapacityError::Negative { .. } | CapacityError::Inverted { .. } => Code::InvalidArgument,
        CapacityError::BetweenSteps { .. } | CapacityError::TooLarge { .. } => Code::OutOfRange,
    }
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        status(error.code(), error.to_string())
    }
}
