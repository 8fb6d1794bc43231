//! Events that another member of a room lacks.
//!
//! Spec: Server-Server API, "Backfilling and retrieving missing events", "Retrieving events" and
//! "Event authorization".

use std::sync::Arc;

use messagehub_protocol::{pdu::Pdu, server_keys::ServerKeys};
use messagehub_store::{
    RoomNid, Snapshot, StoreError, edges,
    events::{self, Standing, StoredEvent},
    memberships, rooms,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use serde_json::value::RawValue;

use super::access::{AccessError, Sight, raw, remembered_room};
use crate::{Homeserver, federation::keys};

/// The most events in one answer: what one transaction may carry is 50; twice that halves the
/// round trips of history, and at the largest event size stays below 7 MiB.
pub const MAX_EVENTS: usize = 100;

/// The most ids that one request may begin or end with: an event has at most 20 predecessors.
const MAX_IDS: usize = 20;

/// Events, and the `server_keys` of who signed them.
#[derive(Debug, Default)]
pub struct Events {
    /// As they were received, or redacted where the asker may not see them.
    pub pdus: Vec<Box<RawValue>>,
    /// One object for each signer.
    pub server_keys: Vec<Box<RawValue>>,
}

/// In which order missing events are given, and so which ones when there are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Those nearest to the latest ones: what the specification says.
    NewestFirst,
    /// Those nearest to what the asker has, in the order in which they can be taken in: ours.
    OldestFirst,
}

/// What a member is missing.
#[derive(Debug)]
pub struct Missing {
    /// The room.
    pub room_id: OwnedRoomId,
    /// What the asker has.
    pub earliest: Vec<OwnedEventId>,
    /// What follows the missing events; not part of the answer.
    pub latest: Vec<OwnedEventId>,
    /// The most events wanted.
    pub limit: usize,
    /// Events of a smaller depth are not wanted.
    pub min_depth: u64,
    /// Which ones, when there are too many.
    pub order: Order,
}

/// Events at and before the given ones, newest first.
///
/// # Errors
/// Why the asker may not have them.
pub async fn backfill(
    hs: &Homeserver,
    origin: OwnedServerName,
    room_id: OwnedRoomId,
    (from, limit): (Vec<OwnedEventId>, usize),
) -> Result<Events, AccessError> {
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let room = remembered_room(snap, &room_id, &origin)?;
            let from = &from[..from.len().min(MAX_IDS)];
            let walk =
                edges::Walk { room: room.nid, from, known: &[], limit: limit.min(MAX_EVENTS) };
            let found = edges::ancestors(snap, walk)?;
            let mut sight = Sight::new(snap, &room, &origin)?;
            let given = found.iter().filter(|event| event.standing != Standing::Rejected);
            told(snap, &own, &mut sight, given)
        })
        .await
}

/// Events between what the asker has and what it has heard of, oldest of the chosen ones first.
///
/// # Errors
/// Why the asker may not have them.
pub async fn missing(
    hs: &Homeserver,
    origin: OwnedServerName,
    wanted: Missing,
) -> Result<Events, AccessError> {
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let room = remembered_room(snap, &wanted.room_id, &origin)?;
            let chosen = between(snap, room.nid, &wanted)?;
            let mut sight = Sight::new(snap, &room, &origin)?;
            told(snap, &own, &mut sight, &chosen)
        })
        .await
}

/// Those of some events that the asker may know of, with the keys of who signed these: who signed
/// the others is for the room to know.
fn told<'e>(
    snap: &Snapshot<'_>,
    own: &ServerKeys,
    sight: &mut Sight<'_>,
    events: impl IntoIterator<Item = &'e StoredEvent>,
) -> Result<Events, AccessError> {
    let (mut pdus, mut shown) = (Vec::new(), Vec::new());
    for event in events {
        if let Some(pdu) = sight.shape(event)? {
            pdus.push(pdu);
            shown.push(&*event.pdu);
        }
    }
    Ok(Events { pdus, server_keys: keys::for_events(snap, own, shown)? })
}

fn between(
    snap: &Snapshot<'_>,
    room: RoomNid,
    wanted: &Missing,
) -> Result<Vec<StoredEvent>, StoreError> {
    let latest = &wanted.latest[..wanted.latest.len().min(MAX_IDS)];
    let known = &wanted.earliest[..wanted.earliest.len().min(MAX_IDS)];
    let limit = wanted.limit.min(MAX_EVENTS);
    let is_given = |event: &StoredEvent| {
        event.standing != Standing::Rejected && !latest.iter().any(|id| id == event.pdu.event_id())
    };
    let is_deep = |event: &StoredEvent| event.pdu.depth() >= wanted.min_depth;
    let walk = edges::Walk { room, from: latest, known, limit };
    match wanted.order {
        Order::OldestFirst => {
            let mut found = edges::oldest_first(snap, walk, is_given)?;
            // Not before: how deep a wish goes is not to say how much is looked at.
            found.retain(is_deep);
            Ok(found)
        }
        Order::NewestFirst => {
            // The latest ones may be unknown here as well as known; what is asked for is before them.
            let reach = edges::Walk { limit: limit + latest.len(), ..walk };
            let mut found = edges::ancestors(snap, reach)?;
            found.retain(|event| is_given(event) && is_deep(event));
            found.truncate(limit);
            // An order in which each can be judged when it comes.
            found.reverse();
            Ok(found)
        }
    }
}

/// One event.
///
/// # Errors
/// Why the asker may not have it.
pub async fn event(
    hs: &Homeserver,
    origin: OwnedServerName,
    event_id: OwnedEventId,
) -> Result<Events, AccessError> {
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let event = events::find(snap, &event_id)?.ok_or(AccessError::UnknownEvent)?;
            let room = rooms::get_by_nid(snap, event.room)?;
            if event.standing == Standing::Rejected
                || !memberships::is_server_known(snap, room.nid, &origin)?
            {
                return Err(AccessError::UnknownEvent);
            }
            remembered_room(snap, &room.room_id, &origin)?;
            let pdu = Sight::new(snap, &room, &origin)?.shape(&event)?;
            let pdu = pdu.ok_or(AccessError::UnknownEvent)?;
            let server_keys = keys::for_events(snap, &own, [&*event.pdu])?;
            Ok(Events { pdus: vec![pdu], server_keys })
        })
        .await
}

/// The auth chain of an event.
///
/// # Errors
/// Why the asker may not have it.
pub async fn auth_chain(
    hs: &Homeserver,
    origin: OwnedServerName,
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
) -> Result<Events, AccessError> {
    let own = hs.identity.server_keys();
    hs.store
        .read(move |snap| {
            let event = event_in(snap, &room_id, &origin, &event_id)?;
            let chain = edges::auth_chain(snap, [&event.pdu])?;
            whole(snap, &own, chain.events.values())
        })
        .await
}

/// An event of a room that the asker is in, or was in at that time.
pub(super) fn event_in(
    snap: &Snapshot<'_>,
    room_id: &RoomId,
    origin: &ServerName,
    event_id: &EventId,
) -> Result<StoredEvent, AccessError> {
    let room = remembered_room(snap, room_id, origin)?;
    let event = events::find(snap, event_id)?
        .filter(|event| event.room == room.nid)
        .ok_or(AccessError::UnknownEvent)?;
    match Sight::new(snap, &room, origin)?.may_know(&event)? {
        true => Ok(event),
        false => Err(AccessError::UnknownEvent),
    }
}

/// State and auth events, which every member may see whole.
pub(super) fn whole<'p>(
    snap: &Snapshot<'_>,
    own: &ServerKeys,
    pdus: impl IntoIterator<Item = &'p Arc<Pdu>> + Clone,
) -> Result<Events, AccessError> {
    let server_keys = keys::for_events(snap, own, pdus.clone().into_iter().map(|pdu| &**pdu))?;
    Ok(Events { pdus: pdus.into_iter().filter_map(|pdu| raw(pdu.json())).collect(), server_keys })
}
