//! Spec: Server-Server API, "Published Room Directory", "Spaces" and "Third-party invites".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::public::{self, Page, Query},
    server::{
        hierarchy,
        third_party::{self, Bound, Exchange},
    },
};
use ruma::api::federation::{
    directory::{get_public_rooms, get_public_rooms_filtered},
    space::get_hierarchy,
    thirdparty::{bind_callback, exchange_invite},
};

use super::auth::Origin;
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(public_rooms)
        .ruma(filtered_public_rooms)
        .ruma(hierarchy)
        .ruma(exchange_invite)
        .ruma(bound)
}

/// `GET /_matrix/federation/v1/publicRooms`
async fn public_rooms(
    hs: Homeserver,
    _: Origin,
    request: get_public_rooms::v1::Request,
) -> Result<get_public_rooms::v1::Response, ApiError> {
    let query = Query {
        limit: request.limit,
        since: request.since,
        network: request.room_network,
        ..Query::default()
    };
    let Page { rooms, next, previous, total } = public::local(&hs, query).await?;
    let mut response = get_public_rooms::v1::Response::new();
    (response.chunk, response.next_batch, response.prev_batch) = (rooms, next, previous);
    response.total_room_count_estimate = total;
    Ok(response)
}

/// `POST /_matrix/federation/v1/publicRooms`
async fn filtered_public_rooms(
    hs: Homeserver,
    _: Origin,
    request: get_public_rooms_filtered::v1::Request,
) -> Result<get_public_rooms_filtered::v1::Response, ApiError> {
    let query = Query {
        limit: request.limit,
        since: request.since,
        filter: request.filter,
        network: request.room_network,
    };
    let Page { rooms, next, previous, total } = public::local(&hs, query).await?;
    let mut response = get_public_rooms_filtered::v1::Response::new();
    (response.chunk, response.next_batch, response.prev_batch) = (rooms, next, previous);
    response.total_room_count_estimate = total;
    Ok(response)
}

/// `GET /_matrix/federation/v1/hierarchy/{roomId}`
async fn hierarchy(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_hierarchy::v1::Request,
) -> Result<get_hierarchy::v1::Response, ApiError> {
    Ok(hierarchy::of(&hs, origin, (request.room_id, request.suggested_only)).await?)
}

/// `PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}`
async fn exchange_invite(
    hs: Homeserver,
    Origin(origin): Origin,
    request: exchange_invite::v1::Request,
) -> Result<exchange_invite::v1::Response, ApiError> {
    let wanted = Exchange {
        room_id: request.room_id,
        kind: request.kind,
        sender: request.sender,
        invited: request.state_key,
        content: request.content.into_json(),
    };
    third_party::exchange(&hs, origin, wanted).await?;
    Ok(exchange_invite::v1::Response::new())
}

/// `PUT /_matrix/federation/v1/3pid/onbind`
async fn bound(
    hs: Homeserver,
    (): (),
    request: bind_callback::v1::Request,
) -> Result<bind_callback::v1::Response, ApiError> {
    let theirs = |invite: &bind_callback::v1::ThirdPartyInvite| invite.mxid == request.mxid;
    if !request.invites.iter().all(theirs) {
        return Err(ApiError::invalid_param("An invite is for another user."));
    }
    let invites = request.invites.into_iter().map(|invite| Bound {
        room_id: invite.room_id,
        sender: invite.sender,
        signed: invite.signed.into_json(),
    });
    third_party::bound(&hs, request.mxid, invites.collect()).await?;
    Ok(bind_callback::v1::Response::new())
}
