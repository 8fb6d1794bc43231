//! Spec: Server-Server API, "Server implementation" and "Retrieving server keys".

use axum::Router;
use messagehub_homeserver::{Homeserver, server::keys};
use ruma::{
    api::federation::discovery::{get_server_keys, get_server_version},
    serde::Raw,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(version).ruma(own_keys)
}

/// `GET /_matrix/federation/v1/version`
async fn version(
    _: Homeserver,
    (): (),
    _: get_server_version::v1::Request,
) -> Result<get_server_version::v1::Response, ApiError> {
    let mut server = get_server_version::v1::Server::new();
    server.name = Some("MessageHub".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = get_server_version::v1::Response::new();
    response.server = Some(server);
    Ok(response)
}

/// `GET /_matrix/key/v2/server`
async fn own_keys(
    hs: Homeserver,
    (): (),
    _: get_server_keys::v2::Request,
) -> Result<get_server_keys::v2::Response, ApiError> {
    Ok(get_server_keys::v2::Response::new(Raw::from_json(keys::own(&hs))))
}
