//! Forward extremities: the events of a room that nothing follows yet.

use std::collections::HashSet;

use messagehub_protocol::pdu::Pdu;
use ruma::EventId;

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn, events};

/// The forward extremities of a room, the oldest of them first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<EventNid>, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT event FROM forward_extremities WHERE room = ?1 ORDER BY event")?;
    let rows = select.query_map([room], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Makes an accepted event, just appended, an extremity in place of those it follows.
/// Returns those that there are now, the oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn advance(
    txn: &mut Txn<'_>,
    room: RoomNid,
    event: EventNid,
    pdu: &Pdu,
) -> Result<Vec<EventNid>, StoreError> {
    let followed: HashSet<&EventId> = pdu.prev_events().iter().map(AsRef::as_ref).collect();
    let mut now = Vec::new();
    for extremity in list(txn, room)? {
        if followed.contains(&*events::id(txn, extremity)?) {
            txn.conn()
                .prepare_cached("DELETE FROM forward_extremities WHERE room = ?1 AND event = ?2")?
                .execute((room, extremity))?;
        } else {
            now.push(extremity);
        }
    }
    insert(txn, room, event)?;
    now.push(event);
    Ok(now)
}

/// Replaces all extremities of a room: after a join, by the join event.
///
/// # Errors
/// Fails when the database does.
pub fn replace(txn: &mut Txn<'_>, room: RoomNid, new: &[EventNid]) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM forward_extremities WHERE room = ?1")?
        .execute([room])?;
    new.iter().try_for_each(|event| insert(txn, room, *event))
}

fn insert(txn: &mut Txn<'_>, room: RoomNid, event: EventNid) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("INSERT OR IGNORE INTO forward_extremities (room, event) VALUES (?1, ?2)")?
        .execute((room, event))?;
    Ok(())
}
