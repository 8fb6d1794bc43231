//! Events: the received bytes, how they were judged, and where they stand.

use std::sync::Arc;

use messagehub_protocol::{pdu::Pdu, receive::Judged, rules::rules_of};
use ruma::{EventId, OwnedEventId};
use rusqlite::{OptionalExtension, params};

pub use messagehub_protocol::receive::Standing;

use crate::{
    EventNid, Room, RoomNid, Snapshot, StateNid, StoreError, StreamPos, Txn, backward_extremities,
    rooms,
};

mod row;

use row::Row;

/// An event as it is kept.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its integer.
    pub nid: EventNid,
    /// Its room.
    pub room: RoomNid,
    /// The event, as received.
    pub pdu: Arc<Pdu>,
    /// How it was judged.
    pub standing: Standing,
    /// Its place in the timeline that clients see. Negative for history fetched later.
    pub pos: Option<StreamPos>,
    /// The room state before it; none for an outlier.
    pub state_before: Option<StateNid>,
    /// The room state after it; none for an outlier.
    pub state_after: Option<StateNid>,
    /// The redaction that took its content away.
    pub redacted_by: Option<EventNid>,
}

/// The room state around an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Before it.
    pub state_before: StateNid,
    /// After it: the same, unless it is a state event. The state after one holds its integer, which
    /// it gets only now: give the state before, and [`set_state_after`] then.
    pub state_after: StateNid,
}

/// What became of an event that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its integer.
    pub nid: EventNid,
    /// Its place in the timeline; none when clients do not see it.
    pub pos: Option<StreamPos>,
    /// Whether an event that clients see followed it before it came.
    pub is_followed: bool,
}

/// Which way to read a timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The newest first.
    Backward,
    /// The oldest first.
    Forward,
}

/// Adds an event that has just happened, in place of an outlier if there is one. An
/// accepted one gets the next position, and so is seen by clients.
///
/// # Errors
/// Fails when the database does, or when the event is placed already.
pub fn append(
    txn: &mut Txn<'_>,
    room: &Room,
    judged: &Judged,
    placement: Placement,
) -> Result<Appended, StoreError> {
    let pos = (judged.standing() == Standing::Accepted).then(|| txn.next_pos());
    let nid = row::place(txn, room, judged, (pos, Some(placement)))?;
    let placed = (nid, pos.is_some());
    let is_followed = backward_extremities::advance(txn, room.nid, placed, judged.pdu())?;
    Ok(Appended { nid, pos, is_followed })
}

/// Adds an event from the past, in place of an outlier if there is one: before
/// everything that is there. So history is added newest first. Without a placement
/// its state is not known; an accepted one is in the timeline all the same.
///
/// # Errors
/// Fails when the database does, or when the event is placed already.
pub fn insert_history(
    txn: &mut Txn<'_>,
    room: &Room,
    judged: &Judged,
    placement: Option<Placement>,
) -> Result<Appended, StoreError> {
    let shown = matches!(judged.standing(), Standing::Accepted | Standing::Outlier);
    let pos = shown.then(|| txn.next_history_pos());
    let nid = row::place(txn, room, judged, (pos, placement))?;
    let placed = (nid, pos.is_some());
    let is_followed = backward_extremities::advance(txn, room.nid, placed, judged.pdu())?;
    Ok(Appended { nid, pos, is_followed })
}

/// Adds an event whose place is not known: part of a state or an auth chain, or an
/// invite. One that is there already stays as it is.
///
/// # Errors
/// Fails when the database does.
pub fn insert_outlier(
    txn: &mut Txn<'_>,
    room: &Room,
    judged: &Judged,
) -> Result<EventNid, StoreError> {
    match find_nid(txn, judged.pdu().event_id())? {
        Some(nid) => Ok(nid),
        None => row::place(txn, room, judged, (None, None)),
    }
}

/// The event, if it is there.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, event_id: &EventId) -> Result<Option<StoredEvent>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT nid, room, standing, pos, state_before, state_after, redacted_by
         FROM events WHERE event_id = ?1",
    )?;
    let row = select.query_row([event_id.as_str()], Row::read).optional()?;
    row.map(|row| row.with_pdu(snap)).transpose()
}

/// The integer of an event, if it is there.
///
/// # Errors
/// Fails when the database does.
pub fn find_nid(snap: &Snapshot<'_>, event_id: &EventId) -> Result<Option<EventNid>, StoreError> {
    let mut select = snap.conn().prepare_cached("SELECT nid FROM events WHERE event_id = ?1")?;
    Ok(select.query_row([event_id.as_str()], |row| row.get(0)).optional()?)
}

/// The event of an integer.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn get(snap: &Snapshot<'_>, nid: EventNid) -> Result<StoredEvent, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT nid, room, standing, pos, state_before, state_after, redacted_by
         FROM events WHERE nid = ?1",
    )?;
    let row = select.query_row([nid], Row::read).optional()?.ok_or_else(|| missing(nid))?;
    row.with_pdu(snap)
}

/// The events of some integers, in their order.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn load_many(
    snap: &Snapshot<'_>,
    nids: impl IntoIterator<Item = EventNid>,
) -> Result<Vec<StoredEvent>, StoreError> {
    nids.into_iter().map(|nid| get(snap, nid)).collect()
}

/// The event itself, without what the store knows about it. Mostly from memory.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn pdu(snap: &Snapshot<'_>, nid: EventNid) -> Result<Arc<Pdu>, StoreError> {
    if let Some(pdu) = snap.shared.pdus.get(&nid) {
        return Ok(pdu);
    }
    let mut select =
        snap.conn().prepare_cached("SELECT event_id, room, json FROM events WHERE nid = ?1")?;
    let found: Option<(String, RoomNid, String)> =
        select.query_row([nid], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let (event_id, room, json) = found.ok_or_else(|| missing(nid))?;
    let damaged = |what: &str| StoreError::Damaged(format!("event {}: {what}", nid.0));
    let event_id = OwnedEventId::try_from(event_id).map_err(|_| damaged("its id"))?;
    let rules =
        rules_of(&rooms::name(snap, room)?.1).ok_or_else(|| damaged("its room's version"))?;
    let pdu = Pdu::from_trusted(json, event_id, rules)
        .map_err(|error| damaged(&format!("its JSON: {error}")))?;
    let pdu = Arc::new(pdu);
    remember(snap, nid, &pdu);
    Ok(pdu)
}

/// How an event was judged. Mostly from memory.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn standing(snap: &Snapshot<'_>, nid: EventNid) -> Result<Standing, StoreError> {
    if let Some(standing) = snap.shared.standings.get(&nid) {
        return Ok(standing);
    }
    let mut select = snap.conn().prepare_cached(
        "SELECT standing, pos IS NOT NULL OR state_before IS NOT NULL FROM events WHERE nid = ?1",
    )?;
    let found = select.query_row([nid], |row| Ok((row::standing(row, 0)?, row.get(1)?)));
    let (standing, is_placed) = found.optional()?.ok_or_else(|| missing(nid))?;
    // An event without a place may get one, and then it is judged again.
    if is_placed {
        snap.shared.standings.insert(nid, standing, 1);
    }
    Ok(standing)
}

/// The id of an event.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn id(snap: &Snapshot<'_>, nid: EventNid) -> Result<OwnedEventId, StoreError> {
    if let Some(pdu) = snap.shared.pdus.get(&nid) {
        return Ok(pdu.event_id().to_owned());
    }
    let mut select = snap.conn().prepare_cached("SELECT event_id FROM events WHERE nid = ?1")?;
    let id: Option<String> = select.query_row([nid], |row| row.get(0)).optional()?;
    id.and_then(|id| OwnedEventId::try_from(id).ok()).ok_or_else(|| missing(nid))
}

/// At most `limit` events of a room's timeline, of those with `after < pos <= until`.
///
/// # Errors
/// Fails when the database does.
pub fn page(
    snap: &Snapshot<'_>,
    room: RoomNid,
    (after, until): (StreamPos, StreamPos),
    direction: Direction,
    limit: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let sql = match direction {
        Direction::Forward => {
            "SELECT nid, room, standing, pos, state_before, state_after, redacted_by FROM events
             WHERE room = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos LIMIT ?4"
        }
        Direction::Backward => {
            "SELECT nid, room, standing, pos, state_before, state_after, redacted_by FROM events
             WHERE room = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos DESC LIMIT ?4"
        }
    };
    let mut select = snap.conn().prepare_cached(sql)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![room, after, until, limit], Row::read)?;
    rows.map(|row| row?.with_pdu(snap)).collect()
}

/// Notes which redaction took the content of an event away. The received bytes stay:
/// they are what hashes and other servers' signatures are about.
///
/// # Errors
/// Fails when the database does.
pub fn set_redacted(
    txn: &mut Txn<'_>,
    event: EventNid,
    redaction: EventNid,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("UPDATE events SET redacted_by = ?2 WHERE nid = ?1")?
        .execute((event, redaction))?;
    Ok(())
}

/// Sets the state after an event that has just been appended: a state event is part of it, so
/// that state can be made only when the event has its integer.
///
/// # Errors
/// Fails when the database does.
pub fn set_state_after(
    txn: &mut Txn<'_>,
    event: EventNid,
    state_after: StateNid,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("UPDATE events SET state_after = ?2 WHERE nid = ?1")?
        .execute((event, state_after))?;
    Ok(())
}

/// Keeps an event in memory. Its integer is never given to another one.
fn remember(snap: &Snapshot<'_>, nid: EventNid, pdu: &Arc<Pdu>) {
    // The JSON, its parts once more, and about half a KiB of fields.
    let weight = 2 * pdu.json().len() + 512;
    snap.shared.pdus.insert(nid, Arc::clone(pdu), weight);
}

fn missing(nid: EventNid) -> StoreError {
    StoreError::Damaged(format!("event {} is not there", nid.0))
}
