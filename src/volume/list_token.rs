//! Where the next page of a listing starts.

use std::fmt;

use super::DiskId;

/// Goes up when the meaning of the rest changes, so that an older driver's token is refused, not misread.
const VERSION: &str = "v1:";

/// A place in the listing of all disks in the order of their ids: right after `after`.
///
/// It names an id and no offset, so that nothing is left out or shown twice when disks come and go between two
/// pages, also when the named disk itself is gone. It holds all that is needed: any controller can go on with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListToken {
    pub after: DiskId,
}

/// The text is not a token of this driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("starting_token {0:?} was not given out by this version of the driver; start over without a token")]
pub struct TokenError(String);

impl ListToken {
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        text.strip_prefix(VERSION)
            .and_then(|id| DiskId::parse(id).ok())
            .map(|after| Self { after })
            .ok_or_else(|| TokenError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for ListToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}{}", self.after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn odd_tokens_are_refused() {
        for odd in ["", "invalid-token", "v1:", "v2:bs-1", "bs-1", "v1:bs 1", " v1:bs-1"] {
            assert!(ListToken::parse(odd).is_err(), "{odd}");
        }
        let long = ListToken::parse(&"x".repeat(100_000)).unwrap_err().to_string();
        assert!(long.len() < 300, "{long}");
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(id in "bsm?-[a-z0-9]{1,20}") {
            let token = ListToken { after: DiskId::parse(&id).unwrap() };
            prop_assert_eq!(ListToken::parse(&token.to_string()), Ok(token));
        }
    }
}
