//! Search terms that name one person on the network.

use ruma::{OwnedUserId, UserId};

use super::SUFFIXES;

/// Longest PeerId in text form: an identity multihash of an Ed25519 key has 52 characters, the
/// hash of another key 46.
const MAX_PEER_ID: usize = 64;

/// A search term that says where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// `Name:1234567`: a display name, and at least seven last characters of a server name.
    Name {
        /// The display name, exactly.
        name: String,
        /// The end of the server name.
        suffix: String,
    },
    /// A full user id.
    User(OwnedUserId),
    /// `/p2p/<PeerId>`: a peer.
    Peer(String),
}

impl Address {
    /// Reads a term; `None` when it is one for this node and its rooms only.
    pub(super) fn parse(term: &str) -> Option<Self> {
        if let Some(peer_id) = term.strip_prefix("/p2p/") {
            let is_base58 = peer_id.len() <= MAX_PEER_ID
                && peer_id.bytes().all(|b| b.is_ascii_alphanumeric())
                && !peer_id.is_empty();
            return is_base58.then(|| Self::Peer(peer_id.to_owned()));
        }
        if term.starts_with('@')
            && let Ok(user_id) = UserId::parse(term)
        {
            return Some(Self::User(user_id));
        }
        // A display name may have colons; a suffix has none.
        let (name, suffix) = term.rsplit_once(':')?;
        let (name, suffix) = (name.trim(), suffix.trim().to_ascii_lowercase());
        let is_base32 = suffix.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if name.is_empty() || suffix.len() < *SUFFIXES.start() || !is_base32 {
            return None;
        }
        Some(Self::Name { name: name.to_owned(), suffix })
    }
}

/// The string under which such a user is advertised: with the longest suffix that is.
pub(super) fn rendezvous_key(name: &str, suffix: &str) -> String {
    let advertised = suffix.get(suffix.len().saturating_sub(*SUFFIXES.end())..).unwrap_or(suffix);
    format!("{name}:{advertised}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str, suffix: &str) -> Option<Address> {
        Some(Address::Name { name: name.to_owned(), suffix: suffix.to_owned() })
    }

    #[test]
    fn terms() {
        assert_eq!(Address::parse("Ann:esvgg4a"), name("Ann", "esvgg4a"));
        assert_eq!(Address::parse("Ann: ESVGG4A "), name("Ann", "esvgg4a"));
        assert_eq!(Address::parse("Dr: Who:dgiesvgg4a"), name("Dr: Who", "dgiesvgg4a"));
        assert_eq!(Address::parse("Ann:svgg4a"), None);
        assert_eq!(Address::parse("Ann:esvgg41"), None);
        assert_eq!(Address::parse(":esvgg4a"), None);
        assert_eq!(Address::parse("Ann"), None);
        assert_eq!(Address::parse("/p2p/"), None);
        assert_eq!(Address::parse("/p2p/../x"), None);
        assert_eq!(
            Address::parse("/p2p/12D3KooWAbc"),
            Some(Address::Peer("12D3KooWAbc".to_owned()))
        );
        assert!(matches!(Address::parse("@p2p:node.example"), Some(Address::User(_))));
    }

    #[test]
    fn a_longer_suffix_is_looked_up_by_its_end() {
        assert_eq!(rendezvous_key("Ann", "esvgg4a"), "Ann:esvgg4a");
        assert_eq!(rendezvous_key("Ann", "33sdgiesvgg4a"), "Ann:dgiesvgg4a");
    }
}
