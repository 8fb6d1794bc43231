//! Where the history that this node has begins: events that are named as predecessors
//! and have no place here.

use std::{collections::BTreeMap, sync::Arc};

use messagehub_protocol::pdu::Pdu;
use ruma::{EventId, OwnedEventId};
use rusqlite::OptionalExtension;

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn, events};

/// Hidden events in a row that are passed through: bounds what somebody who was put out and goes on
/// alone makes one event cost.
const MAX_HIDDEN: usize = 1_000;

/// A gap: an event that is missing, and one that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The event that is missing.
    pub missing: OwnedEventId,
    /// The placed event that names it among its `prev_events`, or follows one that clients do not
    /// see and that does.
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

/// Closes the gap that a placed event fills, and opens those that it names. Says whether an event
/// that clients see names it: what follows a hidden one only is no part of the room's course.
pub(crate) fn advance(
    txn: &mut Txn<'_>,
    room: RoomNid,
    (event, is_shown): (EventNid, bool),
    pdu: &Pdu,
) -> Result<bool, StoreError> {
    let conn = txn.conn();
    let key = (room, pdu.event_id().as_str());
    // Mostly there is none, so that is asked first: `RETURNING` costs a temporary table.
    let mut followers = conn.prepare_cached(
        "SELECT event FROM backward_extremities WHERE room = ?1 AND missing_id = ?2",
    )?;
    let followers: Vec<EventNid> =
        followers.query_map(key, |row| row.get(0))?.collect::<Result<_, _>>()?;
    if !followers.is_empty() {
        conn.prepare_cached(
            "DELETE FROM backward_extremities WHERE room = ?1 AND missing_id = ?2",
        )?
        .execute(key)?;
    }
    let mut shown = conn.prepare_cached("SELECT pos IS NOT NULL FROM events WHERE nid = ?1")?;
    let mut follower = None;
    for nid in followers {
        if shown.query_row([nid], |row| row.get(0))? {
            follower = Some(nid);
        }
    }
    let mut prevs = conn.prepare_cached(
        "SELECT nid, pos IS NULL FROM events
         WHERE event_id = ?1 AND (pos IS NOT NULL OR state_before IS NOT NULL)",
    )?;
    let mut insert = conn.prepare_cached(
        "INSERT OR IGNORE INTO backward_extremities (room, missing_id, event) VALUES (?1, ?2, ?3)",
    )?;
    // What is missing before a hidden event is before whatever clients see after it.
    let named_by = if is_shown { event } else { follower.unwrap_or(event) };
    let mut hidden = Vec::new();
    for prev in pdu.prev_events() {
        let place = prevs.query_row([prev.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
        match place.optional()? {
            Some((nid, true)) => hidden.push(nid),
            Some((_, false)) => {}
            None => drop(insert.execute((room, prev.as_str(), named_by))?),
        }
    }
    if is_shown || follower.is_some() {
        take_over(txn, room, (named_by, hidden))?;
    }
    Ok(follower.is_some())
}

/// Lets an event that clients see name what is missing before hidden ones that it follows.
fn take_over(
    txn: &Txn<'_>,
    room: RoomNid,
    (event, hidden): (EventNid, Vec<EventNid>),
) -> Result<(), StoreError> {
    if hidden.is_empty() {
        return Ok(());
    }
    let mut update = txn.conn().prepare_cached(
        "UPDATE OR REPLACE backward_extremities SET event = ?3 WHERE room = ?1 AND event = ?2",
    )?;
    for nid in hidden_before(txn, hidden)?.into_keys() {
        update.execute((room, nid, event))?;
    }
    Ok(())
}

/// Some placed events that clients do not see, with all such that these follow one after the
/// other, and what each of them follows.
pub(crate) fn hidden_before(
    snap: &Snapshot<'_>,
    mut next: Vec<EventNid>,
) -> Result<BTreeMap<EventNid, Arc<Pdu>>, StoreError> {
    let mut hidden = BTreeMap::new();
    while let Some(nid) = next.pop() {
        if hidden.len() >= MAX_HIDDEN || hidden.contains_key(&nid) {
            continue;
        }
        let pdu = events::pdu(snap, nid)?;
        for prev in pdu.prev_events() {
            next.extend(find_hidden(snap, prev)?);
        }
        hidden.insert(nid, pdu);
    }
    Ok(hidden)
}

/// The integer of a placed event that clients do not see.
pub(crate) fn find_hidden(
    snap: &Snapshot<'_>,
    event_id: &EventId,
) -> Result<Option<EventNid>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT nid FROM events WHERE event_id = ?1 AND pos IS NULL AND state_before IS NOT NULL",
    )?;
    Ok(select.query_row([event_id.as_str()], |row| row.get(0)).optional()?)
}
