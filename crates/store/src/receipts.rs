//! How far the members of a room have read.

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UserId,
    events::receipt::ReceiptThread,
};
use rusqlite::{OptionalExtension, Row, params, types::Type};

use crate::{RoomNid, Snapshot, StoreError, StreamPos, Txn, convert};

/// Receipts that one user can have in one room, one for each thread and kind: threads beyond it
/// push out the oldest, so that a server cannot fill the disk with invented threads.
pub const MAX_RECEIPTS_PER_USER: i64 = 200;

/// Who learns of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `m.read`: everybody in the room.
    Public,
    /// `m.read.private`: the user's own clients.
    Private,
}

impl Kind {
    /// The receipt's type as the specification spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "m.read",
            Self::Private => "m.read.private",
        }
    }
}

/// How far a user has read in a room, or in one thread of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Who has read.
    pub user_id: OwnedUserId,
    /// Who learns of it.
    pub kind: Kind,
    /// The part of the room that was read.
    pub thread: ReceiptThread,
    /// The last event that was read. It may not have arrived here yet.
    pub event_id: OwnedEventId,
    /// When it was read, by the clock of the user's server.
    pub ts: MilliSecondsSinceUnixEpoch,
}

/// Writes a receipt in place of the former one of the same user, kind and thread, and gives the
/// position at which it shows.
///
/// # Errors
/// Fails when the database does.
pub fn set(txn: &mut Txn<'_>, room: RoomNid, receipt: &Receipt) -> Result<StreamPos, StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO receipts (room_nid, user_id, kind, thread, event_id, ts, pos)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET
                 event_id = excluded.event_id, ts = excluded.ts, pos = excluded.pos",
        )?
        .execute(params![
            room.0,
            receipt.user_id.as_str(),
            receipt.kind.as_str(),
            thread_column(&receipt.thread),
            receipt.event_id.as_str(),
            convert::millis(receipt.ts),
            pos.0
        ])?;
    txn.conn()
        .prepare_cached(
            "DELETE FROM receipts WHERE room_nid = ?1 AND user_id = ?2 AND pos <= (
                 SELECT pos FROM receipts WHERE room_nid = ?1 AND user_id = ?2
                 ORDER BY pos DESC LIMIT 1 OFFSET ?3)",
        )?
        .execute(params![room.0, receipt.user_id.as_str(), MAX_RECEIPTS_PER_USER])?;
    Ok(pos)
}

/// The event that a user has read up to, for one kind and thread.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    room: RoomNid,
    user_id: &UserId,
    (kind, thread): (Kind, &ReceiptThread),
) -> Result<Option<OwnedEventId>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT event_id FROM receipts
             WHERE room_nid = ?1 AND user_id = ?2 AND kind = ?3 AND thread = ?4",
        )?
        .query_row(params![room.0, user_id.as_str(), kind.as_str(), thread_column(thread)], |row| {
            event_id(row, 0)
        })
        .optional()?;
    Ok(found)
}

/// All receipts of one user in a room, and the position of the newest of them.
///
/// # Errors
/// Fails when the database does.
pub fn list_of_user(
    snap: &Snapshot<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<(Vec<Receipt>, StreamPos), StoreError> {
    let mut newest = StreamPos(0);
    let receipts = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, kind, thread, event_id, ts, pos FROM receipts
             WHERE room_nid = ?1 AND user_id = ?2",
        )?
        .query_map(params![room.0, user_id.as_str()], |row| {
            newest = newest.max(StreamPos(row.get(5)?));
            receipt(row)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok((receipts, newest))
}

/// The receipts of a room written after `after` and not after `until`, oldest first; with
/// `after` zero all of them. Private ones of other users are included: the caller leaves them out.
///
/// # Errors
/// Fails when the database does.
pub fn list_between(
    snap: &Snapshot<'_>,
    room: RoomNid,
    after: StreamPos,
    until: StreamPos,
) -> Result<Vec<Receipt>, StoreError> {
    let receipts = snap
        .conn()
        .prepare_cached(
            "SELECT user_id, kind, thread, event_id, ts FROM receipts
             WHERE room_nid = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos",
        )?
        .query_map(params![room.0, after.0, until.0], receipt)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(receipts)
}

fn thread_column(thread: &ReceiptThread) -> &str {
    thread.as_str().unwrap_or_default()
}

fn receipt(row: &Row<'_>) -> rusqlite::Result<Receipt> {
    Ok(Receipt {
        user_id: convert::user_id(row, 0)?,
        kind: match row.get_ref(1)?.as_str()? {
            "m.read.private" => Kind::Private,
            _ => Kind::Public,
        },
        thread: match row.get_ref(2)?.as_str()? {
            "" => ReceiptThread::Unthreaded,
            "main" => ReceiptThread::Main,
            root => ReceiptThread::Thread(parsed(root, 2)?),
        },
        event_id: event_id(row, 3)?,
        ts: convert::read_millis(row, 4)?,
    })
}

fn event_id(row: &Row<'_>, column: usize) -> rusqlite::Result<OwnedEventId> {
    parsed(row.get_ref(column)?.as_str()?, column)
}

fn parsed(text: &str, column: usize) -> rusqlite::Result<OwnedEventId> {
    EventId::parse(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

#[cfg(test)]
mod tests;
