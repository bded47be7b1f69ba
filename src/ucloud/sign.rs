//! The signature of a request: SHA-1 over all parameters and the private key.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

use super::params::Params;

/// Signs every parameter that is sent except `Signature` itself: sorted by name in byte order, names and values
/// run together without separators or escapes, then the private key.
pub(crate) fn signature(params: &Params, private_key: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = params.iter().collect();
    pairs.sort_unstable();
    let mut hash = Sha1::new();
    for (name, value) in pairs {
        hash.update(name);
        hash.update(value);
    }
    hash.update(private_key);
    let mut text = String::with_capacity(40);
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn params(pairs: &[(String, String)]) -> Params {
        let mut params = Params::default();
        for (name, value) in pairs {
            params.text(name.clone(), value);
        }
        params
    }

    /// The worked example of the API's documentation.
    #[test]
    fn the_documented_example_comes_out() {
        let mut params = Params::default();
        params.text("Action", "DescribeUHostInstance");
        params.number("Limit", 10);
        params.text("Region", "cn-bj2");
        params.text("PublicKey", "ucloudsomeone@example.com1296235120854146120");
        assert_eq!(
            signature(&params, "46f09bb9fab4f12dfc160dae12273d5332b5debe"),
            "cba5cf5ec4d4233d206b1b54951e3787350a642f"
        );
    }

    proptest! {
        #[test]
        fn the_order_of_insertion_does_not_matter(
            pairs in prop::collection::btree_map("[A-Za-z0-9.]{1,8}", ".{0,12}", 0..8)
                .prop_map(|map| map.into_iter().collect::<Vec<_>>())
                .prop_flat_map(|pairs| (Just(pairs.clone()), Just(pairs).prop_shuffle())),
        ) {
            let (sorted, shuffled) = pairs;
            prop_assert_eq!(signature(&params(&sorted), "key"), signature(&params(&shuffled), "key"));
        }

        #[test]
        fn every_value_and_the_key_count(value in "[a-z]{1,8}", other in "[A-Z]{1,8}") {
            let one = params(&[("A".into(), value.clone())]);
            let two = params(&[("A".into(), other)]);
            prop_assert_ne!(signature(&one, "key"), signature(&two, "key"));
            prop_assert_ne!(signature(&one, "key"), signature(&one, "kez"));
        }
    }
}
