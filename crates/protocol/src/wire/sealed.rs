//! Sealed frames: what gossip carries, readable for the members of a room only (D10).
//!
//! `version ‖ key id ‖ nonce ‖ XChaCha20-Poly1305(frame)`, where version, topic and key id are
//! authenticated too. The key belongs to one server and one room, and its id is a hash of all
//! three: whoever holds a key under an id holds the same key as everybody else, so that what does
//! not open is provably bad, and a key cannot be passed off as another server's or another room's.
//!
//! Nothing here draws random numbers: the caller brings them.

use std::fmt;

use chacha20poly1305::{
    Tag, XChaCha20Poly1305, XNonce,
    aead::{AeadInPlace as _, KeyInit as _},
};
use data_encoding::BASE64URL_NOPAD;
use ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::frame::topic;
use crate::limits::{MAX_FRAME_BYTES, MAX_SEALED_FRAME_BYTES, SEALED_OVERHEAD_BYTES};

/// The first byte of a sealed frame of this format.
pub const SEALED_VERSION: u8 = 2;

/// Bytes of a room key.
pub const ROOM_KEY_BYTES: usize = 32;

/// Bytes of a nonce: so many that random ones never meet.
pub const NONCE_BYTES: usize = 24;

/// Bytes of a key's id: as in a message id, no two share them by chance or by work (2^80).
const KEY_ID_BYTES: usize = 20;

/// Bytes of the tag that authenticates a frame.
const TAG_BYTES: usize = 16;

/// Where the nonce, and where the sealed text begins.
const NONCE_AT: usize = 1 + KEY_ID_BYTES;
const TEXT_AT: usize = NONCE_AT + NONCE_BYTES;

const _: () = assert!(SEALED_OVERHEAD_BYTES == TEXT_AT + TAG_BYTES);

/// Sets the hash of a room key apart from every other hash.
const KEY_DOMAIN: &[u8] = b"messagehub room key 1\0";

/// The name of a room key; in JSON unpadded URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKeyId([u8; KEY_ID_BYTES]);

impl RoomKeyId {
    /// The bytes of the id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for RoomKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for RoomKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomKeyId({self})")
    }
}

impl Serialize for RoomKeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for RoomKeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| D::Error::custom("a key id has 20 bytes"))?;
        Ok(Self(bytes))
    }
}

/// The key with which one server seals its frames for one room. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct RoomKey {
    id: RoomKeyId,
    owner: OwnedServerName,
    after: Vec<OwnedEventId>,
    pub(super) secret: Zeroizing<[u8; ROOM_KEY_BYTES]>,
}

impl RoomKey {
    /// The key of `owner` for a room. `after` are the events by which those came to be outside
    /// whom it must not reach: whoever passes the key on must have applied them.
    pub fn new(
        owner: OwnedServerName,
        room_id: &RoomId,
        secret: Zeroizing<[u8; ROOM_KEY_BYTES]>,
        after: Vec<OwnedEventId>,
    ) -> Self {
        let id = key_id(&owner, room_id, &secret);
        Self { id, owner, after, secret }
    }

    /// Its name.
    pub fn id(&self) -> RoomKeyId {
        self.id
    }

    /// The server that seals with it.
    pub fn owner(&self) -> &ServerName {
        &self.owner
    }

    /// The events that whoever passes it on must have applied.
    pub fn after(&self) -> &[OwnedEventId] {
        &self.after
    }

    /// Seals the bytes of a frame for the topic of a room. A nonce is never used twice.
    ///
    /// # Errors
    ///
    /// [`SealedError::TooLarge`] for what is no frame.
    pub fn seal(
        &self,
        room_id: &RoomId,
        nonce: [u8; NONCE_BYTES],
        frame: &[u8],
    ) -> Result<Vec<u8>, SealedError> {
        if frame.len() > MAX_FRAME_BYTES {
            return Err(SealedError::TooLarge);
        }
        let mut bytes = Vec::with_capacity(frame.len() + SEALED_OVERHEAD_BYTES);
        bytes.push(SEALED_VERSION);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(frame);
        let extra = authenticated(room_id, self.id);
        let tag = self
            .cipher()
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), &extra, &mut bytes[TEXT_AT..])
            .map_err(|_| SealedError::TooLarge)?;
        bytes.extend_from_slice(&tag);
        Ok(bytes)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.secret).into())
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomKey")
            .field("id", &self.id)
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

/// Why bytes are no sealed frame, or cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealedError {
    /// Above [`MAX_SEALED_FRAME_BYTES`].
    #[error("a sealed frame of more than {MAX_SEALED_FRAME_BYTES} bytes")]
    TooLarge,
    /// Not even a version, or of this version and without room for a frame.
    #[error("a sealed frame that is too short")]
    TooShort,
    /// Of a format that we do not know.
    #[error("a sealed frame of version {0}")]
    Version(u8),
    /// The key is another one than it was sealed with.
    #[error("a frame sealed under another key")]
    OtherKey,
    /// Not sealed with that key for that room, or changed since.
    #[error("a sealed frame that does not open")]
    Seal,
}

impl SealedError {
    /// Whether every honest member who holds the key sees this fault in these bytes: only then may
    /// the peer that forwarded them be blamed, since it must have opened them.
    pub fn is_provable(self) -> bool {
        match self {
            Self::TooLarge | Self::TooShort | Self::Seal => true,
            Self::Version(_) | Self::OtherKey => false,
        }
    }
}

/// A sealed frame whose envelope was read.
#[derive(Debug, Clone, Copy)]
pub struct SealedFrame<'a> {
    key_id: RoomKeyId,
    nonce: &'a [u8],
    text: &'a [u8],
    tag: &'a [u8],
}

impl<'a> SealedFrame<'a> {
    /// Reads the envelope.
    ///
    /// # Errors
    ///
    /// Its form is not that of a sealed frame.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, SealedError> {
        if bytes.len() > MAX_SEALED_FRAME_BYTES {
            return Err(SealedError::TooLarge);
        }
        let version = *bytes.first().ok_or(SealedError::TooShort)?;
        if version != SEALED_VERSION {
            return Err(SealedError::Version(version));
        }
        let split = |bytes: &'a [u8], at| bytes.split_at_checked(at).ok_or(SealedError::TooShort);
        let (id, rest) = split(&bytes[1..], KEY_ID_BYTES)?;
        let (nonce, rest) = split(rest, NONCE_BYTES)?;
        let length = rest.len().checked_sub(TAG_BYTES).ok_or(SealedError::TooShort)?;
        let (text, tag) = split(rest, length)?;
        let id = id.try_into().map_err(|_| SealedError::TooShort)?;
        Ok(Self { key_id: RoomKeyId(id), nonce, text, tag })
    }

    /// The id of the key that opens it.
    pub fn key_id(&self) -> RoomKeyId {
        self.key_id
    }

    /// The bytes of the frame. The key says whose it must be.
    ///
    /// # Errors
    ///
    /// [`SealedError::OtherKey`] or [`SealedError::Seal`].
    pub fn open(&self, room_id: &RoomId, key: &RoomKey) -> Result<Vec<u8>, SealedError> {
        if key.id != self.key_id {
            return Err(SealedError::OtherKey);
        }
        let mut frame = self.text.to_vec();
        let extra = authenticated(room_id, self.key_id);
        key.cipher()
            .decrypt_in_place_detached(
                XNonce::from_slice(self.nonce),
                &extra,
                &mut frame,
                Tag::from_slice(self.tag),
            )
            .map_err(|_| SealedError::Seal)?;
        Ok(frame)
    }
}

/// What is authenticated beside the text.
fn authenticated(room_id: &RoomId, key_id: RoomKeyId) -> Vec<u8> {
    [&[SEALED_VERSION], topic(room_id).as_bytes(), &key_id.0].concat()
}

/// No name or id holds a zero byte, so each part can be told from the next.
fn key_id(owner: &ServerName, room_id: &RoomId, secret: &[u8; ROOM_KEY_BYTES]) -> RoomKeyId {
    let hash = Sha256::new_with_prefix(KEY_DOMAIN)
        .chain_update(owner.as_str())
        .chain_update([0])
        .chain_update(room_id.as_str())
        .chain_update([0])
        .chain_update(secret)
        .finalize();
    RoomKeyId(std::array::from_fn(|at| hash[at]))
}

#[cfg(test)]
mod tests;
