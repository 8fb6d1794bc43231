//! The rooms in this server's public list.

use crate::{RoomNid, Snapshot, StoreError, Txn};

/// Puts a room into the list.
///
/// # Errors
/// Fails when the database does.
pub fn insert(txn: &mut Txn<'_>, room: RoomNid) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("INSERT OR IGNORE INTO published_rooms (room) VALUES (?1)")?
        .execute([room])?;
    Ok(())
}

/// Takes a room out of the list.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, room: RoomNid) -> Result<(), StoreError> {
    txn.conn().prepare_cached("DELETE FROM published_rooms WHERE room = ?1")?.execute([room])?;
    Ok(())
}

/// Whether a room is in the list.
///
/// # Errors
/// Fails when the database does.
pub fn contains(snap: &Snapshot<'_>, room: RoomNid) -> Result<bool, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM published_rooms WHERE room = ?1)")?;
    Ok(select.query_row([room], |row| row.get(0))?)
}

/// All rooms of the list, those with the most joined users first, and how many these are. Of two
/// with as many, the one known longer comes first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>) -> Result<Vec<(RoomNid, u64)>, StoreError> {
    // 4 is `join`, as in `memberships`.
    let mut select = snap.conn().prepare_cached(
        "SELECT p.room, (SELECT count(*) FROM memberships m
                         WHERE m.room = p.room AND m.membership = 4) AS joined
         FROM published_rooms p ORDER BY joined DESC, p.room",
    )?;
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
    rows.map(|row| {
        let (room, joined) = row?;
        Ok((room, u64::try_from(joined).unwrap_or(0)))
    })
    .collect()
}
