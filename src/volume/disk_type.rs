//! The disk types that UDisk sells.

use std::fmt;

use super::Gib;

/// A UDisk type, by the name that a StorageClass uses for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskType {
    Sata,
    Ssd,
    Essd,
    Rssd,
    Erssd,
    Efficiency,
}

impl DiskType {
    pub const ALL: [Self; 6] = [Self::Sata, Self::Ssd, Self::Essd, Self::Rssd, Self::Erssd, Self::Efficiency];

    /// The StorageClass word, such as `ssd`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sata => "sata",
            Self::Ssd => "ssd",
            Self::Essd => "essd",
            Self::Rssd => "rssd",
            Self::Erssd => "erssd",
            Self::Efficiency => "efficiency",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.word() == word)
    }

    /// Largest size that the API takes for this type.
    pub fn max_size(self) -> Gib {
        match self {
            Self::Sata | Self::Ssd | Self::Essd => Gib::new(8000),
            Self::Rssd | Self::Erssd | Self::Efficiency => Gib::new(32000),
        }
    }

    /// Whether the disk lives in an RDMA cluster and attaches only to hosts of the same cluster.
    pub fn needs_rdma(self) -> bool {
        match self {
            Self::Rssd | Self::Erssd => true,
            Self::Sata | Self::Ssd | Self::Essd | Self::Efficiency => false,
        }
    }
}

impl fmt::Display for DiskType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
