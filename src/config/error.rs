//! Everything that is wrong with a configuration, at once.

use std::fmt;

use super::args::Given;
use super::flags::Flag;

/// One thing that is wrong, naming the flag and its variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn of(flag: &Flag, problem: impl fmt::Display) -> Self {
        Self(format!("{}: {problem}", flag.label()))
    }

    /// A value that cannot be used; `problem` says why and what can.
    pub(super) fn value(flag: &Flag, given: &Given, problem: impl fmt::Display) -> Self {
        Self(format!("{}: {:?} {} {problem}", flag.label(), given.text, given.origin))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the configuration cannot be used. Never empty when returned as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has a fault:")?,
            n => write!(f, "the configuration has {n} faults:")?,
        }
        for fault in &self.0 {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
