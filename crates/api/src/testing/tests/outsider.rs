//! Somebody with keys and no node: signs what it likes.

use bytes::Bytes;
use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    server_keys::{ServerKeys, ServerKeysTerms},
    wire::request::{self, RequestParts, SERVER_KEYS_HEADER},
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, ServerName, UserId};

/// A server that is nowhere.
pub(super) struct Outsider {
    pub(super) verify_key: VerifyKey,
    pub(super) keys: ServerKeys,
    pub(super) peer_id: String,
}

impl Outsider {
    /// One whose keys follow from a number.
    pub(super) fn new(number: u8, now: MilliSecondsSinceUnixEpoch) -> Self {
        let identity = IdentityKey::from_seed(&[number; 32]);
        let verify_key = VerifyKey::from_seed(&[number + 1; 32]);
        let tail = format!("{number:044}").replace('0', "z");
        let peer_id = format!("12D3KooW{tail}");
        let terms = ServerKeysTerms {
            old_verify_keys: Vec::new(),
            peer_ids: vec![peer_id.clone()],
            issued_ts: now,
        };
        let keys = ServerKeys::make(&identity, &verify_key, terms);
        Self { verify_key, keys, peer_id }
    }

    pub(super) fn name(&self) -> &ServerName {
        self.keys.server_name()
    }

    pub(super) fn user_id(&self, localpart: &str) -> OwnedUserId {
        UserId::parse(format!("@{localpart}:{}", self.name())).unwrap()
    }

    pub(super) fn signed(
        &self,
        parts: (&str, &str, impl AsRef<[u8]>),
        to: &ServerName,
        at: MilliSecondsSinceUnixEpoch,
    ) -> http::Request<Bytes> {
        signed(parts, (&self.keys, &self.verify_key), to, at)
    }
}

/// A request to a server, signed by whoever has these keys.
pub(super) fn signed(
    (method, uri, body): (&str, &str, impl AsRef<[u8]>),
    (keys, verify_key): (&ServerKeys, &VerifyKey),
    to: &ServerName,
    at: MilliSecondsSinceUnixEpoch,
) -> http::Request<Bytes> {
    let body = body.as_ref();
    let parts = RequestParts { method, uri, body };
    let signature = request::sign(parts, keys.server_name(), to, at, verify_key).unwrap();
    http::Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::AUTHORIZATION, signature.header_value())
        .header(SERVER_KEYS_HEADER, request::server_keys_header(keys))
        .body(Bytes::copy_from_slice(body))
        .unwrap()
}
