//! Spec: Server-Server API, "Backfilling and retrieving missing events", "Retrieving events",
//! "Event authorization" and the state of a room.

use axum::Router;
use messagehub_homeserver::{
    Homeserver, gap,
    server::{
        access::AccessError,
        events::{self, Missing, Order},
        state, timestamp,
    },
};
use ruma::{
    UInt,
    api::federation::{
        authorization::get_event_authorization,
        backfill::get_backfill,
        event::{
            get_event, get_event_by_timestamp, get_missing_events, get_room_state,
            get_room_state_ids,
        },
    },
};

use super::{
    auth::Origin,
    keyed::{Keyed, KeyedAnswer},
};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(backfill)
        .ruma(missing)
        .ruma(event)
        .ruma(auth_chain)
        .ruma(state)
        .ruma(state_ids)
        .ruma(by_timestamp)
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
async fn backfill(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<get_backfill::v1::Request>,
) -> Result<KeyedAnswer<get_backfill::v1::Response>, ApiError> {
    let from = (request.v, count(request.limit));
    let found = events::backfill(&hs, origin, request.room_id, from).await?;
    let server = hs.server_name().to_owned();
    Ok(KeyedAnswer {
        answer: get_backfill::v1::Response::new(server, hs.clock.now(), found.pdus),
        server_keys: found.server_keys,
    })
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
async fn missing(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, order, .. }: Keyed<get_missing_events::v1::Request>,
) -> Result<KeyedAnswer<get_missing_events::v1::Response>, ApiError> {
    let order = match order.as_deref() {
        Some(gap::OLDEST_FIRST) => Order::OldestFirst,
        _ => Order::NewestFirst,
    };
    let wanted = Missing {
        room_id: request.room_id,
        earliest: request.earliest_events,
        latest: request.latest_events,
        limit: count(request.limit),
        min_depth: request.min_depth.into(),
        order,
    };
    let found = events::missing(&hs, origin, wanted).await?;
    Ok(KeyedAnswer {
        answer: get_missing_events::v1::Response::new(found.pdus),
        server_keys: found.server_keys,
    })
}

/// `GET /_matrix/federation/v1/event/{eventId}`
async fn event(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<get_event::v1::Request>,
) -> Result<KeyedAnswer<get_event::v1::Response>, ApiError> {
    let found = events::event(&hs, origin, request.event_id).await?;
    let pdu = found.pdus.into_iter().next().ok_or(AccessError::UnknownEvent)?;
    let server = hs.server_name().to_owned();
    Ok(KeyedAnswer {
        answer: get_event::v1::Response::new(server, hs.clock.now(), pdu),
        server_keys: found.server_keys,
    })
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
async fn auth_chain(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<get_event_authorization::v1::Request>,
) -> Result<KeyedAnswer<get_event_authorization::v1::Response>, ApiError> {
    let found = events::auth_chain(&hs, origin, request.room_id, request.event_id).await?;
    Ok(KeyedAnswer {
        answer: get_event_authorization::v1::Response::new(found.pdus),
        server_keys: found.server_keys,
    })
}

/// `GET /_matrix/federation/v1/state/{roomId}`
async fn state(
    hs: Homeserver,
    Origin(origin): Origin,
    Keyed { request, .. }: Keyed<get_room_state::v1::Request>,
) -> Result<KeyedAnswer<get_room_state::v1::Response>, ApiError> {
    let found = state::before(&hs, origin, request.room_id, request.event_id).await?;
    Ok(KeyedAnswer {
        answer: get_room_state::v1::Response::new(found.auth_chain, found.state),
        server_keys: found.server_keys,
    })
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
async fn state_ids(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_room_state_ids::v1::Request,
) -> Result<get_room_state_ids::v1::Response, ApiError> {
    let found = state::ids_before(&hs, origin, request.room_id, request.event_id).await?;
    Ok(get_room_state_ids::v1::Response::new(found.auth_chain, found.state))
}

/// `GET /_matrix/federation/v1/timestamp_to_event/{roomId}`
async fn by_timestamp(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response, ApiError> {
    let from = (request.ts, request.dir);
    let found = timestamp::nearest(&hs, origin, request.room_id, from).await?;
    Ok(get_event_by_timestamp::v1::Response::new(found.event_id, found.time))
}

/// A number of events; what is too large is bounded by the use-case.
fn count(limit: UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}
