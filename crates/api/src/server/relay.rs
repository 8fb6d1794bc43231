//! Carrying requests of others, and answering those that others carried (D9): operations of ours.

use axum::{Router, body::Body};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use messagehub_homeserver::{
    Homeserver,
    server::relay::{self, RelayError},
};
use messagehub_protocol::{
    limits::MAX_RELAYED_ANSWER_BYTES,
    wire::relayed::{RELAY_PATH, RELAYED_PATH, RelayedError, SealedAnswer, SealedRequest},
};
use ruma::api::{
    IncomingRequest, Metadata, error::DeserializationError,
    federation::authentication::ServerSignatures, path_builder::SinglePath,
};
use tower::ServiceExt;

use super::{auth::Origin, keyed::JsonAnswer};
use crate::{ApiError, endpoint::RumaRoutes};

/// `operations` are those that a relayed request reaches; these two are not among them, so nothing
/// is relayed twice.
pub(super) fn router(operations: Router) -> Router<Homeserver> {
    let relayed = move |hs: Homeserver, origin: Origin, request: Relayed| {
        let operations = operations.clone();
        async move { take(hs, origin, request, operations).await }
    };
    Router::new().ruma(carry).ruma(relayed)
}

/// The operation at a carrier, in the form in which ruma has those of the specification.
struct Relay(SealedRequest);

/// The operation at the destination.
struct Relayed(SealedRequest);

impl Metadata for Relay {
    const METHOD: http::Method = http::Method::POST;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(RELAY_PATH);
}

impl Metadata for Relayed {
    const METHOD: http::Method = http::Method::POST;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(RELAYED_PATH);
}

impl IncomingRequest for Relay {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<SealedAnswer>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        parse(request.body()).map(Self)
    }
}

impl IncomingRequest for Relayed {
    type EndpointError = ruma::api::error::Error;
    type OutgoingResponse = JsonAnswer<SealedAnswer>;

    fn try_from_http_request_inner(
        request: http::Request<&[u8]>,
        _: &[&str],
    ) -> Result<Self, DeserializationError> {
        parse(request.body()).map(Self)
    }
}

fn parse(body: &[u8]) -> Result<SealedRequest, DeserializationError> {
    SealedRequest::parse(body)
        .map_err(|error| DeserializationError::Json(serde::de::Error::custom(error.to_string())))
}

/// `POST /_matrix/federation/unstable/net.messagehub/relay`
async fn carry(
    hs: Homeserver,
    Origin(origin): Origin,
    Relay(request): Relay,
) -> Result<JsonAnswer<SealedAnswer>, ApiError> {
    Ok(JsonAnswer(relay::carry(&hs, &origin, &request).await?))
}

/// `POST /_matrix/federation/unstable/net.messagehub/relayed`
async fn take(
    hs: Homeserver,
    Origin(carrier): Origin,
    Relayed(request): Relayed,
    operations: Router,
) -> Result<JsonAnswer<SealedAnswer>, ApiError> {
    let opened = relay::open(&hs, carrier, &request).await?;
    let answering = operations.oneshot(opened.request.map(Body::from));
    let (parts, body) = match answering.await {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    };
    let body = Limited::new(body, MAX_RELAYED_ANSWER_BYTES).collect().await;
    let too_large = |_| RelayError::Sealed(RelayedError::TooLarge("answer"));
    let body: Bytes = body.map_err(too_large)?.to_bytes();
    let response = http::Response::from_parts(parts, body);
    Ok(JsonAnswer(relay::seal(&hs, &opened.key, response)?))
}
