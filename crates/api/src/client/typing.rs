//! Typing notifications.
//!
//! Spec: Client-Server API, "Typing Notifications".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    sessions::Session,
    typing::{self, Typing},
};
use ruma::api::client::typing::create_typing_event::v3::{Request, Response, Typing as Asked};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(set)
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set(hs: Homeserver, caller: Session, req: Request) -> Result<Response, ApiError> {
    let notice = match req.state {
        Asked::Yes(info) => Typing::For(info.timeout),
        Asked::No => Typing::Stopped,
    };
    typing::set(&hs, &caller.user_id, (req.room_id, req.user_id), notice).await?;
    Ok(Response::new())
}
