//! Who is typing where. A row ends by its time; [`expire`] turns the end into a change that
//! clients see.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{RoomNid, Snapshot, StoreError, StreamPos, Txn, convert};

/// Users shown as typing in one room: no client shows more, and a server cannot make us keep
/// more by inventing members.
pub const MAX_TYPING_PER_ROOM: i64 = 100;

/// Rows that one [`expire`] ends: a bound on the time that it keeps the writer.
const MAX_EXPIRED_AT_ONCE: i64 = 1000;

/// Notes that a user types until `expires`. Gives a position when clients see a change, which
/// they do not when the user was typing already.
///
/// # Errors
/// Fails when the database does.
pub fn start(
    txn: &mut Txn<'_>,
    room: RoomNid,
    user_id: &UserId,
    expires: MilliSecondsSinceUnixEpoch,
) -> Result<Option<StreamPos>, StoreError> {
    let prolonged = txn
        .conn()
        .prepare_cached("UPDATE typing SET expires_ts = ?3 WHERE room_nid = ?1 AND user_id = ?2")?
        .execute(params![room.0, user_id.as_str(), convert::millis(expires)])?;
    if prolonged > 0 {
        return Ok(None);
    }
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO typing (room_nid, user_id, expires_ts) SELECT ?1, ?2, ?3
             WHERE (SELECT COUNT(*) FROM typing WHERE room_nid = ?1) < ?4",
        )?
        .execute(params![
            room.0,
            user_id.as_str(),
            convert::millis(expires),
            MAX_TYPING_PER_ROOM
        ])?;
    if inserted == 0 { Ok(None) } else { changed(txn, room).map(Some) }
}

/// Notes that a user stopped typing. Gives a position when clients see a change.
///
/// # Errors
/// Fails when the database does.
pub fn stop(
    txn: &mut Txn<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<Option<StreamPos>, StoreError> {
    let deleted = txn
        .conn()
        .prepare_cached("DELETE FROM typing WHERE room_nid = ?1 AND user_id = ?2")?
        .execute(params![room.0, user_id.as_str()])?;
    if deleted == 0 { Ok(None) } else { changed(txn, room).map(Some) }
}

/// Ends what has run out by `now`, as a change that clients see.
///
/// # Errors
/// Fails when the database does.
pub fn expire(txn: &mut Txn<'_>, now: MilliSecondsSinceUnixEpoch) -> Result<(), StoreError> {
    let mut rooms = txn
        .conn()
        .prepare_cached(
            "DELETE FROM typing WHERE (room_nid, user_id) IN (
                 SELECT room_nid, user_id FROM typing WHERE expires_ts <= ?1
                 ORDER BY expires_ts LIMIT ?2)
             RETURNING room_nid",
        )?
        .query_map(params![convert::millis(now), MAX_EXPIRED_AT_ONCE], |row| {
            Ok(RoomNid(row.get(0)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    rooms.sort_unstable();
    rooms.dedup();
    for room in rooms {
        changed(txn, room)?;
    }
    Ok(())
}

/// When the next typing user's time runs out, in any room.
///
/// # Errors
/// Fails when the database does.
pub fn next_expiry(snap: &Snapshot<'_>) -> Result<Option<MilliSecondsSinceUnixEpoch>, StoreError> {
    let next = snap
        .conn()
        .prepare_cached("SELECT expires_ts FROM typing ORDER BY expires_ts LIMIT 1")?
        .query_row([], |row| convert::read_millis(row, 0))
        .optional()?;
    Ok(next)
}

/// The users who type in a room, in the order of their ids.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<OwnedUserId>, StoreError> {
    let users = snap
        .conn()
        .prepare_cached("SELECT user_id FROM typing WHERE room_nid = ?1 ORDER BY user_id")?
        .query_map([room.0], |row| convert::user_id(row, 0))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(users)
}

/// When the set of typing users of a room last changed; zero for never.
///
/// # Errors
/// Fails when the database does.
pub fn changed_at(snap: &Snapshot<'_>, room: RoomNid) -> Result<StreamPos, StoreError> {
    let pos = snap
        .conn()
        .prepare_cached("SELECT pos FROM typing_rooms WHERE room_nid = ?1")?
        .query_row([room.0], |row| row.get(0))
        .optional()?;
    Ok(StreamPos(pos.unwrap_or(0)))
}

fn changed(txn: &mut Txn<'_>, room: RoomNid) -> Result<StreamPos, StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO typing_rooms (room_nid, pos) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET pos = excluded.pos",
        )?
        .execute([room.0, pos.0])?;
    Ok(pos)
}

#[cfg(test)]
mod tests;
