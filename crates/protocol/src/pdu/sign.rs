//! Who must have signed a PDU, and whether they have.

use std::collections::BTreeSet;

use data_encoding::BASE64_NOPAD;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedServerName, ServerName, UserId,
    room_version_rules::RoomVersionRules,
};

use super::{FormatError, PduError, WellFormedPdu};
use crate::{
    build::Signer,
    keys::SIGNATURE_BYTES,
    server_keys::{KeyRing, KeyValidity},
};

/// The servers that must have signed an event: the sender's (an invite made for a third-party
/// invite excepted), in version 2 also that of the event id, and for a restricted join that of the
/// member who let the user in.
///
/// What cannot be read is left to the authorization rules: there the event is rejected and stays in
/// the graph, while dropping it here would leave those that follow it without an ancestor. By the
/// letter of the rules any member event may name who let the user in; servers ask for that
/// signature on joins alone, and so do we.
///
/// Spec: Server-Server API, "Validating hashes and signatures on received events"; room version 8,
/// "Authorization rules", 4.2.
pub(crate) fn required_signers(
    object: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<BTreeSet<OwnedServerName>, FormatError> {
    let content = object.get("content").and_then(CanonicalJsonValue::as_object);
    let membership = content
        .filter(|_| text(object, "type") == Some("m.room.member"))
        .and_then(|content| text(content, "membership"));
    let mut signers = BTreeSet::new();

    let third_party = content.and_then(|content| content.get("third_party_invite"));
    if membership != Some("invite") || !third_party.is_some_and(|it| it.is_object()) {
        let sender = text(object, "sender").and_then(|sender| UserId::parse(sender).ok());
        let sender = sender.ok_or(FormatError::Identifier("sender"))?;
        signers.insert(sender.server_name().to_owned());
    }
    if rules.signatures.check_event_id_server {
        let id = text(object, "event_id").and_then(|id| EventId::parse(id).ok());
        let server = id.as_ref().and_then(|id| id.server_name());
        signers.insert(server.ok_or(FormatError::Identifier("event_id"))?.to_owned());
    }
    if rules.signatures.check_join_authorised_via_users_server && membership == Some("join") {
        let user = content.and_then(|content| text(content, "join_authorised_via_users_server"));
        let user = user.and_then(|user| UserId::parse(user).ok());
        signers.extend(user.map(|user| user.server_name().to_owned()));
    }
    Ok(signers)
}

fn text<'a>(object: &'a CanonicalJsonObject, key: &str) -> Option<&'a str> {
    object.get(key).and_then(CanonicalJsonValue::as_str)
}

/// Checks the signatures of one server: each one by a key we know must be right, and there must be
/// one. A signature has one spelling: other bytes than the signer wrote are no signature.
pub(super) fn verify(
    event: &WellFormedPdu,
    server: &ServerName,
    ring: &KeyRing,
) -> Result<(), PduError> {
    let wrong =
        |reason: &str| PduError::Signature { server: server.to_owned(), reason: reason.to_owned() };
    let signatures = event
        .object
        .get("signatures")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|servers| servers.get(server.as_str()))
        .and_then(CanonicalJsonValue::as_object)
        .ok_or_else(|| wrong("there is none"))?;
    let keys = ring.get(server).ok_or_else(|| PduError::NoKey(server.to_owned()))?;
    let validity = match event.rules.enforce_key_validity {
        true => KeyValidity::Enforced,
        false => KeyValidity::Ignored,
    };

    let mut checked = false;
    for (key_id, signature) in signatures {
        let Some(key) = keys.public_key_at(key_id, event.pdu.origin_server_ts, validity) else {
            continue;
        };
        let signature = signature
            .as_str()
            .and_then(|signature| BASE64_NOPAD.decode(signature.as_bytes()).ok())
            .and_then(|signature| signature.try_into().ok())
            .ok_or_else(|| wrong("it is not 64 bytes in base64"))?;
        if !key.verifies(event.signed_json.as_bytes(), &signature) {
            return Err(wrong("it does not fit the event"));
        }
        checked = true;
    }
    match checked {
        true => Ok(()),
        false => Err(PduError::NoKey(server.to_owned())),
    }
}

/// Puts a signature into an event.
pub(crate) fn insert(
    object: &mut CanonicalJsonObject,
    signer: Signer<'_>,
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), FormatError> {
    let servers = child(object, "signatures")?;
    let keys = child(servers, signer.server.as_str())?;
    let signature = BASE64_NOPAD.encode(signature);
    keys.insert(signer.key.key_id().to_string(), signature.into());
    Ok(())
}

fn child<'a>(
    object: &'a mut CanonicalJsonObject,
    key: &str,
) -> Result<&'a mut CanonicalJsonObject, FormatError> {
    let empty = || CanonicalJsonValue::Object(CanonicalJsonObject::new());
    match object.entry(key.to_owned()).or_insert_with(empty) {
        CanonicalJsonValue::Object(child) => Ok(child),
        _ => Err(FormatError::Type("signatures")),
    }
}
