//! A homeserver for tests: real SQLite in a temporary directory, one thread, a seed, and a clock
//! that stands still.

use messagehub_protocol::{
    keys::{IdentityKey, VerifyKey},
    pdu::Pdu,
};
use messagehub_store::{Mode, Snapshot, Store, StoreError};
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, UserId};
use serde_json::{Value, value::RawValue};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::{
    Homeserver, Identity, IdentityParts, Limits, Parts, Registration, accounts,
    clock::ManualClock,
    peers::{Outbound, Peers},
    rate::RateLimiter,
    rng::Rng,
    rooms::create::{self, NewRoom},
    sessions::Session,
};

pub mod crowd;
pub mod dag;
pub mod sealing;

/// When tests begin: 2025-01-01, in milliseconds since the Unix epoch.
pub const START_MS: u64 = 1_735_689_600_000;

/// What a test's transport can hold before the test takes it.
const OUTBOUND: usize = 4096;

/// A homeserver of its own. Its data are gone when it is dropped.
#[derive(Debug)]
pub struct TestServer {
    /// The homeserver.
    pub hs: Homeserver,
    /// Its clock.
    pub clock: ManualClock,
    /// What it asks of the transport.
    pub outbound: mpsc::Receiver<Outbound>,
    /// Where its data are.
    pub dir: TempDir,
}

impl TestServer {
    /// A server whose keys and random choices follow from `seed`, on one thread.
    ///
    /// # Panics
    ///
    /// When the temporary directory cannot be used.
    pub fn new(seed: u64) -> Self {
        Self::with_mode(seed, Mode::Inline)
    }

    /// As [`Self::new`], with a choice of who runs the store's closures.
    ///
    /// # Panics
    ///
    /// When the temporary directory cannot be used.
    #[expect(clippy::expect_used, reason = "a test without a directory has failed")]
    pub fn with_mode(seed: u64, mode: Mode) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let clock = ManualClock::at(START_MS);
        let rng = Rng::from_seed(spread(seed));
        let (peers, outbound) = Peers::pair(OUTBOUND);
        let parts = IdentityParts {
            identity_key: IdentityKey::from_seed(&rng.bytes()),
            verify_key: VerifyKey::from_seed(&rng.bytes()),
            peer_ids: Vec::new(),
        };
        let identity = Identity::new(parts, None, clock.clock().now());
        let limits = Limits {
            registration: Registration::Open,
            rates: RateLimiter::new(None),
            ..Limits::default()
        };
        let store = Store::open(dir.path(), mode).expect("a new database");
        let hs =
            Homeserver::new(Parts { store, identity, peers, clock: clock.clock(), rng, limits });
        Self { hs, clock, outbound, dir }
    }

    /// A user of this server. No account is made.
    ///
    /// # Panics
    ///
    /// When `localpart` is none.
    #[expect(clippy::expect_used, reason = "a test names its users")]
    pub fn user_id(&self, localpart: &str) -> OwnedUserId {
        UserId::parse(format!("@{localpart}:{}", self.hs.server_name())).expect("a legal localpart")
    }

    /// A new account and a device of it, as if it had logged in without a token.
    ///
    /// # Panics
    ///
    /// When the account cannot be made.
    #[expect(clippy::expect_used, reason = "a test without its user has failed")]
    pub async fn user(&self, localpart: &str) -> Session {
        let user_id = accounts::create(&self.hs, localpart, None).await.expect("a new account");
        Session { user_id, device_id: "DEVICE".into() }
    }

    /// A room of a user, of the default version or another.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    #[expect(clippy::expect_used, reason = "a test without its room has failed")]
    pub async fn room(&self, creator: &Session, version: Option<RoomVersionId>) -> OwnedRoomId {
        let mut new = NewRoom::new();
        new.room_version = version;
        create::room(&self.hs, &creator.user_id, new).await.expect("a room")
    }

    /// Reads rows.
    ///
    /// # Panics
    ///
    /// When the store fails.
    #[expect(clippy::expect_used, reason = "a test whose store fails has failed")]
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Snapshot<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.hs.store.read(read).await.expect("the store")
    }
}

/// JSON of an event's content.
///
/// # Panics
///
/// Never: a value can be written.
#[expect(clippy::expect_used, reason = "a JSON value can be written")]
pub fn content(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a JSON value")
}

/// The content of an event as a value.
///
/// # Panics
///
/// Never: an event's content is JSON.
#[expect(clippy::expect_used, reason = "an event's content is JSON")]
pub fn content_of(pdu: &Arc<Pdu>) -> Value {
    serde_json::from_str(pdu.content().get()).expect("JSON")
}

fn spread(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
