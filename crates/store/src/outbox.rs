//! What must reach another server and is no event of a shared room: a durable queue for each
//! destination (D12), and the other end's memory of what it has applied.
//!
//! Entries are sent in batches, in the order in which they were queued. A batch is fixed when it
//! is first taken and repeated unchanged until it is finished, so that the receiver can tell a
//! repetition by its transaction id.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use rusqlite::{OptionalExtension, Row, params, types::Type};

use crate::{Snapshot, StoreError, Txn, convert};

/// Entries kept for one destination. A friend who is away for a year of busy rooms has a few
/// receipts a room, since later ones replace earlier ones; more than this is a runaway.
pub const MAX_ENTRIES_PER_DESTINATION: u64 = 10_000;

/// Entries in one batch: the fewer of the PDUs (50) and the EDUs (100) that a transaction may have.
/// Spec: Server-Server API, "Transactions".
pub const MAX_BATCH: usize = 50;

/// Transactions remembered for one origin. A sender has one unfinished batch at a time, so the
/// last one would do; the rest is for several nodes of one identity.
pub const MAX_RECEIVED_PER_ORIGIN: i64 = 64;

/// What an entry is, and so how it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An EDU, delivered by `/send`.
    Edu,
    /// The JSON of an invite: `{room_id, event_id, room_version, event, invite_room_state}`.
    Invite,
    /// The rejection of an invite or a departure from a room that only others are in:
    /// `{room_id, user_id, via}`.
    Leave,
    /// A single event for a server that is not in the room, delivered by `/send`.
    Pdu,
}

/// An entry to queue.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// The server that must get it.
    pub destination: &'a ServerName,
    /// How it is delivered.
    pub kind: Kind,
    /// Entries of one slot replace each other until they are sent; `None` replaces nothing.
    pub slot: Option<&'a str>,
    /// The JSON to deliver.
    pub body: &'a str,
}

/// A queued entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// How it is delivered.
    pub kind: Kind,
    /// The JSON to deliver.
    pub body: String,
}

/// Entries that are delivered together: one invite or leave, or a run of EDUs and PDUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Identifies it for its destination, the same at each attempt.
    pub id: i64,
    /// At least one entry, in order.
    pub entries: Vec<Entry>,
}

/// Whether an entry was queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It stands in the outbox.
    Stored,
    /// The destination has [`MAX_ENTRIES_PER_DESTINATION`] entries already.
    Full,
}

/// Queues an entry, in the transaction of whatever caused it.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    entry: NewEntry<'_>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Queued, StoreError> {
    if count(txn, entry.destination)? >= MAX_ENTRIES_PER_DESTINATION {
        return Ok(Queued::Full);
    }
    let destination = entry.destination.as_str();
    txn.conn()
        .prepare_cached(
            "DELETE FROM outbox WHERE destination = ?1 AND slot = ?2 AND batch IS NULL",
        )?
        .execute(params![destination, entry.slot])?;
    txn.conn()
        .prepare_cached(
            "INSERT INTO outbox (destination, kind, slot, body, created_ts)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            destination,
            kind_code(entry.kind),
            entry.slot,
            entry.body,
            convert::millis(now)
        ])?;
    Ok(Queued::Stored)
}

/// The number of entries that a destination has still to get.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>, destination: &ServerName) -> Result<u64, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached("SELECT COUNT(*) FROM outbox WHERE destination = ?1")?
        .query_row([destination.as_str()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// The servers that have something to get, each with the number of its newest entry: numbers only
/// grow.
///
/// # Errors
/// Fails when the database does.
pub fn destinations(snap: &Snapshot<'_>) -> Result<Vec<(OwnedServerName, i64)>, StoreError> {
    let destinations = snap
        .conn()
        .prepare_cached(
            "SELECT destination, max(id) FROM outbox GROUP BY destination ORDER BY destination",
        )?
        .query_map([], |row| {
            let text: String = row.get(0)?;
            let server = OwnedServerName::try_from(text).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
            })?;
            Ok((server, row.get(1)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(destinations)
}

/// The batch that a destination is to get next: the unfinished one, else a new one.
///
/// # Errors
/// Fails when the database does.
pub fn take_batch(
    txn: &mut Txn<'_>,
    destination: &ServerName,
) -> Result<Option<Batch>, StoreError> {
    let unfinished: Option<i64> = txn
        .conn()
        .prepare_cached(
            "SELECT batch FROM outbox WHERE destination = ?1 AND batch IS NOT NULL
             ORDER BY id LIMIT 1",
        )?
        .query_row([destination.as_str()], |row| row.get(0))
        .optional()?;
    if let Some(id) = unfinished {
        return Ok(Some(Batch { id, entries: entries_of(txn, destination, id)? }));
    }
    let waiting = waiting(txn, destination)?;
    let ids = next_run(&waiting);
    let Some(&id) = ids.last() else {
        return Ok(None);
    };
    txn.conn()
        .prepare_cached("UPDATE outbox SET batch = ?2 WHERE destination = ?1 AND id <= ?2")?
        .execute(params![destination.as_str(), id])?;
    Ok(Some(Batch { id, entries: entries_of(txn, destination, id)? }))
}

/// Forgets a batch that was delivered, or that its destination will never take.
///
/// # Errors
/// Fails when the database does.
pub fn finish(txn: &mut Txn<'_>, destination: &ServerName, batch: i64) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM outbox WHERE destination = ?1 AND batch = ?2")?
        .execute(params![destination.as_str(), batch])?;
    Ok(())
}

/// Whether a transaction came for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It is new, and remembered from now on.
    First,
    /// It was applied before.
    Repeated,
}

/// Notes that a transaction of another server is being applied, in that same transaction.
///
/// # Errors
/// Fails when the database does.
pub fn note_received(
    txn: &mut Txn<'_>,
    origin: &ServerName,
    txn_id: &str,
) -> Result<Arrival, StoreError> {
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO received_transactions (origin, txn_id) VALUES (?1, ?2)
             ON CONFLICT DO NOTHING",
        )?
        .execute([origin.as_str(), txn_id])?;
    if inserted == 0 {
        return Ok(Arrival::Repeated);
    }
    txn.conn()
        .prepare_cached(
            "DELETE FROM received_transactions WHERE origin = ?1 AND id <= (
                 SELECT id FROM received_transactions WHERE origin = ?1
                 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![origin.as_str(), MAX_RECEIVED_PER_ORIGIN])?;
    Ok(Arrival::First)
}

fn waiting(snap: &Snapshot<'_>, destination: &ServerName) -> Result<Vec<(i64, Kind)>, StoreError> {
    let waiting = snap
        .conn()
        .prepare_cached("SELECT id, kind FROM outbox WHERE destination = ?1 ORDER BY id LIMIT ?2")?
        .query_map(
            params![destination.as_str(), i64::try_from(MAX_BATCH).unwrap_or(i64::MAX)],
            |row| Ok((row.get(0)?, kind(row, 1)?)),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(waiting)
}

/// The ids of the entries that go out together: those before the first one that needs a request
/// of its own, or else that one alone.
fn next_run(waiting: &[(i64, Kind)]) -> Vec<i64> {
    let alone = |kind: Kind| match kind {
        Kind::Invite | Kind::Leave => true,
        Kind::Edu | Kind::Pdu => false,
    };
    let run: Vec<i64> =
        waiting.iter().take_while(|(_, kind)| !alone(*kind)).map(|(id, _)| *id).collect();
    if run.is_empty() { waiting.iter().take(1).map(|(id, _)| *id).collect() } else { run }
}

fn entries_of(
    snap: &Snapshot<'_>,
    destination: &ServerName,
    batch: i64,
) -> Result<Vec<Entry>, StoreError> {
    let entries = snap
        .conn()
        .prepare_cached(
            "SELECT kind, body FROM outbox WHERE destination = ?1 AND batch = ?2 ORDER BY id",
        )?
        .query_map(params![destination.as_str(), batch], |row| {
            Ok(Entry { kind: kind(row, 0)?, body: row.get(1)? })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(entries)
}

fn kind_code(kind: Kind) -> i64 {
    match kind {
        Kind::Edu => 0,
        Kind::Invite => 1,
        Kind::Leave => 2,
        Kind::Pdu => 3,
    }
}

fn kind(row: &Row<'_>, column: usize) -> rusqlite::Result<Kind> {
    match row.get(column)? {
        0 => Ok(Kind::Edu),
        1 => Ok(Kind::Invite),
        2 => Ok(Kind::Leave),
        3 => Ok(Kind::Pdu),
        code => Err(rusqlite::Error::IntegralValueOutOfRange(column, code)),
    }
}
