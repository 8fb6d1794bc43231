//! What a client has sent under which transaction id: a repeated request gets the
//! first answer, and a client finds its own event again in `/sync`.
//!
//! Spec: Client-Server API, "Transaction identifiers".

use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedTransactionId, TransactionId, UserId,
};
use rusqlite::{OptionalExtension, params};

use crate::{EventNid, Snapshot, StoreError, Txn, convert::millis, events, names};

/// Which request it was.
#[derive(Clone, Copy, Debug)]
pub struct TxnKey<'a> {
    /// The user who sent it.
    pub user_id: &'a UserId,
    /// The device that sent it.
    pub device_id: &'a DeviceId,
    /// What else makes requests different: the path without the transaction id.
    pub scope: &'a str,
    /// The client's transaction id.
    pub txn_id: &'a TransactionId,
}

/// The event of an earlier request.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, key: TxnKey<'_>) -> Result<Option<OwnedEventId>, StoreError> {
    let Some(user) = names::find_user(snap, key.user_id)? else { return Ok(None) };
    let mut select = snap.conn().prepare_cached(
        "SELECT event FROM txn_ids WHERE user = ?1 AND device = ?2 AND txn_id = ?3 AND scope = ?4",
    )?;
    let values = params![user, key.device_id.as_str(), key.txn_id.as_str(), key.scope];
    let event: Option<EventNid> = select.query_row(values, |row| row.get(0)).optional()?;
    event.map(|event| events::id(snap, event)).transpose()
}

/// Remembers the event of a request, in the transaction that adds the event.
///
/// # Errors
/// Fails when the database does, or when the request is remembered already.
pub fn insert(
    txn: &mut Txn<'_>,
    key: TxnKey<'_>,
    event: EventNid,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let user = names::intern_user(txn, key.user_id)?;
    let mut insert = txn.conn().prepare_cached(
        "INSERT INTO txn_ids (user, device, scope, txn_id, event, created_ts)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let (device, txn_id) = (key.device_id.as_str(), key.txn_id.as_str());
    insert.execute(params![user, device, key.scope, txn_id, event, millis(now)])?;
    txn.conn()
        .prepare_cached("UPDATE events SET device = ?2, txn_id = ?3 WHERE nid = ?1")?
        .execute((event, device, txn_id))?;
    Ok(())
}

/// The transaction id under which a device sent an event: its `unsigned.transaction_id`.
///
/// # Errors
/// Fails when the database does.
pub fn of_event(
    snap: &Snapshot<'_>,
    event: EventNid,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Option<OwnedTransactionId>, StoreError> {
    let mut select =
        snap.conn().prepare_cached("SELECT txn_id FROM events WHERE nid = ?1 AND device = ?2")?;
    let found: Option<String> =
        select.query_row((event, device_id.as_str()), |row| row.get(0)).optional()?;
    // Users choose the ids of their devices, so two may have the same.
    let found = match found {
        Some(txn_id) if events::pdu(snap, event)?.sender() == user_id => Some(txn_id),
        _ => None,
    };
    Ok(found.map(OwnedTransactionId::from))
}

/// Forgets at most `limit` requests made before a time, so that a later one of the same
/// name counts as new. Says how many there were. Events keep their transaction ids.
///
/// # Errors
/// Fails when the database does.
pub fn remove_before(
    txn: &mut Txn<'_>,
    before: MilliSecondsSinceUnixEpoch,
    limit: usize,
) -> Result<usize, StoreError> {
    let mut delete = txn.conn().prepare_cached(
        "DELETE FROM txn_ids WHERE (user, device, txn_id, scope) IN (
             SELECT user, device, txn_id, scope FROM txn_ids WHERE created_ts < ?1 LIMIT ?2)",
    )?;
    Ok(delete.execute((millis(before), i64::try_from(limit).unwrap_or(i64::MAX)))?)
}
