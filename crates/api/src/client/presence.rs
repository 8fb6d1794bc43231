//! Who is there.
//!
//! Spec: Client-Server API, "Presence".

use axum::Router;
use messagehub_homeserver::{Homeserver, presence, sessions::Session};
use ruma::api::client::presence::{get_presence, set_presence};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(get).ruma(set)
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn get(
    hs: Homeserver,
    caller: Session,
    req: get_presence::v3::Request,
) -> Result<get_presence::v3::Response, ApiError> {
    let status = presence::get(&hs, &caller.user_id, &req.user_id).await?;
    let mut response = get_presence::v3::Response::new(status.presence);
    response.status_msg = status.status_msg;
    response.last_active_ago = status.last_active_ago;
    response.currently_active = Some(status.currently_active);
    Ok(response)
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn set(
    hs: Homeserver,
    caller: Session,
    req: set_presence::v3::Request,
) -> Result<set_presence::v3::Response, ApiError> {
    presence::set(&hs, &caller, &req.user_id, (req.presence, req.status_msg)).await?;
    Ok(set_presence::v3::Response::new())
}
