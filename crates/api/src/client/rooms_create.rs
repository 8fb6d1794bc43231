//! Making rooms.
//!
//! Spec: Client-Server API, "Creation".

use axum::Router;
use messagehub_homeserver::{Homeserver, rooms::create, sessions::Session};
use ruma::api::client::room::create_room;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(create_room)
}

/// `POST /_matrix/client/v3/createRoom`
async fn create_room(
    hs: Homeserver,
    session: Session,
    req: create_room::v3::Request,
) -> Result<create_room::v3::Response, ApiError> {
    let room_id = create::room(&hs, &session.user_id, req).await?;
    Ok(create_room::v3::Response::new(room_id))
}
