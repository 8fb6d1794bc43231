//! Nodes, and the future that all of them run in.

use std::{collections::BTreeMap, future::Future, time::Duration};

use axum::Router;
use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use messagehub_homeserver::{
    Homeserver, Identity, IdentityParts, Limits, Parts, Registration, accounts,
    clock::ManualClock,
    peers::{INBOUND_CAPACITY, OUTBOUND_CAPACITY, Peers},
    rate::RateLimiter,
    rng::Rng,
    run,
    server::keys,
    sessions::Session,
    testing::START_MS,
};
use messagehub_protocol::keys::{IdentityKey, VerifyKey};
use messagehub_store::{Mode, Store, server_keys};
use ruma::{OwnedServerName, ServerName};
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::hub::Hub;
use crate::server;

/// How long, in virtual time, a test waits for what must come: several heads intervals.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often, in virtual time, a test looks again.
const GLANCE: Duration = Duration::from_secs(1);

/// One homeserver of a [`Net`].
#[derive(Debug)]
pub struct Node {
    /// The homeserver, while it is running.
    pub hs: Homeserver,
    /// The peer that speaks for it.
    pub peer_id: String,
    /// The Server-Server API as its peers reach it.
    pub router: Router,
    seed: u64,
    abort: AbortHandle,
}

/// Several homeservers and what joins them.
#[derive(Debug, Default)]
pub struct Net {
    /// The transport.
    pub hub: Hub,
    /// The clock of all nodes.
    pub clock: Option<ManualClock>,
    background: FuturesUnordered<BoxFuture<'static, ()>>,
    dirs: BTreeMap<u64, TempDir>,
    /// Keys that replaced those that follow from the seeds.
    verify_seeds: BTreeMap<u64, [u8; 32]>,
}

impl Net {
    /// A network without nodes.
    pub fn new() -> Self {
        Self { clock: Some(ManualClock::at(START_MS)), ..Self::default() }
    }

    /// Starts a node whose keys follow from `seed`; one that was stopped has the data it had.
    ///
    /// # Panics
    /// When its directory or database cannot be opened.
    #[expect(clippy::expect_used, reason = "a test without a database has failed")]
    pub fn start(&mut self, seed: u64) -> Node {
        let dir = self
            .dirs
            .entry(seed)
            .or_insert_with(|| tempfile::tempdir().expect("a temporary directory"));
        let store = Store::open(dir.path(), Mode::Inline).expect("the database");
        let clock = self.clock.get_or_insert_with(|| ManualClock::at(START_MS)).clock();
        let keys = Rng::from_seed(spread(seed));
        let peer_id = peer_id(seed);
        let identity_key = IdentityKey::from_seed(&keys.bytes());
        let verify_seed = keys.bytes();
        let verify_seed = self.verify_seeds.get(&seed).unwrap_or(&verify_seed);
        let server_name = identity_key.server_name().to_owned();
        let issued = store.read(move |snap| server_keys::find(snap, &server_name));
        let issued = issued.now_or_never().expect("an inline store").expect("the database");
        let parts = IdentityParts {
            identity_key,
            verify_key: VerifyKey::from_seed(verify_seed),
            peer_ids: vec![peer_id.clone()],
        };
        let identity = Identity::new(parts, issued, clock.now());
        let (peers, outbound) = Peers::pair(OUTBOUND_CAPACITY);
        let limits = Limits {
            registration: Registration::Open,
            rates: RateLimiter::new(None),
            ..Limits::default()
        };
        let rng = Rng::from_seed(spread(seed + 1_000_000));
        let hs = Homeserver::new(Parts { store, identity, peers, clock, rng, limits });
        let (inbound, reports) = mpsc::channel(INBOUND_CAPACITY);
        let router = server::router(hs.clone());
        let server_keys = hs.identity.server_keys();
        self.hub.attach((server_keys, peer_id.clone()), router.clone(), inbound);

        let name = hs.server_name().to_owned();
        let (transport, homeserver) = (self.hub.clone(), hs.clone());
        let both = async move {
            tokio::select! {
                biased;
                () = run::run(homeserver, reports) => {}
                () = transport.serve(name, outbound) => {}
            }
        };
        let (abort, registration) = AbortHandle::new_pair();
        let both = Abortable::new(both, registration);
        self.background.push(Box::pin(async move {
            let _stopped_or_done = both.await;
        }));
        Node { hs, peer_id, router, seed, abort }
    }

    /// Replaces the key by which a node signs; at its next start it has the new one.
    ///
    /// # Panics
    /// When its database fails.
    #[expect(clippy::expect_used, reason = "a test without a database has failed")]
    pub async fn rotate_key(&mut self, node: &Node) {
        let seed = spread(
            node.seed + 2_000_000 + self.clock.as_ref().map_or(0, |clock| clock.clock().now_ms()),
        );
        self.verify_seeds.insert(node.seed, seed);
        keys::rotate(&node.hs, VerifyKey::from_seed(&seed)).await.expect("the database");
    }

    /// Stops a node at once, as if it were killed, and gives its seed for starting it again.
    pub async fn stop(&mut self, node: Node) -> u64 {
        self.hub.detach(node.name());
        node.abort.abort();
        let seed = node.seed;
        drop(node);
        // The aborted future holds the store until it is polled once more.
        self.drive(tokio::task::yield_now()).await;
        seed
    }

    /// Runs all nodes until `done` is.
    pub async fn drive<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                biased;
                Some(()) = self.background.next(), if !self.background.is_empty() => {}
                value = &mut done => return value,
            }
        }
    }

    /// Runs all nodes until `holds` gives `true`, looking once a virtual second.
    ///
    /// # Panics
    /// When it does not within ten virtual minutes.
    pub async fn until<F: Future<Output = bool>>(
        &mut self,
        what: &str,
        mut holds: impl FnMut() -> F,
    ) {
        let waited = self
            .drive(tokio::time::timeout(PATIENCE, async {
                let mut glances = tokio::time::interval(GLANCE);
                loop {
                    glances.tick().await;
                    if holds().await {
                        break;
                    }
                }
            }))
            .await;
        assert!(waited.is_ok(), "it never came about that {what}");
    }
}

impl Node {
    /// Its server name.
    pub fn name(&self) -> &ServerName {
        self.hs.server_name()
    }

    /// Its server name, owned.
    pub fn owned_name(&self) -> OwnedServerName {
        self.hs.server_name().to_owned()
    }

    /// A new user with a device.
    ///
    /// # Panics
    /// When the name is taken.
    #[expect(clippy::expect_used, reason = "a test names its users")]
    pub async fn user(&self, localpart: &str) -> Session {
        let user_id = accounts::create(&self.hs, localpart, None).await.expect("a new account");
        Session { user_id, device_id: "DEVICE".into() }
    }
}

/// A text that has the form of a PeerId.
fn peer_id(seed: u64) -> String {
    let tail = format!("{seed:044}").replace('0', "z");
    format!("12D3KooW{tail}")
}

fn spread(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}
