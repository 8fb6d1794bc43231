//! `server_keys`: what the identity key says about the keys and peers that speak for a server.
//!
//! The object of the Server-Server API's `GET /_matrix/key/v2/server` with `peer_ids` and
//! `issued_ts` added. It can be fetched from anyone, because it is verified with nothing but the
//! server name. Signed is its canonical JSON without `signatures`, unknown fields included.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt,
    canonical_json::CanonicalJsonObject,
};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    build::Signer,
    canonical::{JsonError, to_canonical},
    identity::ServerNameError,
    keys::{IdentityKey, PublicKey, VerifyKey},
    limits::{
        CLOCK_GRACE_MS, MAX_OLD_VERIFY_KEYS, MAX_PEER_IDS, MAX_SERVER_KEYS_BYTES, MAX_VERIFY_KEYS,
        SERVER_KEYS_RENEWAL_MS, SERVER_KEYS_VALIDITY_MS,
    },
};

mod make;
mod notary;
mod read;

/// The key id under which the identity key signs.
pub const IDENTITY_KEY_ID: &str = "ed25519:identity";

/// The verified `server_keys` of each server, by name.
pub type KeyRing = BTreeMap<OwnedServerName, ServerKeys>;

/// A `server_keys` object whose every signature was verified. Cheap to clone.
#[derive(Clone)]
pub struct ServerKeys(Arc<Inner>);

struct Inner {
    json: Box<RawValue>,
    server_name: OwnedServerName,
    issued_ts: u64,
    valid_until_ts: u64,
    verify_keys: BTreeMap<String, PublicKey>,
    old_verify_keys: BTreeMap<String, OldKey>,
    peer_ids: Vec<String>,
}

struct OldKey {
    key: PublicKey,
    expired_ts: u64,
}

/// What [`ServerKeys::make`] says beside the two keys.
#[derive(Debug, Clone)]
pub struct ServerKeysTerms {
    /// Keys that signed before; only the latest [`MAX_OLD_VERIFY_KEYS`] are kept.
    pub old_verify_keys: Vec<OldVerifyKey>,
    /// The libp2p PeerIds that speak for the server, at most [`MAX_PEER_IDS`].
    pub peer_ids: Vec<String>,
    /// The time of making; the validity of seven days begins here.
    pub issued_ts: MilliSecondsSinceUnixEpoch,
}

/// A verify key that signs no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldVerifyKey {
    /// The 32 bytes of the public key.
    pub public_key: [u8; 32],
    /// When it stopped to sign: valid for what was signed up to then.
    pub expired_ts: MilliSecondsSinceUnixEpoch,
}

/// Whether a room version cares that a key was valid at the time of an event.
///
/// Spec: room version 5, "Signing key validity period".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyValidity {
    /// The event must lie within the key's validity.
    Enforced,
    /// Any key that the server ever listed will do.
    Ignored,
}

/// Why an object is not the `server_keys` of a server.
#[derive(Debug, Error)]
pub enum ServerKeysError {
    /// Above [`MAX_SERVER_KEYS_BYTES`].
    #[error("server_keys of more than {MAX_SERVER_KEYS_BYTES} bytes")]
    TooLarge,
    /// Not JSON with a canonical form.
    #[error("server_keys are not canonical JSON: {0}")]
    Json(#[from] JsonError),
    /// A field is missing, has another type, or is spelled otherwise than we would.
    #[error("server_keys: `{0}` is missing or malformed")]
    Field(&'static str),
    /// The name is no key.
    #[error("server_keys: {0}")]
    Name(#[from] ServerNameError),
    /// Valid or not, they are of another server than the one asked for.
    #[error("server_keys of another server than asked for")]
    AnotherServer,
    /// More entries than the bound in a list.
    #[error("server_keys: too many entries in `{0}`")]
    TooMany(&'static str),
    /// `valid_until_ts` is before `issued_ts` or more than seven days after it.
    #[error("server_keys: times out of order or validity too long")]
    Times,
    /// A key's id is not derived from the key, or one key is both current and old.
    #[error("server_keys: a verify key under an id that is not its own")]
    KeyId,
    /// Not signed by the identity key, or not by each verify key.
    #[error("server_keys: a signature is missing or wrong")]
    Signature,
}

impl ServerKeys {
    /// Makes and signs the object, valid for seven days from its `issued_ts`.
    pub fn make(identity: &IdentityKey, verify: &VerifyKey, terms: ServerKeysTerms) -> Self {
        make::make(identity, verify, terms)
    }

    /// Verifies an object of whatever server it names.
    ///
    /// # Errors
    ///
    /// The first reason found why it is not what that server says about itself. Whether it has
    /// expired is another question: [`Self::is_expired_at`].
    pub fn verify(json: &str) -> Result<Self, ServerKeysError> {
        read::verify(json, None)
    }

    /// Verifies an object that must be of the server asked for.
    ///
    /// # Errors
    ///
    /// As [`Self::verify`], and [`ServerKeysError::AnotherServer`], found before any signature is
    /// looked at.
    pub fn verify_for(json: &str, expected: &ServerName) -> Result<Self, ServerKeysError> {
        read::verify(json, Some(expected))
    }

    /// The server that these keys speak for.
    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// When they were made.
    pub fn issued_ts(&self) -> MilliSecondsSinceUnixEpoch {
        timestamp(self.0.issued_ts)
    }

    /// Until when they are valid.
    pub fn valid_until_ts(&self) -> MilliSecondsSinceUnixEpoch {
        timestamp(self.0.valid_until_ts)
    }

    /// The libp2p PeerIds that speak for the server.
    pub fn peer_ids(&self) -> &[String] {
        &self.0.peer_ids
    }

    /// The object in canonical form, signatures included.
    pub fn json(&self) -> &RawValue {
        &self.0.json
    }

    /// The object with the signature of a notary added: for whoever cannot verify a server by its
    /// name, and trusts the notary instead.
    ///
    /// # Errors
    /// Never in practice: what was verified once can be read again.
    pub fn countersigned(&self, notary: Signer<'_>) -> Result<Box<RawValue>, ServerKeysError> {
        notary::countersigned(self, notary)
    }

    /// Whether these replace the others: of two valid objects the later one wins. At equal times
    /// the one with the greater text does, so that all nodes keep the same one.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.0.issued_ts, self.0.json.get()) > (other.0.issued_ts, other.0.json.get())
    }

    /// Whether the validity ended more than an hour before `now`.
    pub fn is_expired_at(&self, now: MilliSecondsSinceUnixEpoch) -> bool {
        millis(now) > self.0.valid_until_ts.saturating_add(CLOCK_GRACE_MS)
    }

    /// Whether they were made more than an hour after `now`: by a clock that is wrong, or to win
    /// over all that follow. Not to be stored.
    pub fn is_from_the_future_at(&self, now: MilliSecondsSinceUnixEpoch) -> bool {
        self.0.issued_ts > millis(now).saturating_add(CLOCK_GRACE_MS)
    }

    /// Whether they are neither expired nor from the future, by our own clock.
    pub fn is_valid_at(&self, now: MilliSecondsSinceUnixEpoch) -> bool {
        !self.is_expired_at(now) && !self.is_from_the_future_at(now)
    }

    /// Whether their owner should make new ones: three days are left, or the clock was set back.
    pub fn needs_renewal(&self, now: MilliSecondsSinceUnixEpoch) -> bool {
        millis(now).saturating_add(SERVER_KEYS_RENEWAL_MS) >= self.0.valid_until_ts
            || self.is_from_the_future_at(now)
    }

    /// The 32 bytes of the verify key with an id (`ed25519:…`), if it could sign at `ts`; an old
    /// key could up to its `expired_ts`.
    pub fn key_at(
        &self,
        key_id: &str,
        ts: MilliSecondsSinceUnixEpoch,
        validity: KeyValidity,
    ) -> Option<&[u8; 32]> {
        self.public_key_at(key_id, ts, validity).map(PublicKey::as_bytes)
    }

    /// As [`Self::key_at`], ready to verify with.
    pub fn public_key_at(
        &self,
        key_id: &str,
        ts: MilliSecondsSinceUnixEpoch,
        validity: KeyValidity,
    ) -> Option<&PublicKey> {
        let (key, until) = match self.0.verify_keys.get(key_id) {
            Some(key) => (key, self.0.valid_until_ts),
            None => self.0.old_verify_keys.get(key_id).map(|old| (&old.key, old.expired_ts))?,
        };
        (validity == KeyValidity::Ignored || millis(ts) <= until).then_some(key)
    }

    /// The verify key with an id (`ed25519:…`) if it signs now, ready to verify with.
    pub fn current_key(&self, key_id: &str) -> Option<&PublicKey> {
        self.0.verify_keys.get(key_id)
    }

    /// The verify keys that sign now, by id.
    pub fn verify_keys(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.0.verify_keys.iter().map(|(id, key)| (id.as_str(), key.as_bytes()))
    }

    /// The verify keys that sign no more, as their owner hands them on to the next object.
    pub fn old_verify_keys(&self) -> impl Iterator<Item = OldVerifyKey> {
        self.0.old_verify_keys.values().map(|old| OldVerifyKey {
            public_key: *old.key.as_bytes(),
            expired_ts: timestamp(old.expired_ts),
        })
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerKeys")
            .field("server_name", &self.0.server_name)
            .field("issued_ts", &self.0.issued_ts)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ServerKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.json.get() == other.0.json.get()
    }
}

impl Eq for ServerKeys {}

/// A time as a plain number of milliseconds.
pub(crate) fn millis(ts: MilliSecondsSinceUnixEpoch) -> u64 {
    ts.get().into()
}

/// A number that came out of canonical JSON, and so fits.
pub(crate) fn timestamp(millis: u64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(millis).unwrap_or(UInt::MAX))
}

/// Wraps what was read or made; the canonical text is made here and nowhere else.
fn raw(object: &CanonicalJsonObject) -> Box<RawValue> {
    #[expect(clippy::expect_used, reason = "the canonical form of an object is JSON")]
    RawValue::from_string(to_canonical(object)).expect("canonical JSON is JSON")
}

#[cfg(test)]
mod tests;
