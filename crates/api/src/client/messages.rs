//! Paging through a room's timeline.
//!
//! Spec: Client-Server API, "Syncing" and "Event Context".

use axum::Router;
use messagehub_homeserver::{Homeserver, messages, sessions::Session};
use ruma::api::client::{context::get_context, message::get_message_events};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(page).ruma(context)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn page(
    hs: Homeserver,
    caller: Session,
    req: get_message_events::v3::Request,
) -> Result<get_message_events::v3::Response, ApiError> {
    Ok(messages::page(&hs, &caller, req).await?)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn context(
    hs: Homeserver,
    caller: Session,
    req: get_context::v3::Request,
) -> Result<get_context::v3::Response, ApiError> {
    Ok(messages::context(&hs, &caller, req).await?)
}
