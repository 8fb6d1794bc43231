//! The devices of local users: one for each place where somebody is logged in.

use ruma::{DeviceId, MilliSecondsSinceUnixEpoch, OwnedDeviceId, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn, convert, shared::Learned, tokens};

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its id, unique among the devices of its user.
    pub device_id: OwnedDeviceId,
    /// The name that its user sees in the list of sessions.
    pub display_name: Option<String>,
    /// When it last made a request, to within `SEEN_RESOLUTION` of the sessions.
    pub last_seen_ts: MilliSecondsSinceUnixEpoch,
}

/// Adds a device. One that is known already keeps its name.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "INSERT INTO devices (user_id, device_id, display_name, created_ts, last_seen_ts)
             VALUES (?1, ?2, ?3, ?4, ?4)
             ON CONFLICT DO UPDATE SET last_seen_ts = excluded.last_seen_ts",
        )?
        .execute(params![
            user_id.as_str(),
            device_id.as_str(),
            display_name,
            convert::millis(now)
        ])?;
    Ok(())
}

/// One device of a user.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<Option<Device>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT device_id, display_name, last_seen_ts FROM devices
             WHERE user_id = ?1 AND device_id = ?2",
        )?
        .query_row([user_id.as_str(), device_id.as_str()], read)
        .optional()?;
    Ok(found)
}

/// All devices of a user, in the order of their ids.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Vec<Device>, StoreError> {
    let devices = snap
        .conn()
        .prepare_cached(
            "SELECT device_id, display_name, last_seen_ts FROM devices
             WHERE user_id = ?1 ORDER BY device_id",
        )?
        .query_map([user_id.as_str()], read)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(devices)
}

/// Renames a device. Gives `false` when the user has no such device.
///
/// # Errors
/// Fails when the database does.
pub fn set_display_name(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    display_name: Option<&str>,
) -> Result<bool, StoreError> {
    let changed = txn
        .conn()
        .prepare_cached(
            "UPDATE devices SET display_name = ?3 WHERE user_id = ?1 AND device_id = ?2",
        )?
        .execute(params![user_id.as_str(), device_id.as_str(), display_name])?;
    Ok(changed == 1)
}

/// Notes that a device made a request.
///
/// # Errors
/// Fails when the database does.
pub fn set_seen(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "UPDATE devices SET last_seen_ts = ?3 WHERE user_id = ?1 AND device_id = ?2",
        )?
        .execute(params![user_id.as_str(), device_id.as_str(), convert::millis(now)])?;
    txn.learn(Learned::Device(user_id.to_owned(), device_id.to_owned()));
    Ok(())
}

/// Removes a device and its access tokens. Gives `false` when the user has no such device.
///
/// # Errors
/// Fails when the database does.
pub fn remove(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    device_id: &DeviceId,
) -> Result<bool, StoreError> {
    tokens::revoke_device(txn, user_id, device_id)?;
    let removed = txn
        .conn()
        .prepare_cached("DELETE FROM devices WHERE user_id = ?1 AND device_id = ?2")?
        .execute([user_id.as_str(), device_id.as_str()])?;
    Ok(removed == 1)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Device> {
    let device_id: String = row.get(0)?;
    Ok(Device {
        device_id: device_id.into(),
        display_name: row.get(1)?,
        last_seen_ts: convert::read_millis(row, 2)?,
    })
}
