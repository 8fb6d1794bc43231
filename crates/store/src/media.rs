//! What is known about media. The bytes are files under `media/` in the data
//! directory, named by their hash; see the use-case `media` of the homeserver.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{Snapshot, StoreError, Txn, convert};

/// The address of an item: the two parts of its `mxc://` URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MediaAddress {
    /// The server that holds the original.
    pub server_name: OwnedServerName,
    /// The id there.
    pub media_id: String,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The SHA-256 of the bytes in lower-case hexadecimal; `None` while only
    /// the address is reserved.
    pub sha256: Option<String>,
    /// The content type as the uploader stated it.
    pub content_type: Option<String>,
    /// The file name as the uploader stated it.
    pub filename: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Who uploaded it; `None` for a copy of remote media.
    pub user_id: Option<String>,
    /// When it came here, or when its address was reserved.
    pub created_ts: MilliSecondsSinceUnixEpoch,
    /// Of remote media, the description that their own server signed, as it came.
    pub description: Option<String>,
}

/// Keeps an item, or the reservation of its address. Gives `false`, and changes
/// nothing, when the address is taken.
///
/// # Errors
/// Fails when the database does.
pub fn insert(
    txn: &mut Txn<'_>,
    address: &MediaAddress,
    media: &Media,
) -> Result<bool, StoreError> {
    let inserted = txn
        .conn()
        .prepare_cached(
            "INSERT INTO media
                 (server_name, media_id, sha256, content_type, filename, size, user_id, created_ts,
                  description)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            address.server_name.as_str(),
            address.media_id,
            media.sha256,
            media.content_type,
            media.filename,
            i64::try_from(media.size).unwrap_or(i64::MAX),
            media.user_id,
            convert::millis(media.created_ts),
            media.description
        ])?;
    Ok(inserted == 1)
}

/// Puts bytes to a reserved address. Gives `false` when the address is not reserved or is filled.
///
/// # Errors
/// Fails when the database does.
pub fn fill(txn: &mut Txn<'_>, address: &MediaAddress, media: &Media) -> Result<bool, StoreError> {
    let filled = txn
        .conn()
        .prepare_cached(
            "UPDATE media SET sha256 = ?3, content_type = ?4, filename = ?5, size = ?6
             WHERE server_name = ?1 AND media_id = ?2 AND sha256 IS NULL",
        )?
        .execute(params![
            address.server_name.as_str(),
            address.media_id,
            media.sha256,
            media.content_type,
            media.filename,
            i64::try_from(media.size).unwrap_or(i64::MAX)
        ])?;
    Ok(filled == 1)
}

/// The item at an address.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    server_name: &ServerName,
    media_id: &str,
) -> Result<Option<Media>, StoreError> {
    let found = snap
        .conn()
        .prepare_cached(
            "SELECT sha256, content_type, filename, size, user_id, created_ts, description
             FROM media WHERE server_name = ?1 AND media_id = ?2",
        )?
        .query_row([server_name.as_str(), media_id], |row| {
            let size: i64 = row.get(3)?;
            Ok(Media {
                sha256: row.get(0)?,
                content_type: row.get(1)?,
                filename: row.get(2)?,
                size: size.unsigned_abs(),
                user_id: row.get(4)?,
                created_ts: convert::read_millis(row, 5)?,
                description: row.get(6)?,
            })
        })
        .optional()?;
    Ok(found)
}

/// How many addresses a user has reserved since `since` and not filled.
///
/// # Errors
/// Fails when the database does.
pub fn count_reserved(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    since: MilliSecondsSinceUnixEpoch,
) -> Result<u64, StoreError> {
    let count: i64 = snap
        .conn()
        .prepare_cached(
            "SELECT count(*) FROM media
             WHERE user_id = ?1 AND sha256 IS NULL AND created_ts > ?2",
        )?
        .query_row(params![user_id.as_str(), convert::millis(since)], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Forgets reservations of a user that are `since` or older and were never filled.
///
/// # Errors
/// Fails when the database does.
pub fn remove_stale(
    txn: &mut Txn<'_>,
    user_id: &UserId,
    since: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    txn.conn()
        .prepare_cached(
            "DELETE FROM media WHERE user_id = ?1 AND sha256 IS NULL AND created_ts <= ?2",
        )?
        .execute(params![user_id.as_str(), convert::millis(since)])?;
    Ok(())
}
