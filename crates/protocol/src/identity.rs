//! A server name is a public key, and the key can be read out of it.
//!
//! The name is `b` and the lower-case unpadded base32 of a CIDv1 with the codec `ed25519-pub` and
//! the identity multihash of the 32-byte key: 61 characters. One key has one name.

use std::fmt;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ruma::{OwnedServerName, ServerName};
use thiserror::Error;

use crate::keys::PublicKey;

/// Multibase prefix of lower-case unpadded base32.
const MULTIBASE: char = 'b';

/// CIDv1 (`01`), codec `ed25519-pub` as a varint (`ed 01`), identity multihash (`00`), 32 bytes.
const CID_PREFIX: [u8; 5] = [0x01, 0xed, 0x01, 0x00, 0x20];

/// Bytes of a public key.
const KEY_BYTES: usize = 32;

/// Bytes of the whole CID.
const CID_BYTES: usize = CID_PREFIX.len() + KEY_BYTES;

/// Characters of a server name that is a key: the prefix, and five bits a character.
pub const KEY_NAME_LEN: usize = 1 + (CID_BYTES * 8).div_ceil(5);

/// The Ed25519 public key that a server is.
///
/// Always the canonical encoding of a point of large order: whoever holds no secret key cannot
/// sign for it, and no two values are the same server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey([u8; KEY_BYTES]);

/// Why a string or a key is not the name of a server of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ServerNameError {
    /// A name of ours has exactly [`KEY_NAME_LEN`] characters.
    #[error("a server name that is a key has {KEY_NAME_LEN} characters")]
    Length,
    /// Something other than the lower-case letters and digits of base32, or padding bits that are
    /// not zero.
    #[error("not lower-case unpadded base32 with the multibase prefix `{MULTIBASE}`")]
    Spelling,
    /// Another CID version, codec, hash or key length.
    #[error("not a CIDv1 of an Ed25519 public key with the identity hash")]
    NotAKey,
    /// Not the canonical encoding of a usable Ed25519 point.
    #[error("not a usable Ed25519 public key")]
    WeakKey,
}

impl ServerKey {
    /// Takes the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    ///
    /// [`ServerNameError::WeakKey`] when they are no point, a point of small order, or not the
    /// canonical encoding of one.
    pub fn from_bytes(bytes: [u8; KEY_BYTES]) -> Result<Self, ServerNameError> {
        usable(&bytes).map(|key| Self::of(&key))
    }

    /// The key of a point that was checked already.
    pub(crate) fn of(key: &PublicKey) -> Self {
        Self(*key.as_bytes())
    }

    /// The 32 bytes of the public key.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The one spelling of the server name.
    pub fn server_name(&self) -> OwnedServerName {
        let mut cid = [0; CID_BYTES];
        cid[..CID_PREFIX.len()].copy_from_slice(&CID_PREFIX);
        cid[CID_PREFIX.len()..].copy_from_slice(&self.0);
        let mut name = String::with_capacity(KEY_NAME_LEN);
        name.push(MULTIBASE);
        BASE32_NOPAD.encode_append(&cid, &mut name);
        name.make_ascii_lowercase();
        #[expect(clippy::expect_used, reason = "letters and digits are a legal DNS name")]
        OwnedServerName::try_from(name).expect("a key name is a legal server name")
    }
}

impl TryFrom<&ServerName> for ServerKey {
    type Error = ServerNameError;

    fn try_from(name: &ServerName) -> Result<Self, Self::Error> {
        public_key_of(name).map(|key| Self::of(&key))
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerKey({})", HEXLOWER.encode(&self.0))
    }
}

/// Whether a server name is a key in its one spelling; every other name belongs to DNS.
pub fn is_key_name(name: &ServerName) -> bool {
    ServerKey::try_from(name).is_ok()
}

/// The key that a name is, ready to verify with.
pub(crate) fn public_key_of(name: &ServerName) -> Result<PublicKey, ServerNameError> {
    usable(&read_name(name.as_str())?)
}

fn usable(bytes: &[u8; KEY_BYTES]) -> Result<PublicKey, ServerNameError> {
    PublicKey::from_bytes(bytes).ok_or(ServerNameError::WeakKey)
}

/// The key bytes that a name spells, unchecked as a point.
fn read_name(name: &str) -> Result<[u8; KEY_BYTES], ServerNameError> {
    if name.len() != KEY_NAME_LEN {
        return Err(ServerNameError::Length);
    }
    let text = name.strip_prefix(MULTIBASE).ok_or(ServerNameError::Spelling)?;
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(ServerNameError::Spelling);
    }
    // The decoder refuses other symbols and padding bits that are not zero.
    let cid = BASE32_NOPAD
        .decode(text.to_ascii_uppercase().as_bytes())
        .map_err(|_| ServerNameError::Spelling)?;
    let key = cid.strip_prefix(&CID_PREFIX).ok_or(ServerNameError::NotAKey)?;
    key.try_into().map_err(|_| ServerNameError::NotAKey)
}

#[cfg(test)]
mod tests;
