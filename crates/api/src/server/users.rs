//! Users' devices and keys, and who an OpenID token stands for.
//!
//! Spec: Server-Server API, "Device Management", "End-to-End Encryption" and "OpenID".

use axum::Router;
use messagehub_homeserver::{
    Homeserver,
    encryption::{claim, device_lists, query},
    openid,
};
use ruma::api::federation::{
    device::get_devices,
    keys::{claim_keys, get_keys},
    openid::get_openid_userinfo,
};

use super::auth::Origin;
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(devices).ruma(query_keys).ruma(hand_out_keys).ruma(openid_owner)
}

/// `GET /_matrix/federation/v1/user/devices/{userId}`
async fn devices(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_devices::v1::Request,
) -> Result<get_devices::v1::Response, ApiError> {
    let devices = device_lists::for_server(&hs, origin, &request.user_id).await?;
    devices.ok_or_else(|| ApiError::not_found("There is no such user."))
}

/// `POST /_matrix/federation/v1/user/keys/query`
async fn query_keys(
    hs: Homeserver,
    Origin(origin): Origin,
    request: get_keys::v1::Request,
) -> Result<get_keys::v1::Response, ApiError> {
    let keys = query::for_server(&hs, origin, request.device_keys).await?;
    let mut response = get_keys::v1::Response::new(keys.device_keys);
    response.master_keys = keys.master_keys;
    response.self_signing_keys = keys.self_signing_keys;
    Ok(response)
}

/// `POST /_matrix/federation/v1/user/keys/claim`
async fn hand_out_keys(
    hs: Homeserver,
    Origin(origin): Origin,
    request: claim_keys::v1::Request,
) -> Result<claim_keys::v1::Response, ApiError> {
    let claimed = claim::for_server(&hs, origin, request.one_time_keys).await?;
    Ok(claim_keys::v1::Response::new(claimed))
}

/// `GET /_matrix/federation/v1/openid/userinfo`
async fn openid_owner(
    hs: Homeserver,
    (): (),
    request: get_openid_userinfo::v1::Request,
) -> Result<get_openid_userinfo::v1::Response, ApiError> {
    let user_id = openid::owner(&hs, &request.access_token).await?;
    Ok(get_openid_userinfo::v1::Response::new(user_id))
}
