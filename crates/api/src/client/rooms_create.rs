//! Making rooms, and replacing them.
//!
//! Spec: Client-Server API, "Creation" and "Room Upgrades".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    rooms::{
        create,
        upgrade::{self, Upgrade},
    },
    sessions::Session,
};
use ruma::api::client::room::{create_room, upgrade_room};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(create_room).ruma(upgrade)
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

/// `POST /_matrix/client/v3/rooms/{roomId}/upgrade`
async fn upgrade(
    hs: Homeserver,
    session: Session,
    req: upgrade_room::v3::Request,
) -> Result<upgrade_room::v3::Response, ApiError> {
    let wanted = Upgrade {
        room_id: req.room_id,
        version: req.new_version,
        additional_creators: req.additional_creators,
    };
    let replacement = upgrade::upgrade(&hs, &session.user_id, wanted).await?;
    Ok(upgrade_room::v3::Response::new(replacement))
}
