//! Frames under keys that we lack: how many may wait, who is asked, and how often.
//!
//! Whoever forwards a frame has opened it, if it is honest, and so can tell the key. That one is
//! asked first, then other members at hand; each key once at a time, however many frames wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{FutureExt as _, future::Shared};
use messagehub_protocol::wire::{
    room_keys::{ROOM_KEYS_PATH, RoomKeysRequest, RoomKeysResponse},
    sealed::{RoomKey, RoomKeyId},
};
use messagehub_store::{StoreError, memberships, rooms};
use ruma::{OwnedRoomId, OwnedServerName, RoomId};
use tokio::sync::oneshot;
use tracing::debug;

use crate::{
    Homeserver,
    buckets::{Buckets, Pace},
    federation::{self, Call, FederationError},
    peers::{Counters, Peers},
    server::access,
};

/// How long a frame waits for its key. gossipsub forgets it after 10 seconds, and it still has to
/// be judged.
const PATIENCE: Duration = Duration::from_secs(6);

/// How long one member may take to answer, so that there is time for two others.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Members asked for one key.
const MAX_ASKED: usize = 3;

/// Connected servers looked at for members of the room.
const MAX_LOOKED_AT: usize = 256;

/// Frames that wait: half of those being taken in, so that they do not hold up the others; 16 MiB
/// of the largest.
const MAX_WAITING: usize = 64;

/// Frames of one room that wait.
const MAX_WAITING_OF_ROOM: usize = 32;

/// Frames of one neighbour that wait.
const MAX_WAITING_OF_SOURCE: usize = 16;

/// Keys asked for because of one neighbour's frames: after somebody left a large room each of its
/// members has a new one.
const ASKING: Pace = Pace { per_second: 10.0, burst: 200.0 };

/// Neighbours that are counted at once: more than there are connections.
const MAX_SOURCES: usize = 1_024;

/// For how long a neighbour that did not have a key is not asked for it again, in milliseconds.
const NO_KEY_MS: u64 = 5_000;

/// For how long a neighbour that was no member of a room is not looked up again, in milliseconds.
const NO_MEMBER_MS: u64 = 2_000;

/// Denials remembered: as many as all neighbours together may cause in that time, about.
const MAX_DENIALS: usize = 8_192;

/// What waits, and what is asked for.
pub(super) struct Asking {
    /// Frames that wait, by the neighbour that forwarded them and by room.
    by_source: BTreeMap<String, usize>,
    by_room: BTreeMap<OwnedRoomId, usize>,
    waiting: usize,
    /// Each ends when its asker is done.
    asked: BTreeMap<(OwnedRoomId, RoomKeyId), Done>,
    /// Until when it is no use to ask because of a neighbour.
    denied: BTreeMap<(String, Denied), u64>,
    paces: Buckets<String>,
}

/// A frame under a key that is not here.
struct Wanted<'a> {
    room_id: &'a RoomId,
    key_id: RoomKeyId,
    source: &'a str,
}

/// What a neighbour does not have, or is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Denied {
    Key(RoomKeyId),
    Membership(OwnedRoomId),
}

/// Resolves when an asker is done. Those who wait are woken in the order in which they came, so that
/// a run of the simulator repeats; a `watch` wakes them in any.
type Done = Shared<oneshot::Receiver<()>>;

/// What is left for a frame to do.
enum Turn {
    /// To ask; when this is dropped the others look again.
    Ask(oneshot::Sender<()>),
    /// To wait for another one that asks.
    Wait(Done),
}

/// The key with which a frame was sealed, asked for where it is not here. `None` where it cannot
/// be had, or when too much waits: then the frame is of no use to us.
///
/// # Errors
/// Our own database failed.
pub(crate) async fn find_or_ask(
    hs: &Homeserver,
    room_id: &RoomId,
    key_id: RoomKeyId,
    source: &str,
) -> Result<Option<Arc<RoomKey>>, StoreError> {
    let keys = hs.peers.room_keys();
    if let Some(key) = keys.find(room_id, key_id, hs.clock.now_ms()) {
        return Ok(Some(key));
    }
    let wanted = Wanted { room_id, key_id, source };
    let Some(_place) = Place::take(&hs.peers, &wanted) else { return Ok(None) };
    match tokio::time::timeout(PATIENCE, obtain(hs, &wanted)).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => Ok(keys.find(room_id, key_id, hs.clock.now_ms())),
    }
}

/// Asks, or waits for whoever asks. When the other one failed it is our own neighbour's turn.
async fn obtain(hs: &Homeserver, wanted: &Wanted<'_>) -> Result<(), StoreError> {
    for _ in 0..2 {
        let turn = hs.peers.room_keys().tables().asking.turn(wanted, hs.clock.now_ms());
        match turn {
            None => return Ok(()),
            Some(Turn::Ask(done)) => {
                let _asker = Asker { peers: &hs.peers, wanted, _done: done };
                return ask(hs, wanted).await;
            }
            Some(Turn::Wait(done)) => {
                // The asker never sends; it drops its end.
                drop(done.await);
                let now_ms = hs.clock.now_ms();
                if hs.peers.room_keys().find(wanted.room_id, wanted.key_id, now_ms).is_some() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Asks the neighbour that forwarded the frame, then others of the room.
async fn ask(hs: &Homeserver, wanted: &Wanted<'_>) -> Result<(), StoreError> {
    let Some(neighbour) = hs.peers.server_of(wanted.source) else { return Ok(()) };
    // A room that we are just joining is not ours yet: nobody is to blame.
    let Some(members) = whom(hs, wanted.room_id, neighbour).await? else { return Ok(()) };
    if members.is_empty() {
        // It forwards what only members can open, so it may have joined; heads will tell.
        hs.peers.note_stranger(wanted.room_id, hs.clock.now());
        deny(hs, wanted.source, Denied::Membership(wanted.room_id.to_owned()), NO_MEMBER_MS);
        return Ok(());
    }
    let request =
        RoomKeysRequest { room_id: wanted.room_id.to_owned(), key_ids: vec![wanted.key_id] };
    for member in members {
        Counters::add(&hs.peers.counters().room_keys_asked, 1);
        match ask_one(hs, &member, &request).await {
            Ok(keys) if !keys.is_empty() => {
                let now_ms = hs.clock.now_ms();
                let held = hs.peers.room_keys();
                keys.into_iter().for_each(|key| held.hold(wanted.room_id, key, now_ms));
                return Ok(());
            }
            Ok(_) => debug!(%member, "a member does not have a room key"),
            Err(FederationError::Store(error)) => return Err(error),
            Err(error) => debug!(%member, %error, "a room key could not be had"),
        }
    }
    deny(hs, wanted.source, Denied::Key(wanted.key_id), NO_KEY_MS);
    Ok(())
}

fn deny(hs: &Homeserver, source: &str, what: Denied, for_ms: u64) {
    let now_ms = hs.clock.now_ms();
    hs.peers.room_keys().tables().asking.deny((source.to_owned(), what), now_ms, for_ms);
}

async fn ask_one(
    hs: &Homeserver,
    member: &OwnedServerName,
    request: &RoomKeysRequest,
) -> Result<Vec<RoomKey>, FederationError> {
    let body = serde_json::to_vec(request)
        .map_err(|error| FederationError::BadRequest(error.to_string()))?;
    let call = Call { method: http::Method::POST, uri: ROOM_KEYS_PATH.to_owned(), body };
    let answer = federation::ask_raw(hs, member, call, ASK_TIMEOUT).await?;
    RoomKeysResponse::parse(&answer, request)
        .map(|answer| answer.keys)
        .map_err(|error| FederationError::BadAnswer(error.to_string()))
}

/// Whom to ask: the neighbour and some other members that can be reached at once. Nobody when the
/// neighbour is no member, so that a stranger's frames make us ask nothing; `None` when we are none.
async fn whom(
    hs: &Homeserver,
    room_id: &RoomId,
    neighbour: OwnedServerName,
) -> Result<Option<Vec<OwnedServerName>>, StoreError> {
    let (wanted, connected) = (room_id.to_owned(), hs.peers.connected());
    let us = hs.server_name().to_owned();
    hs.store
        .read(move |snap| {
            let Some(room) = rooms::find(snap, &wanted)? else { return Ok(None) };
            if !memberships::is_server_in(snap, room.nid, &us)? {
                return Ok(None);
            }
            let is_member = |server: &OwnedServerName| {
                Ok::<_, StoreError>(
                    memberships::is_server_in(snap, room.nid, server)?
                        && access::is_admitted(snap, &room, server)?,
                )
            };
            if !is_member(&neighbour)? {
                return Ok(Some(Vec::new()));
            }
            let mut members = vec![neighbour];
            for server in connected.into_iter().take(MAX_LOOKED_AT) {
                if members.len() == MAX_ASKED {
                    break;
                }
                if !members.contains(&server) && is_member(&server)? {
                    members.push(server);
                }
            }
            Ok(Some(members))
        })
        .await
}

/// A frame's place among those that wait; given back when it is dropped.
struct Place<'a> {
    peers: &'a Peers,
    source: String,
    room_id: OwnedRoomId,
}

impl<'a> Place<'a> {
    fn take(peers: &'a Peers, wanted: &Wanted<'_>) -> Option<Self> {
        let taken = peers.room_keys().tables().asking.take_place(wanted);
        taken.then(|| Self {
            peers,
            source: wanted.source.to_owned(),
            room_id: wanted.room_id.to_owned(),
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.peers.room_keys().tables().asking.give_back(&self.source, &self.room_id);
    }
}

/// Whoever asks for a key. When it is dropped, done or given up, those who wait look again.
struct Asker<'a> {
    peers: &'a Peers,
    wanted: &'a Wanted<'a>,
    _done: oneshot::Sender<()>,
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let asked = (self.wanted.room_id.to_owned(), self.wanted.key_id);
        self.peers.room_keys().tables().asking.asked.remove(&asked);
    }
}

impl Asking {
    fn take_place(&mut self, wanted: &Wanted<'_>) -> bool {
        let of_source = self.by_source.get(wanted.source).copied().unwrap_or(0);
        let of_room = self.by_room.get(wanted.room_id).copied().unwrap_or(0);
        if self.waiting >= MAX_WAITING
            || of_source >= MAX_WAITING_OF_SOURCE
            || of_room >= MAX_WAITING_OF_ROOM
        {
            return false;
        }
        self.waiting += 1;
        self.by_source.insert(wanted.source.to_owned(), of_source + 1);
        self.by_room.insert(wanted.room_id.to_owned(), of_room + 1);
        true
    }

    fn give_back(&mut self, source: &str, room_id: &RoomId) {
        self.waiting = self.waiting.saturating_sub(1);
        if self.by_source.get_mut(source).is_some_and(decrease) {
            self.by_source.remove(source);
        }
        if self.by_room.get_mut(room_id).is_some_and(decrease) {
            self.by_room.remove(room_id);
        }
    }

    /// What a frame does next; `None` when it is no use to ask.
    fn turn(&mut self, wanted: &Wanted<'_>, now_ms: u64) -> Option<Turn> {
        let asked = (wanted.room_id.to_owned(), wanted.key_id);
        if let Some(done) = self.asked.get(&asked) {
            return Some(Turn::Wait(done.clone()));
        }
        let source = wanted.source.to_owned();
        for what in [Denied::Key(wanted.key_id), Denied::Membership(asked.0.clone())] {
            let until_ms = self.denied.get(&(source.clone(), what));
            if until_ms.is_some_and(|until_ms| now_ms < *until_ms) {
                return None;
            }
        }
        if !self.paces.take(&source, now_ms) {
            return None;
        }
        let (asker, done) = oneshot::channel();
        self.asked.insert(asked, done.shared());
        Some(Turn::Ask(asker))
    }

    fn deny(&mut self, denial: (String, Denied), now_ms: u64, for_ms: u64) {
        if self.denied.len() >= MAX_DENIALS {
            self.sweep(now_ms);
        }
        if self.denied.len() >= MAX_DENIALS {
            self.denied.pop_first();
        }
        self.denied.insert(denial, now_ms.saturating_add(for_ms));
    }

    pub(super) fn sweep(&mut self, now_ms: u64) {
        self.denied.retain(|_, until_ms| now_ms < *until_ms);
    }
}

/// Counts one less; says whether none is left.
fn decrease(count: &mut usize) -> bool {
    *count = count.saturating_sub(1);
    *count == 0
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            by_source: BTreeMap::new(),
            by_room: BTreeMap::new(),
            waiting: 0,
            asked: BTreeMap::new(),
            denied: BTreeMap::new(),
            paces: Buckets::new(ASKING, MAX_SOURCES),
        }
    }
}
