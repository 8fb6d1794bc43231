//! Spec: Server-Server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms" and "Inviting
//! to a room".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    server::{
        invite::{self, Invite},
        membership::{self, Completed, Wish},
    },
};
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId,
    api::{
        IncomingRequest, Metadata,
        error::DeserializationError,
        federation::{
            authentication::ServerSignatures,
            membership::{
                RawStrippedState, create_invite, create_join_event, create_knock_event,
                create_leave_event, prepare_join_event, prepare_knock_event, prepare_leave_event,
            },
        },
        path_builder::SinglePath,
    },
    events::room::member::MembershipState,
};
use serde::{
    Deserialize, Serialize,
    de::value::{self, SeqDeserializer},
};
use serde_json::value::RawValue;

use super::{
    auth::Origin,
    keyed::{JsonAnswer, Keyed, KeyedAnswer},
};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(make_join)
        .ruma(send_join)
        .ruma(make_knock)
        .ruma(send_knock)
        .ruma(make_leave)
        .ruma(send_leave)
        .ruma(invite)
        .ruma(invite_v1)
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

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn make_knock(
    hs: Homeserver,
    Origin(origin): Origin,
    request: prepare_knock_event::v1::Request,
) -> Result<prepare_knock_event::v1::Response, ApiError> {
    let wish = Wish {
        room_id: request.room_id,
        user_id: request.user_id,
        membership: MembershipState::Knock,
    };
    let made = membership::make(&hs, origin, wish, Some(request.ver)).await?;
    Ok(prepare_knock_event::v1::Response::new(made.room_version, made.event))
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
async fn send_knock(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<create_knock_event::v1::Request>,
) -> Result<KeyedAnswer<create_knock_event::v1::Response>, ApiError> {
    let completed = Completed {
        room_id: request.room_id,
        event_id: request.event_id,
        membership: MembershipState::Knock,
        pdu: request.pdu,
    };
    let shown = membership::send_knock(&hs, origin, completed).await?;
    let pdus = shown.pdus.into_iter().map(RawStrippedState::Pdu).collect();
    Ok(KeyedAnswer {
        answer: create_knock_event::v1::Response::new(pdus),
        server_keys: shown.server_keys,
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
    Keyed { request, server_keys, .. }: Keyed<create_invite::v2::Request>,
) -> Result<KeyedAnswer<create_invite::v2::Response>, ApiError> {
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
        server_keys,
    };
    let signed = invite::receive(&hs, origin, invite).await?;
    let answer = create_invite::v2::Response::new(signed);
    Ok(KeyedAnswer { answer, server_keys: Vec::new() })
}

/// The operation with the event as it came: ruma's type keeps only parts of it, which no signature
/// fits.
struct InviteV1 {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    event: Box<RawValue>,
    shown: Vec<Box<RawValue>>,
}

impl Metadata for InviteV1 {
    const METHOD: http::Method = http::Method::PUT;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = create_invite::v1::Request::PATH_BUILDER;
}

impl IncomingRequest for InviteV1 {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<(u16, SignedInvite)>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        path_args: &[&str],
    ) -> Result<Self, DeserializationError> {
        #[derive(Default, Deserialize)]
        struct Unsigned {
            #[serde(default)]
            invite_room_state: Vec<Box<RawValue>>,
        }
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            unsigned: Unsigned,
        }
        let args: SeqDeserializer<_, value::Error> =
            SeqDeserializer::new(path_args.iter().copied());
        let (room_id, event_id) = Deserialize::deserialize(args)?;
        let event: Box<RawValue> = serde_json::from_slice(request.body())?;
        let Body { unsigned } = serde_json::from_str(event.get())?;
        Ok(Self { room_id, event_id, event, shown: unsigned.invite_room_state })
    }
}

/// What the operation answers beside the number 200.
#[derive(Debug, Serialize)]
struct SignedInvite {
    event: Box<RawValue>,
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
async fn invite_v1(
    hs: Homeserver,
    Origin(origin): Origin,
    request: InviteV1,
) -> Result<JsonAnswer<(u16, SignedInvite)>, ApiError> {
    let invite = Invite {
        room_id: request.room_id,
        event_id: request.event_id,
        // Version 1 or 2; of these, this server takes part in the second.
        room_version: RoomVersionId::V2,
        event: request.event,
        shown: request.shown,
        server_keys: Vec::new(),
    };
    let event = invite::receive(&hs, origin, invite).await?;
    Ok(JsonAnswer((200, SignedInvite { event })))
}
