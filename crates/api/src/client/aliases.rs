//! Names for rooms.
//!
//! Spec: Client-Server API, "Room aliases".

use axum::Router;
use messagehub_homeserver::{Homeserver, rooms::aliases, sessions::Session};
use ruma::api::client::{
    alias::{create_alias, delete_alias, get_alias},
    room::aliases as list_aliases,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(create_alias).ruma(get_alias).ruma(delete_alias).ruma(list_aliases)
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn create_alias(
    hs: Homeserver,
    session: Session,
    req: create_alias::v3::Request,
) -> Result<create_alias::v3::Response, ApiError> {
    aliases::create(&hs, &session.user_id, req.room_alias, req.room_id).await?;
    Ok(create_alias::v3::Response::new())
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
async fn get_alias(
    hs: Homeserver,
    (): (),
    req: get_alias::v3::Request,
) -> Result<get_alias::v3::Response, ApiError> {
    let found = aliases::resolve(&hs, &req.room_alias).await?;
    Ok(get_alias::v3::Response::new(found.room_id, found.servers))
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
async fn delete_alias(
    hs: Homeserver,
    session: Session,
    req: delete_alias::v3::Request,
) -> Result<delete_alias::v3::Response, ApiError> {
    aliases::remove(&hs, &session.user_id, req.room_alias).await?;
    Ok(delete_alias::v3::Response::new())
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
async fn list_aliases(
    hs: Homeserver,
    session: Session,
    req: list_aliases::v3::Request,
) -> Result<list_aliases::v3::Response, ApiError> {
    let aliases = aliases::list(&hs, &session.user_id, req.room_id).await?;
    Ok(list_aliases::v3::Response::new(aliases))
}
