//! Account data.
//!
//! Spec: Client-Server API, "Client Config".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    account_data::{self, Key},
    sessions::Session,
};
use ruma::{
    UserId,
    api::client::config::{
        get_global_account_data, get_room_account_data, set_global_account_data,
        set_room_account_data,
    },
    serde::Raw,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new().ruma(get_global).ruma(set_global).ruma(get_in_room).ruma(set_in_room)
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn get_global(
    hs: Homeserver,
    caller: Session,
    req: get_global_account_data::v3::Request,
) -> Result<get_global_account_data::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let key = Key { room_id: None, kind: req.event_type.to_string() };
    let content = account_data::get(&hs, &caller.user_id, key).await?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn set_global(
    hs: Homeserver,
    caller: Session,
    req: set_global_account_data::v3::Request,
) -> Result<set_global_account_data::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let key = Key { room_id: None, kind: req.event_type.to_string() };
    account_data::set(&hs, &caller.user_id, key, req.data.into_json()).await?;
    Ok(set_global_account_data::v3::Response::new())
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn get_in_room(
    hs: Homeserver,
    caller: Session,
    req: get_room_account_data::v3::Request,
) -> Result<get_room_account_data::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let key = Key { room_id: Some(req.room_id), kind: req.event_type.to_string() };
    let content = account_data::get(&hs, &caller.user_id, key).await?;
    Ok(get_room_account_data::v3::Response::new(Raw::from_json(content)))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn set_in_room(
    hs: Homeserver,
    caller: Session,
    req: set_room_account_data::v3::Request,
) -> Result<set_room_account_data::v3::Response, ApiError> {
    check_own(&caller, &req.user_id)?;
    let key = Key { room_id: Some(req.room_id), kind: req.event_type.to_string() };
    account_data::set(&hs, &caller.user_id, key, req.data.into_json()).await?;
    Ok(set_room_account_data::v3::Response::new())
}

/// The user in the path must be the one whose token it is.
pub(super) fn check_own(caller: &Session, user_id: &UserId) -> Result<(), ApiError> {
    if caller.user_id == user_id {
        Ok(())
    } else {
        Err(ApiError::forbidden("This belongs to another user."))
    }
}
