//! The record of what every use-case needs, built once by the node and cloned freely.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    rules::DEFAULT_ROOM_VERSION,
    server_keys::{OldVerifyKey, ServerKeys, ServerKeysTerms},
};
use messagehub_store::Store;
use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, ServerName, UserId};

use crate::{
    clock::{Clock, timestamp},
    peers::Peers,
    rate::RateLimiter,
    rng::Rng,
};

/// An upload is held in memory while it is hashed: large enough for photos and short videos.
pub const DEFAULT_MAX_UPLOAD_BYTES: u64 = 50 * 1024 * 1024;

/// One homeserver. Six dependencies, all cheap to clone; there is nothing to fill in later.
#[derive(Clone, Debug)]
pub struct Homeserver {
    /// What this node remembers.
    pub store: Store,
    /// Who this node is.
    pub identity: Arc<Identity>,
    /// The way to other nodes.
    pub peers: Peers,
    /// What time it is.
    pub clock: Clock,
    /// Randomness.
    pub rng: Rng,
    /// What the configuration allows.
    pub limits: Arc<Limits>,
}

/// What a [`Homeserver`] is built from.
#[derive(Debug)]
pub struct Parts {
    /// The opened store.
    pub store: Store,
    /// The keys and the name.
    pub identity: Identity,
    /// Our end of the port to the transport.
    pub peers: Peers,
    /// The clock.
    pub clock: Clock,
    /// The random generator.
    pub rng: Rng,
    /// What the configuration allows.
    pub limits: Limits,
}

impl Homeserver {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Self {
            store: parts.store,
            identity: Arc::new(parts.identity),
            peers: parts.peers,
            clock: parts.clock,
            rng: parts.rng,
            limits: Arc::new(parts.limits),
        }
    }

    /// The server name of this node.
    pub fn server_name(&self) -> &ServerName {
        self.identity.server_name()
    }
}

/// How long what is being signed just now may take, in milliseconds: a replaced key is good for
/// events dated so much later.
const ROTATION_GRACE_MS: u64 = 60_000;

/// The keys of this node, its name, and its `server_keys` as they stand.
pub struct Identity {
    identity_key: IdentityKey,
    peer_ids: Vec<String>,
    /// That with which this run began.
    first: Voice,
    /// Held while something new is said, so that it is said one after the other.
    changing: Mutex<()>,
}

/// A key that signs and the object that says so: one without the other convinces nobody.
///
/// A replaced one stays in memory while the node runs: others seal requests to it until they hear
/// of the new one. Whoever could read it there could read the identity key, and needs nothing else.
struct Voice {
    verify_key: VerifyKey,
    server_keys: RwLock<ServerKeys>,
    /// That which replaced it.
    next: OnceLock<Box<Voice>>,
}

impl Voice {
    fn new(verify_key: VerifyKey, server_keys: ServerKeys) -> Self {
        Self { verify_key, server_keys: RwLock::new(server_keys), next: OnceLock::new() }
    }

    fn server_keys(&self) -> ServerKeys {
        self.server_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The secrets of a node, and the peers that may speak for it.
#[derive(Debug)]
pub struct IdentityParts {
    /// The key that is the server.
    pub identity_key: IdentityKey,
    /// The key that signs events and requests.
    pub verify_key: VerifyKey,
    /// The libp2p PeerIds that may speak for the server, ours among them.
    pub peer_ids: Vec<String>,
}

impl Identity {
    /// The identity that `parts` make.
    ///
    /// `remembered` is the last object this node issued, if any. It goes on being used while it
    /// says the same and is fresh, so that a restart does not make every peer learn a new one;
    /// verify keys that only it names have become old ones.
    pub fn new(
        parts: IdentityParts,
        remembered: Option<ServerKeys>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Self {
        let IdentityParts { identity_key, verify_key, peer_ids } = parts;
        let remembered = remembered.filter(|keys| keys.server_name() == identity_key.server_name());
        let old_verify_keys =
            remembered.as_ref().map(|keys| retired(keys, &verify_key, now)).unwrap_or_default();
        let still_true = remembered.filter(|keys| {
            keys.peer_ids() == peer_ids
                && keys.verify_keys().map(|(_, key)| *key).eq([verify_key.public_key()])
                && !keys.needs_renewal(now)
        });
        let server_keys = still_true.unwrap_or_else(|| {
            ServerKeys::make(&identity_key, &verify_key, terms(old_verify_keys, &peer_ids, now))
        });
        let first = Voice::new(verify_key, server_keys);
        Self { identity_key, peer_ids, first, changing: Mutex::new(()) }
    }

    /// The server name, which is the identity key (D1).
    pub fn server_name(&self) -> &ServerName {
        self.identity_key.server_name()
    }

    /// The key that signs events and requests.
    pub fn verify_key(&self) -> &VerifyKey {
        &self.voice().verify_key
    }

    /// The key with an id, if it is the one that signs or was since the start of this run.
    pub fn verify_key_of(&self, key_id: &str) -> Option<&VerifyKey> {
        self.voices().map(|voice| &voice.verify_key).find(|key| key.key_id().as_str() == key_id)
    }

    /// The key by which this server recommends events of rooms whose policy server it is.
    pub fn policy_key(&self) -> VerifyKey {
        self.identity_key.policy_key()
    }

    /// The peers that may speak for this server, ours among them.
    pub fn peer_ids(&self) -> &[String] {
        &self.peer_ids
    }

    /// The `server_keys` object in force. Cheap.
    pub fn server_keys(&self) -> ServerKeys {
        self.voice().server_keys()
    }

    /// The key that signs together with the object that goes with it. Cheap.
    pub fn signing(&self) -> (&VerifyKey, ServerKeys) {
        let voice = self.voice();
        (&voice.verify_key, voice.server_keys())
    }

    /// Issues a new `server_keys` object when the present one has three days or less to run (D2),
    /// and gives it, so that it can be remembered and announced.
    pub fn renew(&self, now: MilliSecondsSinceUnixEpoch) -> Option<ServerKeys> {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let voice = self.voice();
        let current = voice.server_keys();
        if !current.needs_renewal(now) {
            return None;
        }
        let terms = terms(current.old_verify_keys().collect(), &self.peer_ids, now);
        let renewed = ServerKeys::make(&self.identity_key, &voice.verify_key, terms);
        *voice.server_keys.write().unwrap_or_else(PoisonError::into_inner) = renewed.clone();
        Some(renewed)
    }

    /// Signs with another key from now on, and gives the object that says so, as [`Self::renew`]
    /// does. The caller has made sure that the next start finds the same key.
    pub fn rotate(&self, verify_key: VerifyKey, now: MilliSecondsSinceUnixEpoch) -> ServerKeys {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let voice = self.voice();
        let current = voice.server_keys();
        let expired_ts = u64::from(now.get()).saturating_add(ROTATION_GRACE_MS);
        let old = retired(&current, &verify_key, timestamp(expired_ts));
        // Later than the one it replaces, though the clock was set back since.
        let after = timestamp(u64::from(current.issued_ts().get()).saturating_add(1));
        let terms = terms(old, &self.peer_ids, now.max(after));
        let rotated = ServerKeys::make(&self.identity_key, &verify_key, terms);
        let next = Box::new(Voice::new(verify_key, rotated.clone()));
        // The last of the chain has no next one, and nobody else adds one now.
        let _is_new = voice.next.set(next);
        rotated
    }

    /// All since the start of this run, the first of them first.
    fn voices(&self) -> impl Iterator<Item = &Voice> {
        std::iter::successors(Some(&self.first), |voice| voice.next.get().map(|next| &**next))
    }

    fn voice(&self) -> &Voice {
        self.voices().last().unwrap_or(&self.first)
    }

    /// Whether a user belongs to this server.
    pub fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}

/// The verify keys that an object names and that sign no more.
fn retired(
    keys: &ServerKeys,
    verify_key: &VerifyKey,
    now: MilliSecondsSinceUnixEpoch,
) -> Vec<OldVerifyKey> {
    let replaced = keys
        .verify_keys()
        .map(|(_, public_key)| OldVerifyKey { public_key: *public_key, expired_ts: now });
    keys.old_verify_keys()
        .chain(replaced)
        .filter(|old| old.public_key != verify_key.public_key())
        .collect()
}

fn terms(
    old_verify_keys: Vec<OldVerifyKey>,
    peer_ids: &[String],
    now: MilliSecondsSinceUnixEpoch,
) -> ServerKeysTerms {
    ServerKeysTerms { old_verify_keys, peer_ids: peer_ids.to_vec(), issued_ts: now }
}

/// What the configuration allows (D18).
#[derive(Debug)]
pub struct Limits {
    /// Who may register an account.
    pub registration: Registration,
    /// Whether users of this node can be found by their display names (D14).
    pub discoverable: bool,
    /// How fast clients may act.
    pub rates: RateLimiter,
    /// The largest upload, in bytes.
    pub max_upload_bytes: u64,
    /// The base URL under which clients reach this node, where it differs from the address they
    /// asked at; without a slash at the end.
    pub public_base_url: Option<String>,
    /// The version of rooms whose creator names none.
    pub default_room_version: RoomVersionId,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            registration: Registration::Closed,
            discoverable: true,
            rates: RateLimiter::new(Some(RateLimits::default())),
            max_upload_bytes: DEFAULT_MAX_UPLOAD_BYTES,
            public_base_url: None,
            default_room_version: DEFAULT_ROOM_VERSION,
        }
    }
}

/// Who may register an account (D17).
#[derive(Clone, PartialEq, Eq)]
pub enum Registration {
    /// Nobody; accounts are made on the command line.
    Closed,
    /// Whoever knows this token.
    Token(String),
    /// Anybody who reaches the client address.
    Open,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "Closed",
            Self::Token(_) => "Token(..)",
            Self::Open => "Open",
        })
    }
}

/// Token buckets for what clients do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimits {
    /// Log-in attempts per minute and account: few enough that passwords cannot be guessed.
    pub logins_per_minute: u32,
    /// Messages per second and user: more than a person types, fewer than a runaway bot sends.
    pub messages_per_second: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { logins_per_minute: 10, messages_per_second: 100 }
    }
}

#[cfg(test)]
mod tests {
    use messagehub_protocol::server_keys::KeyValidity;

    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn parts(verify_seed: u8, peer: &str) -> IdentityParts {
        IdentityParts {
            identity_key: IdentityKey::from_seed(&[1; 32]),
            verify_key: VerifyKey::from_seed(&[verify_seed; 32]),
            peer_ids: vec![peer.to_owned()],
        }
    }

    const PEER: &str = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    const OTHER: &str = "12D3KooWHvDZG2jDPqVAsB6B8eTVWWLzzvdZyX2XFzGQGpZzkXf1";

    #[test]
    fn a_restart_keeps_what_was_issued_while_it_is_true() {
        let first = Identity::new(parts(2, PEER), None, timestamp(DAY_MS)).server_keys();
        let restart = |verify, peer, day: u64| {
            let now = timestamp(day * DAY_MS);
            Identity::new(parts(verify, peer), Some(first.clone()), now).server_keys()
        };
        assert_eq!(restart(2, PEER, 2), first);
        assert_ne!(restart(2, PEER, 6), first, "three days are left");
        assert_ne!(restart(2, OTHER, 2), first, "another peer speaks for it");
        let rotated = restart(3, PEER, 2);
        let old: Vec<_> = rotated.old_verify_keys().map(|old| old.public_key).collect();
        assert_eq!(old, [VerifyKey::from_seed(&[2; 32]).public_key()]);
    }

    #[test]
    fn renewal_comes_when_three_days_are_left_and_keeps_old_keys() {
        let before = Identity::new(parts(2, PEER), None, timestamp(0)).server_keys();
        let identity = Identity::new(parts(3, PEER), Some(before), timestamp(DAY_MS));
        assert_eq!(identity.renew(timestamp(2 * DAY_MS)), None);
        let renewed = identity.renew(timestamp(6 * DAY_MS)).unwrap();
        assert_eq!(renewed, identity.server_keys());
        assert_eq!(renewed.old_verify_keys().count(), 1);
    }

    #[test]
    fn a_replaced_key_signs_no_more_and_is_good_for_what_it_signed() {
        let identity = Identity::new(parts(2, PEER), None, timestamp(DAY_MS));
        let (old, before) = identity.signing();
        let old = old.key_id().to_owned();
        let at = timestamp(2 * DAY_MS);
        let renewed = identity.rotate(VerifyKey::from_seed(&[3; 32]), at);
        assert_eq!(identity.server_keys(), renewed);
        assert!(renewed.is_newer_than(&before));
        assert!(renewed.current_key(identity.verify_key().key_id().as_str()).is_some());
        assert!(identity.verify_key_of(old.as_str()).is_some(), "for what was sealed to it");
        assert!(renewed.current_key(old.as_str()).is_none());
        let good_at = |ms| renewed.key_at(old.as_str(), timestamp(ms), KeyValidity::Enforced);
        assert!(good_at(2 * DAY_MS).is_some(), "what was being signed then");
        assert!(good_at(2 * DAY_MS + ROTATION_GRACE_MS + 1).is_none());
        // Once more, by a clock that was set back; and at the next start.
        let again = identity.rotate(VerifyKey::from_seed(&[4; 32]), timestamp(DAY_MS));
        assert!(again.is_newer_than(&renewed));
        assert_eq!(again.old_verify_keys().count(), 2);
        let restarted = Identity::new(parts(4, PEER), Some(again.clone()), at);
        assert_eq!(restarted.server_keys(), again);
    }

    #[test]
    fn a_token_is_not_printed() {
        let limits =
            Limits { registration: Registration::Token("s3cret".to_owned()), ..Limits::default() };
        assert!(!format!("{limits:?}").contains("s3cret"));
    }
}
