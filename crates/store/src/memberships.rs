//! Who is what in which room, as the current state says: for look-ups that a state
//! alone would make expensive.

use ruma::{
    OwnedServerName, OwnedUserId, ServerName, UserId, events::room::member::MembershipState,
};
use rusqlite::{OptionalExtension, Params, Row, params};

use crate::{EventNid, RoomNid, ServerNid, Snapshot, StoreError, StreamPos, Txn, UserNid, names};

/// One user's part in one room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The room.
    pub room: RoomNid,
    /// The user.
    pub user_id: OwnedUserId,
    /// What the user is there.
    pub membership: MembershipState,
    /// The event that says so; none when an invite was refused without the room's help.
    pub event: Option<EventNid>,
    /// When that became so.
    pub pos: StreamPos,
    /// For invites and knocks from rooms this node is not in: the stripped state, a JSON array.
    pub stripped: Option<String>,
}

/// What to write about one user in one room.
#[derive(Clone, Copy, Debug)]
pub struct NewMembership<'a> {
    /// What the user is now.
    pub membership: &'a MembershipState,
    /// The event that says so.
    pub event: Option<EventNid>,
    /// When clients learn of it.
    pub pos: StreamPos,
    /// The stripped state of an invite or knock, a JSON array.
    pub stripped: Option<&'a str>,
}

/// Replaces what a user is in a room.
///
/// # Errors
/// Fails when the database does.
pub fn set(
    txn: &mut Txn<'_>,
    room: RoomNid,
    user_id: &UserId,
    new: NewMembership<'_>,
) -> Result<(), StoreError> {
    let user = names::intern_user(txn, user_id)?;
    let server = names::intern_server(txn, user_id.server_name())?;
    let mut upsert = txn.conn().prepare_cached(
        "INSERT INTO memberships (room, user, server, membership, event, pos, stripped)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (room, user) DO UPDATE SET membership = excluded.membership,
             event = excluded.event, pos = excluded.pos, stripped = excluded.stripped",
    )?;
    let membership = to_column(new.membership);
    upsert.execute(params![room, user, server, membership, new.event, new.pos, new.stripped])?;
    Ok(())
}

/// Takes a user out of a room's list altogether: what `/forget` does.
///
/// # Errors
/// Fails when the database does.
pub fn remove(txn: &mut Txn<'_>, room: RoomNid, user_id: &UserId) -> Result<(), StoreError> {
    if let Some(user) = names::find_user(txn, user_id)? {
        txn.conn()
            .prepare_cached("DELETE FROM memberships WHERE room = ?1 AND user = ?2")?
            .execute((room, user))?;
    }
    Ok(())
}

/// What a user is in a room; nothing when the room has never heard of them.
///
/// # Errors
/// Fails when the database does.
pub fn find(
    snap: &Snapshot<'_>,
    room: RoomNid,
    user_id: &UserId,
) -> Result<Option<Membership>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(None) };
    let mut select = snap.conn().prepare_cached(
        "SELECT room, user, membership, event, pos, stripped
         FROM memberships WHERE room = ?1 AND user = ?2",
    )?;
    let raw = select.query_row((room, user), read).optional()?;
    raw.map(|raw| named(snap, raw)).transpose()
}

/// Everybody a room has heard of.
///
/// # Errors
/// Fails when the database does.
pub fn list(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<Membership>, StoreError> {
    let mut select = snap.conn().prepare_cached(
        "SELECT room, user, membership, event, pos, stripped FROM memberships WHERE room = ?1",
    )?;
    select.query_map([room], read)?.map(|raw| named(snap, raw?)).collect()
}

/// The users who are joined to a room.
///
/// # Errors
/// Fails when the database does.
pub fn list_joined(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<OwnedUserId>, StoreError> {
    list_with(snap, room, &MembershipState::Join)
}

/// The users who are one thing in a room.
///
/// # Errors
/// Fails when the database does.
pub fn list_with(
    snap: &Snapshot<'_>,
    room: RoomNid,
    membership: &MembershipState,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let sql = "SELECT user FROM memberships WHERE room = ?1 AND membership = ?2";
    list_users(snap, sql, (room, to_column(membership)))
}

/// The users of one server who are joined to a room.
///
/// # Errors
/// Fails when the database does.
pub fn list_joined_from(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(Vec::new()) };
    let sql = "SELECT user FROM memberships WHERE room = ?1 AND membership = ?2 AND server = ?3";
    list_users(snap, sql, (room, JOIN, server))
}

/// How many users are joined to a room.
///
/// # Errors
/// Fails when the database does.
pub fn count_joined(snap: &Snapshot<'_>, room: RoomNid) -> Result<usize, StoreError> {
    count_with(snap, room, &MembershipState::Join)
}

/// How many users are one thing in a room.
///
/// # Errors
/// Fails when the database does.
pub fn count_with(
    snap: &Snapshot<'_>,
    room: RoomNid,
    membership: &MembershipState,
) -> Result<usize, StoreError> {
    let mut select = snap
        .conn()
        .prepare_cached("SELECT count(*) FROM memberships WHERE room = ?1 AND membership = ?2")?;
    let count: i64 = select.query_row((room, to_column(membership)), |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// A user's part in every room that has heard of them, in the order in which it came to be.
///
/// # Errors
/// Fails when the database does.
pub fn list_of_user(snap: &Snapshot<'_>, user_id: &UserId) -> Result<Vec<Membership>, StoreError> {
    list_of_user_since(snap, user_id, StreamPos(i64::MIN))
}

/// As [`list_of_user`], only what changed after a position.
///
/// # Errors
/// Fails when the database does.
pub fn list_of_user_since(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    after: StreamPos,
) -> Result<Vec<Membership>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(Vec::new()) };
    let mut select = snap.conn().prepare_cached(
        "SELECT room, user, membership, event, pos, stripped
         FROM memberships WHERE user = ?1 AND pos > ?2 ORDER BY pos, room",
    )?;
    select.query_map((user, after), read)?.map(|raw| named(snap, raw?)).collect()
}

/// The rooms in which a user is one thing.
///
/// # Errors
/// Fails when the database does.
pub fn rooms_of(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    membership: &MembershipState,
) -> Result<Vec<RoomNid>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(Vec::new()) };
    let mut select = snap.conn().prepare_cached(
        "SELECT room FROM memberships WHERE user = ?1 AND membership = ?2 ORDER BY pos, room",
    )?;
    let rows = select.query_map((user, to_column(membership)), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The servers with a joined user in a room. Costs what there are servers, not users.
///
/// # Errors
/// Fails when the database does.
pub fn servers_in(snap: &Snapshot<'_>, room: RoomNid) -> Result<Vec<OwnedServerName>, StoreError> {
    // From each server straight to the next one in the index.
    let sql = "WITH RECURSIVE found (server) AS (
             SELECT min(server) FROM memberships WHERE room = ?1 AND membership = ?2
             UNION ALL
             SELECT (SELECT min(server) FROM memberships
                     WHERE room = ?1 AND membership = ?2 AND server > found.server)
             FROM found WHERE found.server IS NOT NULL
         )
         SELECT server FROM found WHERE server IS NOT NULL";
    list_servers(snap, sql, (room, JOIN))
}

/// The servers of everybody that a room knows of, whatever they are there. Costs what there are
/// users.
///
/// # Errors
/// Fails when the database does.
pub fn servers_known(
    snap: &Snapshot<'_>,
    room: RoomNid,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let sql = "SELECT DISTINCT server FROM memberships WHERE room = ?1 ORDER BY server";
    list_servers(snap, sql, [room])
}

/// The rooms in which both servers have a joined user.
///
/// # Errors
/// Fails when the database does.
pub fn shared_rooms(
    snap: &Snapshot<'_>,
    one: &ServerName,
    other: &ServerName,
) -> Result<Vec<RoomNid>, StoreError> {
    let (Some(one), Some(other)) =
        (names::find_server(snap, one)?, names::find_server(snap, other)?)
    else {
        return Ok(Vec::new());
    };
    let mut select = snap.conn().prepare_cached(
        "SELECT DISTINCT room FROM memberships m WHERE server = ?1 AND membership = ?3
         AND EXISTS (SELECT 1 FROM memberships o
                     WHERE o.room = m.room AND o.membership = ?3 AND o.server = ?2)
         ORDER BY room",
    )?;
    let rows = select.query_map((other, one, JOIN), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether two servers have joined users in some room. Costs less than [`shared_rooms`].
///
/// # Errors
/// Fails when the database does.
pub fn share_a_room(
    snap: &Snapshot<'_>,
    one: &ServerName,
    other: &ServerName,
) -> Result<bool, StoreError> {
    let (Some(one), Some(other)) =
        (names::find_server(snap, one)?, names::find_server(snap, other)?)
    else {
        return Ok(false);
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships m WHERE server = ?1 AND membership = ?3
         AND EXISTS (SELECT 1 FROM memberships o
                     WHERE o.room = m.room AND o.membership = ?3 AND o.server = ?2))";
    is_any(snap, sql, (other, one, JOIN))
}

/// The events by which users of servers that have no joined user in a room left it or were banned,
/// at most `limit`, the last first; those of `us` are left out. Costs what there are such users.
///
/// # Errors
/// Fails when the database does.
pub fn list_departures(
    snap: &Snapshot<'_>,
    room: RoomNid,
    us: &ServerName,
    limit: usize,
) -> Result<Vec<EventNid>, StoreError> {
    let us = names::find_server(snap, us)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = snap.conn().prepare_cached(
        "SELECT event FROM memberships m
         WHERE room = ?1 AND membership IN (0, 1) AND event IS NOT NULL AND server IS NOT ?2
         AND NOT EXISTS (SELECT 1 FROM memberships j
                         WHERE j.room = ?1 AND j.membership = ?3 AND j.server = m.server)
         ORDER BY pos DESC LIMIT ?4",
    )?;
    let rows = select.query_map(params![room, us, JOIN, limit], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether a server has a joined user in a room.
///
/// # Errors
/// Fails when the database does.
pub fn is_server_in(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(false) };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships WHERE room = ?1 AND membership = ?2 AND server = ?3)";
    is_any(snap, sql, (room, JOIN, server))
}

/// Whether a server has, or ever had, anybody that a room knows of.
///
/// # Errors
/// Fails when the database does.
pub fn is_server_known(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(false) };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships WHERE room = ?1 AND server = ?2)";
    is_any(snap, sql, (room, server))
}

/// Everybody of a server that a room knows of, whatever they are there.
///
/// # Errors
/// Fails when the database does.
pub fn list_from(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(Vec::new()) };
    let sql = "SELECT user FROM memberships WHERE room = ?1 AND server = ?2 ORDER BY user";
    list_users(snap, sql, (room, server))
}

/// Every other server with a joined user in some room where `server` has one.
///
/// # Errors
/// Fails when the database does.
pub fn servers_sharing_rooms_with(
    snap: &Snapshot<'_>,
    server: &ServerName,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(Vec::new()) };
    let sql = "SELECT DISTINCT o.server FROM
             (SELECT DISTINCT room FROM memberships WHERE server = ?1 AND membership = ?2) m
         JOIN memberships o ON o.room = m.room AND o.membership = ?2 AND o.server <> ?1
         ORDER BY o.server";
    list_servers(snap, sql, (server, JOIN))
}

/// Whether a user is joined to a room.
///
/// # Errors
/// Fails when the database does.
pub fn is_joined(snap: &Snapshot<'_>, room: RoomNid, user_id: &UserId) -> Result<bool, StoreError> {
    let member = find(snap, room, user_id)?;
    Ok(member.is_some_and(|member| member.membership == MembershipState::Join))
}

/// At most `limit` other users who name a room without a name: joined or invited ones in the
/// order in which they came to be that, else those who have gone.
///
/// # Errors
/// Fails when the database does.
pub fn list_heroes(
    snap: &Snapshot<'_>,
    room: RoomNid,
    besides: &UserId,
    limit: usize,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let besides = names::find_user(snap, besides)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    for sql in [
        "SELECT user FROM memberships WHERE room = ?1 AND user IS NOT ?2 AND membership IN (2, 4)
         ORDER BY pos, user LIMIT ?3",
        "SELECT user FROM memberships WHERE room = ?1 AND user IS NOT ?2 AND membership IN (0, 1)
         ORDER BY pos, user LIMIT ?3",
    ] {
        let mut select = snap.conn().prepare_cached(sql)?;
        let rows = select.query_map((room, besides, limit), |row| row.get::<_, UserNid>(0))?;
        let heroes = rows.map(|nid| names::user(snap, nid?)).collect::<Result<Vec<_>, _>>()?;
        if !heroes.is_empty() {
            return Ok(heroes);
        }
    }
    Ok(Vec::new())
}

/// Whether any server but one has a joined user in a room. Costs two look-ups.
///
/// # Errors
/// Fails when the database does.
pub fn is_shared(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let Some(server) = names::find_server(snap, server)? else {
        return Ok(!servers_in(snap, room)?.is_empty());
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships WHERE room = ?1 AND membership = ?2 AND server > ?3)
             OR EXISTS (SELECT 1 FROM memberships WHERE room = ?1 AND membership = ?2 AND server < ?3)";
    is_any(snap, sql, (room, JOIN, server))
}

/// The users whose integers a query gives.
pub(crate) fn list_users<B: FromIterator<OwnedUserId>>(
    snap: &Snapshot<'_>,
    sql: &str,
    params: impl Params,
) -> Result<B, StoreError> {
    let mut select = snap.conn().prepare_cached(sql)?;
    let rows = select.query_map(params, |row| row.get::<_, UserNid>(0))?;
    rows.map(|nid| names::user(snap, nid?)).collect()
}

/// The servers whose integers a query gives.
pub(crate) fn list_servers(
    snap: &Snapshot<'_>,
    sql: &str,
    params: impl Params,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut select = snap.conn().prepare_cached(sql)?;
    let rows = select.query_map(params, |row| row.get::<_, ServerNid>(0))?;
    rows.map(|nid| names::server(snap, nid?)).collect()
}

/// What a query for `EXISTS` gives.
pub(crate) fn is_any(
    snap: &Snapshot<'_>,
    sql: &str,
    params: impl Params,
) -> Result<bool, StoreError> {
    Ok(snap.conn().prepare_cached(sql)?.query_row(params, |row| row.get(0))?)
}

/// A joined user as a column.
const JOIN: i64 = 4;

fn to_column(membership: &MembershipState) -> i64 {
    match membership {
        MembershipState::Ban => 1,
        MembershipState::Invite => 2,
        MembershipState::Knock => 3,
        MembershipState::Join => JOIN,
        // Others are no membership: the auth rules let none through.
        _ => 0,
    }
}

fn from_column(column: i64) -> MembershipState {
    match column {
        1 => MembershipState::Ban,
        2 => MembershipState::Invite,
        3 => MembershipState::Knock,
        JOIN => MembershipState::Join,
        _ => MembershipState::Leave,
    }
}

type Raw = (RoomNid, UserNid, i64, Option<EventNid>, StreamPos, Option<String>);

fn read(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

fn named(snap: &Snapshot<'_>, raw: Raw) -> Result<Membership, StoreError> {
    let (room, user, membership, event, pos, stripped) = raw;
    let user_id = names::user(snap, user)?;
    Ok(Membership { room, user_id, membership: from_column(membership), event, pos, stripped })
}
