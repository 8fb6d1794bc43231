//! Profiles.
//!
//! Spec: Client-Server API, "Profiles".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    profiles::{self, Field},
    sessions::Session,
};
use ruma::{
    api::client::profile::{
        get_avatar_url, get_display_name, get_profile, set_avatar_url, set_display_name,
    },
    profile::ProfileFieldValue,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(get)
        .ruma(get_displayname)
        .ruma(get_avatar)
        .ruma(set_displayname)
        .ruma(set_avatar)
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn get(
    hs: Homeserver,
    (): (),
    req: get_profile::v3::Request,
) -> Result<get_profile::v3::Response, ApiError> {
    let profile = profiles::get(&hs, &req.user_id).await?;
    let name = profile.displayname.map(ProfileFieldValue::DisplayName);
    let avatar = profile.avatar_url.map(ProfileFieldValue::AvatarUrl);
    Ok(name.into_iter().chain(avatar).collect())
}

/// `GET /_matrix/client/v3/profile/{userId}/displayname`
async fn get_displayname(
    hs: Homeserver,
    (): (),
    req: get_display_name::v3::Request,
) -> Result<get_display_name::v3::Response, ApiError> {
    let profile = profiles::get(&hs, &req.user_id).await?;
    Ok(get_display_name::v3::Response::new(profile.displayname))
}

/// `GET /_matrix/client/v3/profile/{userId}/avatar_url`
async fn get_avatar(
    hs: Homeserver,
    (): (),
    req: get_avatar_url::v3::Request,
) -> Result<get_avatar_url::v3::Response, ApiError> {
    let profile = profiles::get(&hs, &req.user_id).await?;
    Ok(get_avatar_url::v3::Response::new(profile.avatar_url))
}

/// `PUT /_matrix/client/v3/profile/{userId}/displayname`
async fn set_displayname(
    hs: Homeserver,
    caller: Session,
    req: set_display_name::v3::Request,
) -> Result<set_display_name::v3::Response, ApiError> {
    let field = Field::DisplayName(req.displayname);
    profiles::set(&hs, &caller.user_id, &req.user_id, field).await?;
    Ok(set_display_name::v3::Response::new())
}

/// `PUT /_matrix/client/v3/profile/{userId}/avatar_url`
async fn set_avatar(
    hs: Homeserver,
    caller: Session,
    req: set_avatar_url::v3::Request,
) -> Result<set_avatar_url::v3::Response, ApiError> {
    let field = Field::AvatarUrl(req.avatar_url);
    profiles::set(&hs, &caller.user_id, &req.user_id, field).await?;
    Ok(set_avatar_url::v3::Response::new())
}
