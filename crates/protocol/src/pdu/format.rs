//! The form of a PDU: which fields, of which types, how long.
//!
//! Spec: Room Versions, "Event format"; Client-Server API, "Size limits".

use std::{borrow::Cow, fmt};

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedUserId, RoomId,
    events::TimelineEventType,
    room_version_rules::{EventsReferenceFormatVersion, RoomVersionRules},
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Pdu, PduError, RoomIdSource};
use crate::limits::{MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PREV_EVENTS};

const CREATE: &str = "m.room.create";

/// What is wrong with the form of an event.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A field is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field has another type than it must have.
    #[error("`{0}` has the wrong type")]
    Type(&'static str),
    /// A string or list is too long, a number out of range.
    #[error("`{0}` is over its limit")]
    Limit(&'static str),
    /// An identifier is none.
    #[error("`{0}` is not a valid identifier")]
    Identifier(&'static str),
    /// From version 12 on the create event is implied and may not be listed.
    #[error("`auth_events` names the create event")]
    CreateInAuthEvents,
}

/// Checks the fields that every event has.
pub(crate) fn check(
    object: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<(), FormatError> {
    let kind = string(object, "type")?.ok_or(FormatError::Missing("type"))?;
    string(object, "sender")?.ok_or(FormatError::Missing("sender"))?;
    string(object, "state_key")?;

    let room_id = string(object, "room_id")?;
    if room_id.is_none() && (kind != CREATE || rules.event_format.require_room_create_room_id) {
        return Err(FormatError::Missing("room_id"));
    }
    if rules.event_format.require_event_id {
        string(object, "event_id")?.ok_or(FormatError::Missing("event_id"))?;
    }
    match object.get("content") {
        Some(CanonicalJsonValue::Object(_)) => {}
        Some(_) => return Err(FormatError::Type("content")),
        None => return Err(FormatError::Missing("content")),
    }
    if !has_content_hash(object) {
        return Err(FormatError::Missing("hashes"));
    }
    natural(object, "depth")?;
    natural(object, "origin_server_ts")?;
    references(object, "prev_events", MAX_PREV_EVENTS, rules)?;
    let auth_events = references(object, "auth_events", MAX_AUTH_EVENTS, rules)?;

    if !rules.event_format.allow_room_create_in_auth_events
        && let Some(room_id) = room_id
    {
        let room_id =
            <&RoomId>::try_from(room_id).map_err(|_| FormatError::Identifier("room_id"))?;
        let names_create = |id: &CanonicalJsonValue| {
            id.as_str().and_then(|id| id.strip_prefix('$')) == Some(room_id.strip_sigil())
        };
        if auth_events.iter().any(names_create) {
            return Err(FormatError::CreateInAuthEvents);
        }
    }
    Ok(())
}

fn string<'a>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
) -> Result<Option<&'a str>, FormatError> {
    match object.get(field) {
        None => Ok(None),
        Some(CanonicalJsonValue::String(value)) if value.len() <= MAX_ID_BYTES => Ok(Some(value)),
        Some(CanonicalJsonValue::String(_)) => Err(FormatError::Limit(field)),
        Some(_) => Err(FormatError::Type(field)),
    }
}

fn has_content_hash(object: &CanonicalJsonObject) -> bool {
    let hashes = object.get("hashes").and_then(CanonicalJsonValue::as_object);
    hashes.and_then(|hashes| hashes.get("sha256")).is_some_and(CanonicalJsonValue::is_string)
}

fn natural(object: &CanonicalJsonObject, field: &'static str) -> Result<(), FormatError> {
    match object.get(field) {
        None => Err(FormatError::Missing(field)),
        Some(CanonicalJsonValue::Integer(value)) if i64::from(*value) >= 0 => Ok(()),
        Some(CanonicalJsonValue::Integer(_)) => Err(FormatError::Limit(field)),
        Some(_) => Err(FormatError::Type(field)),
    }
}

/// The entries of `prev_events` or `auth_events`, each of the form that the version wants.
pub(crate) fn references<'a>(
    object: &'a CanonicalJsonObject,
    field: &'static str,
    limit: usize,
    rules: &RoomVersionRules,
) -> Result<&'a [CanonicalJsonValue], FormatError> {
    let list = match object.get(field) {
        None => return Err(FormatError::Missing(field)),
        Some(CanonicalJsonValue::Array(list)) => list,
        Some(_) => return Err(FormatError::Type(field)),
    };
    if list.len() > limit {
        return Err(FormatError::Limit(field));
    }
    let is_reference = |value: &CanonicalJsonValue| match rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => {
            matches!(value.as_array(), Some([id, hashes]) if id.is_string() && hashes.is_object())
        }
        _ => value.is_string(),
    };
    match list.iter().all(is_reference) {
        true => Ok(list),
        false => Err(FormatError::Type(field)),
    }
}

/// What of an event is read into types, in one pass over its JSON.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    sender: OwnedUserId,
    room_id: Option<OwnedRoomId>,
    state_key: Option<String>,
    content: Box<RawValue>,
    prev_events: Vec<Reference>,
    auth_events: Vec<Reference>,
    depth: u64,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// Of any type: only in a redaction, and there only in some versions, does it mean something.
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    unsigned: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct RedactionContent<'a> {
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

/// `"$id"`, or `["$id", {"sha256": "…"}]` in version 2.
struct Reference(OwnedEventId);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ReferenceVisitor)
    }
}

struct ReferenceVisitor;

impl<'de> Visitor<'de> for ReferenceVisitor {
    type Value = Reference;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event id, or a pair of an event id and hashes")
    }

    fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Reference, E> {
        id.try_into().map(Reference).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Reference, A::Error> {
        let id = pair.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
        while pair.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Reference(id))
    }
}

/// Reads an event of known id.
pub(crate) fn parse(
    json: String,
    event_id: OwnedEventId,
    rules: &RoomVersionRules,
) -> Result<Pdu, PduError> {
    let fields: Fields<'_> =
        serde_json::from_str(&json).map_err(|error| PduError::Json(error.to_string()))?;
    let kind = TimelineEventType::from(fields.kind.as_ref());
    let redacts = find_redacts(&kind, &fields, rules);
    let (room_id, room_id_source) = match fields.room_id {
        Some(room_id) => (room_id, RoomIdSource::Field),
        None => (room_id_of_create(&event_id)?, RoomIdSource::EventId),
    };
    Ok(Pdu {
        room_id,
        room_id_source,
        sender: fields.sender,
        kind,
        state_key: fields.state_key,
        content: fields.content,
        prev_events: fields.prev_events.into_iter().map(|reference| reference.0).collect(),
        auth_events: fields.auth_events.into_iter().map(|reference| reference.0).collect(),
        depth: fields.depth,
        origin_server_ts: fields.origin_server_ts,
        redacts,
        unsigned: fields.unsigned,
        event_id,
        json: json.into_boxed_str(),
    })
}

/// From version 12 on: the id of a room is that of its create event, with another sigil.
///
/// Spec: Room version 12, "Room IDs as hashes of the create event".
pub(crate) fn room_id_of_create(event_id: &OwnedEventId) -> Result<OwnedRoomId, FormatError> {
    RoomId::new_v2(event_id.as_str().strip_prefix('$').unwrap_or_default())
        .map_err(|_| FormatError::Identifier("event_id"))
}

fn find_redacts(
    kind: &TimelineEventType,
    fields: &Fields<'_>,
    rules: &RoomVersionRules,
) -> Option<OwnedEventId> {
    if *kind != TimelineEventType::RoomRedaction {
        return None;
    }
    let redacts = match rules.redaction.content_field_redacts {
        true => serde_json::from_str::<RedactionContent<'_>>(fields.content.get()).ok()?.redacts,
        false => fields.redacts,
    };
    serde_json::from_str(redacts?.get()).ok()
}
