//! Spec: Server-Server API, "Querying for information"; and who wants to be found here (D14).

use axum::Router;
use messagehub_homeserver::{
    Homeserver, profiles,
    rooms::aliases,
    user_directory::{self, DISCOVERABLE_PATH, Discoverable},
};
use ruma::api::{
    IncomingRequest, Metadata,
    error::DeserializationError,
    federation::{
        authentication::ServerSignatures,
        query::{get_custom_information, get_profile_information, get_room_information},
    },
    path_builder::SinglePath,
};

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(profile).ruma(directory).ruma(other).ruma(discoverable)
}

/// `GET /_matrix/federation/v1/query/profile`
async fn profile(
    hs: Homeserver,
    _: Origin,
    request: get_profile_information::v1::Request,
) -> Result<get_profile_information::v1::Response, ApiError> {
    let mut fields = profiles::local_fields(&hs, &request.user_id).await?;
    if let Some(wanted) = request.field {
        fields.retain(|name, _| name == wanted.as_str());
    }
    Ok(fields.into_iter().collect())
}

/// `GET /_matrix/federation/v1/query/directory`
async fn directory(
    hs: Homeserver,
    _: Origin,
    request: get_room_information::v1::Request,
) -> Result<get_room_information::v1::Response, ApiError> {
    let found = aliases::local(&hs, &request.room_alias).await?;
    Ok(get_room_information::v1::Response::new(found.room_id, found.servers))
}

/// `GET /_matrix/federation/v1/query/{queryType}`
///
/// Every query that the specification knows has an operation of its own; there is no other.
async fn other(
    _: Homeserver,
    _: Origin,
    _: get_custom_information::v1::Request,
) -> Result<get_custom_information::v1::Response, ApiError> {
    Err(ApiError::unrecognized())
}

/// The operation, in the form in which ruma has those of the specification.
struct ListDiscoverable;

impl Metadata for ListDiscoverable {
    const METHOD: http::Method = http::Method::GET;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(DISCOVERABLE_PATH);
}

impl IncomingRequest for ListDiscoverable {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<Discoverable>;

    fn try_from_http_request_inner(
        _: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        Ok(Self)
    }
}

/// `GET /_matrix/federation/unstable/net.messagehub/discoverable`
async fn discoverable(
    hs: Homeserver,
    _: Origin,
    _: ListDiscoverable,
) -> Result<JsonAnswer<Discoverable>, ApiError> {
    Ok(JsonAnswer(Discoverable { users: user_directory::discoverable(&hs).await? }))
}
