//! Where other servers were reached: tried first when they are wanted again.

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};

use crate::{Snapshot, StoreError, Txn, convert::millis};

/// Addresses kept of one server: a host with several interfaces, in a few networks.
pub const MAX_ADDRESSES_PER_SERVER: usize = 16;

/// Addresses kept in all: a node meets many that it never meets again. About 2 MB.
pub const MAX_ADDRESSES: i64 = 16_384;

/// Longer ones are not kept; real ones with a relay in them have about 200 bytes.
pub const MAX_ADDRESS_BYTES: usize = 512;

/// Where one server was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The server.
    pub server: OwnedServerName,
    /// Multiaddresses, the one seen last first.
    pub addresses: Vec<String>,
}

/// Remembers addresses at which a server was reached; the oldest ones give way.
///
/// # Errors
/// Fails when the database does.
pub fn remember(
    txn: &mut Txn<'_>,
    server: &ServerName,
    addresses: &[String],
    now: MilliSecondsSinceUnixEpoch,
) -> Result<(), StoreError> {
    let conn = txn.conn();
    let kept = addresses.iter().filter(|address| address.len() <= MAX_ADDRESS_BYTES);
    for address in kept.take(MAX_ADDRESSES_PER_SERVER) {
        conn.prepare_cached(
            "INSERT INTO peer_addresses (server, address, seen_ts) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET seen_ts = excluded.seen_ts",
        )?
        .execute((server.as_str(), address, millis(now)))?;
    }
    conn.prepare_cached(
        "DELETE FROM peer_addresses WHERE server = ?1 AND address NOT IN (
             SELECT address FROM peer_addresses WHERE server = ?1
             ORDER BY seen_ts DESC, address LIMIT ?2)",
    )?
    .execute((server.as_str(), MAX_ADDRESSES_PER_SERVER as i64))?;
    let count: i64 = conn
        .prepare_cached("SELECT count(*) FROM peer_addresses")?
        .query_row([], |row| row.get(0))?;
    if count > MAX_ADDRESSES {
        conn.prepare_cached(
            "DELETE FROM peer_addresses WHERE (server, address) IN (
                 SELECT server, address FROM peer_addresses ORDER BY seen_ts, server LIMIT ?1)",
        )?
        .execute([count - MAX_ADDRESSES])?;
    }
    Ok(())
}

/// Everything that is remembered, by server.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>) -> Result<Vec<Entry>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT server, address FROM peer_addresses ORDER BY server, seen_ts DESC, address",
    )?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let (server, address): (String, String) = (row.get(0)?, row.get(1)?);
        let server = OwnedServerName::try_from(server)
            .map_err(|_| StoreError::Damaged("the server of an address".to_owned()))?;
        match entries.last_mut().filter(|last| last.server == server) {
            Some(last) => last.addresses.push(address),
            None => entries.push(Entry { server, addresses: vec![address] }),
        }
    }
    Ok(entries)
}
