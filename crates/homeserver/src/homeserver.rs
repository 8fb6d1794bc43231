//! The record of what every use-case needs, built once by the node and cloned freely.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    rules::DEFAULT_ROOM_VERSION,
    server_keys::{OldVerifyKey, ServerKeys, ServerKeysTerms},
};
use messagehub_store::Store;
use ruma::{MilliSecondsSinceUnixEpoch, RoomVersionId, ServerName, UserId};

use crate::{clock::Clock, peers::Peers, rate::RateLimiter, rng::Rng};

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

/// The keys of this node, its name, and its `server_keys` as they stand.
pub struct Identity {
    identity_key: IdentityKey,
    verify_key: VerifyKey,
    old_verify_keys: Vec<OldVerifyKey>,
    peer_ids: Vec<String>,
    server_keys: RwLock<ServerKeys>,
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
        let terms = terms(&old_verify_keys, &peer_ids, now);
        let server_keys =
            still_true.unwrap_or_else(|| ServerKeys::make(&identity_key, &verify_key, terms));
        let server_keys = RwLock::new(server_keys);
        Self { identity_key, verify_key, old_verify_keys, peer_ids, server_keys }
    }

    /// The server name, which is the identity key (D1).
    pub fn server_name(&self) -> &ServerName {
        self.identity_key.server_name()
    }

    /// The key that signs events and requests.
    pub fn verify_key(&self) -> &VerifyKey {
        &self.verify_key
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
        self.server_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Issues a new `server_keys` object when the present one has three days or less to run (D2),
    /// and gives it, so that it can be remembered and announced.
    pub fn renew(&self, now: MilliSecondsSinceUnixEpoch) -> Option<ServerKeys> {
        let mut current = self.server_keys.write().unwrap_or_else(PoisonError::into_inner);
        if !current.needs_renewal(now) {
            return None;
        }
        let terms = terms(&self.old_verify_keys, &self.peer_ids, now);
        *current = ServerKeys::make(&self.identity_key, &self.verify_key, terms);
        Some(current.clone())
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
    old_verify_keys: &[OldVerifyKey],
    peer_ids: &[String],
    now: MilliSecondsSinceUnixEpoch,
) -> ServerKeysTerms {
    ServerKeysTerms {
        old_verify_keys: old_verify_keys.to_vec(),
        peer_ids: peer_ids.to_vec(),
        issued_ts: now,
    }
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
    use super::*;
    use crate::clock::timestamp;

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
    fn a_token_is_not_printed() {
        let limits =
            Limits { registration: Registration::Token("s3cret".to_owned()), ..Limits::default() };
        assert!(!format!("{limits:?}").contains("s3cret"));
    }
}
