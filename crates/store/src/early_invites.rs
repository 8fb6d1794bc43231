//! Invites to rooms that this node is in, which know of a departure that it does not: they are shown
//! when that comes. Of each server one waits for each user in each room, the last.

use ruma::{OwnedUserId, ServerName, UserId};
use rusqlite::params;

use crate::{RoomNid, Snapshot, StoreError, Txn, UserNid, names};

/// An invite that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyInvite {
    /// Who is invited.
    pub user_id: OwnedUserId,
    /// The bytes of the event.
    pub json: String,
    /// The stripped state that came with it, a JSON array.
    pub stripped: String,
}

/// Notes an invite in the place of the one of the same server.
///
/// # Errors
/// Fails when the database does.
pub fn put(
    txn: &mut Txn<'_>,
    room: RoomNid,
    inviter: &ServerName,
    invite: &EarlyInvite,
) -> Result<(), StoreError> {
    let user = names::intern_user(txn, &invite.user_id)?;
    let server = names::intern_server(txn, inviter)?;
    txn.conn()
        .prepare_cached(
            "INSERT INTO early_invites (room, user, server, json, stripped)
             VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET json = excluded.json, stripped = excluded.stripped",
        )?
        .execute(params![room, user, server, invite.json, invite.stripped])?;
    Ok(())
}

/// How many invites of other servers than this one, or to other rooms, wait for a user.
///
/// # Errors
/// Fails when the database does.
pub fn count_others(
    snap: &Snapshot<'_>,
    room: RoomNid,
    (inviter, user_id): (&ServerName, &UserId),
) -> Result<usize, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(0) };
    let server = names::find_server(snap, inviter)?;
    let mut select = snap.conn().prepare_cached(
        "SELECT count(*) FROM early_invites WHERE user = ?1 AND NOT (room = ?2 AND server IS ?3)",
    )?;
    let count: i64 = select.query_row(params![user, room, server], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Takes out all invites that wait in a room.
///
/// # Errors
/// Fails when the database does.
pub fn take(txn: &mut Txn<'_>, room: RoomNid) -> Result<Vec<EarlyInvite>, StoreError> {
    let mut delete = txn.conn().prepare_cached(
        "DELETE FROM early_invites WHERE room = ?1 RETURNING user, json, stripped",
    )?;
    let rows = delete.query_map([room], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let taken = rows.collect::<Result<Vec<(UserNid, String, String)>, _>>()?;
    let named = taken.into_iter().map(|(user, json, stripped)| {
        Ok(EarlyInvite { user_id: names::user(txn, user)?, json, stripped })
    });
    named.collect()
}
