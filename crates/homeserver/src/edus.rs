//! Ephemeral units of other servers: what is worth telling and is no event.
//!
//! Spec: Server-Server API, "EDUs".

use messagehub_store::{StoreError, Txn};
use ruma::{
    MilliSecondsSinceUnixEpoch, RoomId, ServerName, api::federation::transactions::edu::Edu,
};
use serde_json::value::RawValue;

use crate::{receipts, typing};

/// Applies the units of one transaction or frame, as said by `origin`. A unit that cannot be read
/// or that we have no use for is passed over.
///
/// # Errors
/// Fails when the database does.
pub(crate) fn apply(
    txn: &mut Txn<'_>,
    origin: &ServerName,
    edus: &[Box<RawValue>],
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    for edu in edus {
        match serde_json::from_str::<Edu>(edu.get()) {
            Ok(Edu::Typing(content)) => typing::ingest(txn, origin, &content, now)?,
            Ok(Edu::Receipt(content)) => receipts::ingest(txn, origin, &content)?,
            Ok(_) => {}
            Err(error) => tracing::debug!(%origin, %error, "an EDU could not be read"),
        }
    }
    Ok(())
}

/// Those units that may come by the topic of a room: about that room, and worth nothing later.
pub(crate) fn for_room(edus: Vec<Box<RawValue>>, room_id: &RoomId) -> Vec<Box<RawValue>> {
    let about_it = |edu: &RawValue| match serde_json::from_str::<Edu>(edu.get()) {
        Ok(Edu::Typing(content)) => content.room_id == room_id,
        _ => false,
    };
    edus.into_iter().filter(|edu| about_it(edu)).collect()
}
