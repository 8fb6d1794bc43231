//! Joins that another server was asked to let happen, and of which we do not know yet whether it
//! did: so that neither a lost answer nor a crash makes a member of somebody who knows nothing of
//! it.
//!
//! A server that let somebody in may be gone when it is asked again, and others believe in the
//! join still. So what it says then ends nothing: its row is only *answered*, and whoever shows
//! that they believe in the join gets a row too.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, UserId};
use rusqlite::{Row, params, types::Type};

use crate::{Snapshot, StoreError, Txn, convert};

/// Servers remembered for one join: as many as believe in it at once and can be asked. Strangers
/// who pretend to cost no more than that.
const MAX_SERVERS: i64 = 16;

/// A join that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinUnderWay {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The local user.
    pub user_id: OwnedUserId,
    /// The server that was asked, or that believes in the join.
    pub server: OwnedServerName,
    /// The content of the member event, JSON; empty when the user does not want in any more.
    pub content: String,
    /// When it was asked last, or the first server was.
    pub started: MilliSecondsSinceUnixEpoch,
}

/// Whether a server is asked for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is: when it refuses, nothing has happened.
    First,
    /// It was asked before, and what it did then is not known.
    Again,
}

/// How the joins to a room stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// Some server has not answered yet.
    Open,
    /// All have, and none let anybody in as far as they say.
    Complete,
}

/// Notes that a server is about to be asked.
///
/// # Errors
/// Fails when the database does.
pub fn begin(txn: &mut Txn<'_>, join: &JoinUnderWay) -> Result<Begun, StoreError> {
    let is_known: bool = txn
        .conn()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM joins_under_way
             WHERE room_id = ?1 AND user_id = ?2 AND server = ?3)",
        )?
        .query_row([join.room_id.as_str(), join.user_id.as_str(), join.server.as_str()], |row| {
            row.get(0)
        })?;
    txn.conn()
        .prepare_cached(
            "INSERT OR REPLACE INTO joins_under_way
             (room_id, user_id, server, content, started_ts, is_answered)
             VALUES (?1, ?2, ?3, ?4, ?5, 0)",
        )?
        .execute(params![
            join.room_id.as_str(),
            join.user_id.as_str(),
            join.server.as_str(),
            join.content,
            convert::millis(join.started)
        ])?;
    Ok(if is_known { Begun::Again } else { Begun::First })
}

/// Notes that a user does not want into a room any more. Says whether a server was asked.
///
/// # Errors
/// Fails when the database does.
pub fn withdraw(txn: &mut Txn<'_>, room_id: &RoomId, user_id: &UserId) -> Result<bool, StoreError> {
    let withdrawn = txn
        .conn()
        .prepare_cached(
            "UPDATE joins_under_way SET content = '' WHERE room_id = ?1 AND user_id = ?2",
        )?
        .execute([room_id.as_str(), user_id.as_str()])?;
    Ok(withdrawn > 0)
}

/// Notes that a user does not want into any room any more.
///
/// # Errors
/// Fails when the database does.
pub fn withdraw_all(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("UPDATE joins_under_way SET content = '' WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}

/// Notes that a server is not to be asked again, unless it shows that it believes in the join.
///
/// # Errors
/// Fails when the database does.
pub fn answer(txn: &mut Txn<'_>, join: &JoinUnderWay) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "UPDATE joins_under_way SET is_answered = 1
             WHERE room_id = ?1 AND user_id = ?2 AND server = ?3",
        )?
        .execute([join.room_id.as_str(), join.user_id.as_str(), join.server.as_str()])?;
    Ok(())
}

/// Notes that a server believes this server to be in a room to which joins were asked for: it can
/// be asked. Says whether there were any.
///
/// # Errors
/// Fails when the database does.
pub fn believe(
    txn: &mut Txn<'_>,
    room_id: &RoomId,
    server: &OwnedServerName,
) -> Result<bool, StoreError> {
    let conn = txn.conn();
    let again = conn
        .prepare_cached(
            "UPDATE joins_under_way SET is_answered = 0 WHERE room_id = ?1 AND server = ?2",
        )?
        .execute([room_id.as_str(), server.as_str()])?;
    let new = conn
        .prepare_cached(
            "INSERT INTO joins_under_way
             (room_id, user_id, server, content, started_ts, is_answered)
             SELECT room_id, user_id, ?2, max(content), min(started_ts), 0 FROM joins_under_way
             WHERE room_id = ?1 GROUP BY room_id, user_id HAVING count(*) < ?3
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![room_id.as_str(), server.as_str(), MAX_SERVERS])?;
    Ok(again + new > 0)
}

/// Forgets that one server was asked, which has refused and was never asked before.
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

/// Forgets the joins that were asked for before a time.
///
/// # Errors
/// Fails when the database does.
pub fn forget_before(txn: &mut Txn<'_>, ts: MilliSecondsSinceUnixEpoch) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM joins_under_way WHERE started_ts < ?1")?
        .execute([convert::millis(ts)])?;
    Ok(())
}

/// How the joins to a room stand; `None` when there are none.
///
/// # Errors
/// Fails when the database does.
pub fn answers(snap: &Snapshot<'_>, room_id: &RoomId) -> Result<Option<Answers>, StoreError> {
    let open: Option<i64> = snap
        .conn()
        .prepare_cached("SELECT min(is_answered) FROM joins_under_way WHERE room_id = ?1")?
        .query_row([room_id.as_str()], |row| row.get(0))?;
    Ok(open.map(|is_answered| if is_answered == 0 { Answers::Open } else { Answers::Complete }))
}

/// The joins that were asked for before a time and have no answer yet, those of one user to one
/// room together.
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
            "SELECT room_id, user_id, server, content, started_ts FROM joins_under_way
             WHERE started_ts < ?1 AND is_answered = 0
             ORDER BY room_id, user_id, started_ts, server",
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
        started: convert::read_millis(row, 4)?,
    })
}
