//! Requests that travel through another server, where two servers have no path to each other.
//!
//! The request is an ordinary signed one. It is sealed to a verify key of its destination, and the
//! answer under a key that follows from the same agreement: whoever carries them learns who asks
//! whom, when and how much, and can change nothing. That an answer opens proves that the
//! destination gave it, since nobody else can know the key.
//!
//! Nothing here draws random numbers: the caller brings them.

use std::fmt;

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use data_encoding::BASE64_NOPAD;
use ruma::{OwnedServerName, ServerName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::{
    keys::{AGREEMENT_BYTES, VerifyKey},
    limits::{MAX_RELAYED_ANSWER_BYTES, MAX_RELAYED_REQUEST_BYTES, MAX_URI_BYTES},
    server_keys::ServerKeys,
};

/// Where a server is asked to carry a sealed request on.
pub const RELAY_PATH: &str = "/_matrix/federation/unstable/net.messagehub/relay";

/// Where a server takes a sealed request that another one carried.
pub const RELAYED_PATH: &str = "/_matrix/federation/unstable/net.messagehub/relayed";

/// What may be relayed begins so; nothing else of a server is reachable by peers anyway.
const PREFIX: &str = "/_matrix/federation/";

/// What is never relayed: relaying itself, so that there is one hop and no loop; the keys of
/// frames, which are only given to the peer that asks; and media, which is large and has
/// other ways.
const EXCLUDED: &[&str] = &[
    RELAY_PATH,
    "/_matrix/federation/unstable/net.messagehub/room_keys",
    "/_matrix/federation/v1/media/",
    "/_matrix/federation/unstable/net.messagehub/media",
    "/_matrix/federation/unstable/net.messagehub/media",
];

/// Sets the key of a request, and what is sealed under it, apart from all others.
const REQUEST_DOMAIN: &[u8] = b"messagehub relayed request 1\0";

/// Sets the key of an answer, and what is sealed under it, apart from all others.
const ANSWER_DOMAIN: &[u8] = b"messagehub relayed answer 1\0";

/// Bytes of the nonce in front of what is sealed.
const NONCE_BYTES: usize = 24;

/// What sealing adds: the nonce and the authentication tag.
const OVERHEAD: usize = NONCE_BYTES + 16;

/// A signed request as it is before it is sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InnerRequest {
    /// The HTTP method, in upper case.
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// The text of the `Authorization` header.
    pub authorization: String,
    /// The text of the [`super::request::SERVER_KEYS_HEADER`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_keys: Option<String>,
    /// The JSON body; absent where the request has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Box<RawValue>>,
}

/// An answer as it is before it is sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InnerAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The JSON body.
    pub content: Box<RawValue>,
}

/// A sealed request: the body of [`RELAY_PATH`] and, unchanged, of [`RELAYED_PATH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRequest {
    /// Who is to open it.
    pub destination: OwnedServerName,
    /// The id of the verify key that it is sealed to.
    pub key_id: String,
    /// The X25519 public key that was made for this request alone.
    #[serde(serialize_with = "to_base64", deserialize_with = "array_of_base64")]
    pub ephemeral: [u8; AGREEMENT_BYTES],
    /// The nonce, and the sealed [`InnerRequest`].
    #[serde(serialize_with = "to_base64", deserialize_with = "of_base64")]
    pub sealed: Vec<u8>,
}

/// A sealed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedAnswer {
    /// The nonce, and the sealed [`InnerAnswer`].
    #[serde(serialize_with = "to_base64", deserialize_with = "of_base64")]
    pub sealed: Vec<u8>,
}

/// The random numbers of one sealed request. Never to be used twice.
pub struct Secrets {
    /// The secret of the key that is made for this request.
    pub ephemeral: [u8; AGREEMENT_BYTES],
    /// The nonce.
    pub nonce: [u8; NONCE_BYTES],
}

/// Seals and opens the answer to one request.
pub struct AnswerKey([u8; 32]);

/// Why something cannot be relayed, or is not what was relayed.
#[derive(Debug, Error)]
pub enum RelayedError {
    /// Not the JSON that it must be.
    #[error("relayed: {0}")]
    Form(#[from] serde_json::Error),
    /// Above its bound.
    #[error("relayed: the {0} is too large")]
    TooLarge(&'static str),
    /// An operation that is not relayed.
    #[error("relayed: this operation is not relayed")]
    Excluded,
    /// For another server, or for a key that is none of it.
    #[error("relayed: sealed for somebody else")]
    AnotherKey,
    /// It does not open: it was not sealed for us, or it was changed on its way.
    #[error("relayed: it does not open")]
    Sealed,
}

/// Whether an operation may travel through another server.
pub fn may_be_relayed(uri: &str) -> bool {
    uri.len() <= MAX_URI_BYTES
        && uri.starts_with(PREFIX)
        && !uri.contains("/../")
        && !EXCLUDED.iter().any(|excluded| uri.starts_with(excluded))
}

impl SealedRequest {
    /// Seals a request to a current verify key of its destination.
    ///
    /// # Errors
    ///
    /// [`RelayedError::Excluded`] and [`RelayedError::TooLarge`].
    pub fn seal(
        request: &InnerRequest,
        destination: &ServerKeys,
        secrets: &Secrets,
    ) -> Result<(Self, AnswerKey), RelayedError> {
        if !may_be_relayed(&request.uri) {
            return Err(RelayedError::Excluded);
        }
        let text = serde_json::to_vec(request)?;
        if text.len() > MAX_RELAYED_REQUEST_BYTES {
            return Err(RelayedError::TooLarge("request"));
        }
        let (key_id, _) = destination.verify_keys().next().ok_or(RelayedError::AnotherKey)?;
        let public = destination.current_key(key_id).ok_or(RelayedError::AnotherKey)?;
        let (ephemeral, shared) = public.agree(&secrets.ephemeral).ok_or(RelayedError::Sealed)?;
        let keys = derive(&shared, &ephemeral, public.as_bytes());
        let name = destination.server_name();
        let sealed = seal(&keys.request, &secrets.nonce, &text, &associated(name))?;
        let request =
            Self { destination: name.to_owned(), key_id: key_id.to_owned(), ephemeral, sealed };
        Ok((request, keys.answer))
    }

    /// Reads a sealed request.
    ///
    /// # Errors
    ///
    /// [`RelayedError::Form`] and [`RelayedError::TooLarge`].
    pub fn parse(json: &[u8]) -> Result<Self, RelayedError> {
        let request: Self = serde_json::from_slice(json)?;
        if request.sealed.len() > MAX_RELAYED_REQUEST_BYTES + OVERHEAD {
            return Err(RelayedError::TooLarge("request"));
        }
        Ok(request)
    }

    /// Opens a request that was sealed to our verify key. Who made it is not known yet: its
    /// signature is still to be checked.
    ///
    /// # Errors
    ///
    /// [`RelayedError`].
    pub fn open(
        &self,
        us: &ServerName,
        key: &VerifyKey,
    ) -> Result<(InnerRequest, AnswerKey), RelayedError> {
        if self.destination != us || self.key_id != key.key_id().as_str() {
            return Err(RelayedError::AnotherKey);
        }
        let shared = key.agree(&self.ephemeral).ok_or(RelayedError::Sealed)?;
        let keys = derive(&shared, &self.ephemeral, &key.public_key());
        let text = open(&keys.request, &self.sealed, &associated(us))?;
        let request: InnerRequest = serde_json::from_slice(&text)?;
        if !may_be_relayed(&request.uri) {
            return Err(RelayedError::Excluded);
        }
        Ok((request, keys.answer))
    }
}

impl AnswerKey {
    /// Seals an answer. One request has one answer: where it comes again, a new nonce is needed.
    ///
    /// # Errors
    ///
    /// [`RelayedError::TooLarge`].
    pub fn seal(
        &self,
        answer: &InnerAnswer,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<SealedAnswer, RelayedError> {
        let text = serde_json::to_vec(answer)?;
        if text.len() > MAX_RELAYED_ANSWER_BYTES {
            return Err(RelayedError::TooLarge("answer"));
        }
        Ok(SealedAnswer { sealed: seal(&self.0, nonce, &text, ANSWER_DOMAIN)? })
    }

    /// Opens the answer to the request that this key came with.
    ///
    /// # Errors
    ///
    /// [`RelayedError::Sealed`] when another gave it, or changed it.
    pub fn open(&self, answer: &SealedAnswer) -> Result<InnerAnswer, RelayedError> {
        if answer.sealed.len() > MAX_RELAYED_ANSWER_BYTES + OVERHEAD {
            return Err(RelayedError::TooLarge("answer"));
        }
        Ok(serde_json::from_slice(&open(&self.0, &answer.sealed, ANSWER_DOMAIN)?)?)
    }
}

impl fmt::Debug for AnswerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerKey(..)")
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

struct Derived {
    request: [u8; 32],
    answer: AnswerKey,
}

/// Both keys, from the agreement and from who made it.
fn derive(
    shared: &[u8; AGREEMENT_BYTES],
    ephemeral: &[u8; AGREEMENT_BYTES],
    recipient: &[u8; 32],
) -> Derived {
    let key = |domain: &[u8]| {
        let mut hash = Sha256::new_with_prefix(domain);
        hash.update(shared);
        hash.update(ephemeral);
        hash.update(recipient);
        hash.finalize().into()
    };
    Derived { request: key(REQUEST_DOMAIN), answer: AnswerKey(key(ANSWER_DOMAIN)) }
}

/// What is authenticated with a request and not sealed.
fn associated(destination: &ServerName) -> Vec<u8> {
    [REQUEST_DOMAIN, destination.as_bytes()].concat()
}

fn seal(
    key: &[u8; 32],
    nonce: &[u8; NONCE_BYTES],
    text: &[u8],
    associated: &[u8],
) -> Result<Vec<u8>, RelayedError> {
    let payload = Payload { msg: text, aad: associated };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(XNonce::from_slice(nonce), payload);
    Ok([&nonce[..], &sealed.map_err(|_| RelayedError::Sealed)?].concat())
}

fn open(key: &[u8; 32], sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, RelayedError> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(RelayedError::Sealed)?;
    let payload = Payload { msg: sealed, aad: associated };
    XChaCha20Poly1305::new(key.into())
        .decrypt(XNonce::from_slice(nonce), payload)
        .map_err(|_| RelayedError::Sealed)
}

fn to_base64<S: Serializer>(bytes: impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_NOPAD.encode(bytes.as_ref()))
}

fn of_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_NOPAD.decode(text.as_bytes()).map_err(D::Error::custom)
}

fn array_of_base64<'de, D: Deserializer<'de>, const N: usize>(
    deserializer: D,
) -> Result<[u8; N], D::Error> {
    let bytes = of_base64(deserializer)?;
    bytes.try_into().map_err(|_| D::Error::custom("another number of bytes"))
}

#[cfg(test)]
mod tests;
