//! The keys of gossip frames (D10): an operation of ours.

use axum::Router;
use messagehub_homeserver::{Homeserver, server::room_keys};
use messagehub_protocol::wire::room_keys::{ROOM_KEYS_PATH, RoomKeysRequest, RoomKeysResponse};
use ruma::api::{
    IncomingRequest, Metadata, error::DeserializationError,
    federation::authentication::ServerSignatures, path_builder::SinglePath,
};

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(give)
}

/// The operation, in the form in which ruma has those of the specification.
struct Give(RoomKeysRequest);

impl Metadata for Give {
    const METHOD: http::Method = http::Method::POST;
    const RATE_LIMITED: bool = true;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(ROOM_KEYS_PATH);
}

impl IncomingRequest for Give {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<RoomKeysResponse>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        let parsed = RoomKeysRequest::parse(request.body());
        parsed.map(Self).map_err(|error| {
            DeserializationError::Json(serde::de::Error::custom(error.to_string()))
        })
    }
}

/// `POST /_matrix/federation/unstable/net.messagehub/room_keys`
async fn give(
    hs: Homeserver,
    Origin(origin): Origin,
    Give(request): Give,
) -> Result<JsonAnswer<RoomKeysResponse>, ApiError> {
    Ok(JsonAnswer(room_keys::give(&hs, origin, request).await?))
}
