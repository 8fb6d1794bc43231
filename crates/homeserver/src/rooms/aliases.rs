//! Names for rooms: `#name:server`.
//!
//! Spec: Client-Server API, "Room aliases".

use messagehub_protocol::identity::is_key_name;
use messagehub_store::{Room, Snapshot, StoreError, aliases, memberships, rooms};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, UserId,
    api::federation::query::get_room_information::v1 as get_room_information,
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
};

use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, FederationError},
    visibility::history_visibility,
};

/// Aliases of one room. A room needs a few; more is a way to take all the good names.
pub const MAX_ALIASES: usize = 100;

/// Servers told with an alias: those most likely to answer a join.
const MAX_SERVERS: usize = 20;

/// Why an alias is not made, found or taken away.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// It is an alias of another server, or one that nobody can type.
    #[error("{0} cannot be an alias of this server")]
    Invalid(OwnedRoomAliasId),
    /// It stands for a room already.
    #[error("{0} is taken")]
    Taken(OwnedRoomAliasId),
    /// It stands for nothing.
    #[error("there is no room {0}")]
    Unknown(OwnedRoomAliasId),
    /// The user may not: not in the room, or not the one who made the alias.
    #[error("the user may not change this alias")]
    Forbidden,
    /// It is an alias of a server that cannot be asked now.
    #[error("the server of {0} cannot be reached now")]
    Unreachable(OwnedRoomAliasId),
    /// The room has [`MAX_ALIASES`].
    #[error("the room has too many aliases")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers in it, this one first.
    pub servers: Vec<OwnedServerName>,
}

/// Makes an alias for a room the user is in.
///
/// Spec: Client-Server API, "PUT /directory/room/{roomAlias}".
///
/// # Errors
///
/// See [`AliasError`].
pub async fn create(
    hs: &Homeserver,
    user_id: &UserId,
    alias: OwnedRoomAliasId,
    room_id: OwnedRoomId,
) -> Result<(), AliasError> {
    if alias.server_name() != hs.server_name() || alias.alias().is_empty() {
        return Err(AliasError::Invalid(alias));
    }
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| {
            let room = joined_room(txn, &room_id, &user_id)?;
            if aliases::list(txn, room.nid)?.len() >= MAX_ALIASES {
                return Err(AliasError::TooMany);
            }
            match aliases::insert(txn, &alias, room.nid, &user_id)? {
                aliases::Added::New => Ok(()),
                aliases::Added::Taken => Err(AliasError::Taken(alias)),
            }
        })
        .await
}

/// The room behind an alias of any server: what is not ours is asked of its server.
///
/// Spec: Client-Server API, "GET /directory/room/{roomAlias}".
///
/// # Errors
///
/// See [`AliasError`].
pub async fn resolve(hs: &Homeserver, alias: &RoomAliasId) -> Result<Resolved, AliasError> {
    if alias.server_name() == hs.server_name() {
        return local(hs, alias).await;
    }
    // What is no key is found by nobody here.
    if !is_key_name(alias.server_name()) {
        return Err(AliasError::Unknown(alias.to_owned()));
    }
    let request = get_room_information::Request::new(alias.to_owned());
    match federation::ask(hs, alias.server_name(), request, ASK_TIMEOUT).await {
        Ok(mut found) => {
            found.servers.truncate(MAX_SERVERS);
            // Whoever has the alias is most likely in the room, whether it says so or not.
            if !found.servers.iter().any(|server| server == alias.server_name()) {
                found.servers.insert(0, alias.server_name().to_owned());
            }
            Ok(Resolved { room_id: found.room_id, servers: found.servers })
        }
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(error) if error.is_transient() => Err(AliasError::Unreachable(alias.to_owned())),
        Err(error) => {
            tracing::debug!(%alias, %error, "an alias is not known where it should be");
            Err(AliasError::Unknown(alias.to_owned()))
        }
    }
}

/// The room behind an alias of this server.
///
/// Spec: Server-Server API, "GET /query/directory".
///
/// # Errors
///
/// See [`AliasError`].
pub async fn local(hs: &Homeserver, alias: &RoomAliasId) -> Result<Resolved, AliasError> {
    let ours = hs.server_name().to_owned();
    let alias = alias.to_owned();
    hs.store
        .read(move |snap| {
            let Some(found) = aliases::find(snap, &alias)? else {
                return Err(AliasError::Unknown(alias));
            };
            let room = rooms::get_by_nid(snap, found.room)?;
            let others = memberships::servers_in(snap, room.nid)?;
            let others = others.into_iter().filter(|server| *server != ours);
            let servers = std::iter::once(ours.clone()).chain(others).take(MAX_SERVERS).collect();
            Ok(Resolved { room_id: room.room_id, servers })
        })
        .await
}

/// Takes an alias away: for who made it.
///
/// Spec: Client-Server API, "DELETE /directory/room/{roomAlias}".
///
/// # Errors
///
/// See [`AliasError`].
pub async fn remove(
    hs: &Homeserver,
    user_id: &UserId,
    alias: OwnedRoomAliasId,
) -> Result<(), AliasError> {
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| match aliases::find(txn, &alias)? {
            None => Err(AliasError::Unknown(alias)),
            Some(found) if found.creator != user_id => Err(AliasError::Forbidden),
            Some(_) => Ok(aliases::remove(txn, &alias)?),
        })
        .await
}

/// The aliases that this server has for a room, for somebody in it, or whose history the world may
/// read.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/aliases".
///
/// # Errors
///
/// See [`AliasError`].
pub async fn list(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
) -> Result<Vec<OwnedRoomAliasId>, AliasError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.ok_or(AliasError::Forbidden)?;
            let open = history_visibility(snap, room.state)? == HistoryVisibility::WorldReadable;
            if !open && !memberships::is_joined(snap, room.nid, &user_id)? {
                return Err(AliasError::Forbidden);
            }
            Ok(aliases::list(snap, room.nid)?)
        })
        .await
}

fn joined_room(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<Room, AliasError> {
    let room = rooms::find(snap, room_id)?.ok_or(AliasError::Forbidden)?;
    match memberships::find(snap, room.nid, user_id)? {
        Some(member) if member.membership == MembershipState::Join => Ok(room),
        _ => Err(AliasError::Forbidden),
    }
}
