//! The public list of rooms: of this server, and of others for our users.
//!
//! Spec: Client-Server API, "Published Room Directory"; Server-Server API, "Published Room
//! Directory".

use messagehub_protocol::auth::{PowerLevel, PowerLevels};
use messagehub_store::{Room, Snapshot, StoreError, memberships, published_rooms, rooms};
use ruma::{
    OwnedRoomId, OwnedServerName, ServerName, UInt, UserId,
    api::{
        client::room::Visibility, federation::directory::get_public_rooms_filtered::v1 as ask_rooms,
    },
    directory::{Filter, PublicRoomsChunk, RoomNetwork},
    events::{StateEventType, TimelineEventType},
};

use super::summary;
use crate::{
    Homeserver,
    federation::{self, ASK_TIMEOUT, FederationError},
    view::{self, ViewError},
};

/// Rooms in one answer where the asker names no number, or a larger one.
const MAX_PAGE: usize = 100;

/// Bytes of a search that are looked at: longer than any name of a room.
const MAX_TERM_BYTES: usize = 256;

/// Why the list is not changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum PublicError {
    /// There is no such room here.
    #[error("there is no such room")]
    UnknownRoom,
    /// The user is not in the room, or lacks the power to give it an address.
    #[error("the user may not publish this room")]
    Forbidden,
    /// The token is none of this list.
    #[error("the token is invalid")]
    InvalidToken,
    /// The other server did not give its list.
    #[error("the list of {0} cannot be had now")]
    Unreachable(OwnedServerName),
    /// The room cannot be worked with.
    #[error("the room is not usable: {0}")]
    Room(ViewError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a room is in the list.
///
/// Spec: Client-Server API, "GET /directory/list/room/{roomId}".
///
/// # Errors
/// The room is unknown here, or the store failed.
pub async fn visibility(hs: &Homeserver, room_id: OwnedRoomId) -> Result<Visibility, PublicError> {
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.ok_or(PublicError::UnknownRoom)?;
            Ok(match published_rooms::contains(snap, room.nid)? {
                true => Visibility::Public,
                false => Visibility::Private,
            })
        })
        .await
}

/// Puts a room into the list or takes it out: for who may give it an address.
///
/// Spec: Client-Server API, "PUT /directory/list/room/{roomId}".
///
/// # Errors
/// See [`PublicError`].
pub async fn set_visibility(
    hs: &Homeserver,
    user_id: &UserId,
    (room_id, visibility): (OwnedRoomId, Visibility),
) -> Result<(), PublicError> {
    let user_id = user_id.to_owned();
    hs.store
        .write(move |txn| {
            let room = rooms::find(txn, &room_id)?.ok_or(PublicError::UnknownRoom)?;
            if !may_publish(txn, &room, &user_id)? {
                return Err(PublicError::Forbidden);
            }
            match visibility {
                Visibility::Public => published_rooms::insert(txn, room.nid)?,
                _ => published_rooms::remove(txn, room.nid)?,
            }
            Ok(())
        })
        .await
}

fn may_publish(snap: &Snapshot<'_>, room: &Room, user_id: &UserId) -> Result<bool, PublicError> {
    if !memberships::is_joined(snap, room.nid, user_id)? {
        return Ok(false);
    }
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let state = view::part(snap, room.state, &keys)?;
    let levels = PowerLevels::of(&state, view::rules(room).map_err(PublicError::Room)?);
    let needed = levels.required(&TimelineEventType::RoomCanonicalAlias, Some(""));
    Ok(levels.of_user(user_id) >= PowerLevel::Int(needed))
}

/// Which part of the list is wanted.
#[derive(Debug, Default)]
pub struct Query {
    /// The most rooms.
    pub limit: Option<UInt>,
    /// Where an earlier answer ended.
    pub since: Option<String>,
    /// Which rooms.
    pub filter: Filter,
    /// Of which network; this server knows only Matrix.
    pub network: RoomNetwork,
}

/// A part of the list.
#[derive(Debug, Default)]
pub struct Page {
    /// The rooms, those with the most joined users first.
    pub rooms: Vec<PublicRoomsChunk>,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<String>,
    /// Where the part before begins; `None` before the first one.
    pub previous: Option<String>,
    /// The rooms that the filter lets through, in all parts.
    pub total: Option<UInt>,
}

/// A part of the list of this server or of another one.
///
/// # Errors
/// See [`PublicError`].
pub async fn list(
    hs: &Homeserver,
    server: Option<&ServerName>,
    query: Query,
) -> Result<Page, PublicError> {
    match server.filter(|server| *server != hs.server_name()) {
        None => local(hs, query).await,
        Some(server) => remote(hs, server, query).await,
    }
}

/// A part of this server's list.
///
/// # Errors
/// The token is invalid, or the store failed.
pub async fn local(hs: &Homeserver, query: Query) -> Result<Page, PublicError> {
    let us = hs.server_name().to_owned();
    hs.store.read(move |snap| page(snap, &us, &query)).await
}

fn page(snap: &Snapshot<'_>, us: &ServerName, query: &Query) -> Result<Page, PublicError> {
    let skip: usize = match query.since.as_deref().filter(|since| !since.is_empty()) {
        None => 0,
        Some(since) => since.parse().map_err(|_| PublicError::InvalidToken)?,
    };
    let asked = query.limit.and_then(|limit| usize::try_from(u64::from(limit)).ok());
    let limit = asked.filter(|limit| *limit > 0).unwrap_or(MAX_PAGE).min(MAX_PAGE);
    if matches!(query.network, RoomNetwork::ThirdParty(_)) {
        return Ok(Page { total: Some(UInt::MIN), ..Page::default() });
    }
    let term = query.filter.generic_search_term.as_deref().map(|term| {
        let mut end = term.len().min(MAX_TERM_BYTES);
        while !term.is_char_boundary(end) {
            end -= 1;
        }
        term[..end].to_lowercase()
    });
    let mut found = Vec::new();
    let mut total = 0;
    for (nid, _) in published_rooms::list(snap)? {
        // Of a room that we left, the list would tell the past.
        if !memberships::is_server_in(snap, nid, us)? {
            continue;
        }
        let room = rooms::get_by_nid(snap, nid)?;
        let is_unfiltered = term.is_none() && query.filter.room_types.is_empty();
        let is_on_page = found.len() < limit && total >= skip;
        if is_unfiltered && !is_on_page {
            total += 1;
            continue;
        }
        let chunk = PublicRoomsChunk::from(summary::of(snap, &room)?);
        if passes(&chunk, term.as_deref(), &query.filter) {
            if is_on_page {
                found.push(chunk);
            }
            total += 1;
        }
    }
    let end = skip.saturating_add(found.len());
    Ok(Page {
        next: (end < total).then(|| end.to_string()),
        previous: (skip > 0).then(|| skip.saturating_sub(limit).to_string()),
        total: UInt::try_from(total).ok(),
        rooms: found,
    })
}

fn passes(room: &PublicRoomsChunk, term: Option<&str>, filter: &Filter) -> bool {
    let kind = room.room_type.as_ref().map(ruma::room::RoomType::as_str);
    let is_of_type = filter.room_types.is_empty()
        || filter.room_types.iter().any(|wanted| wanted.as_str() == kind);
    let Some(term) = term else { return is_of_type };
    let texts = [
        room.name.as_deref(),
        room.topic.as_deref(),
        room.canonical_alias.as_ref().map(|alias| alias.as_str()),
    ];
    is_of_type && texts.into_iter().flatten().any(|text| text.to_lowercase().contains(term))
}

async fn remote(hs: &Homeserver, server: &ServerName, query: Query) -> Result<Page, PublicError> {
    let mut request = ask_rooms::Request::new();
    request.limit =
        Some(query.limit.unwrap_or_else(|| UInt::try_from(MAX_PAGE).unwrap_or_default()));
    request.since = query.since;
    request.filter = query.filter;
    request.room_network = query.network;
    match federation::ask(hs, server, request, ASK_TIMEOUT).await {
        Ok(mut answer) => {
            answer.chunk.truncate(MAX_PAGE);
            Ok(Page {
                rooms: answer.chunk,
                next: answer.next_batch,
                previous: answer.prev_batch,
                total: answer.total_room_count_estimate,
            })
        }
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::info!(%server, %error, "no list of public rooms");
            Err(PublicError::Unreachable(server.to_owned()))
        }
    }
}
