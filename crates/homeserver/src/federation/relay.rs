//! Asking a server to which there is no path through others that have one (D9).
//!
//! The request is signed as always and sealed to its destination (`protocol`'s `wire::relayed`), so
//! a carrier learns who asks whom, and nothing of what.

use std::time::Duration;

use bytes::Bytes;
use messagehub_protocol::{
    server_keys::ServerKeys,
    wire::relayed::{
        self, AnswerKey, InnerRequest, RELAY_PATH, SealedAnswer, SealedRequest, Secrets,
    },
};
use messagehub_store::{Snapshot, StoreError, memberships, server_keys};
use ruma::{OwnedServerName, ServerName};
use serde_json::value::RawValue;

use super::{ASK_TIMEOUT, Call, FederationError, carried_keys, keys, path_segment, sign};
use crate::{
    Homeserver,
    peers::{Counters, RequestError},
};

/// Carriers tried for one request: whoever waits for it waits for all of them.
const MAX_CARRIERS: usize = 3;

/// Connected servers that are looked at as carriers: more than one keeps connections to on purpose.
const MAX_LOOKED_AT: usize = 64;

/// How an attempt to reach a server through others ended.
pub(super) enum Carried {
    /// The destination answered.
    Answered(http::Response<Bytes>),
    /// Nobody has a path to it, or it cannot be asked this way.
    Nowhere,
}

/// Whether a request that got no answer may be tried through others: there was no path, and the
/// operation is one that travels.
pub(super) fn is_worth_it(
    hs: &Homeserver,
    destination: &ServerName,
    (uri, error): (&str, &RequestError),
) -> bool {
    let no_path = match error {
        RequestError::Unreachable => true,
        // Of a connected one it only says that it is slow.
        RequestError::TimedOut => !hs.peers.is_connected(destination),
        RequestError::TooLarge | RequestError::Refused(_) => false,
    };
    no_path && relayed::may_be_relayed(uri)
}

/// Sends a request through the servers that may have a path, until one of them has. Each attempt
/// has the whole `timeout`; a carrier without a path says so at once.
///
/// # Errors
/// Fails when the database does.
pub(super) async fn send(
    hs: &Homeserver,
    destination: &ServerName,
    call: &Call,
    timeout: Duration,
) -> Result<Carried, FederationError> {
    let Some((mut keys, carriers)) = carriers(hs, destination).await? else {
        return Ok(Carried::Nowhere);
    };
    for carrier in carriers {
        let mut carried = through(hs, &carrier, &keys, (call, timeout)).await;
        // The destination was there, and took nothing: it may have replaced the key that we know.
        if matches!(carried, Err(FederationError::Refused { status: 502, .. }))
            && let Some(newer) = newer_keys(hs, &carrier, &keys).await?
        {
            keys = newer;
            carried = through(hs, &carrier, &keys, (call, timeout)).await;
        }
        match carried {
            Ok(response) => {
                Counters::add(&hs.peers.counters().relayed_requests, 1);
                hs.peers.routes().note(destination, &carrier, hs.clock.now_ms());
                return Ok(Carried::Answered(response));
            }
            Err(FederationError::Store(error)) => return Err(error.into()),
            Err(error) => tracing::debug!(%destination, %carrier, %error, "not relayed"),
        }
    }
    hs.peers.routes().forget(destination);
    Ok(Carried::Nowhere)
}

/// As [`send`], through the carrier that served lately alone. `None` when there is none, or it
/// serves no more.
pub(super) async fn send_as_lately(
    hs: &Homeserver,
    destination: &ServerName,
    call: &Call,
    timeout: Duration,
) -> Result<Option<http::Response<Bytes>>, FederationError> {
    if hs.peers.is_connected(destination) || !relayed::may_be_relayed(&call.uri) {
        return Ok(None);
    }
    let Some(carrier) = hs.peers.routes().lately(destination, hs.clock.now_ms()) else {
        return Ok(None);
    };
    let to = destination.to_owned();
    let Some(keys) = hs.store.read(move |snap| server_keys::find(snap, &to)).await? else {
        return Ok(None);
    };
    match through(hs, &carrier, &keys, (call, timeout)).await {
        Ok(response) => {
            Counters::add(&hs.peers.counters().relayed_requests, 1);
            Ok(Some(response))
        }
        Err(FederationError::Store(error)) => Err(error.into()),
        Err(error) => {
            tracing::debug!(%destination, %carrier, %error, "not relayed any more");
            hs.peers.routes().forget(destination);
            Ok(None)
        }
    }
}

/// What a carrier knows of a destination that is newer than what we do. It asks the destination
/// where it has nothing that is valid for longer than ours.
async fn newer_keys(
    hs: &Homeserver,
    carrier: &OwnedServerName,
    known: &ServerKeys,
) -> Result<Option<ServerKeys>, StoreError> {
    let until = u64::from(known.valid_until_ts().get()).saturating_add(1);
    let server = path_segment(known.server_name().as_str());
    let uri = format!("/_matrix/key/v2/query/{server}?minimum_valid_until_ts={until}");
    let call = Call { method: http::Method::GET, uri, body: Vec::new() };
    let Ok(signed) = sign(hs, carrier, &call) else { return Ok(None) };
    let response = match hs.peers.request(carrier.clone(), signed, ASK_TIMEOUT).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%carrier, %error, "no keys of a destination");
            return Ok(None);
        }
    };
    keys::learn(hs, &carried_keys(response.body())).await?;
    let server = known.server_name().to_owned();
    let found = hs.store.read(move |snap| server_keys::find(snap, &server)).await?;
    Ok(found.filter(|found| found.is_newer_than(known)))
}

/// The keys to seal to, and whom to ask: connected servers that share a room with the destination
/// as far as we know, then others that share one with us and may know more.
async fn carriers(
    hs: &Homeserver,
    destination: &ServerName,
) -> Result<Option<(ServerKeys, Vec<OwnedServerName>)>, StoreError> {
    let mut near = hs.peers.connected();
    near.retain(|server| server != destination);
    near.truncate(MAX_LOOKED_AT);
    if near.is_empty() {
        return Ok(None);
    }
    let (us, to) = (hs.server_name().to_owned(), destination.to_owned());
    hs.store
        .read(move |snap| {
            let Some(keys) = server_keys::find(snap, &to)? else { return Ok(None) };
            let mut ranked = Vec::new();
            for server in near {
                if memberships::share_a_room(snap, &us, &server)? {
                    ranked.push((!is_near(snap, &server, &to)?, server));
                }
            }
            // Stable: among equals the order of the names.
            ranked.sort_by_key(|(far, _)| *far);
            let carriers: Vec<_> =
                ranked.into_iter().map(|(_, server)| server).take(MAX_CARRIERS).collect();
            Ok((!carriers.is_empty()).then_some((keys, carriers)))
        })
        .await
}

fn is_near(
    snap: &Snapshot<'_>,
    server: &ServerName,
    destination: &ServerName,
) -> Result<bool, StoreError> {
    memberships::share_a_room(snap, server, destination)
}

async fn through(
    hs: &Homeserver,
    carrier: &OwnedServerName,
    keys: &ServerKeys,
    (call, timeout): (&Call, Duration),
) -> Result<http::Response<Bytes>, FederationError> {
    let (sealed, key) = seal(hs, keys, call)?;
    let body = serde_json::to_vec(&sealed).map_err(unwritable)?;
    let relay = Call { method: http::Method::POST, uri: RELAY_PATH.to_owned(), body };
    let signed = sign(hs, carrier, &relay)?;
    let response = hs.peers.request(carrier.clone(), signed, timeout).await?;
    if !response.status().is_success() {
        return Err(super::refusal(&response));
    }
    let sealed: SealedAnswer = serde_json::from_slice(response.body())
        .map_err(|error| FederationError::BadAnswer(error.to_string()))?;
    open(&key, &sealed)
}

/// Signs anew for each attempt: the destination takes no request twice.
fn seal(
    hs: &Homeserver,
    keys: &ServerKeys,
    call: &Call,
) -> Result<(SealedRequest, AnswerKey), FederationError> {
    let signed = sign(hs, keys.server_name(), call)?;
    let header = |name: &str| {
        signed.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let content = match call.body.as_slice() {
        [] => None,
        body => {
            let text = String::from_utf8(body.to_vec())
                .map_err(|error| FederationError::BadRequest(error.to_string()))?;
            Some(RawValue::from_string(text).map_err(unwritable)?)
        }
    };
    let request = InnerRequest {
        method: call.method.as_str().to_owned(),
        uri: call.uri.clone(),
        authorization: header(http::header::AUTHORIZATION.as_str()).unwrap_or_default(),
        server_keys: header(messagehub_protocol::wire::request::SERVER_KEYS_HEADER),
        content,
    };
    let secrets = Secrets { ephemeral: hs.rng.bytes(), nonce: hs.rng.bytes() };
    SealedRequest::seal(&request, keys, &secrets)
        .map_err(|error| FederationError::BadRequest(error.to_string()))
}

fn open(key: &AnswerKey, sealed: &SealedAnswer) -> Result<http::Response<Bytes>, FederationError> {
    let bad = |error: String| FederationError::BadAnswer(error);
    let answer = key.open(sealed).map_err(|error| bad(error.to_string()))?;
    http::Response::builder()
        .status(answer.status)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Bytes::from(answer.content.get().to_owned()))
        .map_err(|error| bad(error.to_string()))
}

fn unwritable(error: serde_json::Error) -> FederationError {
    FederationError::BadRequest(error.to_string())
}
