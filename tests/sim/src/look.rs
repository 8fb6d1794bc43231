//! What one node holds of one room.

use std::collections::{BTreeMap, BTreeSet};

use messagehub_homeserver::StoreError;
use messagehub_protocol::{pdu, rules::rules_of};
use messagehub_store::{
    Room, Snapshot,
    events::{self, Standing, StoredEvent},
    extremities, memberships, pending, room_state, rooms,
};
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, ServerName};

/// Missing events named in a report.
const MAX_NAMED: usize = 10;

/// The short look, for waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) heads: BTreeSet<OwnedEventId>,
    pub(crate) servers: BTreeSet<OwnedServerName>,
    /// Events that wait for others, and what they wait for, in words; empty when there are none.
    pub(crate) waiting: String,
}

/// One event as a node holds it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) json: String,
    pub(crate) standing: Standing,
    pub(crate) is_shown: bool,
    pub(crate) is_redacted: bool,
    pub(crate) prev_events: Vec<OwnedEventId>,
    /// What it redacts.
    pub(crate) redacts: Option<OwnedEventId>,
    /// What it sets, if it is state.
    pub(crate) sets: Option<(String, String)>,
}

/// Everything.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) heads: BTreeSet<OwnedEventId>,
    /// The current state, a line for each entry, in order; the bytes are in `events`.
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
        waiting: waiting(snap, room_id)?,
    }))
}

fn waiting(snap: &Snapshot<'_>, room_id: &OwnedRoomId) -> Result<String, StoreError> {
    let waiting: Vec<_> =
        pending::list(snap, room_id)?.into_iter().map(|event| event.event_id).collect();
    if waiting.is_empty() {
        return Ok(String::new());
    }
    let missing = pending::list_missing(snap, room_id, MAX_NAMED)?;
    Ok(format!("{waiting:?} wait for {missing:?}"))
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
                held.insert(event_id, hold(&room, &event));
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

fn hold(room: &Room, event: &StoredEvent) -> Held {
    let key = event.pdu.state_key();
    Held {
        json: bare(room, event),
        standing: event.standing,
        is_shown: event.pos.is_some(),
        is_redacted: event.redacted_by.is_some(),
        prev_events: event.pdu.prev_events().to_vec(),
        redacts: event.pdu.redacts().map(ToOwned::to_owned),
        sets: key.map(|key| (event.pdu.kind().to_string(), key.to_owned())),
    }
}

/// An event without what may differ: its signatures, since an invite may have that of the invited
/// server too; and what a redaction took away, since others may have got it without.
fn bare(room: &Room, event: &StoredEvent) -> String {
    let redacted = rules_of(&room.version)
        .filter(|_| event.redacted_by.is_some())
        .and_then(|rules| pdu::redacted(&event.pdu, rules, None).ok());
    let json = redacted.as_ref().map_or(event.pdu.json(), |pdu| pdu.json());
    let Ok(mut event) = serde_json::from_str::<serde_json::Value>(json) else {
        return json.to_owned();
    };
    if let Some(event) = event.as_object_mut() {
        event.remove("signatures");
        event.remove("unsigned");
    }
    event.to_string()
}

fn state(snap: &Snapshot<'_>, room: &Room) -> Result<String, StoreError> {
    let mut lines = Vec::new();
    for (kind, state_key, nid) in room_state::all(snap, room.state)? {
        lines.push(format!("{kind} {state_key} {}\n", events::id(snap, nid)?));
    }
    lines.sort_unstable();
    Ok(lines.concat())
}
