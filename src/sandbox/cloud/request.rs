//! Requests and answers as they travel, and the parameters inside a request.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::signature::plain;

/// An HTTP request without the HTTP.
#[derive(Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Without the question mark.
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl fmt::Debug for Request {
    /// Leaves out query and body: they carry keys and signatures.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl Request {
    pub fn get(path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self { method: "GET".to_owned(), path: path.to_owned(), query: query.to_owned(), ..Self::default() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// An HTTP answer without the HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sends the body in so many pieces with so many milliseconds between them.
    pub drip: Option<Drip>,
}

/// A body that arrives slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drip {
    pub pieces: usize,
    pub pause: std::time::Duration,
}

impl Response {
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: vec![("content-type".to_owned(), content_type.to_owned())],
            body: body.into(),
            drip: None,
        }
    }

    pub fn json(status: u16, value: &Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What comes back: an answer, or a connection that breaks before one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Response(Response),
    Reset,
}

impl Answer {
    /// The answer, if there was one.
    pub fn response(self) -> Option<Response> {
        match self {
            Self::Response(response) => Some(response),
            Self::Reset => None,
        }
    }
}

/// The parameters of a request: as they were signed, and flat (`Key.0`) as the actions read them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    pub(crate) signed: BTreeMap<String, Value>,
    pub(crate) flat: BTreeMap<String, String>,
}

impl Params {
    /// Reads query and body; the body wins. A body that is neither form nor JSON holds no parameters.
    pub(crate) fn read(request: &Request) -> Self {
        let mut signed: BTreeMap<_, _> = form(&request.query);
        let json = request.header("content-type").is_some_and(|kind| kind.starts_with("application/json"));
        if json {
            if let Ok(Value::Object(members)) = serde_json::from_slice(&request.body) {
                signed.extend(members);
            }
        } else if let Ok(text) = std::str::from_utf8(&request.body) {
            signed.extend(form(text));
        }
        let mut flat = BTreeMap::new();
        for (key, value) in &signed {
            flatten(&mut flat, key.clone(), value);
        }
        Self { signed, flat }
    }

    /// A parameter's text; an empty one counts as not given.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.flat.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// The elements of an array, by their index.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        (0..).map_while(|index| self.get(&format!("{name}.{index}"))).collect()
    }
}

fn flatten(flat: &mut BTreeMap<String, String>, key: String, value: &Value) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(flat, format!("{key}.{index}"), item);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                flatten(flat, format!("{key}.{name}"), member);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            flat.insert(key, plain(value));
        }
    }
}

fn form(text: &str) -> BTreeMap<String, Value> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), Value::String(decode(value)))
        })
        .collect()
}

/// Undoes URL encoding; what is no proper escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => match tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok()) {
                Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    bytes.push(u8::from_str_radix(hex, 16).unwrap_or(b'%'));
                    rest = &tail[2..];
                }
                Some(_) | None => bytes.push(b'%'),
            },
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(kind: &str, body: &str) -> Request {
        Request {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            query: "Action=A".to_owned(),
            headers: vec![("Content-Type".to_owned(), kind.to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn forms_and_json_give_the_same_flat_parameters() {
        let form = Params::read(&post("application/x-www-form-urlencoded", "Ids.0=a%2Bb&Ids.1=c+d&N=5&E="));
        let json = Params::read(&post("application/json", r#"{"Ids":["a+b","c d"],"N":5,"E":""}"#));
        assert_eq!(form.flat, json.flat);
        assert_eq!(form.list("Ids"), ["a+b", "c d"]);
        assert_eq!(form.get("Action"), Some("A"));
        assert_eq!(form.get("E"), None);
    }

    #[test]
    fn broken_escapes_and_bodies_do_no_harm() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%4"), "%zz%4");
        assert_eq!(decode("%E7%A3%81"), "磁");
        assert_eq!(Params::read(&post("application/json", "[1")).flat.len(), 1);
    }
}
