//! What all threads of one open store have in common.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use messagehub_protocol::{pdu::Pdu, receive::Standing, server_keys::ServerKeys};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomVersionId, ServerName, UserId,
    events::StateEventType,
};
use tokio::sync::watch;

use crate::{
    Mode,
    cache::Cache,
    changes::RecentChanges,
    ids::{EventNid, KeyNid, RoomNid, ServerNid, StreamPos, UserNid},
    presence::Activity,
    room_state::Pack,
    tokens::Owners,
    unread::UnreadCache,
};

/// About 100 bytes each, both directions: 10 MB when a room of 50,000 members was read.
const MAX_STATE_KEYS: usize = 65_536;
/// Users and servers, about 150 bytes each.
const MAX_NAMES: usize = 32_768;
/// Rooms, about 200 bytes each.
const MAX_ROOMS: usize = 8_192;
/// Decoded trie nodes, in bytes: all nodes of some rooms of 10,000 members.
const MAX_NODE_BYTES: usize = 8 * 1024 * 1024;
/// Parsed events, in bytes: some thousands of ordinary size.
const MAX_PDU_BYTES: usize = 16 * 1024 * 1024;
/// How events were judged, about 16 bytes each: those that the states of some rooms are made of.
const MAX_STANDINGS: usize = 16_384;
/// Verified `server_keys`, in bytes of JSON: some thousands, at about 1 KB each.
const MAX_SERVER_KEYS_BYTES: usize = 4 * 1024 * 1024;

/// A room's name and version: they never change.
pub(crate) type RoomName = Arc<(OwnedRoomId, RoomVersionId)>;
/// A key of a room state in words.
pub(crate) type StateKeyName = Arc<(StateEventType, String)>;

/// Caches and the published position. Everything in the caches is immutable and
/// committed, or named by an integer that is never given out twice; so neither a
/// roll-back nor an older snapshot can see a wrong value.
pub(crate) struct Shared {
    pub(crate) position: watch::Sender<StreamPos>,
    pub(crate) recent: RecentChanges,
    pub(crate) writes: AtomicU64,
    pub(crate) commits: AtomicU64,
    /// Whether the writer is awake and has nothing to do.
    pub(crate) writer_is_free: AtomicBool,
    pub(crate) nodes: Cache<i64, Arc<Pack>>,
    pub(crate) pdus: Cache<EventNid, Arc<Pdu>>,
    pub(crate) standings: Cache<EventNid, Standing>,
    pub(crate) server_keys: Cache<OwnedServerName, ServerKeys>,
    pub(crate) unread: UnreadCache,
    pub(crate) owners: Owners,
    pub(crate) activity: Activity,
    pub(crate) rooms: Cache<RoomNid, RoomName>,
    pub(crate) keys: Cache<KeyNid, StateKeyName>,
    pub(crate) key_nids: Cache<StateKeyName, KeyNid>,
    pub(crate) users: Cache<UserNid, OwnedUserId>,
    pub(crate) user_nids: Cache<OwnedUserId, UserNid>,
    pub(crate) servers: Cache<ServerNid, OwnedServerName>,
    pub(crate) server_nids: Cache<OwnedServerName, ServerNid>,
}

/// A name that was found or made to be an integer, a device whose rows have changed, or a room that
/// got an event. Other threads may know it only when the row is committed.
pub(crate) enum Learned {
    Key(StateKeyName, KeyNid),
    User(OwnedUserId, UserNid),
    Server(OwnedServerName, ServerNid),
    Device(OwnedUserId, OwnedDeviceId),
    Event(RoomNid, StreamPos),
}

impl Shared {
    pub(crate) fn new(position: StreamPos, mode: Mode) -> Self {
        Self {
            position: watch::Sender::new(position),
            recent: RecentChanges::after(position),
            writes: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            writer_is_free: AtomicBool::new(false),
            nodes: Cache::new(mode.share(MAX_NODE_BYTES)),
            pdus: Cache::new(mode.share(MAX_PDU_BYTES)),
            standings: Cache::new(MAX_STANDINGS),
            server_keys: Cache::new(mode.share(MAX_SERVER_KEYS_BYTES)),
            unread: UnreadCache::default(),
            owners: Owners::default(),
            activity: Activity::default(),
            rooms: Cache::new(MAX_ROOMS),
            keys: Cache::new(MAX_STATE_KEYS),
            key_nids: Cache::new(MAX_STATE_KEYS),
            users: Cache::new(MAX_NAMES),
            user_nids: Cache::new(MAX_NAMES),
            servers: Cache::new(MAX_NAMES),
            server_nids: Cache::new(MAX_NAMES),
        }
    }

    /// Whether the writer is free for the caller, and no longer for others.
    pub(crate) fn claim_writer(&self) -> bool {
        self.writer_is_free.swap(false, Ordering::Relaxed)
    }

    /// Lets every thread know what is committed.
    pub(crate) fn learn(&self, learned: Learned) {
        match learned {
            Learned::Key(name, nid) => self.key_nids.insert(name, nid, 1),
            Learned::User(name, nid) => self.user_nids.insert(name, nid, 1),
            Learned::Server(name, nid) => self.server_nids.insert(name, nid, 1),
            Learned::Device(user_id, device_id) => self.owners.forget(&user_id, &device_id),
            Learned::Event(room, pos) => self.recent.note(room, pos),
        }
    }

    pub(crate) fn user_nid(&self, user: &UserId) -> Option<UserNid> {
        self.user_nids.get(user)
    }

    pub(crate) fn server_nid(&self, server: &ServerName) -> Option<ServerNid> {
        self.server_nids.get(server)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("position", &*self.position.borrow()).finish_non_exhaustive()
    }
}
