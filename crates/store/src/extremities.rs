//! Forward extremities: the events of a room that nothing follows yet.
//!
//! Mostly that is one event, the newest of the room's timeline, and then no row says so. Where it
//! is otherwise there are rows.

use std::collections::HashSet;

use messagehub_protocol::pdu::Pdu;
use ruma::EventId;

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn, events};

/// In a row of a room that has no extremity. No event has this integer.
pub(crate) const NONE: EventNid = EventNid(0);

/// What became of the extremities of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Those that there were, the oldest first.
    pub before: Vec<EventNid>,
    /// Those that there are now, the oldest first.
    pub now: Vec<EventNid>,
}

/// The forward extremities of a room, the oldest of them first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<EventNid>, StoreError> {
    Ok(read(snap, room, NONE)?.extremities)
}

/// Makes an accepted event, just appended, an extremity in place of those it follows.
///
/// # Errors
/// Fails when the database does.
pub fn advance(
    txn: &mut Txn<'_>,
    room: RoomNid,
    event: EventNid,
    pdu: &Pdu,
) -> Result<Advanced, StoreError> {
    let followed: HashSet<&EventId> = pdu.prev_events().iter().map(AsRef::as_ref).collect();
    let Told { extremities: before, by } = read(txn, room, event)?;
    let mut now = Vec::new();
    for extremity in &before {
        if !followed.contains(&*events::id(txn, *extremity)?) {
            now.push(*extremity);
        }
    }
    now.push(event);
    match (now.len(), by) {
        // It is the newest of the timeline.
        (1, By::Timeline) => {}
        (1, By::Rows) => remove(txn, room)?,
        _ => replace(txn, room, &now)?,
    }
    Ok(Advanced { before, now })
}

/// Replaces all extremities of a room: after a join, by the join event.
///
/// # Errors
/// Fails when the database does.
pub fn replace(txn: &mut Txn<'_>, room: RoomNid, new: &[EventNid]) -> Result<(), StoreError> {
    remove(txn, room)?;
    let mut insert = txn.conn().prepare_cached(
        "INSERT OR IGNORE INTO forward_extremities (room, event) VALUES (?1, ?2)",
    )?;
    for event in if new.is_empty() { &[NONE] } else { new } {
        insert.execute((room, event))?;
    }
    Ok(())
}

struct Told {
    extremities: Vec<EventNid>,
    by: By,
}

/// What tells the extremities of a room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rows,
    Timeline,
}

/// The extremities as they are, or were before the event `without` was appended.
fn read(snap: &Snapshot<'_>, room: RoomNid, without: EventNid) -> Result<Told, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT 1, event FROM forward_extremities WHERE room = ?1
         UNION ALL
         SELECT 0, nid FROM (SELECT nid FROM events WHERE room = ?1 AND pos > 0 AND nid <> ?2
                             ORDER BY pos DESC LIMIT 1)",
    )?;
    let mut rows = select.query((room, without))?;
    let mut told = Told { extremities: Vec::new(), by: By::Timeline };
    let mut newest = None;
    while let Some(row) = rows.next()? {
        let event = row.get(1)?;
        match row.get(0)? {
            true => told.by = By::Rows,
            false => {
                newest = Some(event);
                continue;
            }
        }
        if event != NONE {
            told.extremities.push(event);
        }
    }
    match told.by {
        By::Rows => told.extremities.sort_unstable(),
        By::Timeline => told.extremities.extend(newest),
    }
    Ok(told)
}

fn remove(txn: &mut Txn<'_>, room: RoomNid) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM forward_extremities WHERE room = ?1")?
        .execute([room])?;
    Ok(())
}
