//! Whom to ask about a room: those who can be reached at once come first.

use std::collections::BTreeSet;

use messagehub_store::{StoreError, memberships, rooms};
use ruma::{OwnedServerName, RoomId};

use crate::Homeserver;

/// The most servers asked one after another for the same thing.
pub const MAX_ASKED: usize = 8;

/// Members of a room to ask, at most [`MAX_ASKED`]: `first` if it is one, then those connected,
/// then some that are not, since a path may be found to them.
///
/// # Errors
/// Fails when the database does.
pub async fn members(
    hs: &Homeserver,
    room_id: &RoomId,
    first: Option<&OwnedServerName>,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let room_id = room_id.to_owned();
    let servers = hs
        .store
        .read(move |snap| match rooms::find(snap, &room_id)? {
            Some(room) => memberships::servers_in(snap, room.nid),
            None => Ok(Vec::new()),
        })
        .await?;
    Ok(ordered(hs, servers, first))
}

/// Servers to ask for what no member has: those connected that were in the room, or were to be.
/// Whoever has left may be the only one who holds what was before.
///
/// # Errors
/// Fails when the database does.
pub async fn former(hs: &Homeserver, room_id: &RoomId) -> Result<Vec<OwnedServerName>, StoreError> {
    let room_id = room_id.to_owned();
    let mut servers = hs
        .store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &room_id)? else { return Ok(Vec::new()) };
            let joined = memberships::servers_in(snap, room.nid)?;
            let mut known = memberships::servers_known(snap, room.nid)?;
            known.retain(|server| !joined.contains(server));
            Ok::<_, StoreError>(known)
        })
        .await?;
    servers.retain(|server| hs.peers.is_connected(server));
    Ok(ordered(hs, servers, None))
}

/// Some servers in the order in which to ask them, each once, without ourselves.
pub fn ordered(
    hs: &Homeserver,
    servers: Vec<OwnedServerName>,
    first: Option<&OwnedServerName>,
) -> Vec<OwnedServerName> {
    let mut seen = BTreeSet::from([hs.server_name().to_owned()]);
    let mut servers: Vec<_> =
        servers.into_iter().filter(|server| seen.insert(server.clone())).collect();
    servers.sort_by_key(|server| (Some(server) != first, !hs.peers.is_connected(server)));
    servers.truncate(MAX_ASKED);
    servers
}
