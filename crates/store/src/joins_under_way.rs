//! Joins that another server was asked to let happen, and of which we do not know yet whether it
//! did: so that neither a lost answer nor a crash makes a member of somebody who knows nothing of
//! it.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use rusqlite::{Row, params, types::Type};

use crate::{Snapshot, StoreError, Txn, convert};

/// A join that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinUnderWay {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The local user.
    pub user_id: OwnedUserId,
    /// The server that was asked.
    pub server: OwnedServerName,
    /// The content of the member event, JSON.
    pub content: String,
}

/// Notes that a server is about to be asked.
///
/// # Errors
/// Fails when the database does.
pub fn begin(
    txn: &mut Txn<'_>,
    join: &JoinUnderWay,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT OR REPLACE INTO joins_under_way (room_id, user_id, server, content, started_ts)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            join.room_id.as_str(),
            join.user_id.as_str(),
            join.server.as_str(),
            join.content,
            convert::millis(now)
        ])?;
    Ok(())
}

/// Forgets that one server was asked: it refused, or what it did is being undone.
///
/// # Errors
/// Fails when the database does.
pub fn forget(txn: &mut Txn<'_>, join: &JoinUnderWay) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "DELETE FROM joins_under_way WHERE room_id = ?1 AND user_id = ?2 AND server = ?3",
        )?
        .execute([join.room_id.as_str(), join.user_id.as_str(), join.server.as_str()])?;
    Ok(())
}

/// Forgets all servers that were asked: the user is in the room.
///
/// # Errors
/// Fails when the database does.
pub fn end(txn: &mut Txn<'_>, room_id: &RoomId, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM joins_under_way WHERE room_id = ?1 AND user_id = ?2")?
        .execute([room_id.as_str(), user_id.as_str()])?;
    Ok(())
}

/// Whether somebody's join to a room is not answered yet.
///
/// # Errors
/// Fails when the database does.
pub fn is_any(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<bool, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM joins_under_way WHERE room_id = ?1)")?
        .query_row([room_id.as_str()], |row| row.get(0))?;
    Ok(found)
}

/// The joins that were asked for before a time and never came to an end.
///
/// # Errors
/// Fails when the database does.
pub fn list_before(
    snap: &Snapshot<'_>,
    ts: MilliSecondsSinceUnixEpoch,
) -> Result<Vec<JoinUnderWay>, StoreError> {
    let joins = snap
        .conn()
        .prepare_cached(
            "SELECT room_id, user_id, server, content FROM joins_under_way WHERE started_ts < ?1
             ORDER BY started_ts, room_id, user_id, server",
        )?
        .query_map([convert::millis(ts)], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(joins)
}

fn read(row: &Row<'_>) -> rusqlite::Result<JoinUnderWay> {
    let server: String = row.get(2)?;
    let server = OwnedServerName::try_from(server).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, Type::Text, Box::new(error))
    })?;
    Ok(JoinUnderWay {
        room_id: convert::room_id(row, 0)?,
        user_id: convert::user_id(row, 1)?,
        server,
        content: row.get(3)?,
    })
}
