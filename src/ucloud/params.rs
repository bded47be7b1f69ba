//! The parameters of one request, as the API takes them in a form.

use std::borrow::Cow;
use std::fmt;

/// Names whose values never print.
const SECRET: [&str; 3] = ["PublicKey", "Signature", "SecurityToken"];

/// Parameters in the order in which they are sent. Values go in by type, because the text that is signed must be
/// the text that is sent.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(Vec<(Cow<'static, str>, String)>);

impl Params {
    pub(crate) fn text(&mut self, name: impl Into<Cow<'static, str>>, value: &str) {
        self.0.push((name.into(), value.to_owned()));
    }

    /// Left out when there is no value: the API takes an empty parameter for a wrong one.
    pub(crate) fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.text(name, value);
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, value: u64) {
        self.text(name, &value.to_string());
    }

    /// A switch in the API's own words.
    pub(crate) fn yes_no(&mut self, name: &'static str, value: bool) {
        self.text(name, if value { "Yes" } else { "No" });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), value.as_str()))
    }

    /// The body of a form POST.
    pub(crate) fn encode(&self) -> String {
        let mut form = String::new();
        for (name, value) in self.iter() {
            if !form.is_empty() {
                form.push('&');
            }
            escape(&mut form, name);
            form.push('=');
            escape(&mut form, value);
        }
        form
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter().map(|(name, value)| (name, if SECRET.contains(&name) { "***" } else { value })),
            )
            .finish()
    }
}

/// Writes a text as forms have it.
pub(super) fn escape(form: &mut String, text: &str) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                form.push(char::from(byte))
            }
            b' ' => form.push('+'),
            other => {
                form.push('%');
                form.push(char::from(HEX[usize::from(other >> 4)]));
                form.push(char::from(HEX[usize::from(other & 15)]));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parameters of a form body, decoded by the URL library and not by the code under test.
    pub(crate) fn decode(form: &str) -> Vec<(String, String)> {
        let url = reqwest::Url::parse(&format!("http://x/?{form}")).unwrap();
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    proptest! {
        #[test]
        fn a_form_decodes_to_what_went_in(pairs in prop::collection::vec(("[A-Za-z.0-9]{1,12}", ".{0,20}"), 0..8)) {
            let mut params = Params::default();
            for (name, value) in &pairs {
                params.text(name.clone(), value);
            }
            prop_assert_eq!(decode(&params.encode()), pairs);
        }
    }

    #[test]
    fn values_go_in_by_type_and_empty_ones_not_at_all() {
        let mut params = Params::default();
        params.number("Size", 20);
        params.yes_no("MultiAttach", false);
        params.optional("Tag", Some(""));
        params.optional("CmkId", None);
        params.text("Name", "a b&c=d/é");
        assert_eq!(params.encode(), "Size=20&MultiAttach=No&Name=a+b%26c%3Dd%2F%C3%A9");
    }

    #[test]
    fn keys_and_signatures_do_not_print() {
        let mut params = Params::default();
        for name in SECRET {
            params.text(name, "hunter2");
        }
        params.text("Region", "cn-bj2");
        let text = format!("{params:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("cn-bj2"), "{text}");
    }
}
