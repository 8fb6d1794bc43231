//! The profiles of local users.

use ruma::{OwnedMxcUri, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn};

/// How a user wants to be seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The display name.
    pub displayname: Option<String>,
    /// The avatar.
    pub avatar_url: Option<OwnedMxcUri>,
}

/// The profile of a local user; empty when none was ever set.
///
/// # Errors
/// Fails when the database does.
pub fn get(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Profile, StoreError> {
    let found = snap
        .conn()
        .prepare_cached("SELECT displayname, avatar_url FROM profiles WHERE user_id = ?1")?
        .query_row([user_id.as_str()], |row| {
            let avatar_url: Option<String> = row.get(1)?;
            Ok(Profile { displayname: row.get(0)?, avatar_url: avatar_url.map(Into::into) })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Replaces the profile of a local user.
///
/// # Errors
/// Fails when the database does.
pub fn set(txn: &mut Txn<'_>, user_id: &UserId, profile: &Profile) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO profiles (user_id, displayname, avatar_url) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET
                 displayname = excluded.displayname, avatar_url = excluded.avatar_url",
        )?
        .execute(params![
            user_id.as_str(),
            profile.displayname,
            profile.avatar_url.as_ref().map(|url| url.as_str())
        ])?;
    Ok(())
}
