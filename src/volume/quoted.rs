//! What somebody else wrote, in a text of ours.

use std::fmt::{self, Write as _};

/// A text in quotation marks, escaped, and cut where it is long: what is said of it must still fit into the kilobyte of an
/// event.
#[derive(Debug, Clone, Copy)]
pub struct Quoted<'a>(pub &'a str);

/// Bytes of an escaped text. More than any path of kubelet has.
const LONGEST: usize = 256;

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut length = 0;
        f.write_char('"')?;
        for character in self.0.chars() {
            // As `Debug` of a text does, which leaves apostrophes alone.
            let escaped = match character {
                '\'' => "'".to_owned(),
                other => other.escape_debug().to_string(),
            };
            length += escaped.len();
            if length > LONGEST {
                f.write_char('…')?;
                break;
            }
            f.write_str(&escaped)?;
        }
        f.write_char('"')
    }
}

/// Words one after the other; of many only the first are named.
pub fn few(words: &[&str]) -> String {
    const NAMED: usize = 8;
    match words.len().checked_sub(NAMED) {
        Some(more @ 1..) => format!("{} and {more} more", words[..NAMED].join(", ")),
        Some(0) | None => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_long_is_cut_between_characters() {
        assert_eq!(Quoted("ssd").to_string(), r#""ssd""#);
        assert_eq!(Quoted("").to_string(), r#""""#);
        assert_eq!(Quoted("it's \"it\"\n\u{1b}").to_string(), r#""it's \"it\"\n\u{1b}""#);
        assert_eq!(Quoted(&"x".repeat(256)).to_string(), format!("\"{}\"", "x".repeat(256)));
        assert_eq!(Quoted(&"x".repeat(257)).to_string(), format!("\"{}…\"", "x".repeat(256)));
        assert_eq!(Quoted(&"盘".repeat(1000)).to_string(), format!("\"{}…\"", "盘".repeat(85)));
    }

    #[test]
    fn of_many_words_the_first_are_named() {
        let words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        assert_eq!(few(&[]), "");
        assert_eq!(few(&words[..8]), "a, b, c, d, e, f, g, h");
        assert_eq!(few(&words), "a, b, c, d, e, f, g, h and 2 more");
    }

    proptest! {
        #[test]
        fn it_is_one_short_line(text in any::<String>()) {
            let quoted = Quoted(&text).to_string();
            prop_assert!(quoted.len() <= LONGEST + 2 + '…'.len_utf8());
            prop_assert!(!quoted.contains(char::is_control));
        }
    }
}
