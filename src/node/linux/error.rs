//! A call to the kernel that failed.

use std::io;
use std::path::Path;

use nix::errno::Errno;

/// What was being done, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {source}")]
pub struct HostError {
    doing: String,
    source: io::Error,
}

impl HostError {
    pub fn new(doing: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { doing: doing.into(), source: source.into() }
    }

    /// What mount(2) says to an option that the kernel does not know.
    pub fn is_invalid_argument(&self) -> bool {
        self.errno() == Some(Errno::EINVAL)
    }

    /// What file systems say when what they read cannot be true.
    pub fn is_damage(&self) -> bool {
        matches!(self.errno(), Some(Errno::EUCLEAN | Errno::EBADMSG))
    }

    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }
}

/// Adds what was being done to a failed call.
pub(crate) trait Doing<T> {
    /// `verb` and the path make the text: `cannot open /dev/vdb: …`.
    fn doing(self, verb: &str, path: &Path) -> Result<T, HostError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, verb: &str, path: &Path) -> Result<T, HostError> {
        self.map_err(|source| HostError::new(format!("cannot {verb} {}", path.display()), source))
    }
}
