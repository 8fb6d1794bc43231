//! Which rooms have something new for clients: the question that every sync begins with.

use std::collections::BTreeSet;

use rusqlite::params;

use crate::{RoomNid, Snapshot, StoreError, StreamPos};

/// The rooms with an event, a receipt or a change in who types after `after` and not after
/// `until`. Costs as much as there were positions in between.
///
/// # Errors
/// Fails when the database does.
pub fn list_rooms(
    snap: &Snapshot<'_>,
    after: StreamPos,
    until: StreamPos,
) -> Result<BTreeSet<RoomNid>, StoreError> {
    let mut rooms = BTreeSet::new();
    for sql in [
        "SELECT room FROM events WHERE pos > ?1 AND pos <= ?2",
        "SELECT room_nid FROM receipts WHERE pos > ?1 AND pos <= ?2",
        "SELECT room_nid FROM typing_rooms WHERE pos > ?1 AND pos <= ?2",
    ] {
        let mut select = snap.conn().prepare_cached(sql)?;
        let mut rows = select.query(params![after.0, until.0])?;
        while let Some(row) = rows.next()? {
            rooms.insert(RoomNid(row.get(0)?));
        }
    }
    Ok(rooms)
}

/// Whether one room has anything of what [`list_rooms`] looks for. Costs the same however many
/// positions lie in between.
///
/// # Errors
/// Fails when the database does.
pub fn in_room(
    snap: &Snapshot<'_>,
    room: RoomNid,
    after: StreamPos,
    until: StreamPos,
) -> Result<bool, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM events WHERE room = ?1 AND pos > ?2 AND pos <= ?3)
                 OR EXISTS (SELECT 1 FROM receipts WHERE room_nid = ?1 AND pos > ?2 AND pos <= ?3)
                 OR EXISTS (SELECT 1 FROM typing_rooms
                            WHERE room_nid = ?1 AND pos > ?2 AND pos <= ?3)",
        )?
        .query_row(params![room.0, after.0, until.0], |row| row.get(0))?;
    Ok(found)
}
