//! From the command line and the environment to one text per flag, with its origin.

use std::ffi::OsString;
use std::fmt;
use std::iter::Peekable;

use super::error::Fault;
use super::flags::{Flag, Kind};

/// Where a value came from, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Variable(&'static str),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("on the command line"),
            Self::Variable(name) => write!(f, "in {name}"),
            Self::Default => f.write_str("by default"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// What the command line asks for beside values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Run,
    Help,
    Version,
}

/// The command line, cut at its flags.
#[derive(Debug)]
pub(super) struct Arguments {
    values: Vec<(&'static Flag, String)>,
    pub(super) wish: Wish,
    /// Flags that were given and have no effect, as they were written.
    pub(super) ignored: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

impl Arguments {
    /// Reads flags as Go's `flag` package does: one dash or two, `=` or the next argument for a value; a
    /// switch takes its value after `=` only. The last of several wins.
    pub(super) fn parse(table: &[&'static Flag], args: impl IntoIterator<Item = OsString>) -> Self {
        let mut parsed =
            Self { values: Vec::new(), wish: Wish::Run, ignored: Vec::new(), faults: Vec::new() };
        let mut args = args.into_iter().peekable();
        while let Some(argument) = args.next() {
            let argument = match argument.into_string() {
                Ok(text) => text,
                Err(bytes) => {
                    parsed.faults.push(Fault::plain(format!("{bytes:?} is not valid UTF-8")));
                    continue;
                }
            };
            parsed.take(table, &argument, &mut args);
        }
        parsed
    }

    fn take(
        &mut self,
        table: &[&'static Flag],
        argument: &str,
        rest: &mut Peekable<impl Iterator<Item = OsString>>,
    ) {
        let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
            self.faults.push(Fault::plain(format!("{argument:?} is not a flag; flags start with --")));
            return;
        };
        let (name, inline) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        match name {
            "help" | "h" => self.wish = Wish::Help,
            "version" => self.wish = Wish::Version,
            _ => match table.iter().find(|flag| same_name(flag.name, name)) {
                None => {
                    self.faults
                        .push(Fault::plain(format!("--{name} is not a flag of csi-udisk; see --help")));
                    // Its value is not quoted: who gives keys as flags should not find them in a log as well.
                    if inline.is_none() {
                        rest.next_if(|next| !next.as_encoded_bytes().starts_with(b"-"));
                    }
                }
                Some(flag) => self.store(flag, argument, inline, rest),
            },
        }
    }

    fn store(
        &mut self,
        flag: &'static Flag,
        argument: &str,
        inline: Option<String>,
        rest: &mut impl Iterator<Item = OsString>,
    ) {
        let value = match (flag.kind, inline) {
            (_, Some(value)) => value,
            (Kind::Switch | Kind::IgnoredSwitch, None) => "true".to_owned(),
            (Kind::Value(_) | Kind::IgnoredValue, None) => match rest.next().map(OsString::into_string) {
                Some(Ok(value)) => value,
                Some(Err(bytes)) => {
                    self.faults.push(Fault::of(flag, format!("{bytes:?} is not valid UTF-8")));
                    return;
                }
                None => {
                    self.faults.push(Fault::of(flag, "has no value"));
                    return;
                }
            },
        };
        match flag.kind {
            Kind::IgnoredSwitch | Kind::IgnoredValue => self.ignored.push(argument.to_owned()),
            Kind::Value(_) | Kind::Switch => self.values.push((flag, value)),
        }
    }

    /// The value of a flag: from the command line, else from its variables in order, else the default.
    /// An empty text means "not set", as ConfigMaps with empty values intend.
    pub(super) fn given(&mut self, flag: &'static Flag, variables: &dyn Variables) -> Option<Given> {
        let on_line = self.values.iter().rev().find(|(f, _)| std::ptr::eq(*f, flag));
        if let Some((_, text)) = on_line.filter(|(_, text)| !text.is_empty()) {
            return Some(Given { text: text.clone(), origin: Origin::Flag });
        }
        for &name in flag.variables {
            match variables.get(name).map(OsString::into_string) {
                Some(Ok(text)) if !text.is_empty() => {
                    return Some(Given { text, origin: Origin::Variable(name) });
                }
                Some(Err(_)) => {
                    self.faults.push(Fault::of(flag, format!("{name} is not valid UTF-8")));
                    return None;
                }
                Some(Ok(_)) | None => {}
            }
        }
        flag.default.map(|text| Given { text: text.to_owned(), origin: Origin::Default })
    }
}

/// The environment, or a map in its place.
pub trait Variables {
    fn get(&self, name: &str) -> Option<OsString>;
}

impl<F: Fn(&str) -> Option<OsString>> Variables for F {
    fn get(&self, name: &str) -> Option<OsString> {
        self(name)
    }
}

fn same_name(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes().zip(b.bytes()).all(|(a, b)| a == b || matches!((a, b), (b'-', b'_') | (b'_', b'-')))
}
