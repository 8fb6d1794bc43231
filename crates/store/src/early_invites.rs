//! Invites to rooms that this node is in, which know of a departure that it does not: they are shown
//! when that comes.

use ruma::{OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{EventNid, RoomNid, Snapshot, StoreError, Txn, UserNid, names};

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

/// Takes out all invites that wait in a room, with whom they are for.
///
/// # Errors
/// Fails when the database does.
pub fn take(
    txn: &mut Txn<'_>,
    room: RoomNid,
) -> Result<Vec<(OwnedUserId, EarlyInvite)>, StoreError> {
    let mut delete = txn.conn().prepare_cached(
        "DELETE FROM early_invites WHERE room = ?1 RETURNING user, event, stripped",
    )?;
    let rows = delete.query_map([room], |row| {
        Ok((row.get(0)?, EarlyInvite { event: row.get(1)?, stripped: row.get(2)? }))
    })?;
    let taken = rows.collect::<Result<Vec<(UserNid, EarlyInvite)>, _>>()?;
    taken.into_iter().map(|(user, invite)| Ok((names::user(txn, user)?, invite))).collect()
}
