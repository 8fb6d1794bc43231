//! Cross-signing keys, and what local users signed with them and with their devices.
//!
//! Spec: Client-Server API, "Cross-signing".

use ruma::{OwnedUserId, UserId};
use rusqlite::{OptionalExtension, params};
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Usage {
    /// Signs the two others; others sign it.
    Master,
    /// Signs the user's own devices.
    SelfSigning,
    /// Signs the master keys of other users; nobody else sees it.
    UserSigning,
}

impl Usage {
    /// As the specification spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::SelfSigning => "self_signing",
            Self::UserSigning => "user_signing",
        }
    }
}

/// A key.
#[derive(Debug, Clone)]
pub struct CrossSigningKey {
    /// The public part in unpadded base64, which is its name.
    pub public_key: String,
    /// The key object as it came.
    pub json: Box<RawValue>,
}

/// Writes a key of a user in place of the former one of the same usage.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    usage: Usage,
    key: &CrossSigningKey,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO cross_signing_keys (user_id, usage, public_key, json)
             VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET public_key = excluded.public_key, json = excluded.json",
        )?
        .execute([user_id.as_str(), usage.as_str(), &key.public_key, key.json.get()])?;
    Ok(())
}

/// A key of a user.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    usage: Usage,
) -> Result<Option<CrossSigningKey>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT public_key, json FROM cross_signing_keys WHERE user_id = ?1 AND usage = ?2",
        )?
        .query_row([user_id.as_str(), usage.as_str()], |row| {
            Ok(CrossSigningKey { public_key: row.get(0)?, json: convert::json(row, 1)? })
        })
        .optional()?;
    Ok(found)
}

/// Forgets all keys of a user.
///
/// # Errors
/// Fails when the database does.
pub fn remove_all(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM cross_signing_keys WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}

/// A signature that a local user made.
#[derive(Debug, Clone, Copy)]
pub struct NewSignature<'a> {
    /// Whose key was signed, and which: a device id, or the public part of a cross-signing key.
    pub target: (&'a UserId, &'a str),
    /// Who signed, and with which key: `ed25519:…`.
    pub signer: (&'a UserId, &'a str),
    /// In unpadded base64.
    pub signature: &'a str,
}

/// Keeps a signature. Gives `false` when it is there already.
///
/// # Errors
/// Fails when the database does.
pub fn sign(txn: &mut Txn<'_>, new: NewSignature<'_>) -> Result<bool, StoreError> {
    let known = txn
        .conn()
        .prepare_cached(
            "SELECT signature = ?5 FROM key_signatures WHERE target_user = ?1 AND target_key = ?2
             AND signer_user = ?3 AND signer_key = ?4",
        )?
        .query_row(
            [
                new.target.0.as_str(),
                new.target.1,
                new.signer.0.as_str(),
                new.signer.1,
                new.signature,
            ],
            |row| row.get(0),
        )
        .optional()?;
    if known == Some(true) {
        return Ok(false);
    }
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO key_signatures
                 (target_user, target_key, signer_user, signer_key, signature, pos)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET signature = excluded.signature, pos = excluded.pos",
        )?
        .execute(params![
            new.target.0.as_str(),
            new.target.1,
            new.signer.0.as_str(),
            new.signer.1,
            new.signature,
            pos.0
        ])?;
    Ok(true)
}

/// A signature on a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Who signed.
    pub signer: OwnedUserId,
    /// With which key: `ed25519:…`.
    pub signer_key: String,
    /// In unpadded base64.
    pub signature: String,
}

/// The signatures on a key that one user made.
///
/// # Errors
/// Fails when the database does.
pub fn list_signatures(
    snap: &Snapshot<'_>,
    (target_user, target_key): (&UserId, &str),
    signer: &UserId,
) -> Result<Vec<Signature>, StoreError> {
    let signatures = snap
        .conn()
        .prepare_cached(
            "SELECT signer_user, signer_key, signature FROM key_signatures
             WHERE target_user = ?1 AND target_key = ?2 AND signer_user = ?3",
        )?
        .query_map([target_user.as_str(), target_key, signer.as_str()], |row| {
            Ok(Signature {
                signer: convert::user_id(row, 0)?,
                signer_key: row.get(1)?,
                signature: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(signatures)
}

/// How many signatures a user has made.
///
/// # Errors
/// Fails when the database does.
pub fn count_signatures(snap: &Snapshot<'_>, signer: &UserId) -> Result<u64, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached("SELECT count(*) FROM key_signatures WHERE signer_user = ?1")?
        .query_row([signer.as_str()], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Forgets the signatures on a key that is replaced or gone.
///
/// # Errors
/// Fails when the database does.
pub fn remove_signatures(
    txn: &mut Txn<'_>,
    (target_user, target_key): (&UserId, &str),
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM key_signatures WHERE target_user = ?1 AND target_key = ?2")?
        .execute([target_user.as_str(), target_key])?;
    Ok(())
}

/// The other users whose keys a user signed after a position: only that user's own devices learn
/// of it.
///
/// # Errors
/// Fails when the database does.
pub fn list_signed_since(
    snap: &Snapshot<'_>,
    signer: &UserId,
    after: StreamPos,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let users = snap
        .conn()
        .prepare_cached(
            "SELECT DISTINCT target_user FROM key_signatures
             WHERE signer_user = ?1 AND pos > ?2 AND target_user <> ?1",
        )?
        .query_map(params![signer.as_str(), after.0], |row| convert::user_id(row, 0))?
        .collect::<Result<_, _>>()?;
    Ok(users)
}
