//! What a client has sent under which transaction id: a repeated request gets the
//! first answer, and a client finds its own event again in `/sync`.
//!
//! Spec: Client-Server API, "Transaction identifiers".

use ruma::{
    DeviceId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedTransactionId, TransactionId, UserId,
};
use rusqlite::{OptionalExtension, params};
use sha2::{Digest, Sha256};

use crate::{EventNid, Snapshot, StoreError, Txn, convert::millis, events};

/// How long a repeated request gets the event of the first: Synapse keeps a day, and a client that
/// was off for longer asks what happened before it sends again.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

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

impl TxnKey<'_> {
    /// A number to find a request by: the first 8 bytes of a SHA-256.
    fn number(&self) -> i64 {
        let mut hash = Sha256::new();
        let parts =
            [self.user_id.as_str(), self.device_id.as_str(), self.scope, self.txn_id.as_str()];
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        i64::from_be_bytes(first)
    }
}

/// The event of an earlier request of this day.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    key: TxnKey<'_>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<OwnedEventId>, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT nid FROM events WHERE request = ?1 ORDER BY nid DESC LIMIT 1")?;
    let event: Option<EventNid> = select.query_row([key.number()], |row| row.get(0)).optional()?;
    let Some(event) = event else { return Ok(None) };
    let pdu = events::pdu(snap, event)?;
    let is_late = millis(now) - millis(pdu.origin_server_ts()) > KEPT_MS;
    let is_it = pdu.sender() == key.user_id && !is_late;
    Ok(is_it.then(|| pdu.event_id().to_owned()))
}

/// Remembers the event of a request, in the transaction that adds the event.
///
/// # Errors
/// Fails when the database does.
pub fn set(txn: &mut Txn<'_>, key: TxnKey<'_>, event: EventNid) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("UPDATE events SET request = ?2, device = ?3, txn_id = ?4 WHERE nid = ?1")?
        .execute(params![event, key.number(), key.device_id.as_str(), key.txn_id.as_str()])?;
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
