//! Who shares rooms with whom: what decides about device lists, presence and messages to devices.

use std::collections::BTreeSet;

use ruma::{
    OwnedServerName, OwnedUserId, ServerName, UserId, events::room::member::MembershipState,
};

use crate::{
    RoomNid, Snapshot, StoreError, UserNid, events,
    memberships::{self, is_any, list_servers, list_users},
    names,
};

/// The servers with a joined user in some room that a user is joined to, the user's own included.
///
/// # Errors
/// Fails when the database does.
pub fn list_servers_of(
    snap: &Snapshot<'_>,
    user_id: &UserId,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(Vec::new()) };
    let sql = "SELECT DISTINCT o.server FROM memberships m
         JOIN memberships o ON o.room = m.room AND o.membership = 4
         WHERE m.user = ?1 AND m.membership = 4 ORDER BY o.server";
    list_servers(snap, sql, [user])
}

/// The users joined to some room that a user is joined to, themselves included.
///
/// # Errors
/// Fails when the database does.
pub fn list_users_of(
    snap: &Snapshot<'_>,
    user_id: &UserId,
) -> Result<BTreeSet<OwnedUserId>, StoreError> {
    let Some(user) = names::find_user(snap, user_id)? else { return Ok(BTreeSet::new()) };
    let sql = "SELECT DISTINCT o.user FROM memberships m
         JOIN memberships o ON o.room = m.room AND o.membership = 4
         WHERE m.user = ?1 AND m.membership = 4";
    list_users(snap, sql, [user])
}

/// Whether two users are joined to one room.
///
/// # Errors
/// Fails when the database does.
pub fn do_users(snap: &Snapshot<'_>, one: &UserId, other: &UserId) -> Result<bool, StoreError> {
    let (Some(one), Some(other)) = (names::find_user(snap, one)?, names::find_user(snap, other)?)
    else {
        return Ok(false);
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships m
             JOIN memberships o ON o.room = m.room AND o.user = ?2 AND o.membership = 4
             WHERE m.user = ?1 AND m.membership = 4)";
    is_any(snap, sql, (one, other))
}

/// Whether a user is joined to a room in which a server has a joined user, but for one room that
/// does not count.
///
/// # Errors
/// Fails when the database does.
pub fn does_user_with_server(
    snap: &Snapshot<'_>,
    (user_id, server): (&UserId, &ServerName),
    except: Option<RoomNid>,
) -> Result<bool, StoreError> {
    let (Some(user), Some(server)) =
        (names::find_user(snap, user_id)?, names::find_server(snap, server)?)
    else {
        return Ok(false);
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships m
             WHERE m.user = ?1 AND m.membership = 4 AND m.room IS NOT ?3
             AND EXISTS (SELECT 1 FROM memberships o
                         WHERE o.room = m.room AND o.membership = 4 AND o.server = ?2))";
    is_any(snap, sql, (user, server, except))
}

/// Whether a server may have to do with a local user: they share a room, or one of them is invited
/// to a room of the other.
///
/// # Errors
/// Fails when the database does.
pub fn is_user_known_to(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    server: &ServerName,
) -> Result<bool, StoreError> {
    if does_user_with_server(snap, (user_id, server), None)? {
        return Ok(true);
    }
    // Whom our user's rooms invited, or who knocks there.
    let (Some(user), Some(nid)) =
        (names::find_user(snap, user_id)?, names::find_server(snap, server)?)
    else {
        return Ok(false);
    };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships m
             WHERE m.user = ?1 AND m.membership = 4
             AND EXISTS (SELECT 1 FROM memberships o
                         WHERE o.room = m.room AND o.membership IN (2, 3) AND o.server = ?2))";
    Ok(is_any(snap, sql, (user, nid))? || has_invited(snap, user_id, server)?)
}

/// Whether an invite of a user by somebody of a server is pending.
fn has_invited(
    snap: &Snapshot<'_>,
    user_id: &UserId,
    server: &ServerName,
) -> Result<bool, StoreError> {
    for room in memberships::rooms_of(snap, user_id, &MembershipState::Invite)? {
        let member = memberships::find(snap, room, user_id)?;
        if let Some(event) = member.and_then(|member| member.event)
            && events::pdu(snap, event)?.sender().server_name() == server
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an invite of any user of one server by somebody of another is pending.
///
/// # Errors
/// Fails when the database does.
pub fn has_server_invited(
    snap: &Snapshot<'_>,
    us: &ServerName,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let Some(us) = names::find_server(snap, us)? else { return Ok(false) };
    let mut select = snap.conn().prepare_cached(
        "SELECT DISTINCT user FROM memberships WHERE server = ?1 AND membership = 2",
    )?;
    let invited =
        select.query_map([us], |row| row.get::<_, UserNid>(0))?.collect::<Result<Vec<_>, _>>()?;
    for user in invited {
        if has_invited(snap, &names::user(snap, user)?, server)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a server has a user who is joined or invited to a room.
///
/// # Errors
/// Fails when the database does.
pub fn is_server_in_or_invited(
    snap: &Snapshot<'_>,
    room: RoomNid,
    server: &ServerName,
) -> Result<bool, StoreError> {
    let Some(server) = names::find_server(snap, server)? else { return Ok(false) };
    let sql = "SELECT EXISTS (SELECT 1 FROM memberships
                        WHERE room = ?1 AND membership IN (2, 4) AND server = ?2)";
    is_any(snap, sql, (room, server))
}
