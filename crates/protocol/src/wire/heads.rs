//! Comparing what two nodes have of the rooms they share.
//!
//! The guarantee behind gossip. Steps, each a `POST` to [`HEADS_PATH`]: one digest over all shared
//! rooms, answered, where it differs, with the digests of the single rooms, or with one digest for
//! each of [`PARTS`] parts where the rooms are many; then the rooms of the parts that differ; then
//! the heads of the rooms that differ, answered with the other side's heads. What is missing is
//! then fetched by the ordinary means of the Server-Server API.
//!
//! Beside it go signed address records of members, so that a room finds itself again when most of
//! its nodes moved.

use std::collections::BTreeMap;

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::limits::{
    MAX_DIGEST_ROOMS, MAX_HEADS_PER_ROOM, MAX_HEADS_ROOMS, MAX_RECORD_BYTES, MAX_RECORDS,
};

/// Where heads are compared.
pub const HEADS_PATH: &str = "/_matrix/federation/unstable/net.messagehub/heads";

/// Parts into which shared rooms fall where they are many: one differing room of 5,000 then costs
/// the digests of all parts and of the 80 rooms of one, 8 KB instead of 450.
pub const PARTS: usize = 64;

/// Shared rooms that are listed at once. More come in parts.
pub const MAX_LISTED_ROOMS: usize = 128;

/// Sets the hash of a room's heads apart from every other hash.
const ROOM_DOMAIN: &[u8] = b"messagehub room heads 1\0";

/// Sets the hash that sorts rooms into parts apart from every other hash.
const PART_DOMAIN: &[u8] = b"messagehub heads part 1\0";

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
    /// The parts whose rooms are wanted, by their numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<u8>,
    /// The asker's heads of rooms in which both are, at most [`MAX_HEADS_ROOMS`] rooms.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: RoomHeads,
    /// Signed address records that the answerer may not have, at most [`MAX_RECORDS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// What the other answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeadsResponse {
    /// The answerer's digest, where one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<HeadsDigest>,
    /// The answerer's digest of each of the [`PARTS`] parts, where the two total digests differ and
    /// it shares more than [`MAX_LISTED_ROOMS`] rooms with the asker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<HeadsDigest>,
    /// The answerer's [`room_digest`] of each shared room, where the two total digests differ, or
    /// of those in the parts that were asked for, at most [`MAX_DIGEST_ROOMS`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rooms: BTreeMap<OwnedRoomId, HeadsDigest>,
    /// The answerer's heads of those rooms whose heads were told, in which both are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: RoomHeads,
    /// Signed address records that the asker may not have, at most [`MAX_RECORDS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Record>,
}

/// A libp2p signed envelope of a peer record; in JSON unpadded base64. Not looked into here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub Vec<u8>);

/// Forward extremities by room, at most [`MAX_HEADS_PER_ROOM`] of each.
pub type RoomHeads = BTreeMap<OwnedRoomId, Vec<OwnedEventId>>;

/// Why bytes are no request or answer about heads.
#[derive(Debug, Error)]
pub enum HeadsError {
    /// Another form, or ids that are none.
    #[error("heads: {0}")]
    Form(#[from] serde_json::Error),
    /// More rooms, or heads of one, or records, than the bounds.
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
        if request.parts.len() > PARTS {
            return Err(HeadsError::TooMany("parts"));
        }
        check_heads(&request.heads)?;
        check_records(&request.records)?;
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
        if response.parts.len() > PARTS {
            return Err(HeadsError::TooMany("parts"));
        }
        check_heads(&response.heads)?;
        check_records(&response.records)?;
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

/// The part that a room belongs to, below [`PARTS`].
pub fn part_of(room_id: &RoomId) -> u8 {
    let mut hash = Sha256::new_with_prefix(PART_DOMAIN);
    hash.update(room_id.as_str());
    // The upper six bits: 64 parts.
    hash.finalize()[0] >> 2
}

/// The digest of each part, from the digests of each room.
pub fn part_digests<'a>(
    rooms: impl IntoIterator<Item = (&'a RoomId, HeadsDigest)>,
) -> Vec<HeadsDigest> {
    let mut parts = vec![Vec::new(); PARTS];
    for (room_id, digest) in rooms {
        parts[usize::from(part_of(room_id)) % PARTS].push((room_id, digest));
    }
    parts.into_iter().map(total_digest).collect()
}

fn check_records(records: &[Record]) -> Result<(), HeadsError> {
    if records.len() > MAX_RECORDS {
        return Err(HeadsError::TooMany("records"));
    }
    if records.iter().any(|record| record.0.len() > MAX_RECORD_BYTES) {
        return Err(HeadsError::TooMany("bytes of a record"));
    }
    Ok(())
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

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(BASE64_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)?))
    }
}

#[cfg(test)]
mod tests;
