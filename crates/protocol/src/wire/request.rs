//! `X-Matrix` request signatures, with a time in them.
//!
//! As in the Server-Server API, "Request Authentication", with one parameter and one signed field
//! more: `origin_server_ts`. So a request can be relayed by any node and still be refused when it
//! is old or repeated.

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName};
use thiserror::Error;

use super::signed::is_fresh;
use crate::{
    canonical::{JsonError, canonicalize_envelope, write_integer, write_string},
    keys::{SIGNATURE_BYTES, VerifyKey},
    limits::{MAX_AUTHORIZATION_BYTES, MAX_SERVER_KEYS_BYTES, MAX_URI_BYTES},
    server_keys::{ServerKeys, ServerKeysError},
};

mod header;
mod replay;

pub use replay::{ReplayFilter, UniqueTimes};

/// The header that carries the sender's `server_keys` where the receiver may lack them: the JSON
/// in unpadded base64.
pub const SERVER_KEYS_HEADER: &str = "x-matrix-server-keys";

/// A request as it is signed.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The HTTP method, in upper case.
    pub method: &'a str,
    /// Path and query as sent, percent-encoding included.
    pub uri: &'a str,
    /// The JSON body; empty where the request has none.
    pub body: &'a [u8],
}

/// The content of an `Authorization: X-Matrix …` header.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestSignature {
    origin: OwnedServerName,
    destination: OwnedServerName,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    key_id: OwnedServerSigningKeyId,
    signature: [u8; SIGNATURE_BYTES],
}

/// The sender of a request whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedOrigin {
    origin: OwnedServerName,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    id: RequestId,
}

/// What tells two signed requests, or two frames, of one origin and time apart.
pub type RequestId = [u8; 16];

/// Why a request is not taken as its origin's.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The header is no `X-Matrix` header of ours, or a parameter is missing, twice or malformed.
    #[error("Authorization header: `{0}` is missing or malformed")]
    Header(&'static str),
    /// A header or the request target is longer than its bound.
    #[error("the {0} is too long")]
    TooLong(&'static str),
    /// The body is not JSON with a canonical form.
    #[error("the body is not canonical JSON: {0}")]
    Body(#[from] JsonError),
    /// Signed for another server.
    #[error("the request is meant for another server")]
    AnotherDestination,
    /// More than ten minutes before or after our clock.
    #[error("the request is older or newer than ten minutes")]
    NotFresh,
    /// The same request came before.
    #[error("the request came before")]
    Replayed,
    /// So many origins at once that no more can be followed.
    #[error("too many origins at once")]
    Busy,
    /// `server_keys` of another server, expired ones, or ones without that key.
    #[error("no valid verify key of the origin has that id")]
    UnknownKey,
    /// The signature is not of that key over that request.
    #[error("the signature of the request is wrong")]
    Signature,
    /// The `server_keys` that came along are not the origin's.
    #[error(transparent)]
    ServerKeys(#[from] ServerKeysError),
}

/// Signs a request; `now` goes into what is signed, and must differ ([`UniqueTimes`]) where the
/// same request is sent twice: else the second is a repetition of the first.
///
/// # Errors
///
/// [`RequestError::Body`] and [`RequestError::TooLong`], for a request that nobody would take.
pub fn sign(
    request: RequestParts<'_>,
    origin: &ServerName,
    destination: &ServerName,
    now: MilliSecondsSinceUnixEpoch,
    key: &VerifyKey,
) -> Result<RequestSignature, RequestError> {
    let mut signature = RequestSignature {
        origin: origin.to_owned(),
        destination: destination.to_owned(),
        origin_server_ts: now,
        key_id: key.key_id().to_owned(),
        signature: [0; SIGNATURE_BYTES],
    };
    signature.signature = key.sign(signature.signed_text(request)?.as_bytes());
    Ok(signature)
}

impl RequestSignature {
    /// Reads an `Authorization` header.
    ///
    /// # Errors
    ///
    /// [`RequestError::Header`] and [`RequestError::TooLong`].
    pub fn parse(header: &str) -> Result<Self, RequestError> {
        header::parse(header)
    }

    /// The text of the `Authorization` header.
    pub fn header_value(&self) -> String {
        header::write(self)
    }

    /// Who claims to have sent the request.
    pub fn origin(&self) -> &ServerName {
        &self.origin
    }

    /// Whom the request is meant for.
    pub fn destination(&self) -> &ServerName {
        &self.destination
    }

    /// The id of the verify key that is said to have signed.
    pub fn key_id(&self) -> &str {
        self.key_id.as_str()
    }

    /// When the request says it was made.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// Checks destination, freshness, key and signature, in this order: what costs least first.
    /// `keys` are the origin's, however they came here. Repetition is checked apart, with
    /// [`ReplayFilter`], and so is whether the connection's PeerId may speak for the origin.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn verify(
        &self,
        request: RequestParts<'_>,
        us: &ServerName,
        keys: &ServerKeys,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<VerifiedOrigin, RequestError> {
        if self.destination != us {
            return Err(RequestError::AnotherDestination);
        }
        if !is_fresh(self.origin_server_ts, now) {
            return Err(RequestError::NotFresh);
        }
        if keys.server_name() != self.origin || !keys.is_valid_at(now) {
            return Err(RequestError::UnknownKey);
        }
        // Whether the keys are valid was asked of our clock, which no sender can set.
        let key = keys.current_key(self.key_id.as_str()).ok_or(RequestError::UnknownKey)?;
        if !key.verifies(self.signed_text(request)?.as_bytes(), &self.signature) {
            return Err(RequestError::Signature);
        }
        Ok(VerifiedOrigin {
            origin: self.origin.clone(),
            origin_server_ts: self.origin_server_ts,
            id: std::array::from_fn(|at| self.signature[at]),
        })
    }

    /// The canonical JSON that is signed, put together in the order of its keys.
    fn signed_text(&self, request: RequestParts<'_>) -> Result<String, RequestError> {
        if request.uri.len() > MAX_URI_BYTES {
            return Err(RequestError::TooLong("request target"));
        }
        let mut text = String::with_capacity(512 + request.body.len());
        text.push('{');
        if !request.body.is_empty() {
            text.push_str(r#""content":"#);
            text.push_str(&canonicalize_envelope(request.body)?);
            text.push(',');
        }
        text.push_str(r#""destination":"#);
        write_string(&mut text, self.destination.as_str());
        text.push_str(r#","method":"#);
        write_string(&mut text, request.method);
        text.push_str(r#","origin":"#);
        write_string(&mut text, self.origin.as_str());
        text.push_str(r#","origin_server_ts":"#);
        write_integer(&mut text, self.origin_server_ts.get().into());
        text.push_str(r#","uri":"#);
        write_string(&mut text, request.uri);
        text.push('}');
        Ok(text)
    }
}

// The signature itself is left out: a log must not hold what could be sent again.
impl fmt::Debug for RequestSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestSignature")
            .field("origin", &self.origin)
            .field("destination", &self.destination)
            .field("origin_server_ts", &self.origin_server_ts)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl VerifiedOrigin {
    /// The server that signed.
    pub fn server_name(&self) -> &ServerName {
        &self.origin
    }

    /// When it signed.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// What tells this request from the others of its origin.
    pub fn id(&self) -> RequestId {
        self.id
    }
}

/// The text of the [`SERVER_KEYS_HEADER`].
pub fn server_keys_header(keys: &ServerKeys) -> String {
    BASE64_NOPAD.encode(keys.json().get().as_bytes())
}

/// Reads and verifies a [`SERVER_KEYS_HEADER`], which must be of the origin of the request. Padding
/// is taken too. `known` are keys of the origin that were verified before: to find them again in
/// each of its requests costs no signature.
///
/// # Errors
///
/// [`RequestError::TooLong`], [`RequestError::Header`] or [`RequestError::ServerKeys`].
pub fn read_server_keys_header(
    header: &str,
    origin: &ServerName,
    known: Option<&ServerKeys>,
) -> Result<ServerKeys, RequestError> {
    if header.len() > BASE64.encode_len(MAX_SERVER_KEYS_BYTES) {
        return Err(RequestError::TooLong("X-Matrix-Server-Keys header"));
    }
    let malformed = RequestError::Header("X-Matrix-Server-Keys");
    let Ok(json) = BASE64_NOPAD.decode(header.trim_end_matches('=').as_bytes()) else {
        return Err(malformed);
    };
    let json = String::from_utf8(json).map_err(|_| malformed)?;
    if let Some(known) = known.filter(|known| known.json().get() == json) {
        return Ok(known.clone());
    }
    Ok(ServerKeys::verify_for(&json, origin)?)
}

#[cfg(test)]
mod tests;
