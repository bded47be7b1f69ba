//! Everything that is wrong with a configuration, at once.

use std::fmt;

use super::args::Given;
use super::flags::{Flag, Kind};

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
        let text = if flag.kind == URL { without_secrets(&given.text) } else { given.text.clone() };
        Self(format!("{}: {text:?} {} {problem}", flag.label(), given.origin))
    }
}

/// How the table marks flags whose values are addresses.
const URL: Kind = Kind::Value("URL");

/// An address without what may be a password or a token: before the last `@`, and after a `?` or `#`.
fn without_secrets(address: &str) -> String {
    let (user, rest) = match address.rsplit_once('@') {
        Some((before, rest)) => {
            let scheme = before.find("://").map_or("", |at| &before[..at + 3]);
            (format!("{scheme}***@"), rest)
        }
        None => (String::new(), address),
    };
    match rest.find(['?', '#']) {
        Some(at) => format!("{user}{}***", &rest[..=at]),
        None => format!("{user}{rest}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_may_be_secret() {
        for (address, shown) in [
            ("api.ucloud.cn", "api.ucloud.cn"),
            ("ftp://api.ucloud.cn/x", "ftp://api.ucloud.cn/x"),
            ("http://me:hunter2@host/x", "http://***@host/x"),
            ("me:hunter2@host", "***@host"),
            ("http://me:hun?t@r#2@host", "http://***@host"),
            ("http://host/?Token=hunter2", "http://host/?***"),
            ("http://host/#hunter2", "http://host/#***"),
        ] {
            assert_eq!(without_secrets(address), shown);
        }
    }
}
