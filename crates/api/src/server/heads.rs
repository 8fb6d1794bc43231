//! Comparing heads (D11): an operation of ours.

use axum::Router;
use messagehub_homeserver::{Homeserver, server::heads};
use messagehub_protocol::wire::heads::{HEADS_PATH, HeadsRequest, HeadsResponse};
use ruma::api::{
    IncomingRequest, Metadata, error::DeserializationError,
    federation::authentication::ServerSignatures, path_builder::SinglePath,
};

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

pub(super) fn router() -> Router<Homeserver> {
    Router::new().ruma(compare)
}

/// The operation, in the form in which ruma has those of the specification.
struct Compare(HeadsRequest);

impl Metadata for Compare {
    const METHOD: http::Method = http::Method::POST;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(HEADS_PATH);
}

impl IncomingRequest for Compare {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<HeadsResponse>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        let parsed = HeadsRequest::parse(request.body());
        parsed.map(Self).map_err(|error| {
            DeserializationError::Json(serde::de::Error::custom(error.to_string()))
        })
    }
}

/// `POST /_matrix/federation/unstable/net.messagehub/heads`
async fn compare(
    hs: Homeserver,
    Origin(origin): Origin,
    Compare(request): Compare,
) -> Result<JsonAnswer<HeadsResponse>, ApiError> {
    Ok(JsonAnswer(heads::compare(&hs, origin, request).await?))
}
