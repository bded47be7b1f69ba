//! The signature over a request's parameters.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use sha1::{Digest, Sha1};

/// Signs all parameters but `Signature`: keys in byte order, each followed by its value, then the private key.
pub(crate) fn sign(params: &BTreeMap<String, Value>, private_key: &str) -> String {
    let mut text = String::new();
    for (key, value) in params.iter().filter(|(key, _)| *key != "Signature") {
        text.push_str(key);
        push_value(&mut text, value);
    }
    text.push_str(private_key);
    let digest = Sha1::digest(text.as_bytes());
    digest.iter().fold(String::with_capacity(40), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Nested values, which only JSON bodies have: elements in order without their index, members by sorted key.
fn push_value(text: &mut String, value: &Value) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| push_value(text, item)),
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            for (key, member) in sorted {
                text.push_str(key);
                push_value(text, member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&plain(value)),
    }
}

/// A single value as it is signed: never in exponent form, and 10.0 as 10.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        // `Display` of a float writes all digits and no exponent.
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.to_string(),
            Some(_) | None => number.to_string(),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn params(value: Value) -> BTreeMap<String, Value> {
        value.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn the_documented_example_gives_the_documented_signature() {
        let params = params(json!({
            "Action": "DescribeUHostInstance",
            "Limit": "10",
            "PublicKey": "ucloudsomeone@example.com1296235120854146120",
            "Region": "cn-bj2",
            "Signature": "is not signed",
        }));
        let signature = sign(&params, "46f09bb9fab4f12dfc160dae12273d5332b5debe");
        assert_eq!(signature, "cba5cf5ec4d4233d206b1b54951e3787350a642f");
    }

    #[test]
    fn nested_and_odd_values_are_flattened() {
        let nested = params(json!({"Ids": ["b", "a"], "Map": {"z": 1, "a": true}, "N": 10.0, "F": 0.000001}));
        let flat = params(json!({"F": "0.000001", "Ids": "ba", "Map": "atruez1", "N": "10"}));
        assert_eq!(sign(&nested, "k"), sign(&flat, "k"));
    }
}
