//! Forward extremities: the events of a room that nothing follows yet.
//!
//! Mostly that is one event, the newest of the room's timeline, and then no row says so. Where it
//! is otherwise there are rows.

use std::collections::{HashMap, HashSet};

use messagehub_protocol::pdu::Pdu;
use ruma::OwnedEventId;

use crate::{
    EventNid, RoomNid, Snapshot, StoreError, StreamPos, Txn, backward_extremities,
    events::{self, Appended},
};

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

/// Makes an event that was just added an extremity in place of those it follows, directly or by
/// hidden ones. An event that is followed when it comes is none, nor is one of the past; and a hidden
/// one changes nothing unless it is followed.
///
/// # Errors
/// Fails when the database does.
pub fn advance(
    txn: &mut Txn<'_>,
    room: RoomNid,
    added: Appended,
    pdu: &Pdu,
) -> Result<Advanced, StoreError> {
    let Told { extremities: before, by } = read(txn, room, added.nid)?;
    let newest = added.pos.filter(|pos| *pos > StreamPos::ZERO).map(|_| added.nid);
    let mut now = match added.pos.is_some() || added.is_followed {
        true => without_followed(txn, &before, pdu)?,
        false => before.clone(),
    };
    // A room goes on from a join, whatever was there before it.
    now.extend(newest.filter(|_| !added.is_followed || now.is_empty()));
    if now.is_empty() {
        now.clone_from(&before);
    }
    let is_newest = now.len() == 1 && now.last() == newest.as_ref();
    match by {
        By::Timeline if is_newest || (newest.is_none() && now == before) => {}
        By::Rows if is_newest => remove(txn, room)?,
        By::Rows if now == before => {}
        _ => replace(txn, room, &now)?,
    }
    Ok(Advanced { before, now })
}

/// Extremities without those that an event follows. Synapse passes through hidden events too
/// (`_get_prevs_before_rejected`).
fn without_followed(
    snap: &Snapshot<'_>,
    extremities: &[EventNid],
    pdu: &Pdu,
) -> Result<Vec<EventNid>, StoreError> {
    let mut open: HashMap<OwnedEventId, EventNid> = HashMap::new();
    for extremity in extremities {
        open.insert(events::id(snap, *extremity)?, *extremity);
    }
    let mut hidden = Vec::new();
    for prev in pdu.prev_events() {
        if open.remove(prev).is_none() {
            hidden.extend(backward_extremities::find_hidden(snap, prev)?);
        }
    }
    if !hidden.is_empty() && !open.is_empty() {
        for passed in backward_extremities::hidden_before(snap, hidden)?.into_values() {
            for prev in passed.prev_events() {
                open.remove(prev);
            }
        }
    }
    let left: HashSet<EventNid> = open.into_values().collect();
    Ok(extremities.iter().copied().filter(|nid| left.contains(nid)).collect())
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
