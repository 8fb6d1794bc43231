//! What is known about the network at this moment. Nothing in it survives a restart, and nothing
//! in it decides what a room is: it says who can be asked now, and what there is to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use messagehub_protocol::wire::request::{ReplayFilter, UniqueTimes};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::sync::Notify;

use super::{
    comparing::Comparing,
    relays::{Routes, Slots},
    retries::Retries,
};
use crate::digests::Digests;
use crate::{ingest::FramePaces, room_keys::RoomKeys, server::pace::RequestPaces};

/// Rooms noted for a comparison before the next one: more than a moment brings; the comparison
/// every minute finds whatever did not fit.
const MAX_BEHIND: usize = 256;

/// A server that has just joined sends frames before we know of it: its first one makes us ask.
/// Whoever is no member must not be able to make us ask more often than this, in milliseconds.
const STRANGER_PAUSE_MS: u64 = 2_000;

/// Whoever we have out of a room and who takes itself to be in it shows itself with each comparison,
/// once a minute. It must not be able to make us ask all who were there, or write to it, more often
/// than this, in milliseconds.
const DISPUTE_PAUSE_MS: u64 = 30_000;

/// Servers whose last comparison is remembered: more than there are connections.
const MAX_COMPARED: usize = 1024;

/// How a comparison of heads with a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compared {
    /// Rooms whose heads differed.
    pub rooms_differing: usize,
    /// When.
    pub at: MilliSecondsSinceUnixEpoch,
}

/// The shared part of the port.
#[derive(Debug, Default)]
pub(super) struct Live {
    connected: Mutex<BTreeMap<OwnedServerName, BTreeSet<String>>>,
    /// Requests and frames of servers that share a room with us.
    pub(super) seen_of_members: Mutex<ReplayFilter>,
    /// Requests of all others, who are as many as anybody cares to make up.
    pub(super) seen_of_strangers: Mutex<ReplayFilter>,
    /// With which frames are sealed.
    pub(super) room_keys: RoomKeys,
    /// How fast frames come.
    pub(super) frame_paces: Mutex<FramePaces>,
    /// How fast requests come.
    pub(super) request_paces: RequestPaces,
    times: UniqueTimes,
    behind: Mutex<BTreeSet<OwnedRoomId>>,
    disputed: Mutex<BTreeSet<OwnedRoomId>>,
    /// When a room was last disputed, in milliseconds.
    disputes: Mutex<BTreeMap<OwnedRoomId, u64>>,
    /// When a server was last told what sent its users out of a room, in milliseconds.
    departures_told: Mutex<BTreeMap<(OwnedRoomId, OwnedServerName), u64>>,
    history: Mutex<BTreeSet<OwnedRoomId>>,
    /// When a frame of a stranger last made us look at a room, in milliseconds.
    strangers: Mutex<BTreeMap<OwnedRoomId, u64>>,
    compared: Mutex<BTreeMap<OwnedServerName, Compared>>,
    /// Up to which change each server was told of address records.
    told: Mutex<BTreeMap<OwnedServerName, i64>>,
    pub(super) digests: Digests,
    pub(super) comparing: Comparing,
    pub(super) retries: Retries,
    pub(super) carrying: Slots,
    pub(super) taking: Slots,
    pub(super) routes: Routes,
    pub(super) woken: Notify,
    pub(super) counters: Counters,
}

impl Live {
    pub(super) fn signing_time(
        &self,
        now: MilliSecondsSinceUnixEpoch,
    ) -> MilliSecondsSinceUnixEpoch {
        self.times.next(now)
    }

    pub(super) fn note_history(&self, room_id: &RoomId) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() < MAX_BEHIND {
            history.insert(room_id.to_owned());
        }
    }

    pub(super) fn take_history(&self) -> BTreeSet<OwnedRoomId> {
        std::mem::take(&mut *self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn note_compared(&self, server: &ServerName, compared: Compared) {
        let mut all = self.compared.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_COMPARED && !all.contains_key(server) {
            all.pop_first();
        }
        all.insert(server.to_owned(), compared);
    }

    pub(super) fn compared(&self, server: &ServerName) -> Option<Compared> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner).get(server).copied()
    }

    pub(super) fn told(&self, server: &ServerName) -> i64 {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get(server).copied().unwrap_or(0)
    }

    pub(super) fn note_told(&self, server: &ServerName, up_to: i64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MAX_COMPARED && !told.contains_key(server) {
            told.pop_first();
        }
        told.insert(server.to_owned(), up_to);
    }

    pub(super) fn forget_told(&self) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn note_behind(&self, room_id: &RoomId) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.len() < MAX_BEHIND {
            behind.insert(room_id.to_owned());
        }
    }

    /// Whether a frame of a stranger is worth a look at the room: one in [`STRANGER_PAUSE_MS`].
    pub(super) fn note_stranger(&self, room_id: &RoomId, now: MilliSecondsSinceUnixEpoch) -> bool {
        is_time(&self.strangers, &room_id.to_owned(), (now, STRANGER_PAUSE_MS))
    }

    /// Notes that who is in a room is disputed, at most once in [`DISPUTE_PAUSE_MS`]; says whether it
    /// did.
    pub(super) fn note_disputed(&self, room_id: &RoomId, now: MilliSecondsSinceUnixEpoch) -> bool {
        let mut disputed = self.disputed.lock().unwrap_or_else(PoisonError::into_inner);
        disputed.len() < MAX_BEHIND
            && is_time(&self.disputes, &room_id.to_owned(), (now, DISPUTE_PAUSE_MS))
            && disputed.insert(room_id.to_owned())
    }

    /// Whether a server may be told now what sent its users out of a room: once in
    /// [`DISPUTE_PAUSE_MS`].
    pub(super) fn may_tell_departure(
        &self,
        (room_id, server): (&RoomId, &ServerName),
        now: MilliSecondsSinceUnixEpoch,
    ) -> bool {
        let told = (room_id.to_owned(), server.to_owned());
        is_time(&self.departures_told, &told, (now, DISPUTE_PAUSE_MS))
    }

    pub(super) fn take_disputed(&self) -> BTreeSet<OwnedRoomId> {
        std::mem::take(&mut *self.disputed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_behind(&self) -> BTreeSet<OwnedRoomId> {
        std::mem::take(&mut *self.behind.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn connect(&self, server: &ServerName, peer_id: &str) {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.entry(server.to_owned()).or_default().insert(peer_id.to_owned());
    }

    pub(super) fn disconnect(&self, server: &ServerName) {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    pub(super) fn is_connected(&self, server: &ServerName) -> bool {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner).contains_key(server)
    }

    pub(super) fn server_of(&self, peer_id: &str) -> Option<OwnedServerName> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let speaks = |(_, peers): &(&OwnedServerName, &BTreeSet<String>)| peers.contains(peer_id);
        connected.iter().find(speaks).map(|(server, _)| server.clone())
    }

    pub(super) fn connected(&self) -> Vec<OwnedServerName> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.keys().cloned().collect()
    }
}

/// Whether the last time of something is so many milliseconds ago; then it is now.
fn is_time<K: Ord + Clone>(
    times: &Mutex<BTreeMap<K, u64>>,
    of: &K,
    (now, pause_ms): (MilliSecondsSinceUnixEpoch, u64),
) -> bool {
    let now = u64::from(now.get());
    let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
    let last = times.get(of).copied();
    if last.is_some_and(|last| now < last.saturating_add(pause_ms)) {
        return false;
    }
    if times.len() >= MAX_BEHIND && last.is_none() {
        times.pop_first();
    }
    times.insert(of.clone(), now);
    true
}

/// Numbers for the metrics. Each only grows, but for those that say otherwise.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames from other servers that were accepted.
    pub frames_accepted: AtomicU64,
    /// Frames that were neither accepted nor held against their sender.
    pub frames_ignored: AtomicU64,
    /// Frames that any honest peer could see to be bad.
    pub frames_rejected: AtomicU64,
    /// Frames of ours that did not fit the transport's queue; heads repair them.
    pub frames_dropped: AtomicU64,
    /// Frames that were not looked at because too many came.
    pub frames_limited: AtomicU64,
    /// Room keys of ours that were made.
    pub room_keys_made: AtomicU64,
    /// Times we asked a member for a room key.
    pub room_keys_asked: AtomicU64,
    /// Room keys given to members.
    pub room_keys_given: AtomicU64,
    /// Requests of other servers that were refused: signature, name, PeerId, freshness, repetition.
    pub requests_refused: AtomicU64,
    /// Events taken from another server because heads or ancestors were missing.
    pub events_repaired: AtomicU64,
    /// Comparisons of heads with another server.
    pub heads_exchanges: AtomicU64,
    /// Deliveries from the outbox.
    pub outbox_deliveries: AtomicU64,
    /// EDUs that could not be read, or of a type that is not known here.
    pub edus_ignored: AtomicU64,
    /// Entries that wait in the outbox, as of the last look at it. Grows and shrinks.
    pub outbox_waiting: AtomicU64,
    /// Deliveries that their destination will not take.
    pub outbox_refusals: AtomicU64,
    /// Requests of ours that reached their destination through another server.
    pub relayed_requests: AtomicU64,
    /// Requests of others that were carried to their destination.
    pub relays_carried: AtomicU64,
    /// Requests of others that were not carried: no shared room, no connection, too many at once.
    pub relays_refused: AtomicU64,
    /// Requests that came through another server.
    pub relays_taken: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
