//! The newest `server_keys` of every server this node has met.

use messagehub_protocol::server_keys::ServerKeys;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use rusqlite::params;

use crate::{Snapshot, StoreError, Txn, convert::millis};

/// Keeps verified keys if they are newer than those that are kept. Says whether they were.
///
/// # Errors
/// Fails when the database does.
pub fn put_if_newer(txn: &mut Txn<'_>, keys: &ServerKeys) -> Result<bool, StoreError> {
    if find(txn, keys.server_name())?.is_some_and(|known| !keys.is_newer_than(&known)) {
        return Ok(false);
    }
    let mut upsert = txn.conn().prepare_cached(
        "INSERT OR REPLACE INTO server_keys (server, issued_ts, valid_until_ts, json)
         VALUES (?1, ?2, ?3, ?4)",
    )?;
    upsert.execute(params![
        keys.server_name().as_str(),
        millis(keys.issued_ts()),
        millis(keys.valid_until_ts()),
        keys.json().get(),
    ])?;
    Ok(true)
}

/// The keys of a server.
///
/// # Errors
/// Fails when the database does.
pub fn find(snap: &Snapshot<'_>, server: &ServerName) -> Result<Option<ServerKeys>, StoreError> {
    let known = snap.shared.server_keys.get(server);
    let mut select =
        snap.conn().prepare_cached("SELECT json FROM server_keys WHERE server = ?1")?;
    let mut rows = select.query([server.as_str()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let json = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
    // What was verified once is not verified again; the row decides whether it is the same.
    if let Some(known) = known.filter(|known| known.json().get() == json) {
        return Ok(Some(known));
    }
    let keys = ServerKeys::verify_for(json, server)
        .map_err(|error| StoreError::Damaged(format!("server_keys of {server}: {error}")))?;
    snap.shared.server_keys.insert(server.to_owned(), keys.clone(), json.len());
    Ok(Some(keys))
}

/// The keys of some servers, as far as they are known.
///
/// # Errors
/// Fails when the database does.
pub fn list_for<'s>(
    snap: &Snapshot<'_>,
    servers: impl IntoIterator<Item = &'s ServerName>,
) -> Result<Vec<ServerKeys>, StoreError> {
    let found: Result<Vec<_>, _> = servers.into_iter().map(|server| find(snap, server)).collect();
    Ok(found?.into_iter().flatten().collect())
}

/// Forgets the keys of strangers, of whom this node holds no event, membership or user, but for the
/// `most` that were issued last. Gives how many were forgotten.
///
/// # Errors
/// Fails when the database does.
pub fn forget_strangers(txn: &mut Txn<'_>, most: usize) -> Result<usize, StoreError> {
    let mut delete = txn.conn().prepare_cached(
        "DELETE FROM server_keys WHERE server IN (
             SELECT server FROM server_keys
             WHERE NOT EXISTS (SELECT 1 FROM server_names WHERE name = server)
             ORDER BY issued_ts DESC LIMIT -1 OFFSET ?1)",
    )?;
    Ok(delete.execute([i64::try_from(most).unwrap_or(i64::MAX)])?)
}

/// How many servers' keys are kept.
///
/// # Errors
/// Fails when the database does.
pub fn count(snap: &Snapshot<'_>) -> Result<u64, StoreError> {
    let mut select = snap.conn().prepare_cached("SELECT count(*) FROM server_keys")?;
    let count: i64 = select.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// At most `limit` servers whose keys are valid at a time, those that stay so longest first.
///
/// # Errors
/// Fails when the database does.
pub fn list_valid_at(
    snap: &Snapshot<'_>,
    now: MilliSecondsSinceUnixEpoch,
    limit: usize,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT server FROM server_keys WHERE valid_until_ts >= ?1
         ORDER BY valid_until_ts DESC, server LIMIT ?2",
    )?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map((millis(now), limit), |row| row.get::<_, String>(0))?;
    rows.map(|server| {
        OwnedServerName::try_from(server?)
            .map_err(|_| StoreError::Damaged("the server of server_keys".to_owned()))
    })
    .collect()
}
