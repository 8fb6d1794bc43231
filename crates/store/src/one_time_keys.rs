//! One-time keys and fallback keys of local devices: each one-time key is handed out once.
//!
//! Spec: Client-Server API, "One-time and fallback keys".

use std::collections::BTreeMap;

use ruma::{DeviceId, UserId};
use rusqlite::{OptionalExtension, params};
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// Keys of one device that wait to be handed out: clients keep 50 to 100 there.
pub const MAX_ONE_TIME_KEYS: u64 = 1000;

/// Ids of keys that were handed out and are remembered, for each device: ten uploads of a client.
const MAX_HANDED_OUT: i64 = 1000;

/// A local device.
pub type Device<'a> = (&'a UserId, &'a DeviceId);

/// A key to add, or one that was handed out.
#[derive(Debug, Clone)]
pub struct Key {
    /// What it is for, such as `signed_curve25519`.
    pub algorithm: String,
    /// Its id among the keys of its device and algorithm.
    pub key_id: String,
    /// The key as it came: a JSON object or string.
    pub key: Box<RawValue>,
}

/// What became of a key to add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It waits to be handed out.
    New,
    /// It is there, or was there and has been handed out.
    Known,
    /// There is another key of that id.
    Conflict,
}

/// Adds a one-time key.
///
/// # Errors
/// Fails when the database does.
pub fn insert(txn: &mut Txn<'_>, device: Device<'_>, new: &Key) -> Result<Added, StoreError> {
    let known: Option<Option<String>> = txn
        .conn()
        .prepare_cached(
            "SELECT key FROM one_time_keys
             WHERE user_id = ?1 AND device_id = ?2 AND algorithm = ?3 AND key_id = ?4",
        )?
        .query_row([device.0.as_str(), device.1.as_str(), &new.algorithm, &new.key_id], |row| {
            row.get(0)
        })
        .optional()?;
    match known {
        Some(Some(key)) if key != new.key.get() => return Ok(Added::Conflict),
        Some(_) => return Ok(Added::Known),
        None => {}
    }
    txn.conn()
        .prepare_cached(
            "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, key)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute([
            device.0.as_str(),
            device.1.as_str(),
            &new.algorithm,
            &new.key_id,
            new.key.get(),
        ])?;
    Ok(Added::New)
}

/// How many one-time keys of each algorithm wait to be handed out.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>, device: Device<'_>) -> Result<BTreeMap<String, u64>, StoreError> {
    let counts = snap
        .conn()
        .prepare_cached(
            "SELECT algorithm, count(*) FROM one_time_keys
             WHERE user_id = ?1 AND device_id = ?2 AND key IS NOT NULL GROUP BY algorithm",
        )?
        .query_map([device.0.as_str(), device.1.as_str()], |row| {
            let count: i64 = row.get(1)?;
            Ok((row.get(0)?, count.unsigned_abs()))
        })?
        .collect::<Result<_, _>>()?;
    Ok(counts)
}

/// Hands out a key: the one-time key that was uploaded first, which nobody gets again; else the
/// fallback key, which counts as used from now on.
///
/// # Errors
/// Fails when the database does.
pub fn claim(
    txn: &mut Txn<'_>,
    device: Device<'_>,
    algorithm: &str,
) -> Result<Option<Key>, StoreError> {
    let first = txn
        .conn()
        .prepare_cached(
            "SELECT id, key_id, key FROM one_time_keys
             WHERE user_id = ?1 AND device_id = ?2 AND algorithm = ?3 AND key IS NOT NULL
             ORDER BY id LIMIT 1",
        )?
        .query_row([device.0.as_str(), device.1.as_str(), algorithm], |row| {
            let id: i64 = row.get(0)?;
            Ok((id, row.get::<_, String>(1)?, convert::json(row, 2)?))
        })
        .optional()?;
    let Some((id, key_id, key)) = first else { return use_fallback(txn, device, algorithm) };
    txn.conn()
        .prepare_cached("UPDATE one_time_keys SET key = NULL WHERE id = ?1")?
        .execute([id])?;
    txn.conn()
        .prepare_cached(
            "DELETE FROM one_time_keys WHERE id IN (
                 SELECT id FROM one_time_keys
                 WHERE user_id = ?1 AND device_id = ?2 AND key IS NULL
                 ORDER BY id DESC LIMIT -1 OFFSET ?3)",
        )?
        .execute(params![device.0.as_str(), device.1.as_str(), MAX_HANDED_OUT])?;
    note_change(txn, device)?;
    Ok(Some(Key { algorithm: algorithm.to_owned(), key_id, key }))
}

fn use_fallback(
    txn: &mut Txn<'_>,
    device: Device<'_>,
    algorithm: &str,
) -> Result<Option<Key>, StoreError> {
    let found = txn
        .conn()
        .prepare_cached(
            "SELECT key_id, key, used FROM fallback_keys
             WHERE user_id = ?1 AND device_id = ?2 AND algorithm = ?3",
        )?
        .query_row([device.0.as_str(), device.1.as_str(), algorithm], |row| {
            let key = Key {
                algorithm: algorithm.to_owned(),
                key_id: row.get(0)?,
                key: convert::json(row, 1)?,
            };
            Ok((key, row.get::<_, bool>(2)?))
        })
        .optional()?;
    let Some((key, used)) = found else { return Ok(None) };
    if !used {
        txn.conn()
            .prepare_cached(
                "UPDATE fallback_keys SET used = 1
                 WHERE user_id = ?1 AND device_id = ?2 AND algorithm = ?3",
            )?
            .execute([device.0.as_str(), device.1.as_str(), algorithm])?;
        note_change(txn, device)?;
    }
    Ok(Some(key))
}

/// Writes the fallback key of an algorithm in place of the former one. The same key again stays
/// as used as it was.
///
/// # Errors
/// Fails when the database does.
pub fn set_fallback(txn: &mut Txn<'_>, device: Device<'_>, new: &Key) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key, used)
             VALUES (?1, ?2, ?3, ?4, ?5, 0)
             ON CONFLICT DO UPDATE SET
                 used = used AND key_id = excluded.key_id AND key = excluded.key,
                 key_id = excluded.key_id, key = excluded.key",
        )?
        .execute([
            device.0.as_str(),
            device.1.as_str(),
            &new.algorithm,
            &new.key_id,
            new.key.get(),
        ])?;
    Ok(())
}

/// The algorithms whose fallback key was not handed out yet.
///
/// # Errors
/// Fails when the database does.
pub fn list_unused_fallbacks(
    snap: &Snapshot<'_>,
    device: Device<'_>,
) -> Result<Vec<String>, StoreError> {
    let algorithms = snap
        .conn()
        .prepare_cached(
            "SELECT algorithm FROM fallback_keys
             WHERE user_id = ?1 AND device_id = ?2 AND NOT used ORDER BY algorithm",
        )?
        .query_map([device.0.as_str(), device.1.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    Ok(algorithms)
}

/// Forgets the keys of a device.
///
/// # Errors
/// Fails when the database does.
pub fn remove_all(txn: &mut Txn<'_>, device: Device<'_>) -> Result<(), StoreError> {
    for sql in [
        "DELETE FROM one_time_keys WHERE user_id = ?1 AND device_id = ?2",
        "DELETE FROM fallback_keys WHERE user_id = ?1 AND device_id = ?2",
    ] {
        txn.conn().prepare_cached(sql)?.execute([device.0.as_str(), device.1.as_str()])?;
    }
    Ok(())
}

/// When a key of the device was last handed out; zero for never.
///
/// # Errors
/// Fails when the database does.
pub fn changed_at(snap: &Snapshot<'_>, device: Device<'_>) -> Result<StreamPos, StoreError> {
    let pos = snap
        .conn()
        .prepare_cached("SELECT keys_pos FROM devices WHERE user_id = ?1 AND device_id = ?2")?
        .query_row([device.0.as_str(), device.1.as_str()], |row| row.get(0))
        .optional()?;
    Ok(StreamPos(pos.unwrap_or(0)))
}

fn note_change(txn: &mut Txn<'_>, device: Device<'_>) -> Result<(), StoreError> {
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached("UPDATE devices SET keys_pos = ?3 WHERE user_id = ?1 AND device_id = ?2")?
        .execute(params![device.0.as_str(), device.1.as_str(), pos.0])?;
    Ok(())
}
