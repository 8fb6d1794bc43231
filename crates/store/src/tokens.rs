//! Tokens: what proves a client to be a logged-in device, and what is good for one use.
//!
//! Only hashes are kept. A token has 256 random bits, so a plain SHA-256 is as
//! strong as the token; whoever reads the database cannot log in with it.

mod owners;

use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, Store, StoreError, Txn, convert, shared::Learned};

pub(crate) use owners::Owners;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Whose access token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenOwner {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// When the device was last seen, as its row says.
    pub last_seen_ts: MilliSecondsSinceUnixEpoch,
}

/// What a single-use token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// `m.login.token`; its subject is the user id.
    Login,
    /// The consent page of single sign-on; its subject is the redirect URL.
    Consent,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Consent => "consent",
        }
    }
}

/// How many tokens of one purpose may wait for their use. Anybody on the
/// loopback address can ask for consent pages, so the oldest give way.
pub const MAX_ONE_TIME_TOKENS: i64 = 256;

/// Adds an access token of a device.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
    user_id: &UserId,
    device_id: &DeviceId,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO access_tokens (hash, user_id, device_id, created_ts)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            hash.0.as_slice(),
            user_id.as_str(),
            device_id.as_str(),
            convert::millis(now)
        ])?;
    Ok(())
}

/// Whose access token that is; `None` when it was never given out or is revoked.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, hash: &TokenHash) -> Result<Option<TokenOwner>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT t.user_id, t.device_id, d.last_seen_ts
             FROM access_tokens t JOIN devices d USING (user_id, device_id)
             WHERE t.hash = ?1",
        )?
        .query_row([hash.0.as_slice()], |row| {
            let device_id: String = row.get(1)?;
            Ok(TokenOwner {
                user_id: convert::user_id(row, 0)?,
                device_id: device_id.into(),
                last_seen_ts: convert::read_millis(row, 2)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// As [`find`], mostly from memory.
///
/// # Errors
/// Fails when the database does.
pub async fn owner(store: &Store, hash: TokenHash) -> Result<Option<TokenOwner>, StoreError> {
    let owners = &store.shared().owners;
    if let Some(owner) = owners.get(&hash) {
        return Ok(Some(owner));
    }
    let generation = owners.generation();
    let found = store.read(move |snap| find(snap, &hash)).await?;
    if let Some(owner) = &found {
        owners.remember(generation, hash, owner);
    }
    Ok(found)
}

/// Revokes every access token of a device.
///
/// # Errors
/// Fails when the database does.
pub fn revoke_device(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM access_tokens WHERE user_id = ?1 AND device_id = ?2")?
        .execute([user_id.as_str(), device_id.as_str()])?;
    txn.learn(Learned::Device(user_id.to_owned(), device_id.to_owned()));
    Ok(())
}

/// Adds a token for one use, and forgets expired ones and the oldest above
/// [`MAX_ONE_TIME_TOKENS`] of its purpose.
///
/// # Errors
/// Fails when the database does.
pub fn insert_one_time(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
    grant: Grant<'_>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let purpose = grant.purpose.as_str();
    txn.conn()
        .prepare_cached("DELETE FROM one_time_tokens WHERE purpose = ?1 AND expires_ts <= ?2")?
        .execute(params![purpose, convert::millis(now)])?;
    txn.conn()
        .prepare_cached(
            "DELETE FROM one_time_tokens WHERE hash IN (
                 SELECT hash FROM one_time_tokens WHERE purpose = ?1
                 ORDER BY expires_ts DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![purpose, MAX_ONE_TIME_TOKENS - 1])?;
    txn.conn()
        .prepare_cached(
            "INSERT INTO one_time_tokens (hash, purpose, subject, expires_ts)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            hash.0.as_slice(),
            purpose,
            grant.subject,
            convert::millis(grant.expires_ts)
        ])?;
    Ok(())
}

/// What a single-use token grants.
#[derive(Debug, Clone, Copy)]
pub struct Grant<'a> {
    /// What for.
    pub purpose: Purpose,
    /// See [`Purpose`].
    pub subject: &'a str,
    /// From when on it is worth nothing.
    pub expires_ts: MilliSecondsSinceUnixEpoch,
}

/// Uses a token up and gives its subject; `None` when it is unknown, used,
/// expired or meant for something else.
///
/// # Errors
/// Fails when the database does.
pub fn take_one_time(
    txn: &mut Txn<'_>,
    hash: &TokenHash,
    purpose: Purpose,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<Option<String>, StoreError> {
    let taken = txn
        .conn()
        .prepare_cached(
            "DELETE FROM one_time_tokens WHERE hash = ?1 AND purpose = ?2 AND expires_ts > ?3
             RETURNING subject",
        )?
        .query_row(params![hash.0.as_slice(), purpose.as_str(), convert::millis(now)], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(taken)
}

/// Whether a token could be used, without using it.
///
/// # Errors
/// Fails when the database does.
pub fn is_usable(
    snap: &Snapshot<'_>,
    hash: &TokenHash,
    purpose: Purpose,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<bool, StoreError> {
    let usable = snap
        .conn()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM one_time_tokens
                            WHERE hash = ?1 AND purpose = ?2 AND expires_ts > ?3)",
        )?
        .query_row(params![hash.0.as_slice(), purpose.as_str(), convert::millis(now)], |row| {
            row.get(0)
        })?;
    Ok(usable)
}
