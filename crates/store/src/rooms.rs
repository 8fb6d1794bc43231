//! Rooms: id, version and current state.

use std::sync::Arc;

use ruma::{OwnedRoomId, RoomId, RoomVersionId};
use rusqlite::{OptionalExtension, Row, params};

use crate::{
    RoomNid, Snapshot, StateNid, StoreError, StreamPos, Txn, room_state, shared::RoomName,
    txn::Table,
};

/// A room this node knows: one it is in, was in, or is invited to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its integer.
    pub nid: RoomNid,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// Its current state: [`room_state::EMPTY`] while this node never was in it.
    pub state: StateNid,
}

const COLUMNS: &str = "SELECT nid, room_id, version, state FROM rooms";

/// Adds a room, with an empty state.
///
/// # Errors
/// Fails when the database does, or when the room is there.
pub fn insert(
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    version: &RoomVersionId,
) -> Result<Room, StoreError> {
    let nid = RoomNid(txn.next_nid(Table::Rooms));
    let state = room_state::EMPTY;
    let mut insert = txn.conn().prepare_cached(
        "INSERT INTO rooms (nid, room_id, version, state) VALUES (?1, ?2, ?3, ?4)",
    )?;
    insert.execute(params![nid, room_id.as_str(), version.as_str(), state])?;
    Ok(Room { nid, room_id: room_id.to_owned(), version: version.clone(), state })
}

/// The room, added where it is not known. Where this node never was in it, its version is only
/// what somebody said: then another one is as good, and what was known of the room goes.
///
/// # Errors
/// Fails when the database does.
pub fn of_version(
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    version: &RoomVersionId,
) -> Result<Room, StoreError> {
    if let Some(known) = find(txn, room_id)? {
        if known.version == *version || known.state != room_state::EMPTY {
            return Ok(known);
        }
        // Invites and their events; integers are never given out again, so no cache is wrong.
        for sql in [
            "DELETE FROM memberships WHERE room = ?1",
            "DELETE FROM events WHERE room = ?1",
            "DELETE FROM rooms WHERE nid = ?1",
        ] {
            txn.conn().prepare_cached(sql)?.execute([known.nid])?;
        }
        // The newest may have been among them.
        txn.note_newest(None);
    }
    insert(txn, room_id, version)
}

/// The room, if this node knows it.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<Option<Room>, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT nid, room_id, version, state FROM rooms WHERE room_id = ?1")?;
    select.query_row([room_id.as_str()], read).optional()?.map(checked).transpose()
}

/// The room of an integer.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn get_by_nid(snap: &Snapshot<'_>, nid: RoomNid) -> Result<Room, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT nid, room_id, version, state FROM rooms WHERE nid = ?1")?;
    checked(select.query_row([nid], read).optional()?.ok_or_else(|| missing(nid))?)
}

/// All rooms, the oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>) -> Result<Vec<Room>, StoreError> {
    let mut select = snap.conn().prepare_cached(COLUMNS)?;
    select.query_map([], read)?.map(|row| checked(row?)).collect()
}

/// Replaces the current state of a room, as of a position. Does nothing when it is the same.
///
/// # Errors
/// Fails when the database does.
pub fn set_state(
    txn: &mut Txn<'_>,
    room: &mut Room,
    state: StateNid,
    pos: StreamPos,
) -> Result<(), StoreError> {
    if room.state == state {
        return Ok(());
    }
    let conn = txn.conn();
    conn.prepare_cached("UPDATE rooms SET state = ?2 WHERE nid = ?1")?
        .execute((room.nid, state))?;
    conn.prepare_cached(
        "INSERT OR REPLACE INTO current_states (room, pos, root) VALUES (?1, ?2, ?3)",
    )?
    .execute((room.nid, pos, state))?;
    room.state = state;
    Ok(())
}

/// The current state of a room as it was at a position.
///
/// # Errors
/// Fails when the database does.
pub fn state_at(
    snap: &Snapshot<'_>,
    room: RoomNid,
    pos: StreamPos,
) -> Result<StateNid, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT root FROM current_states WHERE room = ?1 AND pos <= ?2 ORDER BY pos DESC LIMIT 1",
    )?;
    let root = select.query_row((room, pos), |row| row.get(0)).optional()?;
    Ok(root.unwrap_or(room_state::EMPTY))
}

/// Id and version of a room, which never change.
pub(crate) fn name(snap: &Snapshot<'_>, nid: RoomNid) -> Result<RoomName, StoreError> {
    if let Some(name) = snap.shared.rooms.get(&nid) {
        return Ok(name);
    }
    let room = get_by_nid(snap, nid)?;
    let name = Arc::new((room.room_id, room.version));
    snap.shared.rooms.insert(nid, Arc::clone(&name), 1);
    Ok(name)
}

type Raw = (RoomNid, String, String, StateNid);

fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn checked((nid, room_id, version, state): Raw) -> Result<Room, StoreError> {
    let room_id = OwnedRoomId::try_from(room_id).map_err(|_| missing(nid))?;
    let version = RoomVersionId::try_from(version).map_err(|_| missing(nid))?;
    Ok(Room { nid, room_id, version, state })
}

fn missing(nid: RoomNid) -> StoreError {
    StoreError::Damaged(format!("room {} is not there", nid.0))
}
