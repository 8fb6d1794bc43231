//! The identity keys of devices: of local users, and of those users of other servers whose
//! device lists are followed.

use ruma::{DeviceId, OwnedDeviceId, UserId};
use rusqlite::{OptionalExtension, Row, params};
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, Txn, convert};

/// A device and its keys.
#[derive(Debug, Clone)]
pub struct DeviceKeys {
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Its keys as they came, a JSON object; `None` for a device of another server that has none.
    pub keys: Option<Box<RawValue>>,
}

/// Writes the keys of a device in place of its former ones.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    keys: Option<&RawValue>,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO device_keys (user_id, device_id, keys) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET keys = excluded.keys",
        )?
        .execute(params![user_id.as_str(), device_id.as_str(), keys.map(RawValue::get)])?;
    Ok(())
}

/// The keys of a device, if it has any.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Option<Box<RawValue>>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT device_id, keys FROM device_keys WHERE user_id = ?1 AND device_id = ?2",
        )?
        .query_row([user_id.as_str(), device_id.as_str()], read)
        .optional()?;
    Ok(found.and_then(|device| device.keys))
}

/// All devices of a user that are known here, in the order of their ids.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Vec<DeviceKeys>, StoreError> {
    let devices = snap
        .conn()
        .prepare_cached(
            "SELECT device_id, keys FROM device_keys WHERE user_id = ?1 ORDER BY device_id",
        )?
        .query_map([user_id.as_str()], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(devices)
}

/// How many devices of a user are known here.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>, user_id: &UserId) -> Result<usize, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached("SELECT count(*) FROM device_keys WHERE user_id = ?1")?
        .query_row([user_id.as_str()], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Forgets a device. Gives `false` when it is not known.
///
/// # Errors
/// Fails when the database does.
pub fn remove(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<bool, StoreError> {
    let removed = txn
        .conn()
        .prepare_cached("DELETE FROM device_keys WHERE user_id = ?1 AND device_id = ?2")?
        .execute([user_id.as_str(), device_id.as_str()])?;
    Ok(removed == 1)
}

/// Forgets all devices of a user.
///
/// # Errors
/// Fails when the database does.
pub fn remove_all(txn: &mut Txn<'_>, user_id: &UserId) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached("DELETE FROM device_keys WHERE user_id = ?1")?
        .execute([user_id.as_str()])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<DeviceKeys> {
    let device_id: String = row.get(0)?;
    Ok(DeviceKeys { device_id: device_id.into(), keys: convert::optional_json(row, 1)? })
}
