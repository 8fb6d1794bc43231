//! What this server is and can do.
//!
//! Spec: Client-Server API, "Server Discovery", "Capabilities negotiation" and "Policy
//! Servers".

use axum::{Json, Router, extract::State, routing::get};
use http::{HeaderMap, header};
use messagehub_homeserver::{Homeserver, capabilities, server::policy, sessions::Session};
use ruma::{
    api::client::discovery::{discover_policy_server, get_capabilities, get_supported_versions},
    serde::Base64,
};
use serde_json::{Value, json};

use crate::{ApiError, endpoint::RumaRoutes};

pub(crate) fn router() -> Router<Homeserver> {
    Router::new()
        .ruma(versions)
        .ruma(get_capabilities)
        .ruma(policy_server)
        .route("/.well-known/matrix/client", get(well_known))
}

/// `GET /_matrix/client/versions`
async fn versions(
    _: Homeserver,
    _: Option<Session>,
    _: get_supported_versions::Request,
) -> Result<get_supported_versions::Response, ApiError> {
    let versions = capabilities::VERSIONS.map(str::to_owned).to_vec();
    Ok(get_supported_versions::Response::new(versions))
}

/// `GET /_matrix/client/v3/capabilities`
async fn get_capabilities(
    hs: Homeserver,
    _: Session,
    _: get_capabilities::v3::Request,
) -> Result<get_capabilities::v3::Response, ApiError> {
    Ok(get_capabilities::v3::Response::new(capabilities::list(&hs)))
}

/// `GET /.well-known/matrix/policy_server`
async fn policy_server(
    hs: Homeserver,
    (): (),
    _: discover_policy_server::Request,
) -> Result<discover_policy_server::Response, ApiError> {
    let key = policy::public_key(&hs).to_vec();
    Ok(discover_policy_server::Response::new(Base64::new(key)))
}

/// `GET /.well-known/matrix/client`
///
/// The answer depends on the address that the client used, which a ruma request does not carry.
async fn well_known(
    State(hs): State<Homeserver>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let base_url = capabilities::base_url(&hs, host)
        .ok_or_else(|| ApiError::not_found("The address of this server is not known."))?;
    Ok(Json(json!({ "m.homeserver": { "base_url": base_url } })))
}
