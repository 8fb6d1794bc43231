//! Spec: Server-Server API, "Querying for information"; and who wants to be found here (D14).

use axum::Router;
use messagehub_homeserver::{
    Homeserver, profiles,
    rooms::aliases,
    user_directory::{self, DISCOVERABLE_PATH, Discoverable},
};
use ruma::{
    api::{
        IncomingRequest, Metadata,
        error::DeserializationError,
        federation::{
            authentication::ServerSignatures,
            query::{get_profile_information, get_room_information},
        },
        path_builder::SinglePath,
    },
    profile::ProfileFieldName,
};

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(profile).ruma(directory).ruma(discoverable)
}

/// `GET /_matrix/federation/v1/query/profile`
async fn profile(
    hs: Homeserver,
    _: Origin,
    request: get_profile_information::v1::Request,
) -> Result<get_profile_information::v1::Response, ApiError> {
    let found = profiles::local(&hs, &request.user_id).await?;
    let wanted = |field: &ProfileFieldName| request.field.as_ref().is_none_or(|one| one == field);
    let mut response = get_profile_information::v1::Response::new();
    if let Some(name) = found.displayname.filter(|_| wanted(&ProfileFieldName::DisplayName)) {
        response.set("displayname".to_owned(), name.into());
    }
    if let Some(avatar) = found.avatar_url.filter(|_| wanted(&ProfileFieldName::AvatarUrl)) {
        response.set("avatar_url".to_owned(), avatar.as_str().into());
    }
    Ok(response)
}

/// `GET /_matrix/federation/v1/query/directory`
async fn directory(
    hs: Homeserver,
    _: Origin,
    request: get_room_information::v1::Request,
) -> Result<get_room_information::v1::Response, ApiError> {
    let found = aliases::resolve(&hs, &request.room_alias).await?;
    Ok(get_room_information::v1::Response::new(found.room_id, found.servers))
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
