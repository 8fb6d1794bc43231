//! Tokens with which a user proves to a third party who they are.
//!
//! Spec: Client-Server API, "OpenID".

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn, convert, tokens::TokenHash};

/// Tokens of one user at once; the one that expires first gives way.
pub const MAX_TOKENS_PER_USER: i64 = 32;

/// Keeps a token, and forgets those that have expired.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
    user_id: &UserId,
    (now, expires_ts): (MilliSecondsSinceUnixEpoch, MilliSecondsSinceUnixEpoch),
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM openid_tokens WHERE user_id = ?1 AND expires_ts <= ?2")?
        .execute(params![user_id.as_str(), convert::millis(now)])?;
    txn.conn()
        .prepare_cached(
            "DELETE FROM openid_tokens WHERE hash IN (
                 SELECT hash FROM openid_tokens WHERE user_id = ?1
                 ORDER BY expires_ts DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![user_id.as_str(), MAX_TOKENS_PER_USER - 1])?;
    txn.conn()
        .prepare_cached(
            "INSERT INTO openid_tokens (hash, user_id, expires_ts) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![hash.0.as_slice(), user_id.as_str(), convert::millis(expires_ts)])?;
    Ok(())
}

/// Who a token stands for, unless it has expired.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    hash: &TokenHash,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<OwnedUserId>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT user_id FROM openid_tokens WHERE hash = ?1 AND expires_ts > ?2")?
        .query_row(params![hash.0.as_slice(), convert::millis(now)], |row| convert::user_id(row, 0))
        .optional()?;
    Ok(found)
}

/// Forgets the tokens of a user.
///
/// # Errors
/// Fails when the database does.
pub fn remove_all(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM openid_tokens WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}
