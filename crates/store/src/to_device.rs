//! Messages that wait for devices of local users: durable, in order, kept until a client shows
//! that it has them.
//!
//! Spec: Client-Server API, "Send-to-Device messaging".

use ruma::{DeviceId, OwnedUserId, ServerName, UserId};
use rusqlite::params;
use serde_json::value::RawValue;

use crate::{Snapshot, StoreError, StreamPos, Txn, convert};

/// Messages that wait for one device. One that was never used again is not to fill the disk; at a
/// room key of 2 KB each, this is 20 MB.
pub const MAX_WAITING: u64 = 10_000;

/// Of these, those of one server: more than a person in many rooms sends to a friend who is away
/// for months, and too few to keep out everybody else.
pub const MAX_WAITING_OF_ORIGIN: u64 = 2_500;

/// Messages of one scope that are remembered, so that a repetition is known as such.
const MAX_SEEN: i64 = 1000;

/// A message to keep.
#[derive(Debug, Clone, Copy)]
pub struct NewMessage<'a> {
    /// The server that it came from, which may be this one.
    pub origin: &'a ServerName,
    /// Who sent it.
    pub sender: &'a UserId,
    /// The event type.
    pub kind: &'a str,
    /// A JSON object.
    pub content: &'a RawValue,
}

/// A message that waits.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its place in the order.
    pub pos: StreamPos,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The event type.
    pub kind: String,
    /// A JSON object.
    pub content: Box<RawValue>,
}

/// Whether a message was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It waits for the device.
    Stored,
    /// Too much waits already, in all or of its origin.
    Full,
}

/// Keeps a message for a device.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    (user_id, device_id): (&UserId, &DeviceId),
    message: NewMessage<'_>,
) -> Result<Kept, StoreError> {
    let (all, of_origin): (i64, i64) = txn
        .conn()
        .prepare_cached(
            "SELECT count(*), count(*) FILTER (WHERE origin = ?3) FROM to_device
             WHERE user_id = ?1 AND device_id = ?2",
        )?
        .query_row([user_id.as_str(), device_id.as_str(), message.origin.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if all.unsigned_abs() >= MAX_WAITING || of_origin.unsigned_abs() >= MAX_WAITING_OF_ORIGIN {
        return Ok(Kept::Full);
    }
    let pos = txn.next_pos();
    txn.conn()
        .prepare_cached(
            "INSERT INTO to_device (user_id, device_id, pos, origin, sender, kind, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            user_id.as_str(),
            device_id.as_str(),
            pos.0,
            message.origin.as_str(),
            message.sender.as_str(),
            message.kind,
            message.content.get()
        ])?;
    Ok(Kept::Stored)
}

/// At most `limit` messages that wait for a device and came after a position, the oldest first.
///
/// # Errors
/// Fails when the database does.
pub fn list(
    snap: &Snapshot<'_>,
    (user_id, device_id): (&UserId, &DeviceId),
    after: StreamPos,
    limit: usize,
) -> Result<Vec<Message>, StoreError> {
    let messages = snap
        .conn()
        .prepare_cached(
            "SELECT pos, sender, kind, content FROM to_device
             WHERE user_id = ?1 AND device_id = ?2 AND pos > ?3 ORDER BY pos LIMIT ?4",
        )?
        .query_map(
            params![
                user_id.as_str(),
                device_id.as_str(),
                after.0,
                i64::try_from(limit).unwrap_or(i64::MAX)
            ],
            |row| {
                Ok(Message {
                    pos: StreamPos(row.get(0)?),
                    sender: convert::user_id(row, 1)?,
                    kind: row.get(2)?,
                    content: convert::json(row, 3)?,
                })
            },
        )?
        .collect::<Result<_, _>>()?;
    Ok(messages)
}

/// Whether anything waits for a device that came up to a position.
///
/// # Errors
/// Fails when the database does.
pub fn is_any_until(
    snap: &Snapshot<'_>,
    (user_id, device_id): (&UserId, &DeviceId),
    until: StreamPos,
) -> Result<bool, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM to_device
                            WHERE user_id = ?1 AND device_id = ?2 AND pos <= ?3)",
        )?
        .query_row(params![user_id.as_str(), device_id.as_str(), until.0], |row| row.get(0))?;
    Ok(found)
}

/// Forgets what came for a device up to a position: its client has it.
///
/// # Errors
/// Fails when the database does.
pub fn remove_until(
    txn: &mut Txn<'_>,
    (user_id, device_id): (&UserId, &DeviceId),
    until: StreamPos,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "DELETE FROM to_device WHERE user_id = ?1 AND device_id = ?2 AND pos <= ?3",
        )?
        .execute(params![user_id.as_str(), device_id.as_str(), until.0])?;
    Ok(())
}

/// Notes that a message is being taken, in the same transaction. Gives `false` when it was taken
/// before. The scope is what its id is unique in.
///
/// # Errors
/// Fails when the database does.
pub fn note_seen(txn: &mut Txn<'_>, scope: &str, message_id: &str) -> Result<bool, StoreError> {
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO to_device_seen (scope, message_id) VALUES (?1, ?2)
             ON CONFLICT DO NOTHING",
        )?
        .execute([scope, message_id])?;
    if inserted == 0 {
        return Ok(false);
    }
    txn.conn()
        .prepare_cached(
            "DELETE FROM to_device_seen WHERE scope = ?1 AND id <= (
                 SELECT id FROM to_device_seen WHERE scope = ?1
                 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        )?
        .execute(params![scope, MAX_SEEN])?;
    Ok(true)
}

/// Forgets what a scope has seen: the local device that it stands for is gone.
///
/// # Errors
/// Fails when the database does.
pub fn forget_seen(txn: &mut Txn<'_>, scope: &str) -> Result<(), StoreError> {
    txn.conn().prepare_cached("DELETE FROM to_device_seen WHERE scope = ?1")?.execute([scope])?;
    Ok(())
}
