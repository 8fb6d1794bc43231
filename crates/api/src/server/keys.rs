//! Spec: Server-Server API, "Server implementation", "Server discovery" and "Retrieving server
//! keys".

use std::collections::BTreeMap;

use axum::Router;
use messagehub_homeserver::{Homeserver, server::keys};
use ruma::{
    api::federation::discovery::{
        discover_homeserver, get_remote_server_keys, get_remote_server_keys_batch, get_server_keys,
        get_server_version,
    },
    serde::Raw,
};

use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(version).ruma(own_keys).ruma(keys_of).ruma(keys_of_several).ruma(delegation)
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

/// `GET /_matrix/key/v2/query/{serverName}`
async fn keys_of(
    hs: Homeserver,
    (): (),
    request: get_remote_server_keys::v2::Request,
) -> Result<get_remote_server_keys::v2::Response, ApiError> {
    let until = Some(request.minimum_valid_until_ts);
    let found = keys::notarised(&hs, BTreeMap::from([(request.server_name, until)])).await?;
    let found = found.into_iter().map(Raw::from_json).collect();
    Ok(get_remote_server_keys::v2::Response::new(found))
}

/// `POST /_matrix/key/v2/query`
async fn keys_of_several(
    hs: Homeserver,
    (): (),
    request: get_remote_server_keys_batch::v2::Request,
) -> Result<get_remote_server_keys_batch::v2::Response, ApiError> {
    let wanted = request.server_keys.into_iter().map(|(server, keys)| {
        let until = keys.into_values().filter_map(|criteria| criteria.minimum_valid_until_ts);
        (server, until.max())
    });
    let found = keys::notarised(&hs, wanted.collect()).await?;
    let found = found.into_iter().map(Raw::from_json).collect();
    Ok(get_remote_server_keys_batch::v2::Response::new(found))
}

/// `GET /.well-known/matrix/server`
///
/// A server whose name is a key is found by that key; it delegates to nobody.
async fn delegation(
    _: Homeserver,
    (): (),
    _: discover_homeserver::Request,
) -> Result<discover_homeserver::Response, ApiError> {
    Err(ApiError::not_found("This server delegates to no other name."))
}
