//! The members of a room.
//!
//! Spec: Client-Server API, "Getting events for a room".

use axum::Router;
use messagehub_homeserver::{Homeserver, members, sessions::Session};
use ruma::api::client::membership::get_member_events;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(list)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn list(
    hs: Homeserver,
    caller: Session,
    req: get_member_events::v3::Request,
) -> Result<get_member_events::v3::Response, ApiError> {
    Ok(members::list(&hs, &caller, req).await?)
}
