//! Sealed frames and their keys, for tests that play a neighbour.

use messagehub_protocol::wire::sealed::{RoomKey, SealedFrame};
use ruma::RoomId;

use crate::{Homeserver, room_keys};

/// Seals the bytes of a frame as a node would now.
///
/// # Panics
///
/// When the node is not in the room, or its store fails.
#[expect(clippy::expect_used, reason = "a test whose frame cannot be sealed has failed")]
pub async fn seal(hs: &Homeserver, room_id: &RoomId, frame: &[u8]) -> Vec<u8> {
    room_keys::seal(hs, room_id, frame).await.expect("a room it is in")
}

/// The key of a sealed frame, if the node has it.
pub fn key_of(hs: &Homeserver, room_id: &RoomId, sealed: &[u8]) -> Option<RoomKey> {
    let sealed = SealedFrame::parse(sealed).ok()?;
    let key = hs.peers.room_keys().find(room_id, sealed.key_id(), hs.clock.now_ms())?;
    Some(RoomKey::clone(&key))
}

/// What is in a sealed frame, if the node has its key.
pub fn open(hs: &Homeserver, room_id: &RoomId, sealed: &[u8]) -> Option<Vec<u8>> {
    let key = key_of(hs, room_id, sealed)?;
    SealedFrame::parse(sealed).ok()?.open(room_id, &key).ok()
}

/// Gives a node a key, as a member would that it asked.
pub fn give(hs: &Homeserver, room_id: &RoomId, key: RoomKey) {
    hs.peers.room_keys().hold(room_id, key, hs.clock.now_ms());
}
