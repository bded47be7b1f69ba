//! The envelope of an answer: a JSON object with a RetCode, whatever the headers say.
//!
//! The API answers errors with HTTP 200. What stands between it and us (gateways, captive portals) answers with
//! other statuses, HTML, or half an answer; none of that says anything about the disk.

use serde_json::{Map, Value};

use super::transport::{HttpResponse, MAX_RESPONSE};

/// How much of a strange answer an error quotes, in characters.
const QUOTE: usize = 160;

/// What an answer is before anybody looks at the action's own fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// RetCode 0.
    Done(Map<String, Value>),
    /// Another RetCode. `gateway` is set when the HTTP status says that it does not come from the API itself.
    Refused {
        code: i64,
        message: String,
        gateway: bool,
    },
    Strange(Strange),
}

/// Not an answer of the API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Strange {
    #[error("HTTP {status}, a redirect, which is never followed")]
    Redirect { status: u16 },
    #[error("HTTP 429: too many requests")]
    TooMany,
    #[error("HTTP {status}{quote}")]
    Status { status: u16, quote: String },
    #[error("the answer is not JSON ({problem}){quote}")]
    NotJson { problem: String, quote: String },
    #[error("the answer has no RetCode{quote}")]
    NoRetCode { quote: String },
    #[error("the answer is larger than {MAX_RESPONSE} bytes")]
    TooLarge,
}

/// Takes secrets out of a text that an error will quote.
pub(crate) type Scrub<'a> = &'a dyn Fn(&str) -> String;

/// Opens an answer. Without a way to scrub, nothing of a strange one may be quoted.
pub(crate) fn open(response: &HttpResponse, scrub: Option<Scrub<'_>>) -> Reply {
    let quote = || scrub.map(|scrub| quote(&response.body, scrub)).unwrap_or_default();
    let status = response.status;
    if response.body.len() > MAX_RESPONSE {
        return Reply::Strange(Strange::TooLarge);
    }
    let parsed = serde_json::from_slice::<Value>(&response.body);
    let code = parsed.as_ref().ok().and_then(|body| ret_code(body.get("RetCode")?));
    match (status, code) {
        (300..=399, _) => return Reply::Strange(Strange::Redirect { status }),
        // With a success in its body it may come from behind whoever counts requests.
        (429, code) if code != Some(0) => return Reply::Strange(Strange::TooMany),
        (200..=299, _) => {}
        // A success under an error status is not believed; an error is at least worth its words.
        (_, None | Some(0)) => return Reply::Strange(Strange::Status { status, quote: quote() }),
        (_, Some(_)) => {}
    }
    let body = match parsed {
        Ok(Value::Object(body)) => body,
        Ok(_) => return Reply::Strange(Strange::NoRetCode { quote: quote() }),
        // The parser's own message quotes nothing of its input.
        Err(error) => {
            return Reply::Strange(Strange::NotJson { problem: error.to_string(), quote: quote() });
        }
    };
    match code {
        None => Reply::Strange(Strange::NoRetCode { quote: quote() }),
        Some(0) => Reply::Done(body),
        Some(code) => {
            let message = body.get("Message").and_then(Value::as_str).unwrap_or_default();
            let message = printable(&scrub.map_or_else(|| message.to_owned(), |scrub| scrub(message)));
            let message = if message.is_empty() { "no message".to_owned() } else { message };
            Reply::Refused { code, message, gateway: status >= 400 }
        }
    }
}

/// Some backends quote the number.
fn ret_code(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The start of a body for an error text, on one line. Scrubbed before it is shortened: half a key is one too.
fn quote(body: &[u8], scrub: Scrub<'_>) -> String {
    let text = printable(&scrub(&String::from_utf8_lossy(body)));
    if text.is_empty() { ": empty".to_owned() } else { format!(": {text:?}") }
}

/// A foreign text, fit for one line of a log: short, without control characters.
pub(crate) fn printable(text: &str) -> String {
    let mut words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = words.next().unwrap_or_default().to_owned();
    for word in words {
        line.push(' ');
        line.push_str(word);
    }
    match line.char_indices().nth(QUOTE) {
        Some((end, _)) => {
            line.truncate(end);
            line + "…"
        }
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn response(status: u16, body: &str) -> HttpResponse {
        HttpResponse { status, request_id: None, body: body.as_bytes().to_vec() }
    }

    fn open(status: u16, body: &str) -> Reply {
        super::open(&response(status, body), Some(&str::to_owned))
    }

    #[test]
    fn a_ret_code_is_a_number_or_a_quoted_number() {
        assert!(matches!(open(200, r#"{"RetCode":0}"#), Reply::Done(_)));
        assert!(matches!(open(200, r#"{"RetCode":"0"}"#), Reply::Done(_)));
        let refused = |code| Reply::Refused { code, message: "no such disk".into(), gateway: false };
        assert_eq!(open(200, r#"{"RetCode":17041,"Message":"no such\n disk"}"#), refused(17041));
        assert_eq!(open(200, r#"{"RetCode":"17041","Message":"no such disk"}"#), refused(17041));
    }

    #[test]
    fn what_is_not_an_answer_is_never_taken_for_one() {
        let cases = [
            (200, "", "not JSON"),
            (200, r#"{"RetCode":0,"Data"#, "not JSON"),
            (200, "<html><body>Bad Gateway</body></html>", "Bad Gateway"),
            (200, "[]", "no RetCode"),
            (200, "null", "no RetCode"),
            (200, r#"{"DataSet":[]}"#, "no RetCode"),
            (200, r#"{"RetCode":null}"#, "no RetCode"),
            (200, r#"{"RetCode":[0]}"#, "no RetCode"),
            (200, r#"{"RetCode":0.5}"#, "no RetCode"),
            (502, "<html>upstream</html>", "HTTP 502: \"<html>upstream</html>\""),
            (500, r#"{"RetCode":0,"DataSet":[]}"#, "HTTP 500"),
            (404, "", "HTTP 404: empty"),
            (301, r#"{"RetCode":0}"#, "redirect"),
            (429, r#"{"RetCode":153}"#, "too many requests"),
            (429, r#"{"RetCode":0}"#, "HTTP 429: \"{"),
        ];
        for (status, body, part) in cases {
            match open(status, body) {
                Reply::Strange(strange) => {
                    assert!(strange.to_string().contains(part), "{status} {body}: {strange}");
                }
                other @ (Reply::Done(_) | Reply::Refused { .. }) => panic!("{status} {body}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_error_under_an_error_status_is_kept_and_marked() {
        let expected = Reply::Refused { code: 150, message: "down".into(), gateway: true };
        assert_eq!(open(503, r#"{"RetCode":150,"Message":"down"}"#), expected);
    }

    #[test]
    fn bodies_that_hold_secrets_are_not_quoted() {
        for (status, body) in [(502, "hunter2"), (200, "hunter2"), (200, r#"{"k":"hunter2"}"#)] {
            let reply = super::open(&response(status, body), None);
            assert!(matches!(reply, Reply::Strange(_)));
            assert!(!format!("{reply:?}").contains("hunter2"), "{reply:?}");
        }
    }

    #[test]
    fn quotes_are_one_short_line() {
        let long = "a\tb\r\n".repeat(500);
        let line = printable(&long);
        assert!(line.chars().count() <= QUOTE + 1 && !line.contains('\n'), "{line}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(status in 100_u16..600, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = super::open(&HttpResponse { status, request_id: None, body }, Some(&str::to_owned));
        }

        #[test]
        fn a_cut_answer_is_never_a_success(cut in 0_usize..40) {
            let whole = r#"{"RetCode":0,"TotalCount":0,"DataSet":[]}"#;
            prop_assert!(!matches!(open(200, &whole[..cut]), Reply::Done(_)));
        }
    }
}
