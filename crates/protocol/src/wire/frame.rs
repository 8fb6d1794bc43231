//! Gossip frames: one signed `/send` request to a room instead of a server.
//!
//! A frame is canonical JSON as it stands, so that one content has one message id; signed is that
//! text without `signatures`.

use data_encoding::BASE32_NOPAD;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    canonical::JsonError,
    keys::VerifyKey,
    limits::{MAX_EDUS, MAX_FRAME_BYTES, MAX_FRAME_SERVER_KEYS, MAX_PDUS},
    server_keys::{KeyRing, ServerKeysError},
};

mod open;
mod seal;

/// The version that frames of this format carry as `v`.
pub const FRAME_VERSION: u64 = 1;

/// The `method` of every frame.
const METHOD: &str = "PUT";

/// What the `uri` of every frame begins with; a transaction id follows.
const URI_PREFIX: &str = "/_matrix/federation/v1/send/";

/// Sets the hash of a topic apart from every other hash of a room id.
const TOPIC_DOMAIN: &[u8] = b"messagehub room topic 1\0";

/// Bytes of hash in a topic: more than enough that no two rooms share one, and few, because a
/// whole list of topics travels in one message.
const TOPIC_HASH_BYTES: usize = 16;

/// Bytes of hash that name a frame: no two share them by chance or by work (2^80), and
/// announcements of them stay short.
const MESSAGE_ID_BYTES: usize = 20;

/// Room events and ephemeral units on their way to the members of a room.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The server that signs the frame. It need not be the sender of every event.
    pub origin: OwnedServerName,
    /// The room, which is the `destination`.
    pub room_id: OwnedRoomId,
    /// When the frame was made.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// At most [`MAX_PDUS`] events, each an object, otherwise unchecked.
    pub pdus: Vec<Box<RawValue>>,
    /// At most [`MAX_EDUS`] ephemeral units, each an object, otherwise unchecked.
    pub edus: Vec<Box<RawValue>>,
    /// The `server_keys` of the origin and of each signer of an event, one for a server.
    pub server_keys: Vec<Box<RawValue>>,
}

/// Why bytes are not a frame to be taken, or a frame cannot be made.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Above [`MAX_FRAME_BYTES`].
    #[error("a frame of more than {MAX_FRAME_BYTES} bytes")]
    TooLarge,
    /// More entries than the bound in a list.
    #[error("a frame with too many entries in `{0}`")]
    TooMany(&'static str),
    /// What is to be sent is no object with a canonical form.
    #[error("a frame cannot carry this: {0}")]
    Content(#[from] JsonError),
    /// The bytes are not canonical JSON.
    #[error("a frame that is not canonical JSON")]
    NotCanonical,
    /// A frame of a version that we do not know.
    #[error("a frame of version {0}")]
    Version(u64),
    /// A field is missing or malformed.
    #[error("a frame whose `{0}` is missing or malformed")]
    Field(&'static str),
    /// The fields do not have the form of a frame.
    #[error("not the form of a frame: {0}")]
    Form(#[source] serde_json::Error),
    /// Made more than ten minutes before or after our clock.
    #[error("a frame older or newer than ten minutes")]
    NotFresh,
    /// A `server_keys` object is wrong.
    #[error("a frame with wrong keys: {0}")]
    ServerKeys(#[from] ServerKeysError),
    /// The origin's `server_keys` expired, or are from the future, by our clock.
    #[error("a frame with expired keys of its origin")]
    KeysNotValid,
    /// The origin's `server_keys` are not there, or do not have the key that signed.
    #[error("a frame without the key of its origin")]
    UnknownKey,
    /// The signature is not of that key over that frame.
    #[error("a frame with a wrong signature")]
    Signature,
}

impl FrameError {
    /// Whether every honest node sees this fault in these bytes, whatever its clock and its
    /// version: only then may the peer that forwarded them be blamed.
    pub fn is_provable(&self) -> bool {
        match self {
            Self::NotFresh | Self::KeysNotValid | Self::Version(_) => false,
            Self::TooLarge
            | Self::TooMany(_)
            | Self::Content(_)
            | Self::NotCanonical
            | Self::Field(_)
            | Self::Form(_)
            | Self::ServerKeys(_)
            | Self::UnknownKey
            | Self::Signature => true,
        }
    }
}

impl Frame {
    /// Makes the bytes to publish. Events and keys are brought into canonical form where they are
    /// not; an event stays the same by it.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLarge`], [`FrameError::TooMany`], or [`FrameError::Content`].
    pub fn sign(&self, key: &VerifyKey) -> Result<Vec<u8>, FrameError> {
        seal::sign(self, key)
    }

    /// Reads and verifies a frame; gives it with the verified keys that came in it.
    ///
    /// # Errors
    ///
    /// The first fault found; cheap ones are looked for first.
    pub fn open(
        bytes: &[u8],
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<(Self, KeyRing), FrameError> {
        open::open(bytes, now, &KeyRing::new())
    }

    /// As [`Self::open`], without verifying those `server_keys` again that are known already, to
    /// the byte: what a frame costs in a busy room is then one verification instead of three.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_knowing(
        bytes: &[u8],
        now: MilliSecondsSinceUnixEpoch,
        known: &KeyRing,
    ) -> Result<(Self, KeyRing), FrameError> {
        open::open(bytes, now, known)
    }
}

/// The gossip topic of a room, 26 characters of base32: the same for all its members, and no hint
/// of the room to others.
pub fn topic(room_id: &RoomId) -> String {
    let hash = Sha256::new_with_prefix(TOPIC_DOMAIN).chain_update(room_id.as_str()).finalize();
    let mut topic = BASE32_NOPAD.encode(&hash[..TOPIC_HASH_BYTES]);
    topic.make_ascii_lowercase();
    topic
}

/// The gossip message id of a frame under a topic. The topic belongs in it: the same bytes, sent
/// to another topic first, must not make the real frame a duplicate.
pub fn message_id(topic: &str, frame: &[u8]) -> [u8; MESSAGE_ID_BYTES] {
    let hash = Sha256::new_with_prefix(topic).chain_update([0]).chain_update(frame).finalize();
    std::array::from_fn(|at| hash[at])
}

#[cfg(test)]
mod tests;
