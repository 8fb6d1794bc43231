//! The event of a room nearest to a time, for another member.
//!
//! Spec: Server-Server API, "GET /timestamp_to_event/{roomId}".

use messagehub_store::StoreError;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, api::Direction};

use super::access::{AccessError, Sight, remembered_room};
use crate::{
    Homeserver,
    rooms::timestamp::{self, Found},
};

/// The nearest event in a direction whose content the asking server may see.
///
/// # Errors
/// Why the asker may not have it; `UnknownEvent` when there is none.
pub async fn nearest(
    hs: &Homeserver,
    origin: OwnedServerName,
    room_id: OwnedRoomId,
    (time, direction): (MilliSecondsSinceUnixEpoch, Direction),
) -> Result<Found, AccessError> {
    hs.store
        .read(move |snap| {
            let room = remembered_room(snap, &room_id, &origin)?;
            let mut sight = Sight::new(snap, &room, &origin)?;
            let from = (time, timestamp::of(direction));
            let found = timestamp::search(snap, room.nid, from, |event| {
                Ok::<_, StoreError>(sight.may_know(event)? && sight.is_visible(event)?)
            })?;
            found.as_ref().map(Found::of).ok_or(AccessError::UnknownEvent)
        })
        .await
}
