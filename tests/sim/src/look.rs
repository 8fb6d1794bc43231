//! What one node holds of one room.

use std::collections::{BTreeMap, BTreeSet};

use messagehub_homeserver::StoreError;
use messagehub_protocol::{pdu, rules::rules_of};
use messagehub_store::{
    EventNid, Room, Snapshot,
    events::{self, Standing, StoredEvent},
    extremities, memberships, pending, receipts, room_state, rooms,
};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName, UserId,
    events::{StateEventType, receipt::ReceiptThread, room::member::MembershipState},
};

use crate::trace::hash_of;

/// Missing events named in a report.
const MAX_NAMED: usize = 10;

/// The short look, for waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) heads: BTreeSet<OwnedEventId>,
    pub(crate) servers: BTreeSet<OwnedServerName>,
    /// Events that wait for others, and the server that made each.
    pub(crate) waiting: Vec<(OwnedEventId, Option<OwnedServerName>)>,
}

/// One event as a node holds it.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// A hash of its bytes, without what may differ; [`text`] has these.
    pub(crate) bytes: u64,
    pub(crate) sender: OwnedUserId,
    /// When it was made, as it says itself, in milliseconds.
    pub(crate) ts: u64,
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
    /// What is redacted by redactions that the heads do not follow.
    pub(crate) redacted_beside: BTreeSet<OwnedEventId>,
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

fn waiting(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
) -> Result<Vec<(OwnedEventId, Option<OwnedServerName>)>, StoreError> {
    let sender = |json: &str| -> Option<OwnedServerName> {
        let event: serde_json::Value = serde_json::from_str(json).ok()?;
        let sender = <&UserId>::try_from(event.get("sender")?.as_str()?).ok()?;
        Some(sender.server_name().to_owned())
    };
    let waiting = pending::list(snap, room_id)?;
    Ok(waiting.into_iter().map(|event| (event.event_id, sender(&event.json))).collect())
}

/// What the waiting events of a room lack, for a report.
pub(crate) fn missing(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
) -> Result<Vec<OwnedEventId>, StoreError> {
    pending::list_missing(snap, room_id, MAX_NAMED)
}

/// How far a user has read, as a node knows it.
pub(crate) fn receipt(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
    user_id: &UserId,
) -> Result<Option<OwnedEventId>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    let kind = (receipts::Kind::Public, &ReceiptThread::Unthreaded);
    receipts::find(snap, room.nid, user_id, kind)
}

/// The last head of a room, and the servers in it.
pub(crate) fn newest(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
) -> Result<Option<(OwnedEventId, Vec<OwnedServerName>)>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    let Some(nid) = extremities::list(snap, room.nid)?.into_iter().next_back() else {
        return Ok(None);
    };
    Ok(Some((events::id(snap, nid)?, memberships::servers_in(snap, room.nid)?)))
}

/// What a user is in a room, as a node knows it.
pub(crate) fn membership(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
    user_id: &UserId,
) -> Result<Option<MembershipState>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    Ok(memberships::find(snap, room.nid, user_id)?.map(|member| member.membership))
}

/// The join by which a user is in a room, as a node knows it.
pub(crate) fn join(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
    user_id: &UserId,
) -> Result<Option<OwnedEventId>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(None) };
    let member = memberships::find(snap, room.nid, user_id)?;
    let joined = member.filter(|member| member.membership == MembershipState::Join);
    joined.and_then(|member| member.event).map(|nid| events::id(snap, nid)).transpose()
}

/// The users who are invited to a room.
pub(crate) fn invited(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
) -> Result<Vec<OwnedUserId>, StoreError> {
    let Some(room) = rooms::find(snap, room_id)? else { return Ok(Vec::new()) };
    let mut invited = Vec::new();
    for (kind, state_key, nid) in room_state::all(snap, room.state)? {
        let content = events::pdu(snap, nid)?;
        let is_invite = kind == StateEventType::RoomMember
            && content.content().get().contains(r#""membership":"invite""#);
        if is_invite && let Ok(user_id) = UserId::parse(state_key) {
            invited.push(user_id);
        }
    }
    Ok(invited)
}

/// Whether a node has an event in whatever way.
pub(crate) fn has(snap: &Snapshot<'_>, event_id: &EventId) -> Result<bool, StoreError> {
    Ok(events::find(snap, event_id)?.is_some() || pending::contains(snap, event_id)?)
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
    let redacted_beside = redacted_beside(snap, &room, &held)?;
    Ok(Some(Look { heads, state: state(snap, &room)?, events: held, missing, redacted_beside }))
}

/// What events of a room redact that are in none of its branches here. A node may have applied such a
/// redaction when it was part of one.
fn redacted_beside(
    snap: &Snapshot<'_>,
    room: &Room,
    followed: &BTreeMap<OwnedEventId, Held>,
) -> Result<BTreeSet<OwnedEventId>, StoreError> {
    // More than redactions may have this in their bytes.
    let mut select = snap.conn().prepare_cached(
        r#"SELECT nid FROM events WHERE room = ?1 AND instr(json, '"m.room.redaction"')"#,
    )?;
    let nids = select.query_map([room.nid], |row| row.get(0))?;
    let nids: Vec<EventNid> = nids.collect::<Result<_, _>>()?;
    let mut beside = events::load_many(snap, nids)?;
    beside.retain(|event| !followed.contains_key(event.pdu.event_id()));
    Ok(beside.iter().filter_map(|event| event.pdu.redacts().map(ToOwned::to_owned)).collect())
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
        bytes: hash_of(bare(room, event)),
        sender: event.pdu.sender().to_owned(),
        ts: event.pdu.origin_server_ts().get().into(),
        standing: event.standing,
        is_shown: event.pos.is_some(),
        is_redacted: event.redacted_by.is_some(),
        prev_events: event.pdu.prev_events().to_vec(),
        redacts: event.pdu.redacts().map(ToOwned::to_owned),
        sets: key.map(|key| (event.pdu.kind().to_string(), key.to_owned())),
    }
}

/// The bytes of an event, for a report.
pub(crate) fn text(
    snap: &Snapshot<'_>,
    room_id: &OwnedRoomId,
    event_id: &EventId,
) -> Result<String, StoreError> {
    let room = rooms::find(snap, room_id)?;
    let event = events::find(snap, event_id)?;
    Ok(room.zip(event).map(|(room, event)| bare(&room, &event)).unwrap_or_default())
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
