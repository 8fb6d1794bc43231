//! Ways into a room that this server is not in: which room is meant, whom to ask, and why somebody
//! does not get in.

use std::collections::BTreeSet;

use messagehub_store::{Room, Snapshot, StoreError, events, knocks, memberships};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, RoomId, UserId};

use super::aliases::{self, AliasError};
use crate::{Homeserver, emit::SendError, rate::Limited, remote_join::RemoteJoinError};

/// Servers that a client may name as ways into a room.
pub(crate) const MAX_VIA: usize = 20;

/// Why somebody does not get into a room, or is not heard at its door.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The alias stands for nothing, or its server cannot be asked.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// This server is not in the room, and no other server is known to be.
    #[error("no server is known that is in this room")]
    NoWay,
    /// The user joins or knocks too fast.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The event could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The other servers did not take it, or could not be reached.
    #[error(transparent)]
    Remote(#[from] RemoteJoinError),
}

impl From<StoreError> for EntryError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// The room that is meant, and servers that are said to be in it: those that were named, and those
/// that the alias names.
///
/// # Errors
/// The alias stands for nothing, or its server cannot be asked.
pub(crate) async fn target(
    hs: &Homeserver,
    target: OwnedRoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), AliasError> {
    via.truncate(MAX_VIA);
    match OwnedRoomId::try_from(target) {
        Ok(room_id) => Ok((room_id, via)),
        Err(alias) => {
            let resolved = aliases::resolve(hs, &alias).await?;
            via.extend(resolved.servers);
            Ok((resolved.room_id, via))
        }
    }
}

/// The servers to ask, each once, without ourselves.
pub(crate) fn others(hs: &Homeserver, via: Vec<OwnedServerName>) -> Vec<OwnedServerName> {
    let mut seen = BTreeSet::from([hs.server_name().to_owned()]);
    via.into_iter().filter(|server| seen.insert(server.clone())).collect()
}

/// Servers that can let a user into a room that this one is not in: whoever invited them or
/// took their knock, and whoever was in the room when this server last was.
///
/// # Errors
/// The store's.
pub(crate) fn known(
    snap: &Snapshot<'_>,
    room: &Room,
    user_id: &UserId,
) -> Result<Vec<OwnedServerName>, StoreError> {
    let mut ways: Vec<_> = knocks::server(snap, &room.room_id, user_id)?.into_iter().collect();
    if let Some(invite) = memberships::find(snap, room.nid, user_id)?
        && let Some(nid) = invite.event
    {
        ways.push(events::pdu(snap, nid)?.sender().server_name().to_owned());
    }
    ways.extend(memberships::servers_in(snap, room.nid)?.into_iter().take(MAX_VIA));
    ways.extend(named(&room.room_id));
    Ok(ways)
}

/// The server in a room id, for ids that have one: a guess, where nothing better is known.
pub(crate) fn named(room_id: &RoomId) -> Vec<OwnedServerName> {
    room_id.server_name().map(ToOwned::to_owned).into_iter().collect()
}
