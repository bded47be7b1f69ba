//! The names that callers have for a node.

use std::fmt;
use std::net::IpAddr;

use super::HostId;
use super::id::IdError;

/// A CSI node id. Our node plugin answers the host's id; VolumeAttachments made by the plugin we replace carry
/// the node's private address instead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NodeRef {
    Host(HostId),
    Address(IpAddr),
}

impl NodeRef {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        // Not every text that looks like an address is refused as a host id, so the address goes first.
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address.to_canonical())),
            Err(_) => HostId::parse(text).map(Self::Host),
        }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(id) => id.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_are_told_apart() {
        for (text, expected) in [
            ("uhost-abc1", NodeRef::Host(HostId::parse("uhost-abc1").unwrap())),
            ("upm-1", NodeRef::Host(HostId::parse("upm-1").unwrap())),
            ("10.9.184.108", NodeRef::Address("10.9.184.108".parse().unwrap())),
            ("::ffff:10.9.184.108", NodeRef::Address("10.9.184.108".parse().unwrap())),
            ("fd00::1", NodeRef::Address("fd00::1".parse().unwrap())),
            // Not an address, so perhaps a host; the cloud will say that it knows none.
            ("10.9.184.1080", NodeRef::Host(HostId::parse("10.9.184.1080").unwrap())),
        ] {
            assert_eq!(NodeRef::parse(text), Ok(expected));
        }
        assert_eq!(NodeRef::parse(""), Err(IdError::Empty));
        assert_eq!(NodeRef::parse("node one"), Err(IdError::Character(' ')));
    }

    proptest! {
        #[test]
        fn a_node_is_read_back_as_it_prints(text in prop_oneof!["\\PC{0,130}", "[0-9.:a-f]{1,20}"]) {
            if let Ok(node) = NodeRef::parse(&text) {
                prop_assert_eq!(NodeRef::parse(&node.to_string()), Ok(node));
            }
        }

        #[test]
        fn every_address_is_an_address(address in any::<IpAddr>()) {
            prop_assert_eq!(
                NodeRef::parse(&address.to_string()),
                Ok(NodeRef::Address(address.to_canonical()))
            );
        }
    }
}
