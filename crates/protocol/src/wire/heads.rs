//! Comparing what two nodes have of the rooms they share.
//!
//! The guarantee behind gossip. Three steps, each a `POST` to [`HEADS_PATH`]: one digest over all
//! shared rooms, answered with the digests of the single rooms where it differs; then the heads of
//! those rooms, answered with the other side's heads. What is missing is then fetched by the
//! ordinary means of the Server-Server API.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::limits::{MAX_DIGEST_ROOMS, MAX_HEADS_PER_ROOM, MAX_HEADS_ROOMS};

/// Where heads are compared.
pub const HEADS_PATH: &str = "/_matrix/federation/unstable/net.messagehub/heads";

/// Sets the hash of a room's heads apart from every other hash.
const ROOM_DOMAIN: &[u8] = b"messagehub room heads 1\0";

/// Sets the hash over all rooms apart from every other hash.
const TOTAL_DOMAIN: &[u8] = b"messagehub all heads 1\0";

/// Bytes of a digest. Who finds two sets of heads with one digest deceives only nodes that share
/// the room, about events of their own choosing.
const DIGEST_BYTES: usize = 16;

/// A digest of heads; in JSON unpadded URL-safe base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadsDigest([u8; DIGEST_BYTES]);

/// What one node asks another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeadsRequest {
    /// The asker's [`total_digest`] over the rooms it thinks it shares with the answerer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<HeadsDigest>,
    /// The asker's heads of rooms in which both are, at most [`MAX_HEADS_ROOMS`] rooms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: RoomHeads,
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeadsResponse {
    /// The answerer's digest, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<HeadsDigest>,
    /// The answerer's [`room_digest`] of each shared room, where the two total digests differ, at
    /// most [`MAX_DIGEST_ROOMS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<OwnedRoomId, HeadsDigest>,
    /// The answerer's heads of those rooms whose heads were told, in which both are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: RoomHeads,
}

/// Forward extremities by room, at most [`MAX_HEADS_PER_ROOM`] of each.
pub type RoomHeads = BTreeMap<OwnedRoomId, Vec<OwnedEventId>>;

/// Why bytes are no request or answer about heads.
#[derive(Debug, Error)]
pub enum HeadsError {
    /// Another form, or ids that are none.
    #[error("heads: {0}")]
    Form(#[from] serde_json::Error),
    /// More rooms, or more heads of one, than the bounds.
    #[error("heads: too many {0}")]
    TooMany(&'static str),
}

impl HeadsRequest {
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// [`HeadsError`]; lists above their bounds are one.
    pub fn parse(json: &[u8]) -> Result<Self, HeadsError> {
        let request: Self = serde_json::from_slice(json)?;
        check_heads(&request.heads)?;
        Ok(request)
    }
}

impl HeadsResponse {
    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// [`HeadsError`]; lists above their bounds are one.
    pub fn parse(json: &[u8]) -> Result<Self, HeadsError> {
        let response: Self = serde_json::from_slice(json)?;
        if response.rooms.len() > MAX_DIGEST_ROOMS {
            return Err(HeadsError::TooMany("rooms"));
        }
        check_heads(&response.heads)?;
        Ok(response)
    }
}

/// The digest of one room's heads, in whatever order and however often they are given.
pub fn room_digest<'a>(heads: impl IntoIterator<Item = &'a EventId>) -> HeadsDigest {
    let mut heads: Vec<_> = heads.into_iter().map(EventId::as_str).collect();
    heads.sort_unstable();
    heads.dedup();
    let mut hash = Sha256::new_with_prefix(ROOM_DOMAIN);
    for id in heads {
        hash.update(id);
        // No id holds a NUL, so the list can be told from any other.
        hash.update([0]);
    }
    HeadsDigest::of(hash)
}

/// The digest over all shared rooms, from the digests of each; a map, so that the order is one.
pub fn total_digest<'a>(rooms: impl IntoIterator<Item = (&'a RoomId, HeadsDigest)>) -> HeadsDigest {
    let rooms: BTreeMap<_, _> = rooms.into_iter().collect();
    let mut hash = Sha256::new_with_prefix(TOTAL_DOMAIN);
    for (room_id, digest) in rooms {
        hash.update(room_id.as_str());
        hash.update([0]);
        hash.update(digest.0);
    }
    HeadsDigest::of(hash)
}

fn check_heads(heads: &RoomHeads) -> Result<(), HeadsError> {
    if heads.len() > MAX_HEADS_ROOMS {
        return Err(HeadsError::TooMany("rooms"));
    }
    if heads.values().any(|heads| heads.len() > MAX_HEADS_PER_ROOM) {
        return Err(HeadsError::TooMany("heads of one room"));
    }
    Ok(())
}

impl HeadsDigest {
    fn of(hash: Sha256) -> Self {
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&hash.finalize()[..DIGEST_BYTES]);
        Self(digest)
    }
}

impl Serialize for HeadsDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for HeadsDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        let bytes = bytes.try_into().map_err(|_| D::Error::custom("a digest has 16 bytes"))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests;
