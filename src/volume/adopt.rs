//! Whose mark a volume's content may carry beside its own: the permission to adopt a copy.
//!
//! A disk that was cloned carries the mark of its source, and is refused like every wrong disk. That this one is a
//! copy on purpose only a person can know, so a person says it, in the volume context, and names the one mark.

use std::fmt;

use super::{DiskId, FsUuid, VolumeContext};

/// What the volume context says of foreign marks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Adoption {
    /// Nothing: no foreign mark may be replaced.
    #[default]
    Nothing,
    /// This one mark may be replaced by the volume's own.
    MarkOf { word: String, mark: FsUuid },
    /// What cannot be understood permits nothing. It is no error by itself: volume contexts live for ever, and a
    /// volume whose content carries its own mark works with any of them.
    Unreadable { word: String },
}

impl Adoption {
    /// From the id of the UDisk that was copied, or from its mark as the refusal shows it. A UUID that is no mark of
    /// this driver is neither.
    pub fn parse(value: &str) -> Self {
        let word = value.trim().to_owned();
        let mark = match FsUuid::parse(&word) {
            Some(uuid) => Some(uuid).filter(|uuid| uuid.is_mark()),
            None => DiskId::parse(&word).ok().map(|disk| FsUuid::of_disk(&disk)),
        };
        match mark {
            Some(mark) => Self::MarkOf { word, mark },
            None => Self::Unreadable { word },
        }
    }

    /// The word to parse the same permission from.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::MarkOf { word, .. } => Some(word),
            Self::Nothing | Self::Unreadable { .. } => None,
        }
    }

    /// The mark that may be replaced.
    pub fn mark(&self) -> Option<FsUuid> {
        match self {
            Self::MarkOf { mark, .. } => Some(*mark),
            Self::Nothing | Self::Unreadable { .. } => None,
        }
    }
}

/// Why a foreign mark is not replaced.
impl fmt::Display for Adoption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = VolumeContext::ADOPT;
        match self {
            Self::Nothing => write!(f, "its volume attributes have no {key}"),
            Self::MarkOf { word, mark } => {
                write!(f, "its volume attribute {key} is {word:?} and permits only the mark {mark}")
            }
            Self::Unreadable { word } => write!(
                f,
                "its volume attribute {key} is {word:?}, which is neither the id of a UDisk nor a mark of this driver, and so \
                 permits nothing"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(id: &str) -> FsUuid {
        FsUuid::of_disk(&DiskId::parse(id).unwrap())
    }

    #[test]
    fn an_id_or_a_mark_names_one_mark() {
        let mark = of("bs-1");
        for word in ["bs-1", " bs-1 ", &mark.to_string(), &mark.to_string().to_uppercase()] {
            assert_eq!(Adoption::parse(word).mark(), Some(mark), "{word}");
        }
        assert_ne!(Adoption::parse("BS-1").mark(), Some(mark));
        let kept = Adoption::parse("bs-1");
        assert_eq!(Adoption::parse(kept.word().unwrap()), kept);
    }

    #[test]
    fn what_is_neither_permits_nothing_and_says_so() {
        let random = "11111111-2222-4333-8444-555555555555";
        for word in ["", " ", "bs-1,bs-2", "*", "bs 1", random, &"x".repeat(200)] {
            let adoption = Adoption::parse(word);
            assert_eq!(adoption.mark(), None, "{word}");
            assert!(adoption.to_string().contains("permits nothing"), "{adoption}");
        }
    }

    proptest! {
        /// Whatever is written there permits at most one mark, and never one that nobody named.
        #[test]
        fn no_word_permits_what_it_does_not_name(word in "\\PC{0,60}") {
            prop_assert_ne!(Adoption::parse(&word).mark(), Some(of("bs-of-somebody")));
        }
    }
}
