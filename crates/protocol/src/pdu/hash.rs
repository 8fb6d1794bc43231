//! The hashes of a PDU, and the id that comes from one of them.

use ruma::{
    CanonicalJsonObject, OwnedEventId,
    canonical_json::RedactingSerializer,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
    signatures,
};
use sha2::{Digest, Sha256};

use super::{FormatError, PduError};

/// What neither a signature nor the reference hash covers.
const UNSIGNED_FIELDS: &[&str] = &["signatures", "unsigned"];

/// The redacted canonical JSON without `signatures` and `unsigned`: what is signed, and what the
/// reference hash is the hash of.
///
/// Spec: Server-Server API, "Signing events" and "Calculating the reference hash for an event".
pub(crate) fn signed_json(
    object: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<String, PduError> {
    RedactingSerializer::new()
        .rules(&rules.redaction)
        .custom_redacted_root_fields(UNSIGNED_FIELDS)
        .serialize(object)
        .map_err(|error| PduError::Json(error.to_string()))
}

/// The id of an event.
///
/// Spec: Room Versions, "Event IDs" of versions 1, 3 and 4.
pub(crate) fn event_id(
    object: &CanonicalJsonObject,
    signed_json: &str,
    rules: &RoomVersionRules,
) -> Result<OwnedEventId, FormatError> {
    let id = match rules.event_id_format {
        EventIdFormatVersion::V1 => {
            let given = object.get("event_id").and_then(|id| id.as_str());
            given.ok_or(FormatError::Missing("event_id"))?.to_owned()
        }
        EventIdFormatVersion::V2 => format!("${}", reference_hash_v1(signed_json)),
        _ => format!("${}", Base64::<UrlSafe, _>::new(digest(signed_json))),
    };
    OwnedEventId::try_from(id).map_err(|_| FormatError::Identifier("event_id"))
}

/// The reference hash in the alphabet of the early versions, which have it in references too.
pub(crate) fn reference_hash_v1(signed_json: &str) -> String {
    Base64::<Standard, _>::new(digest(signed_json)).encode()
}

fn digest(signed_json: &str) -> [u8; 32] {
    Sha256::digest(signed_json.as_bytes()).into()
}

/// Whether `hashes.sha256` is the hash of the event.
///
/// Spec: Server-Server API, "Calculating the content hash for an event".
pub(crate) fn content_hash_matches(object: &CanonicalJsonObject) -> bool {
    let claimed = object
        .get("hashes")
        .and_then(|hashes| hashes.as_object())
        .and_then(|hashes| hashes.get("sha256"))
        .and_then(|hash| Base64::<Standard>::parse(hash.as_str()?).ok());
    match (claimed, signatures::content_hash(object)) {
        (Some(claimed), Ok(hash)) => claimed.as_bytes() == hash.as_bytes(),
        _ => false,
    }
}
