//! Setting state, and looking at a room's state, members and single events.
//!
//! Spec: Client-Server API, "Getting events for a room", "Sending events to a room".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::read::{self, JoinedMember, StatePart, StateQuery},
    send::{self, NewState},
    sessions::Session,
};
use ruma::{
    api::client::{
        membership::{joined_members, joined_rooms},
        room::get_room_event,
        state::{get_state_event_for_key, get_state_events, send_state_event},
    },
    serde::Raw,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(send_state)
        .ruma(get_state)
        .ruma(get_state_event)
        .ruma(get_event)
        .ruma(joined_members)
        .ruma(joined_rooms)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn send_state(
    hs: Homeserver,
    session: Session,
    req: send_state_event::v3::Request,
) -> Result<send_state_event::v3::Response, ApiError> {
    let new = NewState {
        room_id: req.room_id,
        kind: req.event_type,
        state_key: req.state_key,
        content: req.body.into_json(),
    };
    Ok(send_state_event::v3::Response::new(send::state(&hs, &session.user_id, new).await?))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn get_state(
    hs: Homeserver,
    session: Session,
    req: get_state_events::v3::Request,
) -> Result<get_state_events::v3::Response, ApiError> {
    let state = read::state(&hs, &session, req.room_id).await?;
    let state = state.into_iter().map(Raw::from_json).collect();
    Ok(get_state_events::v3::Response::new(state))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn get_state_event(
    hs: Homeserver,
    session: Session,
    req: get_state_event_for_key::v3::Request,
) -> Result<get_state_event_for_key::v3::Response, ApiError> {
    let part = match req.format {
        get_state_event_for_key::v3::StateEventFormat::Event => StatePart::Event,
        _ => StatePart::Content,
    };
    let query =
        StateQuery { room_id: req.room_id, kind: req.event_type, state_key: req.state_key, part };
    let json = read::state_event(&hs, &session, query).await?;
    Ok(get_state_event_for_key::v3::Response::new(json))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn get_event(
    hs: Homeserver,
    session: Session,
    req: get_room_event::v3::Request,
) -> Result<get_room_event::v3::Response, ApiError> {
    let json = read::event(&hs, &session, req.room_id, req.event_id).await?;
    Ok(get_room_event::v3::Response::new(Raw::from_json(json)))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
async fn joined_members(
    hs: Homeserver,
    session: Session,
    req: joined_members::v3::Request,
) -> Result<joined_members::v3::Response, ApiError> {
    let members = read::joined_members(&hs, &session.user_id, req.room_id).await?;
    let members = members.into_iter().map(|(user_id, member)| (user_id, written(member)));
    Ok(joined_members::v3::Response::new(members.collect()))
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined_rooms(
    hs: Homeserver,
    session: Session,
    _: joined_rooms::v3::Request,
) -> Result<joined_rooms::v3::Response, ApiError> {
    let rooms = read::joined_rooms(&hs, &session.user_id).await?;
    Ok(joined_rooms::v3::Response::new(rooms))
}

fn written(member: JoinedMember) -> joined_members::v3::RoomMember {
    let mut written = joined_members::v3::RoomMember::new();
    written.display_name = member.display_name;
    written.avatar_url = member.avatar_url;
    written
}
