//! A network of those who share a secret. D15.

use std::fmt;

use hkdf::Hkdf;
use libp2p::pnet::PreSharedKey;
use sha2::Sha256;

/// What the key is derived for: the same secret may serve other purposes elsewhere.
const INFO: &[u8] = b"libp2p";

/// The key of a private network. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PrivateNetwork([u8; 32]);

impl PrivateNetwork {
    /// The network of those who know this secret; none for an empty one, which everybody knows.
    #[expect(clippy::expect_used, reason = "HKDF-SHA256 gives up to 8,160 bytes")]
    pub fn from_secret(secret: &str) -> Option<Self> {
        if secret.is_empty() {
            return None;
        }
        let mut key = [0; 32];
        let derived = Hkdf::<Sha256>::new(None, secret.as_bytes()).expand(INFO, &mut key);
        derived.expect("32 bytes can be derived");
        Some(Self(key))
    }

    pub(crate) fn key(&self) -> PreSharedKey {
        PreSharedKey::new(self.0)
    }
}

impl fmt::Debug for PrivateNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateNetwork(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_vector() {
        // Computed with another implementation of RFC 5869.
        let network = PrivateNetwork::from_secret("correct horse battery staple").unwrap();
        let hex: String = network.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "9f36e4c20f80b59a12e53e72336b3cb5849c0ed8a45a76fafe61fe6b29a2a262");
        let page = include_str!("../../../docs/wire.md");
        assert!(page.contains(&hex), "docs/wire.md has another key");
    }

    #[test]
    fn an_empty_secret_is_none_and_none_is_shown() {
        assert_eq!(PrivateNetwork::from_secret(""), None);
        let network = PrivateNetwork::from_secret("secret").unwrap();
        assert_eq!(format!("{network:?}"), "PrivateNetwork(..)");
    }
}
