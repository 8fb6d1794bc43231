//! `Authorization: X-Matrix`: from the headers of a request to the server that made it.
//!
//! Spec: Server-Server API, "Request Authentication".

use bytes::Bytes;
use http::{HeaderName, header};
use messagehub_homeserver::{
    Homeserver,
    peers::PeerIdentity,
    server::{
        origin::{self, Credentials},
        relay::Relayed,
    },
};
use messagehub_protocol::wire::request::{RequestParts, SERVER_KEYS_HEADER};
use ruma::{OwnedServerName, api::federation::authentication::ServerSignatures};

use crate::{ApiError, caller::Scheme};

/// The server that made a request. Its signature, the peer at the other end, the age of the
/// request and that it is no repetition were checked.
#[derive(Debug, Clone)]
pub(crate) struct Origin(pub(crate) OwnedServerName);

impl Scheme for ServerSignatures {
    type Caller = Origin;

    // The body is part of what is signed.
    const BODY_BEFORE_CALLER: bool = true;

    async fn identify(hs: &Homeserver, request: &http::Request<Bytes>) -> Result<Origin, ApiError> {
        let header =
            |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let credentials = Credentials {
            parts: RequestParts {
                method: request.method().as_str(),
                uri: request.uri().path_and_query().map_or("/", |both| both.as_str()),
                body: request.body(),
            },
            authorization: header(header::AUTHORIZATION),
            server_keys: header(HeaderName::from_static(SERVER_KEYS_HEADER)),
            peer: request.extensions().get::<PeerIdentity>(),
            relayed: request.extensions().get::<Relayed>(),
        };
        Ok(Origin(origin::authenticate(hs, credentials).await?))
    }
}
