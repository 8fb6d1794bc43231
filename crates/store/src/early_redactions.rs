//! Redactions that came before the events they redact: the target is redacted when it comes.

use ruma::EventId;
use rusqlite::params;

use crate::{EventNid, Snapshot, StoreError, Txn};

/// Redactions that one event can wait with. An event is redacted once; more than a few are an
/// attempt to fill the table.
pub const MAX_PER_TARGET: i64 = 20;

/// Notes that a redaction waits for its target. Beyond [`MAX_PER_TARGET`] it does nothing.
///
/// # Errors
/// Fails when the database does.
pub fn insert(txn: &mut Txn<'_>, target: &EventId, redaction: EventNid) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO early_redactions (target_id, redaction)
             SELECT ?1, ?2
             WHERE (SELECT count(*) FROM early_redactions WHERE target_id = ?1) < ?3
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![target.as_str(), redaction, MAX_PER_TARGET])?;
    Ok(())
}

/// The redactions that wait for an event, oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, target: &EventId) -> Result<Vec<EventNid>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT redaction FROM early_redactions WHERE target_id = ?1 ORDER BY redaction",
    )?;
    let rows = select.query_map([target.as_str()], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets those that waited for an event.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, target: &EventId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM early_redactions WHERE target_id = ?1")?
        .execute([target.as_str()])?;
    Ok(())
}
