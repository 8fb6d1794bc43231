//! User ids and server names as integers, for the tables that have many of them.

use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use rusqlite::{OptionalExtension, params};

use crate::{ServerNid, Snapshot, StoreError, Txn, UserNid, shared::Learned, txn::Table};

/// The integer of a user id, if any row mentions it.
///
/// # Errors
/// Fails when the database does.
pub fn find_user(snap: &Snapshot<'_>, user: &UserId) -> Result<Option<UserNid>, StoreError> {
    if let Some(nid) = snap.shared.user_nid(user) {
        return Ok(Some(nid));
    }
    let mut select = snap.conn().prepare_cached("SELECT nid FROM user_names WHERE user_id = ?1")?;
    let found = select.query_row([user.as_str()], |row| row.get(0)).optional()?;
    if let Some(nid) = found {
        snap.learn(Learned::User(user.to_owned(), nid));
    }
    Ok(found)
}

/// The integer of a user id, given out when it is new.
///
/// # Errors
/// Fails when the database does.
pub fn intern_user(txn: &mut Txn<'_>, user: &UserId) -> Result<UserNid, StoreError> {
    if let Some(nid) = find_user(txn, user)? {
        return Ok(nid);
    }
    let server = intern_server(txn, user.server_name())?;
    let nid = UserNid(txn.next_nid(Table::UserNames));
    let mut insert = txn
        .conn()
        .prepare_cached("INSERT INTO user_names (nid, user_id, server) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![nid, user.as_str(), server])?;
    txn.learn(Learned::User(user.to_owned(), nid));
    Ok(nid)
}

/// The user id of an integer.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn user(snap: &Snapshot<'_>, nid: UserNid) -> Result<OwnedUserId, StoreError> {
    if let Some(user) = snap.shared.users.get(&nid) {
        return Ok(user);
    }
    let mut select = snap.conn().prepare_cached("SELECT user_id FROM user_names WHERE nid = ?1")?;
    let text: Option<String> = select.query_row([nid], |row| row.get(0)).optional()?;
    let user = text
        .and_then(|text| OwnedUserId::try_from(text).ok())
        .ok_or_else(|| StoreError::Damaged(format!("user {} is not there", nid.0)))?;
    snap.shared.users.insert(nid, user.clone(), 1);
    Ok(user)
}

/// The integer of a server name, if any row mentions it.
///
/// # Errors
/// Fails when the database does.
pub fn find_server(
    snap: &Snapshot<'_>,
    server: &ServerName,
) -> Result<Option<ServerNid>, StoreError> {
    if let Some(nid) = snap.shared.server_nid(server) {
        return Ok(Some(nid));
    }
    let mut select = snap.conn().prepare_cached("SELECT nid FROM server_names WHERE name = ?1")?;
    let found = select.query_row([server.as_str()], |row| row.get(0)).optional()?;
    if let Some(nid) = found {
        snap.learn(Learned::Server(server.to_owned(), nid));
    }
    Ok(found)
}

/// The integer of a server name, given out when it is new.
///
/// # Errors
/// Fails when the database does.
pub fn intern_server(txn: &mut Txn<'_>, server: &ServerName) -> Result<ServerNid, StoreError> {
    if let Some(nid) = find_server(txn, server)? {
        return Ok(nid);
    }
    let nid = ServerNid(txn.next_nid(Table::ServerNames));
    let mut insert =
        txn.conn().prepare_cached("INSERT INTO server_names (nid, name) VALUES (?1, ?2)")?;
    insert.execute(params![nid, server.as_str()])?;
    txn.learn(Learned::Server(server.to_owned(), nid));
    Ok(nid)
}

/// The server name of an integer.
///
/// # Errors
/// Fails when the database does, or has no such row.
pub fn server(snap: &Snapshot<'_>, nid: ServerNid) -> Result<OwnedServerName, StoreError> {
    if let Some(server) = snap.shared.servers.get(&nid) {
        return Ok(server);
    }
    let mut select = snap.conn().prepare_cached("SELECT name FROM server_names WHERE nid = ?1")?;
    let text: Option<String> = select.query_row([nid], |row| row.get(0)).optional()?;
    let server = text
        .and_then(|text| OwnedServerName::try_from(text).ok())
        .ok_or_else(|| StoreError::Damaged(format!("server {} is not there", nid.0)))?;
    snap.shared.servers.insert(nid, server.clone(), 1);
    Ok(server)
}
