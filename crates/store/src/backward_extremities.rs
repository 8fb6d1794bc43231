//! Where the history that this node has begins: events that are named as predecessors
//! and have no place here.

use messagehub_protocol::pdu::Pdu;
use ruma::OwnedEventId;
use rusqlite::OptionalExtension;

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn};

/// A gap: an event that is missing, and one that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The event that is missing.
    pub missing: OwnedEventId,
    /// The placed event that names it among its `prev_events`.
    pub named_by: EventNid,
}

/// The gaps of a room.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<Gap>, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT missing_id, event FROM backward_extremities WHERE room = ?1")?;
    let rows = select.query_map([room], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    rows.map(|row| {
        let (missing, named_by) = row?;
        let missing = OwnedEventId::try_from(missing)
            .map_err(|_| StoreError::Damaged("a backward extremity's id".to_owned()))?;
        Ok(Gap { missing, named_by })
    })
    .collect()
}

/// Closes the gap that a placed event fills, and opens those that it names.
pub(crate) fn advance(
    txn: &mut Txn<'_>,
    room: RoomNid,
    event: EventNid,
    pdu: &Pdu,
) -> Result<(), StoreError> {
    let conn = txn.conn();
    conn.prepare_cached("DELETE FROM backward_extremities WHERE room = ?1 AND missing_id = ?2")?
        .execute((room, pdu.event_id().as_str()))?;
    let mut placed = conn.prepare_cached(
        "SELECT 1 FROM events
         WHERE event_id = ?1 AND (pos IS NOT NULL OR state_before IS NOT NULL)",
    )?;
    for prev in pdu.prev_events() {
        if placed.query_row([prev.as_str()], |_| Ok(())).optional()?.is_none() {
            conn.prepare_cached(
                "INSERT OR IGNORE INTO backward_extremities (room, missing_id, event)
                 VALUES (?1, ?2, ?3)",
            )?
            .execute((room, prev.as_str(), event))?;
        }
    }
    Ok(())
}
