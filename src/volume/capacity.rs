//! Sizes. The cloud counts in whole GiB (it writes "GB"), CSI in bytes.

use std::fmt;

/// A size in whole GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Gib(u32);

impl Gib {
    pub const fn new(gib: u32) -> Self {
        Self(gib)
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub const fn bytes(self) -> u64 {
        (self.0 as u64) << 30
    }
}

impl fmt::Display for Gib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} GiB", self.0)
    }
}
