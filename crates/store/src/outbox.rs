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

/// Bytes kept for one destination: a few hundred of the largest events.
pub const MAX_BYTES_PER_DESTINATION: u64 = 16 * 1024 * 1024;

/// Entries kept in all: a hundred friends who are away for long.
pub const MAX_ENTRIES: u64 = 200_000;

/// Bytes kept in all: what a small disk can spare.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Refused entries that are remembered; the oldest give way.
pub const MAX_REFUSED: i64 = 1_000;

/// Entries in one batch: the fewer of the PDUs (50) and the EDUs (100) that a transaction may have.
/// Spec: Server-Server API, "Transactions".
pub const MAX_BATCH: usize = 50;

/// Bytes in one batch, the first entry aside: what travels through another server too, with the
/// keys that go with it.
pub const MAX_BATCH_BYTES: i64 = 512 * 1024;

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
    /// It does not: the destination, or the outbox as a whole, has as much as is kept.
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
    insert_until(txn, entry, (now, None))
}

/// As [`insert`], for what is worth nothing after a time: `(now, expires)`.
///
/// Where the outbox is full, an entry that a later one would replace or that expires is not
/// queued; any other takes the place of such entries of the same destination, and is refused only
/// where there are none. What is dropped is counted in [`Totals`].
///
/// # Errors
/// Fails when the database does.
pub fn insert_until(
    txn: &mut Txn<'_>,
    entry: NewEntry<'_>,
    (now, expires): (MilliSecondsSinceUnixEpoch, Option<MilliSecondsSinceUnixEpoch>),
) -> Result<Queued, StoreError> {
    let destination = entry.destination.as_str();
    txn.conn()
        .prepare_cached(
            "DELETE FROM outbox WHERE destination = ?1 AND slot = ?2 AND batch IS NULL",
        )?
        .execute(params![destination, entry.slot])?;
    while is_full(txn, &entry)? {
        let is_expendable = entry.slot.is_some() || expires.is_some();
        if is_expendable || !drop_expendable(txn, entry.destination)? {
            count_dropped(txn, "dropped_full", 1)?;
            return Ok(Queued::Full);
        }
    }
    txn.conn()
        .prepare_cached(
            "INSERT INTO outbox (destination, kind, slot, body, created_ts, expires_ts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            destination,
            kind_code(entry.kind),
            entry.slot,
            entry.body,
            convert::millis(now),
            expires.map(convert::millis)
        ])?;
    Ok(Queued::Stored)
}

fn is_full(snap: &Snapshot<'_>, entry: &NewEntry<'_>) -> Result<bool, StoreError> {
    let bytes = u64::try_from(entry.body.len()).unwrap_or(u64::MAX);
    let (mut entries_there, mut bytes_there) = (0, 0);
    let counted: Option<(i64, i64)> = snap
        .conn()
        .prepare_cached("SELECT entries, bytes FROM outbox_destinations WHERE destination = ?1")?
        .query_row([entry.destination.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((entries, bytes)) = counted {
        (entries_there, bytes_there) = (entries.unsigned_abs(), bytes.unsigned_abs());
    }
    let totals = totals(snap)?;
    Ok(entries_there >= MAX_ENTRIES_PER_DESTINATION
        || bytes_there.saturating_add(bytes) > MAX_BYTES_PER_DESTINATION
        || totals.entries >= MAX_ENTRIES
        || totals.bytes.saturating_add(bytes) > MAX_BYTES)
}

/// Drops the oldest entry of a destination that a later one would replace or that expires, unless
/// it is on its way. Says whether there was one.
fn drop_expendable(txn: &mut Txn<'_>, destination: &ServerName) -> Result<bool, StoreError> {
    let dropped = txn
        .conn()
        .prepare_cached(
            "DELETE FROM outbox WHERE id = (
                 SELECT id FROM outbox WHERE destination = ?1 AND batch IS NULL
                 AND (slot IS NOT NULL OR expires_ts IS NOT NULL) ORDER BY id LIMIT 1)",
        )?
        .execute([destination.as_str()])?;
    count_dropped(txn, "dropped_full", dropped)?;
    Ok(dropped > 0)
}

/// Whether something waits that is worth nothing any more.
///
/// # Errors
/// Fails when the database does.
pub fn has_expired(
    snap: &Snapshot<'_>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<bool, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM outbox WHERE expires_ts < ?1 AND batch IS NULL)",
    )?;
    Ok(select.query_row([convert::millis(now)], |row| row.get(0))?)
}

/// Drops what is worth nothing any more, unless it is on its way.
///
/// # Errors
/// Fails when the database does.
pub fn drop_expired(
    txn: &mut Txn<'_>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<usize, StoreError> {
    let dropped = txn
        .conn()
        .prepare_cached("DELETE FROM outbox WHERE expires_ts < ?1 AND batch IS NULL")?
        .execute([convert::millis(now)])?;
    count_dropped(txn, "dropped_expired", dropped)?;
    Ok(dropped)
}

fn count_dropped(txn: &mut Txn<'_>, column: &str, count: usize) -> Result<(), StoreError> {
    if count > 0 {
        let sql = format!("UPDATE outbox_totals SET {column} = {column} + ?1");
        txn.conn().prepare_cached(&sql)?.execute([i64::try_from(count).unwrap_or(i64::MAX)])?;
    }
    Ok(())
}

/// The number of entries that a destination has still to get.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>, destination: &ServerName) -> Result<u64, StoreError> {
    let count: Option<i64> = snap
        .conn()
        .prepare_cached("SELECT entries FROM outbox_destinations WHERE destination = ?1")?
        .query_row([destination.as_str()], |row| row.get(0))
        .optional()?;
    Ok(count.unwrap_or(0).unsigned_abs())
}

/// The servers that have something to get, each with the number of its newest entry: numbers only
/// grow.
///
/// # Errors
/// Fails when the database does.
pub fn destinations(snap: &Snapshot<'_>) -> Result<Vec<(OwnedServerName, i64)>, StoreError> {
    let destinations = snap
        .conn()
        .prepare_cached("SELECT destination, newest FROM outbox_destinations ORDER BY destination")?
        .query_map([], |row| Ok((server(row, 0)?, row.get(1)?)))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(destinations)
}

/// The batch that a destination is to get next: the unfinished one, else a new one of what is still
/// worth something.
///
/// # Errors
/// Fails when the database does.
pub fn take_batch(
    txn: &mut Txn<'_>,
    destination: &ServerName,
    now: MilliSecondsSinceUnixEpoch,
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
    drop_expired(txn, now)?;
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

/// Forgets a batch that was delivered, or that its destination will never take: that one is to be
/// remembered by [`note_refused`] before.
///
/// # Errors
/// Fails when the database does.
pub fn finish(txn: &mut Txn<'_>, destination: &ServerName, batch: i64) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM outbox WHERE destination = ?1 AND batch = ?2")?
        .execute(params![destination.as_str(), batch])?;
    Ok(())
}

/// What stands in the outbox, and what never left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries that wait.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Entries that were dropped, or not taken, since the outbox was full. Only grows.
    pub dropped_full: u64,
    /// Entries that were dropped since they had come to be worth nothing. Only grows.
    pub dropped_expired: u64,
}

/// The outbox as a whole. Cheap.
///
/// # Errors
/// Fails when the database does.
pub fn totals(snap: &Snapshot<'_>) -> Result<Totals, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT entries, bytes, dropped_full, dropped_expired FROM outbox_totals",
    )?;
    let count = |row: &Row<'_>, column| row.get(column).map(i64::unsigned_abs);
    Ok(select.query_row([], |row| {
        Ok(Totals {
            entries: count(row, 0)?,
            bytes: count(row, 1)?,
            dropped_full: count(row, 2)?,
            dropped_expired: count(row, 3)?,
        })
    })?)
}

/// What waits for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The server.
    pub destination: OwnedServerName,
    /// Entries.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that are invites.
    pub invites: u64,
    /// When the oldest was queued, in milliseconds since the Unix epoch.
    pub since_ts: u64,
}

/// What waits, for whom: those who wait longest first, at most `limit` servers.
///
/// # Errors
/// Fails when the database does.
pub fn list_waiting(snap: &Snapshot<'_>, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT destination, entries, bytes,
             (SELECT count(*) FROM outbox o WHERE o.destination = d.destination AND kind = 1),
             (SELECT min(created_ts) FROM outbox o WHERE o.destination = d.destination) AS since
         FROM outbox_destinations d ORDER BY since, destination LIMIT ?1",
    )?;
    let count = |row: &Row<'_>, column| row.get(column).map(i64::unsigned_abs);
    let rows = select.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(Waiting {
            destination: server(row, 0)?,
            entries: count(row, 1)?,
            bytes: count(row, 2)?,
            invites: count(row, 3)?,
            since_ts: count(row, 4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// An entry that its destination will not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The server.
    pub destination: OwnedServerName,
    /// What it was.
    pub kind: Kind,
    /// The room that it was about.
    pub room_id: Option<String>,
    /// The user that it was about.
    pub user_id: Option<String>,
    /// The destination's words.
    pub reason: String,
    /// When it was refused, in milliseconds since the Unix epoch.
    pub refused_ts: u64,
}

/// Remembers that a destination will not take an entry. A later refusal about the same room and
/// user takes the place of an earlier one.
///
/// # Errors
/// Fails when the database does.
pub fn note_refused(txn: &mut Txn<'_>, refused: &Refused) -> Result<(), StoreError> {
    let conn = txn.conn();
    let Refused { destination, kind, room_id, user_id, reason, refused_ts } = refused;
    conn.prepare_cached(
        "DELETE FROM outbox_refused
         WHERE destination = ?1 AND kind = ?2 AND room_id IS ?3 AND user_id IS ?4",
    )?
    .execute(params![destination.as_str(), kind_code(*kind), room_id, user_id])?;
    conn.prepare_cached(
        "INSERT INTO outbox_refused (destination, kind, room_id, user_id, reason, refused_ts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        destination.as_str(),
        kind_code(*kind),
        room_id,
        user_id,
        reason,
        i64::try_from(*refused_ts).unwrap_or(i64::MAX)
    ])?;
    conn.prepare_cached(
        "DELETE FROM outbox_refused WHERE id <= (SELECT max(id) FROM outbox_refused) - ?1",
    )?
    .execute([MAX_REFUSED])?;
    Ok(())
}

/// What destinations will not take, the latest first.
///
/// # Errors
/// Fails when the database does.
pub fn list_refused(snap: &Snapshot<'_>, limit: usize) -> Result<Vec<Refused>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT destination, kind, room_id, user_id, reason, refused_ts
         FROM outbox_refused ORDER BY id DESC LIMIT ?1",
    )?;
    let rows = select.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        Ok(Refused {
            destination: server(row, 0)?,
            kind: kind(row, 1)?,
            room_id: row.get(2)?,
            user_id: row.get(3)?,
            reason: row.get(4)?,
            refused_ts: row.get::<_, i64>(5)?.unsigned_abs(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
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

/// The next entries that one batch can hold.
fn waiting(snap: &Snapshot<'_>, destination: &ServerName) -> Result<Vec<(i64, Kind)>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT id, kind, length(CAST(body AS BLOB)) FROM outbox
         WHERE destination = ?1 ORDER BY id LIMIT ?2",
    )?;
    let limit = i64::try_from(MAX_BATCH).unwrap_or(i64::MAX);
    let mut rows = select.query(params![destination.as_str(), limit])?;
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        bytes += row.get::<_, i64>(2)?;
        if bytes > MAX_BATCH_BYTES && !waiting.is_empty() {
            break;
        }
        waiting.push((row.get(0)?, kind(row, 1)?));
    }
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

fn server(row: &Row<'_>, column: usize) -> rusqlite::Result<OwnedServerName> {
    let text: String = row.get(column)?;
    OwnedServerName::try_from(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
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
