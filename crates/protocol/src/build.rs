//! A new event: from what it says and where it stands to signed bytes.
//!
//! Hashed, signed and identified once, and read from the values it was built of, never from the
//! bytes just written.

use std::sync::Arc;

use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, Int, MilliSecondsSinceUnixEpoch, OwnedEventId,
    OwnedRoomId, OwnedUserId, ServerName,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomVersionRules},
    signatures,
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    canonical::{self, JsonError, MAX_INTEGER},
    keys::VerifyKey,
    limits::{MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS},
    pdu::{FormatError, Pdu, PduError, RoomIdSource, SignedPdu, format, hash, sign},
};

mod template;
#[cfg(test)]
mod tests;

pub use self::template::{complete, template};

/// Who signs: a server and its verify key.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// The name under which the signature is put.
    pub server: &'a ServerName,
    /// The key that signs.
    pub key: &'a VerifyKey,
}

/// What a new event says.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The room; `None` only for a create event of a version whose room ids come from it.
    pub room_id: Option<OwnedRoomId>,
    /// Who says it; a user of the signing server.
    pub sender: OwnedUserId,
    /// The `type`.
    pub kind: TimelineEventType,
    /// The state key, for state.
    pub state_key: Option<String>,
    /// The content, a JSON object; from a client, so of any form.
    pub content: Box<RawValue>,
    /// What a redaction redacts. Where it is written depends on the version.
    pub redacts: Option<OwnedEventId>,
}

/// Where a new event stands in the graph.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The forward extremities it follows, at most [`MAX_PREV_EVENTS`]; none only for a create
    /// event.
    pub prev_events: Vec<Arc<Pdu>>,
    /// The events that allow it, as [`crate::auth::select`] picks them.
    pub auth_events: Vec<Arc<Pdu>>,
}

impl Place {
    /// One more than the deepest of the events before, as far as canonical JSON can count.
    pub fn depth(&self) -> u64 {
        let before = self.prev_events.iter().map(|event| event.depth()).max().unwrap_or(0);
        before.saturating_add(1).min(MAX_INTEGER.unsigned_abs())
    }
}

/// Why an event cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The content is no canonical JSON object.
    #[error("the content is not canonical JSON: {0}")]
    Content(#[from] JsonError),
    /// The event would have more than [`MAX_PDU_BYTES`].
    #[error("the event would be larger than {MAX_PDU_BYTES} bytes")]
    TooLarge,
    /// An identifier, a type or a state key is too long, or a list has too many entries.
    #[error("the event would be malformed: {0}")]
    Format(#[from] FormatError),
    /// A template from another server is no event.
    #[error("the template is not usable: {0}")]
    Template(&'static str),
}

impl From<PduError> for BuildError {
    fn from(error: PduError) -> Self {
        match error {
            PduError::Format(error) => Self::Format(error),
            _ => Self::TooLarge,
        }
    }
}

/// Builds and signs an event.
///
/// # Errors
///
/// `Content`, `TooLarge` or `Format`: all of them the fault of who asked for the event.
///
/// Spec: Server-Server API, "Signing events".
pub fn event(
    new: NewEvent,
    place: &Place,
    now: MilliSecondsSinceUnixEpoch,
    signer: Signer<'_>,
    rules: &'static RoomVersionRules,
) -> Result<SignedPdu, BuildError> {
    let position = Position::of(place, rules)?;
    finish(new, position, now, signer, rules)
}

/// The place of an event as it is written into it.
struct Position {
    prev_events: Vec<OwnedEventId>,
    prev_json: CanonicalJsonValue,
    auth_events: Vec<OwnedEventId>,
    auth_json: CanonicalJsonValue,
    depth: u64,
}

impl Position {
    fn of(place: &Place, rules: &RoomVersionRules) -> Result<Self, BuildError> {
        let ids = |events: &[Arc<Pdu>]| events.iter().map(|e| e.event_id().to_owned()).collect();
        Ok(Self {
            prev_events: ids(&place.prev_events),
            prev_json: references(&place.prev_events, rules)?,
            auth_events: ids(&place.auth_events),
            auth_json: references(&place.auth_events, rules)?,
            depth: place.depth(),
        })
    }
}

/// Spec: Room Versions, "Event format": ids, and in version 2 their reference hashes too.
fn references(
    events: &[Arc<Pdu>],
    rules: &RoomVersionRules,
) -> Result<CanonicalJsonValue, BuildError> {
    let reference = |event: &Arc<Pdu>| -> Result<CanonicalJsonValue, BuildError> {
        let id = CanonicalJsonValue::from(event.event_id().as_str());
        match rules.events_reference_format {
            EventsReferenceFormatVersion::V1 => {
                let object = canonical::parse_object(event.json().as_bytes())?;
                let hash = hash::reference_hash_v1(&hash::signed_json(&object, rules)?);
                let hashes = CanonicalJsonObject::from([("sha256".to_owned(), hash.into())]);
                Ok(vec![id, hashes.into()].into())
            }
            _ => Ok(id),
        }
    };
    events.iter().map(reference).collect::<Result<Vec<_>, _>>().map(Into::into)
}

fn finish(
    new: NewEvent,
    position: Position,
    now: MilliSecondsSinceUnixEpoch,
    signer: Signer<'_>,
    rules: &'static RoomVersionRules,
) -> Result<SignedPdu, BuildError> {
    check_limits(&new, &position)?;
    let content = content_of(&new, rules)?;
    let content_json = raw(&content);
    let mut object = unsigned_object(&new, content, &position, now);
    add_redacts(&mut object, &new, rules);
    if rules.event_id_format == EventIdFormatVersion::V1 {
        let id = given_id(&object, signer.server);
        object.insert("event_id".to_owned(), id.into());
    }
    let hash = signatures::content_hash(&object).map_err(|_| BuildError::TooLarge)?;
    let hashes = CanonicalJsonObject::from([("sha256".to_owned(), hash.encode().into())]);
    object.insert("hashes".to_owned(), hashes.into());

    let signed_json = hash::signed_json(&object, rules)?;
    let event_id = hash::event_id(&object, &signed_json, rules)?;
    let signature = signer.key.sign(signed_json.as_bytes());
    sign::insert(&mut object, signer, &signature)?;
    let json = canonical::to_canonical(&object);
    if json.len() > MAX_PDU_BYTES {
        return Err(BuildError::TooLarge);
    }
    let (room_id, room_id_source) = match new.room_id {
        Some(room_id) => (room_id, RoomIdSource::Field),
        None => (format::room_id_of_create(&event_id)?, RoomIdSource::EventId),
    };
    Ok(SignedPdu::just_signed(Pdu {
        event_id,
        room_id,
        room_id_source,
        sender: new.sender,
        redacts: new.redacts.filter(|_| new.kind == TimelineEventType::RoomRedaction),
        kind: new.kind,
        state_key: new.state_key,
        content: content_json,
        prev_events: position.prev_events,
        auth_events: position.auth_events,
        depth: position.depth,
        origin_server_ts: now,
        unsigned: None,
        json: json.into_boxed_str(),
    }))
}

/// The limits that what a client or a template gives can break; ids of our own making cannot.
fn check_limits(new: &NewEvent, position: &Position) -> Result<(), FormatError> {
    let strings = [
        ("type", new.kind.to_string().len()),
        ("state_key", new.state_key.as_ref().map_or(0, String::len)),
        ("sender", new.sender.as_str().len()),
        ("room_id", new.room_id.as_ref().map_or(0, |id| id.as_str().len())),
    ];
    if let Some((field, _)) = strings.into_iter().find(|(_, bytes)| *bytes > MAX_ID_BYTES) {
        return Err(FormatError::Limit(field));
    }
    if position.prev_events.len() > MAX_PREV_EVENTS {
        return Err(FormatError::Limit("prev_events"));
    }
    if position.auth_events.len() > MAX_AUTH_EVENTS {
        return Err(FormatError::Limit("auth_events"));
    }
    if new.room_id.is_none() && new.kind != TimelineEventType::RoomCreate {
        return Err(FormatError::Missing("room_id"));
    }
    Ok(())
}

fn content_of(new: &NewEvent, rules: &RoomVersionRules) -> Result<CanonicalJsonObject, BuildError> {
    let mut content = canonical::parse_object(new.content.get().as_bytes())?;
    if let Some(redacts) = &new.redacts
        && rules.redaction.content_field_redacts
    {
        content.insert("redacts".to_owned(), redacts.as_str().into());
    }
    Ok(content)
}

/// Spec: room version 11, "Redactions": until then `redacts` stood beside the content.
fn add_redacts(object: &mut CanonicalJsonObject, new: &NewEvent, rules: &RoomVersionRules) {
    if let Some(redacts) = &new.redacts
        && !rules.redaction.content_field_redacts
    {
        object.insert("redacts".to_owned(), redacts.as_str().into());
    }
}

fn unsigned_object(
    new: &NewEvent,
    content: CanonicalJsonObject,
    position: &Position,
    now: MilliSecondsSinceUnixEpoch,
) -> CanonicalJsonObject {
    let mut object = CanonicalJsonObject::new();
    let mut put = |key: &str, value: CanonicalJsonValue| object.insert(key.to_owned(), value);
    put("auth_events", position.auth_json.clone());
    put("content", content.into());
    put("depth", CanonicalJsonValue::Integer(Int::new_saturating(position.depth as i64)));
    put("origin_server_ts", now.get().into());
    put("prev_events", position.prev_json.clone());
    if let Some(room_id) = &new.room_id {
        put("room_id", room_id.as_str().into());
    }
    put("sender", new.sender.as_str().into());
    if let Some(state_key) = &new.state_key {
        put("state_key", state_key.as_str().into());
    }
    put("type", new.kind.to_string().into());
    object
}

/// An id for a version whose ids are given: made of the event itself, so that it needs no chance
/// and two different events never share one.
fn given_id(object: &CanonicalJsonObject, server: &ServerName) -> String {
    let hash = Sha256::digest(canonical::to_canonical(object).as_bytes());
    let mut local = data_encoding::BASE32_NOPAD.encode(&hash);
    local.make_ascii_lowercase();
    format!("${local}:{server}")
}

/// An object as it stands in a struct; the same bytes as its canonical form.
fn raw(object: &CanonicalJsonObject) -> Box<RawValue> {
    #[expect(clippy::expect_used, reason = "a map with string keys is always JSON")]
    serde_json::value::to_raw_value(object).expect("canonical JSON is JSON")
}
