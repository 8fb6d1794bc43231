//! What one node holds of one room.

use std::collections::{BTreeMap, BTreeSet};

use messagehub_homeserver::StoreError;
use messagehub_store::{
    Room, Snapshot,
    events::{self, Standing, StoredEvent},
    extremities, memberships, pending, room_state, rooms,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

/// The short look, for waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) heads: BTreeSet<OwnedEventId>,
    pub(crate) servers: BTreeSet<OwnedServerName>,
    /// Events that wait for others.
    pub(crate) waiting: usize,
}

/// One event as a node holds it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) json: String,
    pub(crate) standing: Standing,
    pub(crate) is_shown: bool,
    pub(crate) is_redacted: bool,
    pub(crate) prev_events: Vec<OwnedEventId>,
    /// What it sets, if it is state.
    pub(crate) sets: Option<(String, String)>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) heads: BTreeSet<OwnedEventId>,
    /// The current state, a line for each entry, in order.
    pub(crate) state: String,
    /// The heads and all their ancestors.
    pub(crate) events: BTreeMap<OwnedEventId, Held>,
    /// Ancestors that are not there, or not in their place.
    pub(crate) missing: BTreeSet<OwnedEventId>,
}

/// The short look; `None` when the node is not in the room.
pub(crate) fn glance(
    snap: &Snapshot<'_>,
    us: &ServerName,
    room_id: &OwnedRoomId,
) -> Result<Option<Glance>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    if !memberships::is_server_in(snap, room.nid, us)? {
        return Ok(None);
    }
    Ok(Some(Glance {
        heads: heads(snap, &room)?,
        servers: memberships::servers_in(snap, room.nid)?.into_iter().collect(),
        waiting: pending::list(snap, room_id)?.len(),
    }))
}

/// Which of some events a node has not in their place.
pub(crate) fn lacking(
    snap: &Snapshot<'_>,
    wanted: &BTreeSet<OwnedEventId>,
) -> Result<Vec<OwnedEventId>, StoreError> {
    let mut lacking = Vec::new();
    for event_id in wanted {
        if placed(snap, event_id)?.is_none() {
            lacking.push(event_id.clone());
        }
    }
    Ok(lacking)
}

/// The long look.
pub(crate) fn look(snap: &Snapshot<'_>, room_id: &OwnedRoomId) -> Result<Option<Look>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    let heads = heads(snap, &room)?;
    let (mut held, mut missing) = (BTreeMap::new(), BTreeSet::new());
    let mut next: Vec<OwnedEventId> = heads.iter().cloned().collect();
    while let Some(event_id) = next.pop() {
        if held.contains_key(&event_id) || missing.contains(&event_id) {
            continue;
        }
        match placed(snap, &event_id)? {
            Some(event) => {
                next.extend(event.pdu.prev_events().iter().cloned());
                held.insert(event_id, hold(&event));
            }
            None => drop(missing.insert(event_id)),
        }
    }
    Ok(Some(Look { heads, state: state(snap, &room)?, events: held, missing }))
}

fn heads(snap: &Snapshot<'_>, room: &Room) -> Result<BTreeSet<OwnedEventId>, StoreError> {
    extremities::list(snap, room.nid)?.into_iter().map(|nid| events::id(snap, nid)).collect()
}

fn placed(snap: &Snapshot<'_>, event_id: &EventId) -> Result<Option<StoredEvent>, StoreError> {
    let found = events::find(snap, event_id)?;
    Ok(found.filter(|event| event.pos.is_some() || event.state_before.is_some()))
}

fn hold(event: &StoredEvent) -> Held {
    let key = event.pdu.state_key();
    Held {
        json: event.pdu.json().to_owned(),
        standing: event.standing,
        is_shown: event.pos.is_some(),
        is_redacted: event.redacted_by.is_some(),
        prev_events: event.pdu.prev_events().to_vec(),
        sets: key.map(|key| (event.pdu.kind().to_string(), key.to_owned())),
    }
}

fn state(snap: &Snapshot<'_>, room: &Room) -> Result<String, StoreError> {
    let mut lines = Vec::new();
    for (kind, state_key, nid) in room_state::all(snap, room.state)? {
        let pdu = events::pdu(snap, nid)?;
        lines.push(format!("{kind} {state_key} {} {}\n", pdu.event_id(), pdu.json()));
    }
    lines.sort_unstable();
    Ok(lines.concat())
}
