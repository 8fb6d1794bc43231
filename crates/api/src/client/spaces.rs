//! What rooms are and how they hang together; and the event of a room nearest to a time.
//!
//! Spec: Client-Server API, "Spaces", "Room summaries" and "Getting events for a room".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::{
        hierarchy::{self, Wanted},
        summary, timestamp,
    },
    sessions::Session,
};
use ruma::api::client::{
    room::{get_event_by_timestamp, get_summary},
    space::get_hierarchy,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(hierarchy).ruma(summary).ruma(by_timestamp)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/hierarchy`
async fn hierarchy(
    hs: Homeserver,
    session: Session,
    req: get_hierarchy::v1::Request,
) -> Result<get_hierarchy::v1::Response, ApiError> {
    let wanted = Wanted {
        room_id: req.room_id,
        suggested_only: req.suggested_only,
        max_depth: req.max_depth,
        limit: req.limit,
        from: req.from,
    };
    let part = hierarchy::hierarchy(&hs, &session.user_id, wanted).await?;
    let mut response = get_hierarchy::v1::Response::new();
    (response.rooms, response.next_batch) = (part.rooms, part.next);
    Ok(response)
}

/// `GET /_matrix/client/v1/room_summary/{roomIdOrAlias}`
async fn summary(
    hs: Homeserver,
    session: Option<Session>,
    req: get_summary::v1::Request,
) -> Result<get_summary::v1::Response, ApiError> {
    let user_id = session.as_ref().map(|session| &*session.user_id);
    let found = summary::summarise(&hs, user_id, (req.room_id_or_alias, req.via)).await?;
    let mut response = get_summary::v1::Response::new(found.summary);
    response.membership = found.membership;
    Ok(response)
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn by_timestamp(
    hs: Homeserver,
    session: Session,
    req: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response, ApiError> {
    let from = (req.ts, req.dir);
    let found = timestamp::nearest(&hs, &session.user_id, req.room_id, from).await?;
    Ok(get_event_by_timestamp::v1::Response::new(found.event_id, found.time))
}
