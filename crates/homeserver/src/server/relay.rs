//! Carrying requests of others, and taking those that others carried (D9).
//!
//! One hop: what is carried is given to the destination alone, over a connection that there is
//! already, and what was carried to us reaches only operations that carry nothing.

use std::time::Duration;

use bytes::Bytes;
use messagehub_protocol::wire::{
    relayed::{
        AnswerKey, InnerAnswer, InnerRequest, RELAYED_PATH, RelayedError, SealedAnswer,
        SealedRequest,
    },
    request::SERVER_KEYS_HEADER,
};
use messagehub_store::{StoreError, memberships};
use ruma::{OwnedServerName, ServerName};
use serde_json::value::RawValue;

use crate::{
    Homeserver,
    federation::{self, Call, FederationError},
    peers::{Counters, REQUEST_TIMEOUT},
};

/// How long the destination may take for what we carry: what its origin waits for, less our share.
const CARRY_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_sub(Duration::from_secs(2));

/// In the extensions of a request: it did not come from the peer of its origin, but through another
/// server, which shares a room with us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed {
    /// Who carried it.
    pub carrier: OwnedServerName,
}

/// Why a request is not carried, or not taken from a carrier.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// The two servers share no room.
    #[error("relaying is for servers that share a room")]
    NoSharedRoom,
    /// There is no connection to the destination, and none is made for others.
    #[error("there is no connection to the destination")]
    NotConnected,
    /// So much is carried already.
    #[error("too much is relayed at once")]
    Busy,
    /// What was sealed is not for us, or is no request that may be relayed.
    #[error(transparent)]
    Sealed(#[from] RelayedError),
    /// The destination gave no answer that can be handed on.
    #[error("the destination did not answer: {0}")]
    NoAnswer(String),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Carries a sealed request of `origin` to its destination, and gives the sealed answer.
///
/// # Errors
/// Why it is not carried; each refusal is counted.
pub async fn carry(
    hs: &Homeserver,
    origin: &ServerName,
    request: &SealedRequest,
) -> Result<SealedAnswer, RelayError> {
    let carried = try_carry(hs, origin, request).await;
    let counters = hs.peers.counters();
    let counter = if carried.is_ok() { &counters.relays_carried } else { &counters.relays_refused };
    Counters::add(counter, 1);
    carried
}

async fn try_carry(
    hs: &Homeserver,
    origin: &ServerName,
    request: &SealedRequest,
) -> Result<SealedAnswer, RelayError> {
    let destination = &request.destination;
    if destination == hs.server_name() || destination == origin {
        return Err(RelayError::NotConnected);
    }
    share_a_room(hs, &[origin, destination]).await?;
    if !hs.peers.is_connected(destination) {
        return Err(RelayError::NotConnected);
    }
    let _slot = hs.peers.carrying().take(origin).ok_or(RelayError::Busy)?;
    let body = serde_json::to_vec(request).map_err(RelayedError::Form)?;
    let call = Call { method: http::Method::POST, uri: RELAYED_PATH.to_owned(), body };
    // One hop: this one never goes through others, since the operation itself is not relayed.
    match federation::ask_json(hs, destination, call, CARRY_TIMEOUT).await {
        Ok(answer) => Ok(answer),
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(error) => Err(RelayError::NoAnswer(error.to_string())),
    }
}

/// A request that was carried to us, opened and not yet believed: its own signature is for the
/// operation to check, as that of any other request.
#[derive(Debug)]
pub struct Opened {
    /// What is to be answered; its extensions say that it was relayed.
    pub request: http::Request<Bytes>,
    /// Seals the answer.
    pub key: AnswerKey,
    /// Holds one of the places for such requests.
    _slot: crate::peers::Slot,
}

/// Opens a sealed request that `carrier` brought.
///
/// # Errors
/// Why it is not taken.
pub async fn open(
    hs: &Homeserver,
    carrier: OwnedServerName,
    sealed: &SealedRequest,
) -> Result<Opened, RelayError> {
    share_a_room(hs, &[&carrier]).await?;
    let slot = hs.peers.taking().take(&carrier).ok_or(RelayError::Busy)?;
    let ours = hs.identity.verify_key_of(&sealed.key_id).ok_or(RelayedError::AnotherKey)?;
    let (inner, key) = sealed.open(hs.server_name(), ours)?;
    let request = request_of(inner, Relayed { carrier })?;
    Counters::add(&hs.peers.counters().relays_taken, 1);
    Ok(Opened { request, key, _slot: slot })
}

/// Seals the answer to a relayed request. What is no JSON is not relayed.
///
/// # Errors
/// [`RelayedError::TooLarge`].
pub fn seal(
    hs: &Homeserver,
    key: &AnswerKey,
    response: http::Response<Bytes>,
) -> Result<SealedAnswer, RelayError> {
    let (parts, body) = response.into_parts();
    let json =
        String::from_utf8(body.into()).ok().and_then(|text| RawValue::from_string(text).ok());
    let answer = match json {
        Some(content) => InnerAnswer { status: parts.status.as_u16(), content },
        None => not_relayable()?,
    };
    Ok(key.seal(&answer, &hs.rng.bytes())?)
}

/// What is said instead of an answer that does not travel.
fn not_relayable() -> Result<InnerAnswer, RelayedError> {
    let text = r#"{"errcode":"M_UNRECOGNIZED","error":"This operation is not relayed."}"#;
    let content = RawValue::from_string(text.to_owned())?;
    Ok(InnerAnswer { status: http::StatusCode::NOT_IMPLEMENTED.as_u16(), content })
}

fn request_of(inner: InnerRequest, relayed: Relayed) -> Result<http::Request<Bytes>, RelayError> {
    let mut request = http::Request::builder()
        .method(inner.method.as_str())
        .uri(&inner.uri)
        .header(http::header::AUTHORIZATION, inner.authorization);
    if let Some(server_keys) = inner.server_keys {
        request = request.header(SERVER_KEYS_HEADER, server_keys);
    }
    let body = match inner.content {
        Some(content) => {
            request = request.header(http::header::CONTENT_TYPE, "application/json");
            Bytes::from(content.get().to_owned())
        }
        None => Bytes::new(),
    };
    let mut request = request.body(body).map_err(|_| RelayedError::Excluded)?;
    request.extensions_mut().insert(relayed);
    Ok(request)
}

async fn share_a_room(hs: &Homeserver, with: &[&ServerName]) -> Result<(), RelayError> {
    let us = hs.server_name().to_owned();
    let with: Vec<OwnedServerName> = with.iter().map(|server| (*server).to_owned()).collect();
    hs.store
        .read(move |snap| {
            for server in with {
                if !memberships::share_a_room(snap, &us, &server)? {
                    return Err(RelayError::NoSharedRoom);
                }
            }
            Ok(())
        })
        .await
}
