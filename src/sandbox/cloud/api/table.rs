//! Parameter tables: what an action takes is data, checked in one place, so that it can be held against the
//! documentation line by line.

use super::problem::Problem;
use super::{Act, Call};
use crate::sandbox::cloud::request::Params;

/// What a parameter's text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Decimal, in this range.
    Int {
        min: i64,
        max: i64,
    },
    OneOf(&'static [&'static str]),
    /// `true` or `false` in any case.
    Bool,
    /// `Name.0`, `Name.1`, …
    List,
}

pub(crate) const YES_NO: Kind = Kind::OneOf(&["Yes", "No"]);
pub(crate) const COUNT: Kind = Kind::Int { min: 0, max: i64::MAX };
/// The widest range of any disk type; the type narrows it.
pub(crate) const SIZE: Kind = Kind::Int { min: 1, max: 32_000 };

/// One line of a parameter table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    pub name: &'static str,
    pub required: bool,
    pub kind: Kind,
}

pub(crate) const fn required(name: &'static str, kind: Kind) -> Param {
    Param { name, required: true, kind }
}

pub(crate) const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, required: false, kind }
}

/// Which of the common parameters an action insists on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Neither region nor zone.
    Anywhere,
    Region,
    RegionAndZone,
}

/// An action: its table, and what it does.
#[derive(Debug, Clone, Copy)]
pub struct ActionSpec {
    pub name: &'static str,
    pub place: Place,
    /// Several tables, since some groups of parameters occur in many actions.
    pub params: &'static [&'static [Param]],
    /// Of each group, one must be given.
    pub one_of: &'static [&'static [&'static str]],
    pub(crate) act: Act,
}

impl ActionSpec {
    /// All lines of the table.
    pub fn lines(&self) -> impl Iterator<Item = &'static Param> {
        self.params.iter().flat_map(|part| part.iter())
    }

    /// Required parameters first, then the values of all that are given.
    pub(crate) fn check(&self, params: &Params) -> Result<(), Problem> {
        let given = |param: &Param| match param.kind {
            Kind::List => !params.list(param.name).is_empty(),
            Kind::Text | Kind::Int { .. } | Kind::OneOf(_) | Kind::Bool => params.get(param.name).is_some(),
        };
        if let Some(missing) = self.lines().find(|param| param.required && !given(param)) {
            return Err(Problem::missing(missing.name));
        }
        for group in self.one_of {
            if group.iter().all(|name| params.get(name).is_none()) {
                return Err(Problem::missing(group.first().copied().unwrap_or_default()));
            }
        }
        match self.lines().find(|param| params.get(param.name).is_some_and(|text| !param.kind.allows(text))) {
            Some(bad) => Err(Problem::not_available(bad.name)),
            None => Ok(()),
        }
    }
}

impl Kind {
    fn allows(self, text: &str) -> bool {
        match self {
            Self::Text | Self::List => true,
            Self::Int { min, max } => {
                text.parse::<i64>().is_ok_and(|number| (min..=max).contains(&number))
                    && text.bytes().all(|byte| byte.is_ascii_digit())
            }
            Self::OneOf(words) => words.contains(&text),
            Self::Bool => text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false"),
        }
    }
}

/// Readers of parameters that the table has checked.
impl<'a> Call<'a> {
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.params.get(name)
    }

    /// A parameter's text, or nothing.
    pub(crate) fn text(&self, name: &str) -> &'a str {
        self.get(name).unwrap_or_default()
    }

    pub(crate) fn number<N: std::str::FromStr>(&self, name: &str) -> Option<N> {
        self.get(name)?.parse().ok()
    }

    pub(crate) fn yes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|text| text == "Yes" || text.eq_ignore_ascii_case("true"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_held_against_their_kind() {
        assert!(SIZE.allows("10") && SIZE.allows("1") && SIZE.allows("32000"));
        assert!(!SIZE.allows("0") && !SIZE.allows("32001") && !SIZE.allows("+5") && !SIZE.allows("1.5"));
        assert!(YES_NO.allows("Yes") && !YES_NO.allows("yes"));
        assert!(Kind::Bool.allows("True") && !Kind::Bool.allows("1"));
    }
}
