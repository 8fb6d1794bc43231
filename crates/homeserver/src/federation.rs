//! Asking other servers: one function that signs, sends and reads any operation of the
//! Server-Server API, and learns every `server_keys` that comes with an answer.
//!
//! Invariant: nothing here judges events. What an answer carries goes through `ingest`.

pub mod announce;
pub mod keys;
mod relay;
pub mod route;

use std::time::Duration;

use bytes::Bytes;
use messagehub_protocol::wire::request;
use messagehub_store::StoreError;
use ruma::{
    ServerName,
    api::{IncomingResponse, OutgoingBody, OutgoingRequest, path_builder::PathBuilder},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Homeserver, peers::RequestError};

/// How long a question may take that a person waits for, when there may be others to ask.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Stands before a path while ruma builds a URI; it never leaves this node.
const BASE_URL: &str = "http://peer";

/// The largest part of an error text of another server that is kept.
const MAX_ERROR_CHARS: usize = 200;

/// The longest pause that is believed, in milliseconds: our users wait for it, and another server
/// must not silence them for longer.
const MAX_RETRY_AFTER_MS: u64 = 60 * 60 * 1_000;

/// Why another server gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// There was no answer.
    #[error(transparent)]
    Transport(#[from] RequestError),
    /// The other server refused, in the words of the specification.
    #[error("refused with {status} {errcode}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `errcode`; empty when the answer is no standard error.
        errcode: String,
        /// The text, cut to a sensible length.
        message: String,
        /// Where it was asked too often: when it may be asked again, if it says so.
        retry_after_ms: Option<u64>,
    },
    /// The answer is not what the operation answers.
    #[error("the answer cannot be read: {0}")]
    BadAnswer(String),
    /// The request cannot be written as HTTP.
    #[error("the request cannot be written: {0}")]
    BadRequest(String),
    /// Our own database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FederationError {
    /// Whether asking the same again later may succeed: the other server was not there, or was
    /// unable rather than unwilling.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(RequestError::TooLarge) => false,
            Self::Transport(_) | Self::Store(_) => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429 || *status == 401,
            Self::BadAnswer(_) | Self::BadRequest(_) => false,
        }
    }

    /// Whether the other server has surely done nothing of what it was asked for: it said why it does
    /// not, be it only for now, or was never asked.
    pub fn is_no(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status < 500,
            Self::BadRequest(_) => true,
            Self::Transport(_) | Self::BadAnswer(_) | Self::Store(_) => false,
        }
    }

    /// Whether the other server has answered that it does not give what it was asked for. That it was
    /// asked too often says nothing of what it has.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status != 429)
    }
}

/// Asks `destination` one operation of the Server-Server API.
///
/// Any `server_keys` in the answer are verified and remembered before it is given. Dropping the
/// future gives the request up.
///
/// # Errors
/// No answer within `timeout`, a refusal, or an answer of another form.
pub async fn ask<R>(
    hs: &Homeserver,
    destination: &ServerName,
    request: R,
    timeout: Duration,
) -> Result<R::IncomingResponse, FederationError>
where
    R: OutgoingRequest,
    for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
{
    let unsigned = request
        .try_into_http_request_inner(BASE_URL, ())
        .map_err(|error| FederationError::BadRequest(error.to_string()))?;
    let (parts, body) = unsigned.into_parts();
    let body: Vec<u8> = body
        .try_into_buf()
        .map_err(|error| FederationError::BadRequest(error.into().to_string()))?;
    let uri = parts.uri.path_and_query().map_or("/", |both| both.as_str()).to_owned();
    let response = send(hs, destination, Call { method: parts.method, uri, body }, timeout).await?;
    read(response)
}

/// Asks `destination` an operation of our own, which ruma has no type for: JSON in, JSON out.
///
/// # Errors
/// Those of [`ask`].
pub async fn ask_json<T: serde::de::DeserializeOwned>(
    hs: &Homeserver,
    destination: &ServerName,
    call: Call,
    timeout: Duration,
) -> Result<T, FederationError> {
    let response = send(hs, destination, call, timeout).await?;
    serde_json::from_slice(response.body())
        .map_err(|error| FederationError::BadAnswer(error.to_string()))
}

/// As [`ask_json`], for an answer whose reader checks more than its form.
///
/// # Errors
/// Those of [`ask`].
pub async fn ask_raw(
    hs: &Homeserver,
    destination: &ServerName,
    call: Call,
    timeout: Duration,
) -> Result<Bytes, FederationError> {
    Ok(send(hs, destination, call, timeout).await?.into_body())
}

/// A request before it is signed.
#[derive(Debug)]
pub struct Call {
    /// The HTTP method.
    pub method: http::Method,
    /// Path and query.
    pub uri: String,
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

async fn send(
    hs: &Homeserver,
    destination: &ServerName,
    call: Call,
    timeout: Duration,
) -> Result<http::Response<Bytes>, FederationError> {
    let response = transport(hs, destination, &call, timeout).await?;
    if !response.status().is_success() {
        return Err(refusal(&response));
    }
    keys::learn(hs, &carried_keys(response.body())).await?;
    Ok(response)
}

/// Carries a request over a path of our own, and where there is none through a server that has one.
async fn transport(
    hs: &Homeserver,
    destination: &ServerName,
    call: &Call,
    timeout: Duration,
) -> Result<http::Response<Bytes>, FederationError> {
    if let Some(response) = relay::send_as_lately(hs, destination, call, timeout).await? {
        return Ok(response);
    }
    let signed = sign(hs, destination, call)?;
    let error = match hs.peers.request(destination.to_owned(), signed, timeout).await {
        Ok(response) => return Ok(response),
        Err(error) => error,
    };
    if relay::is_worth_it(hs, destination, (&call.uri, &error))
        && let relay::Carried::Answered(response) =
            relay::send(hs, destination, call, timeout).await?
    {
        return Ok(response);
    }
    Err(error.into())
}

/// The `server_keys` beside the answer proper (D6); none in answers that are not JSON objects.
fn carried_keys(body: &[u8]) -> Vec<Box<RawValue>> {
    #[derive(Deserialize, Default)]
    struct Carrier {
        #[serde(default)]
        server_keys: Vec<Box<RawValue>>,
    }
    if !body.starts_with(b"{") {
        return Vec::new();
    }
    serde_json::from_slice::<Carrier>(body).unwrap_or_default().server_keys
}

fn read<R: IncomingResponse>(response: http::Response<Bytes>) -> Result<R, FederationError> {
    let (parts, body) = response.into_parts();
    R::try_from_http_response_inner(http::Response::from_parts(parts, &*body))
        .map_err(|error| FederationError::BadAnswer(error.to_string()))
}

fn refusal(response: &http::Response<Bytes>) -> FederationError {
    #[derive(Deserialize, Default)]
    struct Standard {
        #[serde(default)]
        errcode: String,
        #[serde(default)]
        error: String,
        /// Older than the header, and what servers of before Matrix 1.10 send alone.
        #[serde(default)]
        retry_after_ms: Option<u64>,
    }
    let said = serde_json::from_slice::<Standard>(response.body()).unwrap_or_default();
    let pause = said.retry_after_ms.or_else(|| retry_after_ms(response.headers()));
    FederationError::Refused {
        status: response.status().as_u16(),
        errcode: said.errcode.chars().take(MAX_ERROR_CHARS).collect(),
        message: said.error.chars().take(MAX_ERROR_CHARS).collect(),
        retry_after_ms: pause.map(|ms| ms.min(MAX_RETRY_AFTER_MS)),
    }
}

/// The pause that the header asks for in seconds; its other form, a date, says nothing of our clock.
fn retry_after_ms(headers: &http::HeaderMap) -> Option<u64> {
    let seconds: u64 = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(seconds.saturating_mul(1_000))
}

/// Puts our signature, and the keys to check it with, on a request.
fn sign(
    hs: &Homeserver,
    destination: &ServerName,
    call: &Call,
) -> Result<http::Request<Bytes>, FederationError> {
    let unwritable = |error: String| FederationError::BadRequest(error);
    let parts =
        request::RequestParts { method: call.method.as_str(), uri: &call.uri, body: &call.body };
    let (verify_key, server_keys) = hs.identity.signing();
    let signature = request::sign(
        parts,
        hs.server_name(),
        destination,
        hs.peers.signing_time(hs.clock.now()),
        verify_key,
    )
    .map_err(|error| unwritable(error.to_string()))?;
    let mut signed = http::Request::builder()
        .method(call.method.clone())
        .uri(&call.uri)
        .header(http::header::AUTHORIZATION, signature.header_value())
        .header(request::SERVER_KEYS_HEADER, request::server_keys_header(&server_keys));
    if !call.body.is_empty() {
        signed = signed.header(http::header::CONTENT_TYPE, "application/json");
    }
    signed.body(Bytes::from(call.body.clone())).map_err(|error| unwritable(error.to_string()))
}

/// One segment of a path: what is no unreserved character is percent-encoded.
pub fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                segment.push(char::from(byte));
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_holds_nothing_that_ends_it() {
        for (text, segment) in
            [("!a:b", "%21a%3Ab"), ("$x_-~.1", "%24x_-~.1"), ("../é", "..%2F%C3%A9"), ("", "")]
        {
            assert_eq!(path_segment(text), segment);
        }
    }

    #[test]
    fn what_cannot_change_is_not_repeated() {
        let refused = |status| FederationError::Refused {
            status,
            errcode: String::new(),
            message: String::new(),
            retry_after_ms: None,
        };
        for (error, expected) in [
            (RequestError::Unreachable.into(), true),
            (RequestError::TooLarge.into(), false),
            (refused(403), false),
            (refused(404), false),
            (refused(401), true),
            (refused(429), true),
            (refused(502), true),
            (FederationError::BadAnswer(String::new()), false),
        ] {
            let error: FederationError = error;
            assert_eq!(error.is_transient(), expected, "{error}");
        }
    }

    #[test]
    fn a_pause_is_read_from_body_and_header() {
        let pause = |header: Option<&str>, body: &'static str| {
            let mut response = http::Response::builder().status(429);
            if let Some(header) = header {
                response = response.header(http::header::RETRY_AFTER, header);
            }
            match refusal(&response.body(Bytes::from_static(body.as_bytes())).unwrap()) {
                FederationError::Refused { retry_after_ms, .. } => retry_after_ms,
                other => panic!("{other}"),
            }
        };
        let body = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"","retry_after_ms":1500}"#;
        for (header, body, expected) in [
            (None, body, Some(1_500)),
            (Some("7"), body, Some(1_500)),
            (Some("7"), "{}", Some(7_000)),
            (Some("Wed, 21 Oct 2015 07:28:00 GMT"), "{}", None),
            (Some("18446744073709551615"), "", Some(MAX_RETRY_AFTER_MS)),
            (None, r#"{"retry_after_ms":-1}"#, None),
        ] {
            assert_eq!(pause(header, body), expected, "{header:?} {body}");
        }
    }

    #[test]
    fn keys_are_found_in_objects_only() {
        assert_eq!(carried_keys(br#"{"server_keys":[{"a":1}],"pdus":[]}"#).len(), 1);
        for none in [&b"[]"[..], b"", b"--boundary", br#"{"pdus":[]}"#, br#"{"server_keys":1}"#] {
            assert!(carried_keys(none).is_empty());
        }
    }
}
