//! Spec: Server-Server API, "Joining Rooms", "Leaving Rooms" and "Inviting to a room".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    server::{
        invite::{self, Invite},
        membership::{self, Completed, Wish},
    },
};
use ruma::{
    api::federation::membership::{
        RawStrippedState, create_invite, create_join_event, create_leave_event, prepare_join_event,
        prepare_leave_event,
    },
    events::room::member::MembershipState,
};

use super::{
    auth::Origin,
    keyed::{Keyed, KeyedAnswer},
};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(make_join).ruma(send_join).ruma(make_leave).ruma(send_leave).ruma(invite)
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
async fn make_join(
    hs: Homeserver,
    Origin(origin): Origin,
    request: prepare_join_event::v1::Request,
) -> Result<prepare_join_event::v1::Response, ApiError> {
    let wish = Wish {
        room_id: request.room_id,
        user_id: request.user_id,
        membership: MembershipState::Join,
    };
    let made = membership::make(&hs, origin, wish, Some(request.ver)).await?;
    let mut response = prepare_join_event::v1::Response::new(made.event);
    response.room_version = Some(made.room_version);
    Ok(response)
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
async fn send_join(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<create_join_event::v2::Request>,
) -> Result<KeyedAnswer<create_join_event::v2::Response>, ApiError> {
    let completed = Completed {
        room_id: request.room_id,
        event_id: request.event_id,
        membership: MembershipState::Join,
        pdu: request.pdu,
    };
    let welcome = membership::send_join(&hs, origin, completed).await?;
    let mut room_state = create_join_event::v2::RoomState::new();
    room_state.state = welcome.state.state;
    room_state.auth_chain = welcome.state.auth_chain;
    room_state.event = welcome.event;
    Ok(KeyedAnswer {
        answer: create_join_event::v2::Response::new(room_state),
        server_keys: welcome.state.server_keys,
    })
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn make_leave(
    hs: Homeserver,
    Origin(origin): Origin,
    request: prepare_leave_event::v1::Request,
) -> Result<prepare_leave_event::v1::Response, ApiError> {
    let wish = Wish {
        room_id: request.room_id,
        user_id: request.user_id,
        membership: MembershipState::Leave,
    };
    let made = membership::make(&hs, origin, wish, None).await?;
    Ok(prepare_leave_event::v1::Response::new(Some(made.room_version), made.event))
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn send_leave(
    hs: Homeserver,
    Origin(origin): Origin,
    request: create_leave_event::v2::Request,
) -> Result<create_leave_event::v2::Response, ApiError> {
    let completed = Completed {
        room_id: request.room_id,
        event_id: request.event_id,
        membership: MembershipState::Leave,
        pdu: request.pdu,
    };
    membership::send_leave(&hs, origin, completed).await?;
    Ok(create_leave_event::v2::Response::new())
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
#[expect(deprecated, reason = "servers of before Matrix 1.16 send stripped state")]
async fn invite(
    hs: Homeserver,
    Origin(origin): Origin,
    request: create_invite::v2::Request,
) -> Result<create_invite::v2::Response, ApiError> {
    let shown = request.invite_room_state.into_iter().filter_map(|shown| match shown {
        RawStrippedState::Stripped(event) => Some(event.into_json()),
        RawStrippedState::Pdu(event) => Some(event),
        _ => None,
    });
    let invite = Invite {
        room_id: request.room_id,
        event_id: request.event_id,
        room_version: request.room_version,
        event: request.event,
        shown: shown.collect(),
    };
    let signed = invite::receive(&hs, origin, invite).await?;
    Ok(create_invite::v2::Response::new(signed))
}
