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

/// Rooms noted for a comparison before the next one: more than a moment brings; the comparison
/// every minute finds whatever did not fit.
const MAX_BEHIND: usize = 256;

/// A server that has just joined sends frames before we know of it: its first one makes us ask.
/// Whoever is no member must not be able to make us ask more often than this, in milliseconds.
const STRANGER_PAUSE_MS: u64 = 2_000;

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
    times: UniqueTimes,
    behind: Mutex<BTreeSet<OwnedRoomId>>,
    history: Mutex<BTreeSet<OwnedRoomId>>,
    /// When a frame of a stranger last made us look at a room, in milliseconds.
    strangers: Mutex<BTreeMap<OwnedRoomId, u64>>,
    compared: Mutex<BTreeMap<OwnedServerName, Compared>>,
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

    pub(super) fn note_behind(&self, room_id: &RoomId) {
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        if behind.len() < MAX_BEHIND {
            behind.insert(room_id.to_owned());
        }
    }

    /// Whether a frame of a stranger is worth a look at the room: one in [`STRANGER_PAUSE_MS`].
    pub(super) fn note_stranger(&self, room_id: &RoomId, now: MilliSecondsSinceUnixEpoch) -> bool {
        let now = u64::from(now.get());
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let last = strangers.get(room_id).copied();
        if last.is_some_and(|last| now < last.saturating_add(STRANGER_PAUSE_MS)) {
            return false;
        }
        if strangers.len() >= MAX_BEHIND && last.is_none() {
            strangers.pop_first();
        }
        strangers.insert(room_id.to_owned(), now);
        true
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

    pub(super) fn connected(&self) -> Vec<OwnedServerName> {
        let connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.keys().cloned().collect()
    }
}

/// Numbers for the metrics. Each only grows.
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
    /// Requests of other servers that were refused: signature, name, PeerId, freshness, repetition.
    pub requests_refused: AtomicU64,
    /// Events taken from another server because heads or ancestors were missing.
    pub events_repaired: AtomicU64,
    /// Comparisons of heads with another server.
    pub heads_exchanges: AtomicU64,
    /// Deliveries from the outbox.
    pub outbox_deliveries: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(u64::try_from(amount).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
