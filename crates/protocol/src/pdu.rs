//! An event as servers exchange it, and how much of it has been checked.
//!
//! `RawPdu → WellFormedPdu → SignedPdu`: each step does one part of the checks on receipt (see
//! [`crate::receive`]), and what has been checked is in the type.

use std::{collections::BTreeSet, fmt, sync::Arc};

use ruma::{
    CanonicalJsonObject, EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId,
    OwnedServerName, OwnedUserId, RoomId, UserId, events::TimelineEventType,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{build::Signer, limits::MAX_PDU_BYTES, server_keys::KeyRing};

pub(crate) mod format;
pub(crate) mod hash;
mod redact;
pub(crate) mod sign;
#[cfg(test)]
mod tests;

pub use self::{format::FormatError, redact::redacted};

/// The most bytes a PDU may have as it came, before it is brought into canonical form.
///
/// Escaping every character as `\uXXXX` makes text three times as long; nothing an honest server
/// sends is longer than that.
pub const MAX_RECEIVED_PDU_BYTES: usize = 3 * MAX_PDU_BYTES;

/// Why a PDU is not accepted as one.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// More than [`MAX_PDU_BYTES`].
    #[error("the event is larger than {MAX_PDU_BYTES} bytes")]
    TooLarge,
    /// Not JSON, or not canonical JSON.
    #[error("the event is not canonical JSON: {0}")]
    Json(String),
    /// JSON, but not of the form that the room version wants.
    #[error("the event is malformed: {0}")]
    Format(#[from] FormatError),
    /// The key ring has no object of this server, or none with a key that signed the event and
    /// was valid at its time. Newer `server_keys` of that server may help.
    #[error("no usable key of {0} to check the signature with")]
    NoKey(OwnedServerName),
    /// A signature that had to be there is missing or wrong.
    #[error("the signature of {server} is wrong: {reason}")]
    Signature {
        /// Whose signature it should have been.
        server: OwnedServerName,
        /// What is wrong with it.
        reason: String,
    },
}

impl PduError {
    /// Whether the bytes alone prove that the sender should not have sent them; otherwise we lack
    /// something to judge them.
    pub fn is_provable(&self) -> bool {
        !matches!(self, Self::NoKey(_))
    }
}

/// Bytes that claim to be a PDU. Nothing has been checked.
#[derive(Debug, Clone)]
pub struct RawPdu(Box<RawValue>);

impl RawPdu {
    /// Takes JSON as it came.
    pub fn new(json: Box<RawValue>) -> Self {
        Self(json)
    }

    /// Checks form, identifiers and limits, and finds the event id.
    ///
    /// `unsigned` is dropped: no signature covers it, so whoever carried the event may have
    /// written it.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Json` or `Format`.
    ///
    /// Spec: Server-Server API, "Checks performed on receipt of a PDU", 1.
    pub fn well_formed(self, rules: &'static RoomVersionRules) -> Result<WellFormedPdu, PduError> {
        if self.0.get().len() > MAX_RECEIVED_PDU_BYTES {
            return Err(PduError::TooLarge);
        }
        let mut object = crate::canonical::parse_object(self.0.get().as_bytes())
            .map_err(|error| PduError::Json(error.to_string()))?;
        object.remove("unsigned");
        WellFormedPdu::new(object, rules)
    }
}

/// A PDU of the right form. Nothing says yet that its sender wrote it.
#[derive(Debug)]
pub struct WellFormedPdu {
    pdu: Pdu,
    object: CanonicalJsonObject,
    /// What a signature covers: the redacted canonical JSON without `signatures`.
    signed_json: String,
    required_signers: BTreeSet<OwnedServerName>,
    rules: &'static RoomVersionRules,
}

impl WellFormedPdu {
    fn new(
        object: CanonicalJsonObject,
        rules: &'static RoomVersionRules,
    ) -> Result<Self, PduError> {
        format::check(&object, rules)?;
        let json = crate::canonical::to_canonical(&object);
        if json.len() > MAX_PDU_BYTES {
            return Err(PduError::TooLarge);
        }
        let signed_json = hash::signed_json(&object, rules)?;
        let event_id = hash::event_id(&object, &signed_json, rules)?;
        let required_signers = sign::required_signers(&object, rules)?;
        let pdu = Pdu::from_trusted(json, event_id, rules)?;
        Ok(Self { pdu, object, signed_json, required_signers, rules })
    }

    /// The event, unverified.
    pub fn pdu(&self) -> &Pdu {
        &self.pdu
    }

    /// The servers whose signatures the event must carry.
    ///
    /// Spec: Server-Server API, "Validating hashes and signatures on received events".
    pub fn required_signers(&self) -> &BTreeSet<OwnedServerName> {
        &self.required_signers
    }

    /// Adds a signature: a resident server's to a restricted join, an invited server's to an
    /// invite. The event id does not change.
    ///
    /// # Errors
    ///
    /// `TooLarge` when there is no room for the signature, `Format` when `signatures` is no map of
    /// maps.
    pub fn countersign(mut self, signer: Signer<'_>) -> Result<Self, PduError> {
        let signature = signer.key.sign(self.signed_json.as_bytes());
        sign::insert(&mut self.object, signer, &signature)?;
        Self::new(self.object, self.rules)
    }

    /// Checks the signatures of all [required signers](Self::required_signers), and the content
    /// hash: where that differs, what goes on is the redacted form of the event.
    ///
    /// # Errors
    ///
    /// `NoKey` or `Signature`.
    ///
    /// Spec: Server-Server API, "Checks performed on receipt of a PDU", 2 and 3.
    pub fn signed(self, ring: &KeyRing) -> Result<SignedPdu, PduError> {
        for server in &self.required_signers {
            sign::verify(&self, server, ring)?;
        }
        let pdu = match hash::content_hash_matches(&self.object) {
            true => self.pdu,
            false => redact::whole(&self.object, &self.pdu.event_id, self.rules)?,
        };
        Ok(SignedPdu(Arc::new(pdu)))
    }
}

/// A PDU that its sender's server signed.
#[derive(Debug, Clone)]
pub struct SignedPdu(Arc<Pdu>);

impl SignedPdu {
    /// Only for `build`, which has just signed the event itself.
    pub(crate) fn just_signed(pdu: Pdu) -> Self {
        Self(Arc::new(pdu))
    }

    /// The event.
    pub fn pdu(&self) -> &Arc<Pdu> {
        &self.0
    }

    /// The event, for good.
    pub fn into_pdu(self) -> Arc<Pdu> {
        self.0
    }
}

/// An event of a room: the canonical JSON it came as, and a typed view of what servers look at.
pub struct Pdu {
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) room_id_source: RoomIdSource,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: TimelineEventType,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Box<RawValue>,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) depth: u64,
    pub(crate) origin_server_ts: MilliSecondsSinceUnixEpoch,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) unsigned: Option<Box<RawValue>>,
    pub(crate) json: Box<str>,
}

/// Where the room id of an event was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoomIdSource {
    /// In its `room_id` field.
    Field,
    /// It is a create event whose id *is* the room id.
    EventId,
}

impl Pdu {
    /// Reads an event that was checked before it was stored: parses, checks nothing else.
    ///
    /// # Errors
    ///
    /// `Json` when `json` is no event at all.
    pub fn from_trusted(
        json: String,
        event_id: OwnedEventId,
        rules: &RoomVersionRules,
    ) -> Result<Self, PduError> {
        format::parse(json, event_id, rules)
    }

    /// The event id: given in version 2, `$` and the reference hash from version 3 on.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// The room; for a create event of version 12, derived from the event id.
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// The `type`.
    pub fn kind(&self) -> &TimelineEventType {
        &self.kind
    }

    /// The state key, `None` for an event that is no state.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// Whether this is a state event.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// The content, a JSON object.
    pub fn content(&self) -> &RawValue {
        &self.content
    }

    /// The events before it, at most [`MAX_PREV_EVENTS`](crate::limits::MAX_PREV_EVENTS).
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// The events that allow it, at most [`MAX_AUTH_EVENTS`](crate::limits::MAX_AUTH_EVENTS); in version 12 without the create
    /// event.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// Its depth in the graph, as its sender claims.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// When it was sent, as its sender claims.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// The event that this redaction redacts; `None` for every other event.
    pub fn redacts(&self) -> Option<&EventId> {
        self.redacts.as_deref()
    }

    /// What we ourselves added after the event was checked: `redacted_because` of a redacted one.
    pub fn unsigned(&self) -> Option<&RawValue> {
        self.unsigned.as_deref()
    }

    /// The whole event in canonical JSON, as it came: what is stored, hashed and sent on.
    pub fn json(&self) -> &str {
        &self.json
    }
}

impl fmt::Debug for Pdu {
    /// Ids and type only: content is somebody's message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pdu")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("kind", &self.kind)
            .field("state_key", &self.state_key)
            .finish_non_exhaustive()
    }
}

impl ruma::state_res::Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// The `room_id` *field*, which the authorization rules forbid in a create event of version
    /// 12 and demand everywhere else.
    fn room_id(&self) -> Option<&RoomId> {
        (self.room_id_source == RoomIdSource::Field).then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.content
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    /// Never: an event does not know how it was judged. `receive` looks at the standing of auth
    /// events itself, and a rejected event is in no state and in no auth chain of one.
    fn rejected(&self) -> bool {
        false
    }
}

impl WellFormedPdu {
    /// Whether the content is what its sender hashed. It is not in an event that was redacted.
    pub fn content_hash_matches(&self) -> bool {
        hash::content_hash_matches(&self.object)
    }
}
