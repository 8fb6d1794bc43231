//! The keys that sign: one that is the server, one that works for it.
//!
//! The identity key signs nothing but `server_keys`; the verify key signs events, requests and
//! frames, and can be replaced. Secrets are wiped when dropped and never printed.

use std::fmt;

use aws_lc_rs::signature::Ed25519KeyPair;
use data_encoding::BASE32_NOPAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use ruma::{OwnedServerName, OwnedServerSigningKeyId, ServerName, ServerSigningKeyId};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};

use crate::identity::ServerKey;

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Bytes of an X25519 public key, of its secret, and of what two of them agree on.
pub const AGREEMENT_BYTES: usize = 32;

/// Bytes of the hash of a public key that make its id: 16 characters of base32. An id only has to
/// differ from the other ids of one server.
const KEY_ID_HASH_BYTES: usize = 10;

/// The field prime of Ed25519, 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut prime = [0xff; 32];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

/// An Ed25519 public key, decoded once for many verifications.
///
/// Never of small order, and in its canonical encoding.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Decodes a key; `None` when it is no point, one of small order, or not in its canonical
    /// encoding.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<Self> {
        if !is_canonical_coordinate(bytes) {
            return None;
        }
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        (!key.is_weak()).then_some(Self(key))
    }

    /// The 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Whether `signature` is this key's over `message`. Nobody but the signer can make a second
    /// signature of the same message: weak keys were refused, the encodings of both halves of the
    /// signature are checked, and so the dearer strict check would add nothing.
    pub fn verifies(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        self.0.verify(message, &Signature::from_bytes(signature)).is_ok()
    }

    /// Agrees on a secret with the holder of this key, by X25519 with the Montgomery form of the
    /// same point. Gives the public key of `secret`, which the holder needs, and what is agreed
    /// on; `None` where that would be known to everybody.
    pub(crate) fn agree(
        &self,
        secret: &[u8; AGREEMENT_BYTES],
    ) -> Option<([u8; AGREEMENT_BYTES], [u8; AGREEMENT_BYTES])> {
        let public = x25519(*secret, X25519_BASEPOINT_BYTES);
        let shared = x25519(*secret, self.0.to_montgomery().to_bytes());
        (shared != [0; AGREEMENT_BYTES]).then_some((public, shared))
    }

    /// The id that a verify key has in `server_keys`: `ed25519:` and 16 characters derived from
    /// the key.
    pub fn key_id(&self) -> OwnedServerSigningKeyId {
        let hash = Sha256::digest(self.as_bytes());
        let mut id = BASE32_NOPAD.encode(&hash[..KEY_ID_HASH_BYTES]);
        id.make_ascii_lowercase();
        #[expect(clippy::expect_used, reason = "base32 has only letters and digits")]
        OwnedServerSigningKeyId::try_from(format!("ed25519:{id}"))
            .expect("a derived key id is legal")
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.key_id())
    }
}

/// The secret key of a server's name.
pub struct IdentityKey {
    signing_key: SigningKey,
    server_key: ServerKey,
    server_name: OwnedServerName,
}

impl IdentityKey {
    /// Makes the key from its 32-byte seed, which is the whole secret.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing_key = SigningKey::from_bytes(seed);
        // The point of a secret key has large order and is encoded canonically.
        let server_key = ServerKey::of(&PublicKey(signing_key.verifying_key()));
        Self { signing_key, server_key, server_name: server_key.server_name() }
    }

    /// The public key.
    pub fn server_key(&self) -> ServerKey {
        self.server_key
    }

    /// The server name, which is the public key.
    pub fn server_name(&self) -> &ServerName {
        &self.server_name
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.signing_key.sign(message).to_bytes()
    }

    /// The key by which this server recommends events where it is a room's policy server. It follows
    /// from the identity key, so that it need not be kept, and tells nothing about it.
    ///
    /// Spec: Server-Server API, "Validating Policy Server signatures": it should not be the key that
    /// the server publishes.
    pub fn policy_key(&self) -> VerifyKey {
        let seed = Sha256::new()
            .chain_update(b"net.messagehub policy server key v1\0")
            .chain_update(self.signing_key.as_bytes())
            .finalize();
        VerifyKey::from_seed(&seed.into())
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey({})", self.server_name)
    }
}

/// The secret key that signs a server's events, requests and frames.
pub struct VerifyKey {
    pair: Ed25519KeyPair,
    signing_key: SigningKey,
    public_key: PublicKey,
    key_id: OwnedServerSigningKeyId,
}

impl VerifyKey {
    /// Makes the key from its 32-byte seed, which is the whole secret.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let signing_key = SigningKey::from_bytes(seed);
        let public_key = PublicKey(signing_key.verifying_key());
        let key_id = public_key.key_id();
        #[expect(clippy::expect_used, reason = "fails only for another length")]
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed has 32 bytes");
        Self { pair, signing_key, public_key, key_id }
    }

    /// The id in `server_keys` and in signatures, `ed25519:…`.
    pub fn key_id(&self) -> &ServerSigningKeyId {
        &self.key_id
    }

    /// The 32 bytes of the public key.
    pub fn public_key(&self) -> [u8; 32] {
        *self.public_key.as_bytes()
    }

    /// The public key, ready to verify with.
    pub fn as_public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// What is agreed on with the holder of the secret of `ephemeral`, an X25519 public key: the
    /// other end of [`PublicKey::agree`].
    pub(crate) fn agree(&self, ephemeral: &[u8; AGREEMENT_BYTES]) -> Option<[u8; AGREEMENT_BYTES]> {
        let shared = x25519(self.signing_key.to_scalar_bytes(), *ephemeral);
        (shared != [0; AGREEMENT_BYTES]).then_some(shared)
    }

    /// Signs bytes. Every event waits for this in the one transaction that writes, so it is done by
    /// the faster of two libraries (`docs/decisions/0012`); Ed25519 leaves them no choice of bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        #[expect(clippy::expect_used, reason = "every Ed25519 signature has 64 bytes")]
        signature.as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

impl fmt::Debug for VerifyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyKey({})", self.key_id)
    }
}

/// Whether the encoded y-coordinate is below the field prime. The decoder takes larger ones, which
/// would give one point two spellings. (A sign bit without meaning occurs only where x is 0, at
/// points of small order.)
fn is_canonical_coordinate(bytes: &[u8; 32]) -> bool {
    let mut y = *bytes;
    y[31] &= 0x7f;
    y.iter().rev().lt(FIELD_PRIME.iter().rev())
}

#[cfg(test)]
mod tests;
