//! Whose devices changed when, and how far the lists of other servers' users are followed.
//!
//! Spec: Server-Server API, "Device Management".

use ruma::{OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// What we have of a user's device list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing that could be relied on.
    Unknown,
    /// What there is may be old; it is to be fetched.
    Stale,
    /// All of it, up to its stream id.
    Current,
}

/// A device list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceList {
    /// What we have of it.
    pub standing: Standing,
    /// Of a local user the last one given out, else the one applied last.
    pub stream_id: i64,
    /// The newest one heard of.
    pub seen_id: i64,
}

impl DeviceList {
    /// The list of somebody of whom nothing was heard.
    pub const NONE: Self = Self { standing: Standing::Unknown, stream_id: 0, seen_id: 0 };
}

/// What there is of a user's list.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, user_id: &UserId) -> Result<DeviceList, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT standing, stream_id, seen_id FROM device_lists WHERE user_id = ?1")?
        .query_row([user_id.as_str()], |row| {
            let standing = match row.get(0)? {
                1 => Standing::Stale,
                2 => Standing::Current,
                _ => Standing::Unknown,
            };
            Ok(DeviceList { standing, stream_id: row.get(1)?, seen_id: row.get(2)? })
        })
        .optional()?;
    Ok(found.unwrap_or(DeviceList::NONE))
}

/// Writes what there is of a user's list, and that it changed at a position.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    list: DeviceList,
    pos: StreamPos,
) -> Result<(), StoreError> {
    let standing = match list.standing {
        Standing::Unknown => 0,
        Standing::Stale => 1,
        Standing::Current => 2,
    };
    txn.conn()
        .prepare_cached(
            "INSERT INTO device_lists (user_id, standing, stream_id, seen_id, changed_pos)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET standing = excluded.standing,
                 stream_id = excluded.stream_id, seen_id = excluded.seen_id,
                 changed_pos = excluded.changed_pos",
        )?
        .execute(params![user_id.as_str(), standing, list.stream_id, list.seen_id, pos.0])?;
    Ok(())
}

/// When a user's list last changed; zero for never.
///
/// # Errors
/// Fails when the database does.
pub fn changed_at(snap: &Snapshot<'_>, user_id: &UserId) -> Result<StreamPos, StoreError> {
    let pos = snap
        .conn()
        .prepare_cached("SELECT changed_pos FROM device_lists WHERE user_id = ?1")?
        .query_row([user_id.as_str()], |row| row.get(0))
        .optional()?;
    Ok(StreamPos(pos.unwrap_or(0)))
}

/// The users whose lists changed after a position.
///
/// # Errors
/// Fails when the database does.
pub fn list_changed_since(
    snap: &Snapshot<'_>,
    after: StreamPos,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let users = snap
        .conn()
        .prepare_cached("SELECT user_id FROM device_lists WHERE changed_pos > ?1 ORDER BY user_id")?
        .query_map([after.0], |row| convert::user_id(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(users)
}

/// At most `limit` users whose lists are to be fetched.
///
/// # Errors
/// Fails when the database does.
pub fn list_stale(snap: &Snapshot<'_>, limit: usize) -> Result<Vec<OwnedUserId>, StoreError> {
    let users = snap
        .conn()
        .prepare_cached(
            "SELECT user_id FROM device_lists WHERE standing = 1 ORDER BY user_id LIMIT ?1",
        )?
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| convert::user_id(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(users)
}
