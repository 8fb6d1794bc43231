//! The sync filters that clients leave with the server.

use ruma::UserId;
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn};

/// How many filters a user may leave. A client leaves a handful; the oldest give way.
pub const MAX_FILTERS: i64 = 256;

/// Keeps a filter and gives its id. The same filter again gives the same id.
///
/// # Errors
/// Fails when the database does.
pub fn insert(txn: &mut Txn<'_>, user_id: &UserId, content: &str) -> Result<i64, StoreError> {
    let known: Option<i64> = txn
        .conn()
        .prepare_cached("SELECT filter_id FROM filters WHERE user_id = ?1 AND content = ?2")?
        .query_row([user_id.as_str(), content], |row| row.get(0))
        .optional()?;
    if let Some(filter_id) = known {
        return Ok(filter_id);
    }
    let filter_id: i64 = txn
        .conn()
        .prepare_cached(
            "INSERT INTO filters (user_id, filter_id, content)
             VALUES (?1, (SELECT coalesce(max(filter_id), -1) + 1 FROM filters WHERE user_id = ?1), ?2)
             RETURNING filter_id",
        )?
        .query_row([user_id.as_str(), content], |row| row.get(0))?;
    txn.conn()
        .prepare_cached("DELETE FROM filters WHERE user_id = ?1 AND filter_id <= ?2")?
        .execute(params![user_id.as_str(), filter_id - MAX_FILTERS])?;
    Ok(filter_id)
}

/// A filter as JSON text.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    filter_id: i64,
) -> Result<Option<String>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT content FROM filters WHERE user_id = ?1 AND filter_id = ?2")?
        .query_row(params![user_id.as_str(), filter_id], |row| row.get(0))
        .optional()?;
    Ok(found)
}
