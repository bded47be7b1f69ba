//! Identifiers as the cloud and CSI write them.

use std::fmt;

/// Longest id that is ever sent to the cloud, in bytes. CSI itself allows 128 for most string fields.
pub const MAX_ID_LENGTH: usize = 128;

/// Why a text cannot be an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("is empty")]
    Empty,
    #[error("is longer than {MAX_ID_LENGTH} bytes")]
    TooLong,
    #[error("holds {0:?}; only letters, digits, '-', '_' and '.' can occur in a cloud id")]
    Character(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID_LENGTH {
        return Err(IdError::TooLong);
    }
    match text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))) {
        Some(other) => Err(IdError::Character(other)),
        None => Ok(()),
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes any text that the cloud could have given out; it need not name anything that exists.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text)?;
                Ok(Self(text.to_owned()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// A UDisk id, such as `bs-abc123` or `bsm-abc123`: the CSI volume handle.
    DiskId
}

identifier! {
    /// A host id: `uhost-…` (virtual machine), `upm-…` (bare metal).
    HostId
}

identifier! {
    /// An availability zone, such as `cn-bj2-05`.
    Zone
}

/// What kind of host an id names; growing an attached disk differs between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// `uhost-…`, and every id that is not known to be something else.
    Virtual,
    /// `upm-…`.
    BareMetal,
}

impl HostId {
    pub fn kind(&self) -> HostKind {
        if self.0.starts_with("upm-") { HostKind::BareMetal } else { HostKind::Virtual }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_cloud_are_taken_and_odd_text_is_not() {
        assert_eq!(DiskId::parse("bsm-x1y2").unwrap().as_str(), "bsm-x1y2");
        assert_eq!(DiskId::parse(""), Err(IdError::Empty));
        assert_eq!(DiskId::parse("bs-1/../2"), Err(IdError::Character('/')));
        assert_eq!(DiskId::parse(&"x".repeat(129)), Err(IdError::TooLong));
        assert_eq!(HostId::parse("upm-1").unwrap().kind(), HostKind::BareMetal);
        assert_eq!(HostId::parse("uhost-1").unwrap().kind(), HostKind::Virtual);
    }
}
