//! Digests of the heads of shared rooms, kept in memory: comparing heads begins with one digest
//! over all rooms that two servers share, and there may be thousands (D11).
//!
//! Nothing here can be stale: the digest of a room is kept with the integers of the heads and of
//! the state it was made of, which are never given out twice, and the digest over all rooms with
//! the position of the snapshot it was made in, which moves with every change of a head or of a
//! membership.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use messagehub_protocol::wire::heads::{HeadsDigest, room_digest, total_digest};
use messagehub_store::{
    EventNid, RoomNid, Snapshot, StateNid, StoreError, StreamPos, events, rooms,
    shared_heads::{self, SharedRoom},
};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, ServerName,
    events::{StateEventType, room::server_acl::RoomServerAclEventContent},
};

use crate::view::state_event;

/// Rooms whose digest is kept: more than a node is built for. About 300 bytes each.
const MAX_ROOMS: usize = 8_192;

/// Servers whose digest over all shared rooms is kept: more than there are connections.
const MAX_TOTALS: usize = 1_024;

/// What is kept.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    rooms: Mutex<HashMap<RoomNid, Arc<Entry>>>,
    totals: Mutex<BTreeMap<OwnedServerName, (StreamPos, Total)>>,
}

/// The digest of one room, and what it was made of.
#[derive(Debug)]
struct Entry {
    heads: Vec<EventNid>,
    state: StateNid,
    room_id: OwnedRoomId,
    digest: HeadsDigest,
    acl: Option<RoomServerAclEventContent>,
}

/// The digest over all rooms that two servers share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    /// The digest.
    pub(crate) digest: HeadsDigest,
    /// The number of rooms in it.
    pub(crate) rooms: usize,
}

impl Digests {
    /// The digest over all rooms that two servers share.
    pub(crate) fn total(
        &self,
        snap: &Snapshot<'_>,
        (us, them): (&ServerName, &ServerName),
    ) -> Result<Total, StoreError> {
        let position = snap.position()?;
        let known = self.totals().get(them).copied();
        if let Some((at, total)) = known
            && at == position
        {
            return Ok(total);
        }
        let rooms = self.rooms(snap, (us, them))?;
        let total = Total { digest: total_of(&rooms), rooms: rooms.len() };
        let mut totals = self.totals();
        if totals.len() >= MAX_TOTALS && !totals.contains_key(them) {
            totals.pop_first();
        }
        totals.insert(them.to_owned(), (position, total));
        Ok(total)
    }

    /// The digest of each room that two servers share. A room whose access list excludes one of
    /// them is left out: it is told nothing of it, and what it has of it is of no account.
    pub(crate) fn rooms(
        &self,
        snap: &Snapshot<'_>,
        (us, them): (&ServerName, &ServerName),
    ) -> Result<BTreeMap<OwnedRoomId, HeadsDigest>, StoreError> {
        let mut digests = BTreeMap::new();
        for shared in shared_heads::list(snap, us, them)? {
            let entry = self.entry(snap, shared)?;
            let admits = |server| entry.acl.as_ref().is_none_or(|acl| acl.is_allowed(server));
            if admits(us) && admits(them) {
                digests.insert(entry.room_id.clone(), entry.digest);
            }
        }
        Ok(digests)
    }

    fn entry(&self, snap: &Snapshot<'_>, shared: SharedRoom) -> Result<Arc<Entry>, StoreError> {
        let known = self.cached().get(&shared.room).cloned();
        let same_state = known.as_ref().filter(|entry| entry.state == shared.state);
        if let Some(entry) = same_state
            && entry.heads == shared.heads
        {
            return Ok(Arc::clone(entry));
        }
        let acl = match same_state {
            Some(entry) => entry.acl.clone(),
            None => acl(snap, shared.state)?,
        };
        let room_id = match &known {
            Some(entry) => entry.room_id.clone(),
            None => rooms::get_by_nid(snap, shared.room)?.room_id,
        };
        let mut ids = Vec::with_capacity(shared.heads.len());
        for nid in &shared.heads {
            ids.push(events::id(snap, *nid)?);
        }
        let digest = room_digest(ids.iter().map(|id| &**id));
        let SharedRoom { room, state, heads } = shared;
        let entry = Arc::new(Entry { heads, state, room_id, digest, acl });
        let mut rooms = self.cached();
        if rooms.len() >= MAX_ROOMS && !rooms.contains_key(&room) {
            rooms.clear();
        }
        rooms.insert(room, Arc::clone(&entry));
        Ok(entry)
    }

    // Nothing in these has an invariant that a panic elsewhere could break.

    fn cached(&self) -> std::sync::MutexGuard<'_, HashMap<RoomNid, Arc<Entry>>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> std::sync::MutexGuard<'_, BTreeMap<OwnedServerName, (StreamPos, Total)>> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest over all of some rooms.
pub(crate) fn total_of(rooms: &BTreeMap<OwnedRoomId, HeadsDigest>) -> HeadsDigest {
    total_digest(by_ref(rooms))
}

/// Some rooms as the functions of the protocol take them.
pub(crate) fn by_ref(
    rooms: &BTreeMap<OwnedRoomId, HeadsDigest>,
) -> impl Iterator<Item = (&RoomId, HeadsDigest)> {
    rooms.iter().map(|(room_id, digest)| (&**room_id, *digest))
}

/// The access list in a state. One that cannot be read excludes nobody, as everywhere.
fn acl(
    snap: &Snapshot<'_>,
    state: StateNid,
) -> Result<Option<RoomServerAclEventContent>, StoreError> {
    let acl = state_event(snap, state, &StateEventType::RoomServerAcl, "")?;
    Ok(acl.and_then(|pdu| serde_json::from_str(pdu.content().get()).ok()))
}
