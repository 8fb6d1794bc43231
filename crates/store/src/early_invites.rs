//! Invites that came before the departure they follow: they are shown when it comes.

use ruma::UserId;
use rusqlite::{OptionalExtension, params};

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn, names};

/// An invite that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyInvite {
    /// The event, an outlier.
    pub event: EventNid,
    /// The stripped state that came with it, a JSON array.
    pub stripped: String,
}

/// Notes an invite in the place of the one that waits already.
///
/// # Errors
/// Fails when the database does.
pub fn put(
    txn: &mut Txn<'_>,
    room: RoomNid,
    user_id: &UserId,
    invite: &EarlyInvite,
) -> Result<(), StoreError> {
    let user = names::intern_user(txn, user_id)?;
    txn.conn()
        .prepare_cached(
            "INSERT INTO early_invites (room, user, event, stripped) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET event = excluded.event, stripped = excluded.stripped",
        )?
        .execute(params![room, user, invite.event, invite.stripped])?;
    Ok(())
}

/// The invite that waits for a user to be out of a room.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<Option<EarlyInvite>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(None) };
    let mut select = snap.conn().prepare_cached(
        "SELECT event, stripped FROM early_invites WHERE room = ?1 AND user = ?2",
    )?;
    let found = select.query_row((room, user), |row| {
        Ok(EarlyInvite { event: row.get(0)?, stripped: row.get(1)? })
    });
    Ok(found.optional()?)
}

/// Forgets it.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, room: RoomNid, user_id: &UserId) -> Result<(), StoreError> {
    if let Some(user) = names::find_user(txn, user_id)? {
        txn.conn()
            .prepare_cached("DELETE FROM early_invites WHERE room = ?1 AND user = ?2")?
            .execute((room, user))?;
    }
    Ok(())
}
