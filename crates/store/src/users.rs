//! The local users: who has an account on this node.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn, convert};

/// One account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The full user id.
    pub user_id: OwnedUserId,
    /// The argon2id PHC string; `None` when no password was ever set.
    pub password_hash: Option<String>,
    /// When the account was made.
    pub created_ts: MilliSecondsSinceUnixEpoch,
    /// Whether the account was given up: nobody logs in to it, and nobody else gets its name.
    pub is_deactivated: bool,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("User").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// Adds an account. Gives `false`, and changes nothing, when the user id is taken.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    password_hash: Option<&str>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<bool, StoreError> {
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO users (user_id, password_hash, created_ts) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![user_id.as_str(), password_hash, convert::millis(now)])?;
    Ok(inserted == 1)
}

/// The account of a user id, if this node has it.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Option<User>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, password_hash, created_ts, deactivated_ts IS NOT NULL
             FROM users WHERE user_id = ?1",
        )?
        .query_row([user_id.as_str()], read)
        .optional()?;
    Ok(found)
}

/// Whether this node has an account of that user id.
///
/// # Errors
/// Fails when the database does.
pub fn exists(snap: &Snapshot<'_>, user_id: &UserId) -> Result<bool, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM users WHERE user_id = ?1)")?
        .query_row([user_id.as_str()], |row| row.get(0))?;
    Ok(found)
}

/// All accounts, oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>) -> Result<Vec<User>, StoreError> {
    let users = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, password_hash, created_ts, deactivated_ts IS NOT NULL
             FROM users ORDER BY created_ts, user_id",
        )?
        .query_map([], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(users)
}

/// How many accounts there are.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>) -> Result<u64, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached("SELECT count(*) FROM users")?
        .query_row([], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Replaces the password of an account. Gives `false` when there is no such account.
///
/// # Errors
/// Fails when the database does.
pub fn set_password_hash(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    password_hash: &str,
) -> Result<bool, StoreError> {
    let changed = txn
        .conn()
        .prepare_cached("UPDATE users SET password_hash = ?2 WHERE user_id = ?1")?
        .execute([user_id.as_str(), password_hash])?;
    Ok(changed == 1)
}

/// Gives an account up: its password goes, its name stays taken. Gives `false` when there is no
/// such account or it was given up before.
///
/// # Errors
/// Fails when the database does.
pub fn deactivate(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<bool, StoreError> {
    let changed = txn
        .conn()
        .prepare_cached(
            "UPDATE users SET password_hash = NULL, deactivated_ts = ?2
             WHERE user_id = ?1 AND deactivated_ts IS NULL",
        )?
        .execute(params![user_id.as_str(), convert::millis(now)])?;
    Ok(changed == 1)
}

/// Whether this node has an account of that user id that is in use.
///
/// # Errors
/// Fails when the database does.
pub fn is_active(snap: &Snapshot<'_>, user_id: &UserId) -> Result<bool, StoreError> {
    Ok(find(snap, user_id)?.is_some_and(|user| !user.is_deactivated))
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<User> {
    Ok(User {
        user_id: convert::user_id(row, 0)?,
        password_hash: row.get(1)?,
        created_ts: convert::read_millis(row, 2)?,
        is_deactivated: row.get(3)?,
    })
}
