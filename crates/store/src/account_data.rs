//! What clients keep on the server for a user: settings, tags, push rules.

use ruma::{OwnedRoomId, RoomId, UserId};
use rusqlite::{OptionalExtension, params};
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// One datum of account data.
#[derive(Debug, Clone)]
pub struct AccountDatum {
    /// The room it belongs to; `None` for the account as a whole.
    pub room_id: Option<OwnedRoomId>,
    /// Its type, such as `m.push_rules`.
    pub kind: String,
    /// Its content, a JSON object, as the client sent it.
    pub content: Box<RawValue>,
    /// When it was last written.
    pub pos: StreamPos,
}

/// Where a datum stands: the whole account, or one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// The account as a whole.
    Global,
    /// One room.
    Room(&'a RoomId),
}

impl Scope<'_> {
    fn column(&self) -> &str {
        match self {
            Self::Global => "",
            Self::Room(room_id) => room_id.as_str(),
        }
    }
}

/// Writes a datum, in place of the former, and gives the position at which it shows.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    scope: Scope<'_>,
    kind: &str,
    content: &RawValue,
) -> Result<StreamPos, StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO account_data (user_id, room_id, kind, content, pos)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET content = excluded.content, pos = excluded.pos",
        )?
        .execute(params![user_id.as_str(), scope.column(), kind, content.get(), pos.0])?;
    Ok(pos)
}

/// The content of a datum.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    scope: Scope<'_>,
    kind: &str,
) -> Result<Option<Box<RawValue>>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT content FROM account_data WHERE user_id = ?1 AND room_id = ?2 AND kind = ?3",
        )?
        .query_row([user_id.as_str(), scope.column(), kind], |row| read_content(row, 0))
        .optional()?;
    Ok(found)
}

/// The data written after `after` and not after `until`, oldest first.
/// With `after` zero: all of it.
///
/// # Errors
/// Fails when the database does.
pub fn list_between(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    after: StreamPos,
    until: StreamPos,
) -> Result<Vec<AccountDatum>, StoreError> {
    let data = snap
        .conn()
        .prepare_cached(
            "SELECT room_id, kind, content, pos FROM account_data
             WHERE user_id = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos",
        )?
        .query_map(params![user_id.as_str(), after.0, until.0], |row| {
            let room: String = row.get(0)?;
            let room_id = if room.is_empty() { None } else { Some(convert::room_id(row, 0)?) };
            Ok(AccountDatum {
                room_id,
                kind: row.get(1)?,
                content: read_content(row, 2)?,
                pos: StreamPos(row.get(3)?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(data)
}

/// How many data a user has, which the use-case bounds.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>, user_id: &UserId) -> Result<u64, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached("SELECT count(*) FROM account_data WHERE user_id = ?1")?
        .query_row([user_id.as_str()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn read_content(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Box<RawValue>> {
    RawValue::from_string(row.get(column)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

/// When a datum was last written; zero for never.
///
/// # Errors
/// Fails when the database does.
pub fn changed_at(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    scope: Scope<'_>,
    kind: &str,
) -> Result<StreamPos, StoreError> {
    let pos = snap
        .conn()
        .prepare_cached(
            "SELECT pos FROM account_data WHERE user_id = ?1 AND room_id = ?2 AND kind = ?3",
        )?
        .query_row([user_id.as_str(), scope.column(), kind], |row| row.get(0))
        .optional()?;
    Ok(StreamPos(pos.unwrap_or(0)))
}

/// Forgets all data of a user.
///
/// # Errors
/// Fails when the database does.
pub fn remove_all(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM account_data WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}
