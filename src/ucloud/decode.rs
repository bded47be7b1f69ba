//! Reads the fields of an answer: tolerant of how values are written, strict about whether they are there.
//!
//! Numbers come as strings, strings as numbers, switches in four spellings, single values without their array. All of that is
//! understood. What is not there, or is something else, is an error with the field's name wherever a meaning
//! depends on it: an answer without a set of disks does not say that the disk is gone.

use serde_json::{Map, Value};

/// An answer that says yes and does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{action} answered with RetCode 0, but {problem}")]
pub(crate) struct DecodeError {
    pub(crate) action: &'static str,
    pub(crate) problem: String,
}

/// The fields of one object of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    action: &'static str,
    /// What the object is, for errors: `DataSet[0]`; empty for the answer itself.
    place: &'static str,
    index: usize,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(action: &'static str, map: &'a Map<String, Value>) -> Self {
        Self { action, place: "", index: 0, map }
    }

    pub(crate) fn error(&self, problem: impl Into<String>) -> DecodeError {
        DecodeError { action: self.action, problem: problem.into() }
    }

    fn wrong(&self, name: &str, wanted: &str) -> DecodeError {
        self.error(format!("{} is missing or not {wanted}", self.name(name)))
    }

    fn name(&self, name: &str) -> String {
        match self.place {
            "" => name.to_owned(),
            place => format!("{place}[{}].{name}", self.index),
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text; `None` when it is absent, null or empty.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, DecodeError> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match scalar(value) {
                Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
                None => Err(self.wrong(name, "a text")),
            },
        }
    }

    /// A text that only informs: whatever it is, it breaks nothing.
    pub(crate) fn remark(&self, name: &str) -> Option<String> {
        self.get(name).and_then(scalar).filter(|text| !text.is_empty())
    }

    /// A text that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<String, DecodeError> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A text that must be there, and may be empty.
    pub(crate) fn required_or_empty(&self, name: &str) -> Result<String, DecodeError> {
        self.get(name).and_then(scalar).ok_or_else(|| self.wrong(name, "a text"))
    }

    /// A text in the form that `parse` takes.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, DecodeError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match parse(&text) {
            Ok(value) => Ok(Some(value)),
            Err(problem) => Err(self.error(format!("{} {problem}", self.name(name)))),
        }
    }

    /// The same, and it must be there.
    pub(crate) fn required_parsed<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, DecodeError> {
        self.parsed(name, parse)?.ok_or_else(|| self.wrong(name, "a text"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, DecodeError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value) => whole(value).map(Some).ok_or_else(|| self.wrong(name, "a whole number")),
        }
    }

    pub(crate) fn required_number(&self, name: &str) -> Result<u64, DecodeError> {
        self.number(name)?.ok_or_else(|| self.wrong(name, "a whole number"))
    }

    /// A switch; the API writes them as JSON, as `True`, as `Yes` and as 1.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, DecodeError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match scalar(value).map(|text| text.to_ascii_lowercase()).as_deref() {
            Some("") => Ok(None),
            Some("true" | "yes" | "1") => Ok(Some(true)),
            Some("false" | "no" | "0") => Ok(Some(false)),
            _ => Err(self.wrong(name, "a switch")),
        }
    }

    /// The one id that a creation answers, in an array or bare.
    pub(crate) fn single_id(&self, name: &str) -> Result<String, DecodeError> {
        let ids: Vec<Option<String>> = match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(values)) => values.iter().map(scalar).collect(),
            Some(value) => vec![scalar(value)],
        };
        match <[_; 1]>::try_from(ids) {
            Ok([Some(id)]) if !id.is_empty() => Ok(id),
            Ok(_) => Err(self.wrong(name, "an id")),
            Err(ids) => Err(self.error(format!("{name} holds {} ids instead of one", ids.len()))),
        }
    }

    /// The objects below `name`; none when it is absent.
    pub(crate) fn objects(&self, name: &'static str) -> Result<Vec<Fields<'a>>, DecodeError> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(values)) => self.entries(name, values),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    fn entries(&self, name: &'static str, values: &'a [Value]) -> Result<Vec<Fields<'a>>, DecodeError> {
        let entry = |(index, value): (usize, &'a Value)| match value.as_object() {
            Some(map) => Ok(Fields { action: self.action, place: name, index, map }),
            None => Err(self.error(format!("{}[{index}] is not an object", self.name(name)))),
        };
        values.iter().enumerate().map(entry).collect()
    }

    /// A set of a listing and how many the cloud counted in all. Empty only when the cloud says so.
    pub(crate) fn set(&self, name: &'static str) -> Result<Set<'a>, DecodeError> {
        let total = self.number("TotalCount")?;
        let values = match self.map.get(name) {
            Some(Value::Array(values)) => values.as_slice(),
            // How some backends write an empty set, so it is one if the count agrees.
            Some(Value::Null) if total == Some(0) => &[],
            Some(_) => return Err(self.wrong(name, "a list")),
            None => return Err(self.error(format!("{name} is missing"))),
        };
        Ok(Set { answer: *self, name, total, entries: self.entries(name, values)? })
    }
}

/// The set of a listing.
#[derive(Debug)]
pub(crate) struct Set<'a> {
    answer: Fields<'a>,
    name: &'static str,
    total: Option<u64>,
    pub(crate) entries: Vec<Fields<'a>>,
}

impl Set<'_> {
    /// The count over all pages, which a page must say: without it nobody knows whether the list is complete.
    pub(crate) fn total(&self) -> Result<usize, DecodeError> {
        let total = self.total.ok_or_else(|| self.answer.error("TotalCount is missing"))?;
        usize::try_from(total).map_err(|_| self.answer.wrong("TotalCount", "a count"))
    }

    /// The entry that was asked for by its id, out of the decoded ones. `None` only when the cloud answers an
    /// empty set and counts none: half an answer must not say that a disk is gone. Others' entries mean that the
    /// filter was not understood.
    pub(crate) fn single<T>(
        &self,
        wanted: &str,
        decode: impl Fn(&Fields<'_>) -> Result<T, DecodeError>,
        id: impl Fn(&T) -> &str,
    ) -> Result<Option<T>, DecodeError> {
        if self.entries.is_empty() {
            return match self.total()? {
                0 => Ok(None),
                total => {
                    Err(self.answer.error(format!("{} is empty while TotalCount is {total}", self.name)))
                }
            };
        }
        let mut others = None;
        for entry in &self.entries {
            let found = decode(entry)?;
            if id(&found) == wanted {
                return Ok(Some(found));
            }
            others = Some(id(&found).to_owned());
        }
        let others = others.unwrap_or_default();
        Err(self.answer.error(format!("{} holds {others} instead of {wanted}", self.name)))
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        // A fraction would be written in other digits than it came in, and no id or name is one.
        Value::Number(number) => (number.is_u64() || number.is_i64()).then(|| number.to_string()),
        Value::Bool(switch) => Some(switch.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            // 20.0 is how a backend in a language without integers writes 20.
            let text = number.to_string();
            text.strip_suffix(".0")?.parse().ok()
        }),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Any JSON, with names that mean something to the decoders.
    pub(crate) fn any_json() -> impl Strategy<Value = Value> {
        const NAMES: [&str; 22] = [
            "RetCode",
            "TotalCount",
            "DataSet",
            "UHostSet",
            "PHostSet",
            "UDiskId",
            "Zone",
            "Name",
            "Size",
            "Status",
            "HostId",
            "UHostId",
            "HostIP",
            "DeviceName",
            "DiskType",
            "IsBoot",
            "PHostId",
            "State",
            "PMStatus",
            "IPSet",
            "IP",
            "NeedRestart",
        ];
        const TEXTS: [&str; 8] = ["", "bs-1", "20", "InUse", "True", "uhost-1", "cn-bj2-05", "10.0.0.1"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            prop::sample::select(&TEXTS[..]).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(prop::sample::select(&NAMES[..]), inner, 0..8)
                    .prop_map(|map| map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn values_are_read_however_they_are_written() {
        let map = object(
            json!({"a": 20, "b": "20", "c": 20.0, "d": " x ", "e": 7, "f": null, "g": "", "h": "True",
            "i": "Yes", "j": false, "k": 1}),
        );
        let fields = Fields::new("X", &map);
        for name in ["a", "b", "c"] {
            assert_eq!(fields.number(name), Ok(Some(20)), "{name}");
        }
        assert_eq!(fields.text("d"), Ok(Some("x".into())));
        assert_eq!(fields.text("e"), Ok(Some("7".into())));
        for name in ["f", "g", "missing"] {
            assert_eq!(fields.text(name), Ok(None), "{name}");
            assert_eq!(fields.number(name), Ok(None), "{name}");
            assert_eq!(fields.switch(name), Ok(None), "{name}");
            assert!(fields.required(name).is_err(), "{name}");
        }
        for (name, expected) in [("h", true), ("i", true), ("j", false), ("k", true)] {
            assert_eq!(fields.switch(name), Ok(Some(expected)), "{name}");
        }
    }

    #[test]
    fn wrong_shapes_are_errors_with_action_and_field() {
        let map = object(json!({"list": [1], "object": {}, "half": 1.5, "minus": -1, "maybe": "perhaps"}));
        let fields = Fields::new("DescribeUDisk", &map);
        for error in [
            fields.text("list").unwrap_err(),
            fields.number("half").unwrap_err(),
            fields.number("minus").unwrap_err(),
            fields.switch("maybe").unwrap_err(),
            fields.switch("object").unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(text.starts_with("DescribeUDisk answered with RetCode 0, but "), "{text}");
            assert!(
                ["list", "half", "minus", "maybe", "object"].iter().any(|name| text.contains(name)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_id_is_taken_from_an_array_or_bare() {
        let id = |value: Value| {
            Fields::new("CreateUDisk", &object(json!({"UDiskId": value}))).single_id("UDiskId")
        };
        assert_eq!(id(json!(["bs-1"])), Ok("bs-1".into()));
        assert_eq!(id(json!("bs-1")), Ok("bs-1".into()));
        for value in [
            json!([]),
            json!(null),
            json!(""),
            json!([""]),
            json!(["a", "b"]),
            json!({}),
            json!([["a"]]),
            json!(-1.5e-13),
        ] {
            assert!(id(value.clone()).is_err(), "{value}");
        }
    }

    #[test]
    fn a_set_is_empty_only_when_the_cloud_says_so() {
        let single = |value: Value| {
            let map = object(value);
            let fields = Fields::new("X", &map);
            let set = fields.set("DataSet")?;
            set.single("a", |entry| entry.required("Id"), |id| id.as_str())
        };
        assert_eq!(single(json!({"DataSet": [], "TotalCount": 0})), Ok(None));
        assert_eq!(single(json!({"DataSet": null, "TotalCount": "0"})), Ok(None));
        assert_eq!(single(json!({"DataSet": [{"Id": "b"}, {"Id": "a"}]})), Ok(Some("a".into())));
        for value in [
            json!({}),
            json!({"TotalCount": 0}),
            json!({"DataSet": []}),
            json!({"DataSet": [], "TotalCount": null}),
            json!({"DataSet": null}),
            json!({"DataSet": null, "TotalCount": 1}),
            json!({"DataSet": [], "TotalCount": 1}),
            json!({"DataSet": [], "TotalCount": "many"}),
            json!({"DataSet": {}}),
            json!({"DataSet": "none"}),
            json!({"DataSet": [null]}),
            json!({"DataSet": [{}]}),
            json!({"DataSet": [{"Id": "b"}]}),
        ] {
            assert!(single(value.clone()).is_err(), "{value}");
        }
    }
}
