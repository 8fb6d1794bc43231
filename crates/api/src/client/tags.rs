//! Tags on rooms.
//!
//! Spec: Client-Server API, "Room Tagging".

use axum::Router;
use messagehub_homeserver::{Homeserver, sessions::Session, tags};
use ruma::{
    UserId,
    api::client::tag::{create_tag, delete_tag, get_tags},
    events::tag::Tags,
};
use serde_json::value::to_raw_value;

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(list).ruma(set).ruma(remove)
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn list(
    hs: Homeserver,
    session: Session,
    req: get_tags::v3::Request,
) -> Result<get_tags::v3::Response, ApiError> {
    check_own(&session, &req.user_id)?;
    let tags = tags::list(&hs, &session.user_id, req.room_id).await?;
    // One that a client wrote in a form of its own must not hide the others.
    let readable = tags
        .into_iter()
        .filter_map(|(tag, info)| Some((tag.into(), serde_json::from_value(info).ok()?)));
    Ok(get_tags::v3::Response::new(readable.collect::<Tags>()))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn set(
    hs: Homeserver,
    session: Session,
    req: create_tag::v3::Request,
) -> Result<create_tag::v3::Response, ApiError> {
    check_own(&session, &req.user_id)?;
    let info = to_raw_value(&req.tag_info)
        .map_err(|_| ApiError::bad_json("The tag is no JSON object."))?;
    tags::set(&hs, &session.user_id, req.room_id, (req.tag, info)).await?;
    Ok(create_tag::v3::Response::new())
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn remove(
    hs: Homeserver,
    session: Session,
    req: delete_tag::v3::Request,
) -> Result<delete_tag::v3::Response, ApiError> {
    check_own(&session, &req.user_id)?;
    tags::remove(&hs, &session.user_id, req.room_id, req.tag).await?;
    Ok(delete_tag::v3::Response::new())
}

fn check_own(session: &Session, user_id: &UserId) -> Result<(), ApiError> {
    match session.user_id == *user_id {
        true => Ok(()),
        false => Err(ApiError::forbidden("These are another user's tags.")),
    }
}
