//! Looking at a room: its state, its members, one event.
//!
//! Spec: Client-Server API, "Getting events for a room".

use std::collections::BTreeMap;

use messagehub_store::{
    EventNid, Room, Snapshot, StateNid, StoreError, events, memberships, room_state, rooms,
};
use ruma::{
    OwnedEventId, OwnedMxcUri, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    client_event::{Format, Reader, RoomIdField, shown},
    sessions::Session,
    visibility::{Viewer, readable_state},
};

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The user may not look into the room, or there is none; which of them is not told.
    #[error("the user is not in this room")]
    NotInRoom,
    /// There is no such state or event, or the user may not see it.
    #[error("there is no such event")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How a member is seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinedMember {
    /// The display name in this room.
    pub display_name: Option<String>,
    /// The avatar in this room.
    pub avatar_url: Option<OwnedMxcUri>,
}

/// The whole state of a room, as events: the present one for its members, for who has left the one
/// they left.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/state".
///
/// # Errors
///
/// See [`ReadError`].
pub async fn state(
    hs: &Homeserver,
    session: &Session,
    room_id: OwnedRoomId,
) -> Result<Vec<Box<RawValue>>, ReadError> {
    let (session, now) = (session.clone(), hs.clock.now());
    hs.store
        .read(move |snap| {
            let (_, state) = readable(snap, &room_id, &session.user_id)?;
            let format = Format { reader: reader(&session), now, room_id: RoomIdField::Present };
            let nids = room_state::all(snap, state)?.into_iter().map(|(_, _, nid)| nid);
            nids.map(|nid| Ok(format.event(snap, &events::get(snap, nid)?)?)).collect()
        })
        .await
}

/// One part of the state of a room.
#[derive(Debug)]
pub struct StateQuery {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The event type.
    pub kind: StateEventType,
    /// The state key.
    pub state_key: String,
    /// What to give.
    pub part: StatePart,
}

/// What to give of a state event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatePart {
    /// Its content.
    Content,
    /// All of it.
    Event,
}

/// The content of one state event, or all of it.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/state/{eventType}/{stateKey}".
///
/// # Errors
///
/// See [`ReadError`].
pub async fn state_event(
    hs: &Homeserver,
    session: &Session,
    query: StateQuery,
) -> Result<Box<RawValue>, ReadError> {
    let (session, now) = (session.clone(), hs.clock.now());
    hs.store
        .read(move |snap| {
            let (_, state) = readable(snap, &query.room_id, &session.user_id)?;
            let nid = room_state::get(snap, state, &query.kind, &query.state_key)?
                .ok_or(ReadError::NotFound)?;
            let event = events::get(snap, nid)?;
            match query.part {
                StatePart::Content => Ok(shown(snap, &event)?.content().to_owned()),
                StatePart::Event => {
                    let format =
                        Format { reader: reader(&session), now, room_id: RoomIdField::Present };
                    Ok(format.event(snap, &event)?)
                }
            }
        })
        .await
}

/// One event of a room, if the user may see it.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/event/{eventId}".
///
/// # Errors
///
/// `NotFound` for every reason, so that nothing is told.
pub async fn event(
    hs: &Homeserver,
    session: &Session,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
) -> Result<Box<RawValue>, ReadError> {
    let (session, now) = (session.clone(), hs.clock.now());
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.ok_or(ReadError::NotFound)?;
            let event = events::find(snap, &event_id)?
                .filter(|event| event.room == room.nid)
                .ok_or(ReadError::NotFound)?;
            if !Viewer::new(snap, room.nid, &session.user_id)?.can_see(&event)? {
                return Err(ReadError::NotFound);
            }
            let format = Format { reader: reader(&session), now, room_id: RoomIdField::Present };
            Ok(format.event(snap, &event)?)
        })
        .await
}

/// Who is in a room, and how they are seen there; for its members.
///
/// Spec: Client-Server API, "GET /rooms/{roomId}/joined_members".
///
/// # Errors
///
/// See [`ReadError`].
pub async fn joined_members(
    hs: &Homeserver,
    user_id: &UserId,
    room_id: OwnedRoomId,
) -> Result<BTreeMap<OwnedUserId, JoinedMember>, ReadError> {
    let user_id = user_id.to_owned();
    hs.store
        .read(move |snap| {
            let room = rooms::find(snap, &room_id)?.ok_or(ReadError::NotInRoom)?;
            let joined = memberships::find(snap, room.nid, &user_id)?
                .is_some_and(|member| member.membership == MembershipState::Join);
            if !joined {
                return Err(ReadError::NotInRoom);
            }
            let members = memberships::list(snap, room.nid)?;
            members
                .into_iter()
                .filter(|member| member.membership == MembershipState::Join)
                .map(|member| Ok((member.user_id, seen_as(snap, member.event)?)))
                .collect()
        })
        .await
}

/// The rooms a user is in.
///
/// Spec: Client-Server API, "GET /joined_rooms".
///
/// # Errors
///
/// The store's.
pub async fn joined_rooms(
    hs: &Homeserver,
    user_id: &UserId,
) -> Result<Vec<OwnedRoomId>, StoreError> {
    let user_id = user_id.to_owned();
    hs.store.read(move |snap| list_joined(snap, &user_id)).await
}

pub(super) fn list_joined(
    snap: &Snapshot<'_>,
    user_id: &UserId,
) -> Result<Vec<OwnedRoomId>, StoreError> {
    memberships::rooms_of(snap, user_id, &MembershipState::Join)?
        .into_iter()
        .map(|nid| Ok(rooms::get_by_nid(snap, nid)?.room_id))
        .collect()
}

/// A room and the state of it that a user may read.
pub(crate) fn readable(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    user_id: &UserId,
) -> Result<(Room, StateNid), ReadError> {
    let room = rooms::find(snap, room_id)?.ok_or(ReadError::NotInRoom)?;
    let state = readable_state(snap, &room, user_id)?.ok_or(ReadError::NotInRoom)?;
    Ok((room, state))
}

fn seen_as(snap: &Snapshot<'_>, event: Option<EventNid>) -> Result<JoinedMember, StoreError> {
    #[derive(Deserialize)]
    struct Content {
        displayname: Option<String>,
        avatar_url: Option<OwnedMxcUri>,
    }
    let Some(nid) = event else { return Ok(JoinedMember::default()) };
    let event = shown(snap, &events::get(snap, nid)?)?;
    // Content of other servers has any form; a member without a readable name has none.
    let content = serde_json::from_str::<Content>(event.content().get()).ok();
    Ok(content.map_or_else(JoinedMember::default, |content| JoinedMember {
        display_name: content.displayname,
        avatar_url: content.avatar_url,
    }))
}

fn reader(session: &Session) -> Reader<'_> {
    Reader { user_id: &session.user_id, device_id: &session.device_id }
}
