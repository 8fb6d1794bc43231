//! Names of this server for rooms it knows.

use ruma::{OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{RoomNid, Snapshot, StoreError, Txn};

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// The room.
    pub room: RoomNid,
    /// The local user who made the alias.
    pub creator: OwnedUserId,
}

/// Whether an alias was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    New,
    /// It stood for a room already, and still does.
    Taken,
}

/// Adds an alias.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    alias: &RoomAliasId,
    room: RoomNid,
    creator: &UserId,
) -> Result<Added, StoreError> {
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO aliases (alias, room, creator) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?
        .execute(params![alias.as_str(), room, creator.as_str()])?;
    Ok(if inserted == 0 { Added::Taken } else { Added::New })
}

/// What an alias stands for, if anything.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, alias: &RoomAliasId) -> Result<Option<Alias>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT room, creator FROM aliases WHERE alias = ?1")?
        .query_row([alias.as_str()], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    found
        .map(|(room, creator)| {
            let creator = OwnedUserId::try_from(creator).map_err(|_| damaged(alias.as_str()))?;
            Ok(Alias { room, creator })
        })
        .transpose()
}

/// The aliases of a room, in alphabetical order.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<OwnedRoomAliasId>, StoreError> {
    let mut select =
        snap.conn().prepare_cached("SELECT alias FROM aliases WHERE room = ?1 ORDER BY alias")?;
    let rows = select.query_map([room], |row| row.get::<_, String>(0))?;
    rows.map(|alias| {
        let alias = alias?;
        OwnedRoomAliasId::try_from(alias.as_str()).map_err(|_| damaged(&alias))
    })
    .collect()
}

/// Takes an alias away.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, alias: &RoomAliasId) -> Result<(), StoreError> {
    txn.conn().prepare_cached("DELETE FROM aliases WHERE alias = ?1")?.execute([alias.as_str()])?;
    Ok(())
}

fn damaged(alias: &str) -> StoreError {
    StoreError::Damaged(format!("the alias {alias} is malformed"))
}
