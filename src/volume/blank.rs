//! What a disk shows where nothing was ever written.

/// How the sectors of a new disk read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BlankSectors {
    #[default]
    Zero,
    /// The disk is encrypted, and the cloud decrypts what was never written.
    Noise,
}

impl BlankSectors {
    /// From the answer to whether they read as noise.
    pub fn from_noise(word: &str) -> Option<Self> {
        yes_or_no(word).map(|noise| if noise { Self::Noise } else { Self::Zero })
    }
}

/// `yes` and `no` in any case, and what YAML tools turn them into.
pub(super) fn yes_or_no(value: &str) -> Option<bool> {
    let is = |word: &str| value.eq_ignore_ascii_case(word);
    if is("yes") || is("true") {
        Some(true)
    } else if is("no") || is("false") {
        Some(false)
    } else {
        None
    }
}
