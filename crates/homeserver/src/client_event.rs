//! Events as clients see them.
//!
//! Spec: Client-Server API, "Room event format" and "Types of room events".

use std::{collections::BTreeMap, sync::Arc};

use messagehub_protocol::{
    pdu::{Pdu, redacted},
    rules::rules_of,
};
use messagehub_store::{
    Snapshot, StateNid, StoreError,
    events::{self, StoredEvent},
    room_state, rooms, txn_ids,
};
use ruma::{
    DeviceId, EventId, MilliSecondsSinceUnixEpoch, OwnedTransactionId, RoomId, UInt, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::visibility::membership_in;

/// How events are written for one reader.
#[derive(Debug, Clone, Copy)]
pub struct Format<'a> {
    /// For whom.
    pub reader: Reader<'a>,
    /// The present time, to which `unsigned.age` counts.
    pub now: MilliSecondsSinceUnixEpoch,
    /// Whether events name their room.
    pub room_id: RoomIdField,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The user.
    pub user_id: &'a UserId,
    /// The device, which alone sees the transaction ids of what it sent.
    pub device_id: &'a DeviceId,
}

/// Whether events name their room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomIdField {
    /// As everywhere but in `/sync`.
    Present,
    /// As in `/sync`, where the room is said around them.
    Absent,
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: &'a RawValue,
    event_id: &'a EventId,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a RoomId>,
    sender: &'a UserId,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    r#type: &'a TimelineEventType,
    unsigned: Unsigned<'a>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    age: UInt,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<MembershipState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_sender: Option<&'a UserId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<&'a EventId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<OwnedTransactionId>,
}

impl Format<'_> {
    /// One event, with everything that `unsigned` can say to this reader.
    ///
    /// # Errors
    ///
    /// The store's.
    pub fn event(
        &self,
        snap: &Snapshot<'_>,
        event: &StoredEvent,
    ) -> Result<Box<RawValue>, StoreError> {
        let pdu = &*shown(snap, event)?;
        let replaced = replaced(snap, event)?;
        let redaction = event.redacted_by.map(|nid| events::get(snap, nid)).transpose()?;
        let redacted_because = redaction
            .map(|redaction| self.write(&redaction.pdu, Unsigned::new(&redaction.pdu, self.now)))
            .transpose()?;
        let transaction_id = match pdu.sender() == self.reader.user_id {
            true => txn_ids::of_event(snap, event.nid, self.reader.user_id, self.reader.device_id)?,
            false => None,
        };
        let mut unsigned = Unsigned::new(pdu, self.now);
        unsigned.membership = self.membership(snap, event)?;
        unsigned.redacted_because = redacted_because;
        unsigned.transaction_id = transaction_id;
        if let Some(replaced) = &replaced {
            unsigned.prev_content = Some(replaced.content());
            unsigned.prev_sender = Some(replaced.sender());
            unsigned.replaces_state = Some(replaced.event_id());
        }
        self.write(pdu, unsigned)
    }

    /// What the reader was in the room at the time of an event, or is by it where it is about them;
    /// `None` where that is not known.
    ///
    /// Spec: Client-Server API, "Room event format", `unsigned.membership`.
    fn membership(
        &self,
        snap: &Snapshot<'_>,
        event: &StoredEvent,
    ) -> Result<Option<MembershipState>, StoreError> {
        let (pdu, reader) = (&event.pdu, self.reader.user_id.as_str());
        if *pdu.kind() == TimelineEventType::RoomMember && pdu.state_key() == Some(reader) {
            return Ok(membership_in(pdu));
        }
        let Some(state) = event.state_before else { return Ok(None) };
        let member = match room_state::get(snap, state, &StateEventType::RoomMember, reader)? {
            Some(nid) => membership_in(&*events::pdu(snap, nid)?),
            None => None,
        };
        Ok(Some(member.unwrap_or(MembershipState::Leave)))
    }

    fn write(&self, pdu: &Pdu, unsigned: Unsigned<'_>) -> Result<Box<RawValue>, StoreError> {
        let room_id = match self.room_id {
            RoomIdField::Present => Some(pdu.room_id()),
            RoomIdField::Absent => None,
        };
        let with_redacts = content_with_redacts(pdu)?;
        json(&ClientEvent {
            content: with_redacts.as_deref().unwrap_or_else(|| pdu.content()),
            event_id: pdu.event_id(),
            origin_server_ts: pdu.origin_server_ts(),
            redacts: pdu.redacts(),
            room_id,
            sender: pdu.sender(),
            state_key: pdu.state_key(),
            r#type: pdu.kind(),
            unsigned,
        })
    }
}

impl Unsigned<'_> {
    fn new(pdu: &Pdu, now: MilliSecondsSinceUnixEpoch) -> Self {
        Self {
            age: now.get().saturating_sub(pdu.origin_server_ts().get()),
            membership: None,
            prev_content: None,
            prev_sender: None,
            redacted_because: None,
            replaces_state: None,
            transaction_id: None,
        }
    }
}

/// An event as somebody who is not in the room sees it: its content, and who set it.
///
/// Spec: Client-Server API, "Stripped state".
///
/// # Errors
///
/// Never in practice: what was parsed can be written.
pub fn stripped(pdu: &Pdu) -> Result<Box<RawValue>, StoreError> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        content: &'a RawValue,
        sender: &'a UserId,
        state_key: &'a str,
        r#type: &'a TimelineEventType,
    }
    json(&Stripped {
        content: pdu.content(),
        sender: pdu.sender(),
        state_key: pdu.state_key().unwrap_or_default(),
        r#type: pdu.kind(),
    })
}

/// What an invited user is shown of a room: the state that says what it is, and the inviter.
///
/// Spec: Client-Server API, "Stripped state".
///
/// # Errors
///
/// The store's.
pub fn stripped_state(
    snap: &Snapshot<'_>,
    state: StateNid,
    members: &[&UserId],
) -> Result<Vec<Box<RawValue>>, StoreError> {
    shown_state(snap, state, members)?.iter().map(|pdu| stripped(pdu)).collect()
}

/// The same as whole events, the create event first.
///
/// Spec: Client-Server API, "Stripped state", which recommends these types.
///
/// # Errors
///
/// The store's.
pub(crate) fn shown_state(
    snap: &Snapshot<'_>,
    state: StateNid,
    members: &[&UserId],
) -> Result<Vec<Arc<Pdu>>, StoreError> {
    const SHOWN: [StateEventType; 8] = [
        StateEventType::RoomCreate,
        StateEventType::RoomName,
        StateEventType::RoomAvatar,
        StateEventType::RoomTopic,
        StateEventType::RoomJoinRules,
        StateEventType::RoomCanonicalAlias,
        StateEventType::RoomEncryption,
        StateEventType::RoomPowerLevels,
    ];
    let members = members.iter().map(|user| (StateEventType::RoomMember, user.as_str()));
    let keys = SHOWN.into_iter().map(|kind| (kind, "")).chain(members);
    let mut found = Vec::new();
    for (kind, state_key) in keys {
        if let Some(nid) = room_state::get(snap, state, &kind, state_key)? {
            found.push(shown(snap, &events::get(snap, nid)?)?);
        }
    }
    Ok(found)
}

/// The content of a redaction as of room version 11, which names there what is redacted, where the
/// event is of an older room.
///
/// Spec: "Room Version 11", "Moving the `redacts` property".
fn content_with_redacts(pdu: &Pdu) -> Result<Option<Box<RawValue>>, StoreError> {
    const FIELD: &str = "redacts";
    let Some(redacts) = pdu.redacts().filter(|_| *pdu.kind() == TimelineEventType::RoomRedaction)
    else {
        return Ok(None);
    };
    match serde_json::from_str::<BTreeMap<String, Box<RawValue>>>(pdu.content().get()) {
        Ok(mut content) if !content.contains_key(FIELD) => {
            content.insert(FIELD.to_owned(), json(&redacts)?);
            json(&content).map(Some)
        }
        _ => Ok(None),
    }
}

/// An event without what a redaction took away.
///
/// # Errors
///
/// The store's.
pub fn shown(snap: &Snapshot<'_>, event: &StoredEvent) -> Result<Arc<Pdu>, StoreError> {
    if event.redacted_by.is_none() {
        return Ok(Arc::clone(&event.pdu));
    }
    let damaged = |what: String| StoreError::Damaged(what);
    let version = rooms::get_by_nid(snap, event.room)?.version;
    let rules = rules_of(&version).ok_or_else(|| damaged(format!("room version {version}")))?;
    redacted(&event.pdu, rules, None).map(Arc::new).map_err(|error| damaged(error.to_string()))
}

/// The state event that a state event took the place of.
fn replaced(snap: &Snapshot<'_>, event: &StoredEvent) -> Result<Option<Arc<Pdu>>, StoreError> {
    let (Some(state_key), Some(before)) = (event.pdu.state_key(), event.state_before) else {
        return Ok(None);
    };
    let kind = StateEventType::from(event.pdu.kind().to_string());
    match room_state::get(snap, before, &kind, state_key)? {
        Some(nid) => Ok(Some(shown(snap, &events::get(snap, nid)?)?)),
        None => Ok(None),
    }
}

fn json(value: &impl Serialize) -> Result<Box<RawValue>, StoreError> {
    to_raw_value(value).map_err(|error| StoreError::Damaged(error.to_string()))
}
