//! The profiles of local users.

use std::collections::BTreeMap;

use ruma::{OwnedMxcUri, UserId};
use rusqlite::{OptionalExtension, params};
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, Txn, convert};

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

/// The fields of a local user beside the display name and the avatar, with their values.
///
/// # Errors
/// Fails when the database does.
pub fn list_fields(
    snap: &Snapshot<'_>,
    user_id: &UserId,
) -> Result<BTreeMap<String, Box<RawValue>>, StoreError> {
    let fields = snap
        .conn()
        .prepare_cached("SELECT field, value FROM profile_fields WHERE user_id = ?1")?
        .query_map([user_id.as_str()], |row| Ok((row.get(0)?, convert::json(row, 1)?)))?
        .collect::<Result<_, _>>()?;
    Ok(fields)
}

/// Writes such a field, or takes it away.
///
/// # Errors
/// Fails when the database does.
pub fn set_field(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    field: &str,
    value: Option<&RawValue>,
) -> Result<(), StoreError> {
    let Some(value) = value else {
        txn.conn()
            .prepare_cached("DELETE FROM profile_fields WHERE user_id = ?1 AND field = ?2")?
            .execute([user_id.as_str(), field])?;
        return Ok(());
    };
    txn.conn()
        .prepare_cached(
            "INSERT INTO profile_fields (user_id, field, value) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?
        .execute([user_id.as_str(), field, value.get()])?;
    Ok(())
}

/// Takes the whole profile of a local user away.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    for sql in
        ["DELETE FROM profiles WHERE user_id = ?1", "DELETE FROM profile_fields WHERE user_id = ?1"]
    {
        txn.conn().prepare_cached(sql)?.execute([user_id.as_str()])?;
    }
    Ok(())
}
