//! Taking the content out of an event while keeping its place, its id and its signatures.

use ruma::{
    CanonicalJsonObject, EventId,
    canonical_json::{RedactedBecause, redact},
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use super::{FormatError, Pdu, PduError};

/// The redacted form of a stored event, as clients see it. The event id stays the same.
///
/// `because` is the redaction event as clients see it; it becomes `unsigned.redacted_because`.
///
/// # Errors
///
/// `Json` when the event or `because` cannot be read.
///
/// Spec: Client-Server API, "Redactions"; Room Versions, "Redactions".
pub fn redacted(
    pdu: &Pdu,
    rules: &RoomVersionRules,
    because: Option<&RawValue>,
) -> Result<Pdu, PduError> {
    let because = because.map(read).transpose()?.map(RedactedBecause::from_json);
    let object = read_str(&pdu.json)?;
    finish(redact(object, &rules.redaction, because), &pdu.event_id, rules)
}

/// The redacted form of an event whose content is not what its sender hashed.
pub(super) fn whole(
    object: &CanonicalJsonObject,
    event_id: &EventId,
    rules: &RoomVersionRules,
) -> Result<Pdu, PduError> {
    finish(redact(object.clone(), &rules.redaction, None), event_id, rules)
}

fn finish<E>(
    redacted: Result<CanonicalJsonObject, E>,
    event_id: &EventId,
    rules: &RoomVersionRules,
) -> Result<Pdu, PduError> {
    let object = redacted.map_err(|_| FormatError::Type("type"))?;
    Pdu::from_trusted(crate::canonical::to_canonical(&object), event_id.to_owned(), rules)
}

fn read(json: &RawValue) -> Result<CanonicalJsonObject, PduError> {
    read_str(json.get())
}

fn read_str(json: &str) -> Result<CanonicalJsonObject, PduError> {
    crate::canonical::parse_object(json.as_bytes())
        .map_err(|error| PduError::Json(error.to_string()))
}
