//! Events that came before their ancestors. They wait here, bounded, until the gap is filled.

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use rusqlite::{OptionalExtension, Row, params};

use crate::{Snapshot, StoreError, Txn, txn::Table};

/// Events that may wait in one room: a node that was away a while fetches history by
/// comparing heads, so only what is underway just now needs a place.
pub const MAX_PENDING_PER_ROOM: i64 = 256;

/// Events that may wait in all: 64 KiB each at most, so 128 MiB in the worst case.
pub const MAX_PENDING: i64 = 2_048;

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its id, as computed from its bytes.
    pub event_id: OwnedEventId,
    /// Its room.
    pub room_id: OwnedRoomId,
    /// The server it came from, which is asked first for what is missing.
    pub origin: OwnedServerName,
    /// The bytes as received.
    pub json: String,
}

/// An event to park.
#[derive(Clone, Copy, Debug)]
pub struct NewPending<'a> {
    /// Its id, as computed from its bytes.
    pub event_id: &'a EventId,
    /// Its room.
    pub room_id: &'a RoomId,
    /// The server it came from.
    pub origin: &'a ServerName,
    /// The bytes as received; checked for form, hash and signatures before.
    pub json: &'a str,
}

/// What became of an event to park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// It waits.
    New,
    /// It waited already; what it lacks is replaced.
    Again,
}

/// Parks an event until the events it lacks are there. When the room or everything is
/// full, the one that has waited longest gives way: comparing heads finds it again.
///
/// # Errors
/// Fails when the database does.
pub fn park(
    txn: &mut Txn<'_>,
    new: NewPending<'_>,
    missing: &[OwnedEventId],
) -> Result<Parked, StoreError> {
    let conn = txn.conn();
    let known: Option<i64> = conn
        .prepare_cached("SELECT nid FROM pending_events WHERE event_id = ?1")?
        .query_row([new.event_id.as_str()], |row| row.get(0))
        .optional()?;
    let nid = match known {
        Some(nid) => {
            conn.prepare_cached("DELETE FROM pending_missing WHERE pending = ?1")?
                .execute([nid])?;
            nid
        }
        None => {
            make_room(txn, new.room_id)?;
            let nid = txn.next_nid(Table::PendingEvents);
            conn.prepare_cached(
                "INSERT INTO pending_events (nid, event_id, room_id, origin, json)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                nid,
                new.event_id.as_str(),
                new.room_id.as_str(),
                new.origin.as_str(),
                new.json
            ])?;
            nid
        }
    };
    let mut insert = conn.prepare_cached(
        "INSERT OR IGNORE INTO pending_missing (missing_id, pending) VALUES (?1, ?2)",
    )?;
    for id in missing {
        insert.execute((id.as_str(), nid))?;
    }
    Ok(if known.is_some() { Parked::Again } else { Parked::New })
}

/// Notes that an event is there now (or never will be), and takes out those that
/// lack nothing any more, in the order in which they came.
///
/// # Errors
/// Fails when the database does.
pub fn take_ready(txn: &mut Txn<'_>, arrived: &EventId) -> Result<Vec<Pending>, StoreError> {
    let conn = txn.conn();
    let waiting: Vec<i64> = conn
        .prepare_cached(
            "SELECT pending FROM pending_missing WHERE missing_id = ?1 ORDER BY pending",
        )?
        .query_map([arrived.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if waiting.is_empty() {
        return Ok(Vec::new());
    }
    conn.prepare_cached("DELETE FROM pending_missing WHERE missing_id = ?1")?
        .execute([arrived.as_str()])?;
    let mut ready = Vec::new();
    for nid in waiting {
        let lacks: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM pending_missing WHERE pending = ?1)")?
            .query_row([nid], |row| row.get(0))?;
        if !lacks {
            ready.extend(take(txn, nid)?);
        }
    }
    Ok(ready)
}

/// Takes an event out, whatever it lacks: when it came again and could be judged.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, event_id: &EventId) -> Result<Option<Pending>, StoreError> {
    let nid: Option<i64> = txn
        .conn()
        .prepare_cached("SELECT nid FROM pending_events WHERE event_id = ?1")?
        .query_row([event_id.as_str()], |row| row.get(0))
        .optional()?;
    nid.map_or(Ok(None), |nid| take(txn, nid))
}

/// Whether an event waits.
///
/// # Errors
/// Fails when the database does.
pub fn contains(snap: &Snapshot<'_>, event_id: &EventId) -> Result<bool, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM pending_events WHERE event_id = ?1)")?;
    Ok(select.query_row([event_id.as_str()], |row| row.get(0))?)
}

/// What the waiting events of a room lack and what does not wait itself, at most
/// `limit`: what to ask others for.
///
/// # Errors
/// Fails when the database does.
pub fn list_missing(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    limit: usize,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT DISTINCT missing_id FROM pending_events e JOIN pending_missing ON pending = e.nid
         WHERE e.room_id = ?1
         AND NOT EXISTS (SELECT 1 FROM pending_events o WHERE o.event_id = missing_id)
         ORDER BY missing_id LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map((room_id.as_str(), limit), |row| row.get::<_, String>(0))?;
    rows.map(|id| OwnedEventId::try_from(id?).map_err(|_| damaged())).collect()
}

/// The rooms in which events wait.
///
/// # Errors
/// Fails when the database does.
pub fn list_rooms(snap: &Snapshot<'_>) -> Result<Vec<OwnedRoomId>, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT DISTINCT room_id FROM pending_events ORDER BY room_id")?;
    let rows = select.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|id| OwnedRoomId::try_from(id?).map_err(|_| damaged())).collect()
}

/// The events of a room that wait, the oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<Vec<Pending>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT event_id, room_id, origin, json FROM pending_events WHERE room_id = ?1 ORDER BY nid",
    )?;
    select.query_map([room_id.as_str()], read)?.map(|raw| checked(raw?)).collect()
}

/// How many events wait in all.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>) -> Result<u64, StoreError> {
    let mut select = snap.conn().prepare_cached("SELECT count(*) FROM pending_events")?;
    let count: i64 = select.query_row([], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Makes one place in the room and in the whole.
fn make_room(txn: &mut Txn<'_>, room_id: &RoomId) -> Result<(), StoreError> {
    let conn = txn.conn();
    let in_room: (i64, Option<i64>) = conn
        .prepare_cached("SELECT count(*), min(nid) FROM pending_events WHERE room_id = ?1")?
        .query_row([room_id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let in_all: (i64, Option<i64>) = conn
        .prepare_cached("SELECT count(*), min(nid) FROM pending_events")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let oldest = match (in_room, in_all) {
        ((count, oldest), _) if count >= MAX_PENDING_PER_ROOM => oldest,
        (_, (count, oldest)) if count >= MAX_PENDING => oldest,
        _ => None,
    };
    if let Some(oldest) = oldest {
        take(txn, oldest)?;
    }
    Ok(())
}

fn take(txn: &mut Txn<'_>, nid: i64) -> Result<Option<Pending>, StoreError> {
    let conn = txn.conn();
    conn.prepare_cached("DELETE FROM pending_missing WHERE pending = ?1")?.execute([nid])?;
    let raw = conn
        .prepare_cached(
            "DELETE FROM pending_events WHERE nid = ?1 RETURNING event_id, room_id, origin, json",
        )?
        .query_row([nid], read)
        .optional()?;
    raw.map(checked).transpose()
}

type Raw = (String, String, String, String);

fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn checked((event_id, room_id, origin, json): Raw) -> Result<Pending, StoreError> {
    Ok(Pending {
        event_id: OwnedEventId::try_from(event_id).map_err(|_| damaged())?,
        room_id: OwnedRoomId::try_from(room_id).map_err(|_| damaged())?,
        origin: OwnedServerName::try_from(origin).map_err(|_| damaged())?,
        json,
    })
}

fn damaged() -> StoreError {
    StoreError::Damaged("an identifier of a pending event".to_owned())
}
