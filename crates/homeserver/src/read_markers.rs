//! Where a user stopped reading a room: account data `m.fully_read`.
//!
//! Spec: Client-Server API, "Fully read markers".

use messagehub_store::{
    Room, StoreError, StoredEvent, Txn,
    account_data::{self, Scope},
    events,
};
use ruma::{EventId, OwnedEventId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

/// The type of the account data that holds it.
pub const KIND: &str = "m.fully_read";

#[derive(Deserialize)]
struct Content {
    event_id: OwnedEventId,
}

#[derive(Serialize)]
struct NewContent<'a> {
    event_id: &'a EventId,
}

/// Moves the marker to an event, unless it stands on a later one.
pub(crate) fn advance(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    room: &Room,
    event: &StoredEvent,
) -> Result<(), StoreError> {
    let scope = Scope::Room(&room.room_id);
    let known = account_data::find(txn, user_id, scope, KIND)?
        .and_then(|content| serde_json::from_str::<Content>(content.get()).ok());
    if let Some(known) = known
        && let Some(known) = events::find(txn, &known.event_id)?
        && known.pos >= event.pos
    {
        return Ok(());
    }
    let content = to_raw_value(&NewContent { event_id: event.pdu.event_id() })
        .map_err(|error| StoreError::Damaged(error.to_string()))?;
    account_data::set(txn, user_id, scope, KIND, &content)?;
    Ok(())
}
