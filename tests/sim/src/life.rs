//! A node, and its life from a start to the next crash.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    path::Path,
    rc::Rc,
    sync::{OnceLock, atomic::Ordering},
};

use axum::Router;
use messagehub_homeserver::{
    Homeserver, Identity, IdentityParts, Limits, Parts, Registration, accounts,
    clock::{Clock, timestamp},
    peers::{Inbound, OUTBOUND_CAPACITY, Outbound, Peers},
    rate::RateLimiter,
    rng::Rng,
    run,
};
use messagehub_protocol::keys::{IdentityKey, VerifyKey};
use messagehub_store::{
    DATABASE_FILE, Mode, Store, StoreError, events, memberships, rooms, server_keys,
};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId};
use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{Fault, dice::Dice, transport, world::World};

/// When runs begin: 2025-01-01, in milliseconds since the Unix epoch.
pub(crate) const START_MS: u64 = 1_735_689_600_000;

/// More reports than a node leaves waiting in any run.
const INBOUND: usize = 16_384;

/// Nodes of one run whose databases are kept in memory: each has some MB.
const MAX_IN_MEMORY: usize = 200;

/// What base58 is written with.
const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// What stays of a node when it is not running.
pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) name: OwnedServerName,
    pub(crate) peer_id: String,
    /// Its users.
    pub(crate) users: RefCell<Vec<OwnedUserId>>,
    pub(crate) life: RefCell<Option<Life>>,
    /// How often it was started.
    pub(crate) lives: Cell<u32>,
    identity_seed: [u8; 32],
    verify_seed: [u8; 32],
    skew_ms: u64,
    dir: TempDir,
}

/// A node that runs.
pub(crate) struct Life {
    pub(crate) hs: Homeserver,
    pub(crate) router: Router,
    pub(crate) inbound: mpsc::Sender<Inbound>,
    /// The rooms it listens to.
    pub(crate) topics: BTreeSet<OwnedRoomId>,
    /// The frames it had, as the transport remembers them.
    pub(crate) seen: BTreeSet<u64>,
    /// Everything that ends with it.
    pub(crate) tasks: JoinSet<()>,
}

impl Node {
    pub(crate) fn draw(
        seed: u64,
        index: usize,
        (skew_ms, dir): (u64, TempDir),
    ) -> Result<Self, Fault> {
        let dice = Dice::of(("node", seed, index));
        let identity_seed = dice.seed();
        let name = IdentityKey::from_seed(&identity_seed).server_name().to_owned();
        let random = (0..44).map(|_| char::from(BASE58[dice.index(BASE58.len())]));
        Ok(Self {
            index,
            name,
            peer_id: "12D3KooW".chars().chain(random).collect(),
            users: RefCell::default(),
            life: RefCell::default(),
            lives: Cell::new(0),
            identity_seed,
            verify_seed: dice.seed(),
            skew_ms,
            dir,
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.life.borrow().is_some()
    }

    pub(crate) fn hs(&self) -> Option<Homeserver> {
        self.life.borrow().as_ref().map(|life| life.hs.clone())
    }

    pub(crate) fn identity_parts(&self) -> IdentityParts {
        IdentityParts {
            identity_key: IdentityKey::from_seed(&self.identity_seed),
            verify_key: VerifyKey::from_seed(&self.verify_seed),
            peer_ids: vec![self.peer_id.clone()],
        }
    }

    pub(crate) fn clock(&self, start: Instant) -> Clock {
        let ahead = START_MS + self.skew_ms;
        Clock::new(move || {
            let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            timestamp(ahead.saturating_add(elapsed))
        })
    }

    /// Puts a database where the node will find it, before its first start.
    pub(crate) fn give_database(&self, database: &[u8]) -> Result<(), Fault> {
        std::fs::write(self.dir.path().join(DATABASE_FILE), database)?;
        Ok(())
    }

    /// What a node that does not run has committed.
    pub(crate) fn store(&self) -> Result<Store, Fault> {
        Ok(Store::open(self.dir.path(), Mode::Inline)?)
    }

    /// A homeserver on a database, and what it asks of the transport.
    pub(crate) async fn homeserver(
        &self,
        dir: &Path,
        (start, seed): (Instant, [u8; 32]),
    ) -> Result<(Homeserver, mpsc::Receiver<Outbound>), Fault> {
        let store = Store::open(dir, Mode::Inline)?;
        let name = self.name.clone();
        let remembered = store.read(move |snap| server_keys::find(snap, &name)).await?;
        let clock = self.clock(start);
        let identity = Identity::new(self.identity_parts(), remembered, clock.now());
        let limits = Limits {
            registration: Registration::Open,
            rates: RateLimiter::new(None),
            ..Limits::default()
        };
        let (peers, outbound) = Peers::pair(OUTBOUND_CAPACITY);
        let rng = Rng::from_seed(seed);
        let hs = Homeserver::new(Parts { store, identity, peers, clock, rng, limits });
        let own = hs.identity.server_keys();
        hs.store.write(move |txn| server_keys::put_if_newer(txn, &own)).await?;
        Ok((hs, outbound))
    }
}

/// A place for the database of one of so many nodes. In memory where the system has such a place,
/// since a run writes many small transactions; hundreds of databases would fill it.
pub(crate) fn directory(nodes: usize) -> Result<TempDir, Fault> {
    let memory = Path::new("/dev/shm");
    let fits = nodes <= MAX_IN_MEMORY && memory.is_dir();
    let in_memory = fits.then(|| tempfile::tempdir_in(memory));
    Ok(match in_memory {
        Some(Ok(dir)) => dir,
        _ => tempfile::tempdir()?,
    })
}

/// A database with all tables and nothing in them: to write it is cheaper than to make one.
pub(crate) fn empty_database() -> Result<&'static [u8], Fault> {
    static EMPTY: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let made = EMPTY.get_or_init(|| {
        let dir = directory(1).ok()?;
        drop(Store::open(dir.path(), Mode::Inline).ok()?);
        std::fs::read(dir.path().join(DATABASE_FILE)).ok()
    });
    Ok(made.as_deref().ok_or("no database can be made")?)
}

impl World {
    /// Starts a node: its store as the last life left it, everything else new.
    pub(crate) async fn start(self: &Rc<Self>, index: usize) -> Result<(), Fault> {
        let node = &self.nodes[index];
        let seed = Dice::of(("life", self.script.seed, index, node.lives.get())).seed();
        let (hs, outbound) = node.homeserver(node.dir.path(), (self.start, seed)).await?;
        node.lives.set(node.lives.get() + 1);
        let (inbound, reports) = mpsc::channel(INBOUND);
        *node.life.borrow_mut() = Some(Life {
            router: messagehub_api::server::router(hs.clone()),
            hs: hs.clone(),
            inbound,
            topics: BTreeSet::new(),
            seen: BTreeSet::new(),
            tasks: JoinSet::new(),
        });
        if node.users.borrow().is_empty() {
            for number in 0..self.script.users {
                let user_id = accounts::create(&hs, &user_name(number), None).await?;
                node.users.borrow_mut().push(user_id);
            }
        }
        self.spawn(index, transport::pump(Rc::clone(self), index, outbound));
        self.spawn(index, run::run(hs, reports));
        transport::attach(self, index);
        self.note(("start", index));
        Ok(())
    }

    /// Kills a node where it stands. What was committed is all that is left.
    pub(crate) async fn stop(self: &Rc<Self>, index: usize) {
        let Some(life) = self.nodes[index].life.borrow_mut().take() else { return };
        let repaired = life.hs.peers.counters().events_repaired.load(Ordering::Relaxed);
        self.count(|tally| tally.repaired += usize::try_from(repaired).unwrap_or_default());
        let Life { mut tasks, .. } = life;
        tasks.abort_all();
        while let Some(ended) = tasks.join_next().await {
            self.watch(ended);
        }
        transport::detach(self, index);
        self.note(("stop", index));
    }

    /// Whether a node that has just started has everything it ever acknowledged.
    pub(crate) async fn recover(self: &Rc<Self>, index: usize) -> Result<(), Fault> {
        let Some(hs) = self.nodes[index].hs() else { return Ok(()) };
        let promised = self.ledger.borrow().of_node(index);
        let lost: Vec<_> = hs
            .store
            .read(move |snap| {
                let mut lost = Vec::new();
                for event_id in promised {
                    if events::find(snap, &event_id)?
                        .is_none_or(|event| event.state_before.is_none())
                    {
                        lost.push(event_id);
                    }
                }
                Ok::<_, StoreError>(lost)
            })
            .await?;
        if !lost.is_empty() {
            return Err(format!("node {index} lost {lost:?}, which it had acknowledged").into());
        }
        self.count(|tally| tally.recoveries += 1);
        Ok(())
    }

    /// The rooms that a node is in.
    pub(crate) async fn rooms_of(&self, index: usize) -> Result<BTreeSet<OwnedRoomId>, Fault> {
        let Some(hs) = self.nodes[index].hs() else { return Ok(BTreeSet::new()) };
        let name = self.nodes[index].name.clone();
        let rooms = hs.store.read(move |snap| {
            let mut joined = BTreeSet::new();
            for room in rooms::list(snap)? {
                if memberships::is_server_in(snap, room.nid, &name)? {
                    joined.insert(room.room_id);
                }
            }
            Ok::<_, StoreError>(joined)
        });
        Ok(rooms.await?)
    }
}

/// The localpart of the users of a node.
pub(crate) fn user_name(number: usize) -> String {
    format!("u{number}")
}

/// The node of a user.
pub(crate) fn home(world: &World, user_id: &UserId) -> Option<usize> {
    world.node_of(user_id.server_name())
}
