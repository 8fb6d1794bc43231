//! Through which server the knocks of our users went: rooms that we are not in have no other way
//! back.

use ruma::{OwnedServerName, RoomId, ServerName, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn};

/// Notes the server that took a knock. A later knock of the same user replaces an earlier one.
///
/// # Errors
/// Fails when the database does.
pub fn put(
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    user_id: &UserId,
    server: &ServerName,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT OR REPLACE INTO knocks (room_id, user_id, server) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![room_id.as_str(), user_id.as_str(), server.as_str()])?;
    Ok(())
}

/// The server that took the knock of a user.
///
/// # Errors
/// Fails when the database does.
pub fn server(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<Option<OwnedServerName>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT server FROM knocks WHERE room_id = ?1 AND user_id = ?2")?
        .query_row([room_id.as_str(), user_id.as_str()], |row| row.get::<_, String>(0))
        .optional()?;
    found
        .map(|server| {
            OwnedServerName::try_from(server)
                .map_err(|_| StoreError::Damaged("the server of a knock".to_owned()))
        })
        .transpose()
}

/// Forgets the knock of a user.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, room_id: &RoomId, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM knocks WHERE room_id = ?1 AND user_id = ?2")?
        .execute([room_id.as_str(), user_id.as_str()])?;
    Ok(())
}
