//! Looks for texts anywhere in an object: ids of disks stand in volume handles, but also in the options of older
//! plugins, in inline volumes, in annotations, and wherever the next version of Kubernetes puts them.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

#[derive(Debug)]
pub(super) struct Search<'a> {
    wanted: &'a HashSet<String>,
    found: BTreeSet<String>,
}

impl<'a> Search<'a> {
    pub(super) fn new(wanted: &'a HashSet<String>) -> Self {
        Self { wanted, found: BTreeSet::new() }
    }

    /// Looks at an object that is then converted.
    pub(super) fn in_passing<T>(&mut self, item: Value, convert: impl FnOnce(Value) -> T) -> T {
        self.look(&item);
        convert(item)
    }

    pub(super) fn look(&mut self, value: &Value) {
        if self.wanted.is_empty() {
            return;
        }
        match value {
            Value::String(text) => self.words(text),
            Value::Array(values) => values.iter().for_each(|value| self.look(value)),
            Value::Object(map) => {
                for (key, value) in map {
                    self.words(key);
                    self.look(value);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    pub(super) fn found(self) -> BTreeSet<String> {
        self.found
    }

    /// Texts may hold others, such as the last applied configuration, so they are taken apart at everything that no
    /// id holds.
    fn words(&mut self, text: &str) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
        for word in words.filter(|word| !word.is_empty()) {
            // A dot or dash may also belong to the sentence.
            for word in [word, word.trim_matches(['.', '-', '_'])] {
                if let Some(id) = self.wanted.get(word) {
                    self.found.insert(id.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_found_wherever_they_stand() {
        let wanted: HashSet<String> = ["bs-1", "bs-2", "bsm-3"].map(str::to_owned).into();
        let found = |value: Value| {
            let mut search = Search::new(&wanted);
            search.look(&value);
            search.found().into_iter().collect::<Vec<_>>()
        };
        assert_eq!(found(json!({"spec": {"csi": {"volumeHandle": "bs-1"}}})), ["bs-1"]);
        assert_eq!(found(json!({"spec": {"flexVolume": {"options": {"diskId": "bsm-3"}}}})), ["bsm-3"]);
        let applied = json!({"spec": {"csi": {"volumeHandle": "bs-2"}}}).to_string();
        assert_eq!(found(json!([{"metadata": {"annotations": {"last-applied": applied}}}])), ["bs-2"]);
        assert_eq!(found(json!({"bs-1": true, "x": "moved from bs-2."})), ["bs-1", "bs-2"]);
        assert_eq!(found(json!({"x": ["bs-11", "abs-1", "bs-1x", 1, null]})), [""; 0]);
    }
}
