//! Signed address records: where the peers of other servers said last that they are. Any member
//! hands them on, so a room finds itself again when most of its nodes moved.

use ruma::{OwnedServerName, ServerName};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn};

/// Larger ones are not kept: a signed record with sixteen addresses has about 800 bytes.
pub const MAX_RECORD_BYTES: usize = 1_024;

/// Records kept in all, for each of a few thousand co-members one or two; 16 MB at most.
pub const MAX_RECORDS: i64 = 16_384;

/// Peers of one server whose records are kept: those that its `server_keys` may name.
pub const MAX_PER_SERVER: i64 = 16;

/// The record of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRecord {
    /// The server that the peer speaks for.
    pub server: OwnedServerName,
    /// The peer.
    pub peer_id: String,
    /// Grows with each record that the peer makes.
    pub seq: u64,
    /// The signed envelope, as it came.
    pub record: Vec<u8>,
    /// When it was stored, as a number that only grows. Not a time.
    pub change: i64,
}

/// Whether a record was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is newer than what was known.
    Newer,
    /// It is not, or it is too large.
    No,
}

/// Keeps a record, if it is the newest of its peer. The transport has verified it.
///
/// # Errors
/// Fails when the database does.
pub fn put_if_newer(
    txn: &mut Txn<'_>,
    server: &ServerName,
    (peer_id, seq, record): (&str, u64, &[u8]),
) -> Result<Kept, StoreError> {
    let Ok(seq) = i64::try_from(seq) else { return Ok(Kept::No) };
    if record.len() > MAX_RECORD_BYTES {
        return Ok(Kept::No);
    }
    let conn = txn.conn();
    let changed = conn
        .prepare_cached(
            "INSERT INTO peer_records (peer_id, server, seq, record, change)
             VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(change), 0) + 1 FROM peer_records))
             ON CONFLICT DO UPDATE SET
                 server = excluded.server, seq = excluded.seq, record = excluded.record,
                 change = excluded.change
             WHERE excluded.seq > seq",
        )?
        .execute(params![peer_id, server.as_str(), seq, record])?;
    if changed == 0 {
        return Ok(Kept::No);
    }
    conn.prepare_cached(
        "DELETE FROM peer_records WHERE server = ?1 AND peer_id NOT IN (
             SELECT peer_id FROM peer_records WHERE server = ?1 ORDER BY change DESC LIMIT ?2)",
    )?
    .execute((server.as_str(), MAX_PER_SERVER))?;
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM peer_records")?
        .query_row([], |row| row.get(0))?;
    if count > MAX_RECORDS {
        conn.prepare_cached(
            "DELETE FROM peer_records WHERE peer_id IN (
                 SELECT peer_id FROM peer_records ORDER BY change LIMIT ?1)",
        )?
        .execute([count - MAX_RECORDS])?;
    }
    Ok(Kept::Newer)
}

/// The records that changed after `change`, in the order in which they did.
///
/// # Errors
/// Fails when the database does.
pub fn list_since(
    snap: &Snapshot<'_>,
    change: i64,
    limit: usize,
) -> Result<Vec<PeerRecord>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT server, peer_id, seq, record, change FROM peer_records
         WHERE change > ?1 ORDER BY change LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut records = Vec::new();
    let mut rows = select.query((change, limit))?;
    while let Some(row) = rows.next()? {
        let server: String = row.get(0)?;
        let server = OwnedServerName::try_from(server)
            .map_err(|_| StoreError::Damaged("the server of an address record".to_owned()))?;
        let seq: i64 = row.get(2)?;
        records.push(PeerRecord {
            server,
            peer_id: row.get(1)?,
            seq: seq.unsigned_abs(),
            record: row.get(3)?,
            change: row.get(4)?,
        });
    }
    Ok(records)
}

/// The number of the last change, 0 when there was none.
///
/// # Errors
/// Fails when the database does.
pub fn last_change(snap: &Snapshot<'_>) -> Result<i64, StoreError> {
    let mut select = snap.conn().prepare_cached("SELECT max(change) FROM peer_records")?;
    Ok(select.query_row([], |row| row.get::<_, Option<i64>>(0)).optional()?.flatten().unwrap_or(0))
}
