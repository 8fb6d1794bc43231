//! Policy servers: a server that a room names to recommend events, by a key that the room names.
//!
//! Its signature stands among the others of an event and changes neither its id nor what the
//! authorization rules say.
//!
//! Spec: Server-Server API, "Policy Servers".

use std::collections::BTreeMap;

use data_encoding::BASE64_NOPAD;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedServerName, ServerName,
    events::TimelineEventType, room_version_rules::RoomVersionRules,
};
use serde::Deserialize;

use crate::{
    canonical,
    keys::{PublicKey, SIGNATURE_BYTES, VerifyKey},
    limits::MAX_PDU_BYTES,
    pdu::{FormatError, Pdu, PduError, SignedPdu, hash},
};

/// The id under which every policy server signs.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// The `type` of the event that names the policy server.
pub const POLICY_EVENT: &str = "m.room.policy";

/// Who recommends the events of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyServer {
    server: OwnedServerName,
    key: PublicKey,
}

impl PolicyServer {
    /// The policy server that an `m.room.policy` event names; `None` where it names none that
    /// could be used.
    pub fn named_by(event: &Pdu) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            via: OwnedServerName,
            public_keys: BTreeMap<String, serde_json::Value>,
        }
        let content: Content = serde_json::from_str(event.content().get()).ok()?;
        let key = content.public_keys.get("ed25519")?.as_str()?;
        let key = BASE64_NOPAD.decode(key.as_bytes()).ok()?;
        let key = PublicKey::from_bytes(&key.try_into().ok()?)?;
        Some(Self { server: content.via, key })
    }

    /// The server to ask.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The key that its signatures are checked with.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether an event is recommended: it bears the signature, or is the one that needs none.
    ///
    /// Spec: Server-Server API, "Validating Policy Server signatures".
    pub fn recommends(&self, event: &Pdu, rules: &RoomVersionRules) -> bool {
        is_exempt(event) || self.has_signed(event, rules).unwrap_or(false)
    }

    fn has_signed(&self, event: &Pdu, rules: &RoomVersionRules) -> Result<bool, PduError> {
        let object = parse(event)?;
        let signature = object
            .get("signatures")
            .and_then(CanonicalJsonValue::as_object)
            .and_then(|servers| servers.get(self.server.as_str())?.as_object()?.get(POLICY_KEY_ID))
            .and_then(CanonicalJsonValue::as_str)
            .and_then(decode);
        let Some(signature) = signature else { return Ok(false) };
        Ok(self.key.verifies(hash::signed_json(&object, rules)?.as_bytes(), &signature))
    }

    /// Puts a signature of this server into an event.
    ///
    /// # Errors
    /// `Signature` when it is not a good one; `TooLarge` when there is no room for it.
    pub fn add(
        &self,
        event: &SignedPdu,
        signature: &str,
        rules: &RoomVersionRules,
    ) -> Result<SignedPdu, PduError> {
        Ok(SignedPdu::just_signed(self.add_to(event.pdu(), signature, rules)?))
    }

    /// As [`Self::add`], for an event whose other signatures are not checked yet.
    ///
    /// # Errors
    /// Those of [`Self::add`].
    pub fn add_to(
        &self,
        pdu: &Pdu,
        signature: &str,
        rules: &RoomVersionRules,
    ) -> Result<Pdu, PduError> {
        let mut object = parse(pdu)?;
        let wrong = || PduError::Signature {
            server: self.server.clone(),
            reason: "the policy server's signature does not fit the event".to_owned(),
        };
        let bytes = decode(signature).ok_or_else(wrong)?;
        if !self.key.verifies(hash::signed_json(&object, rules)?.as_bytes(), &bytes) {
            return Err(wrong());
        }
        let keys = child(child(&mut object, "signatures")?, self.server.as_str())?;
        keys.insert(POLICY_KEY_ID.to_owned(), signature.into());
        let json = canonical::to_canonical(&object);
        if json.len() > MAX_PDU_BYTES {
            return Err(PduError::TooLarge);
        }
        Pdu::from_trusted(json, pdu.event_id().to_owned(), rules)
    }
}

/// Whether an event is the one that needs no signature, so that a room can always choose another
/// policy server, or none.
pub fn is_exempt(event: &Pdu) -> bool {
    event.state_key() == Some("")
        && *event.kind() == TimelineEventType::from(POLICY_EVENT.to_owned())
}

/// The signature by which a policy server recommends an event, in unpadded base64.
///
/// # Errors
/// Never in practice: what was parsed once can be written.
pub fn sign(event: &Pdu, key: &VerifyKey, rules: &RoomVersionRules) -> Result<String, PduError> {
    let signed_json = hash::signed_json(&parse(event)?, rules)?;
    Ok(BASE64_NOPAD.encode(&key.sign(signed_json.as_bytes())))
}

fn parse(event: &Pdu) -> Result<CanonicalJsonObject, PduError> {
    canonical::parse_object(event.json().as_bytes())
        .map_err(|error| PduError::Json(error.to_string()))
}

fn decode(signature: &str) -> Option<[u8; SIGNATURE_BYTES]> {
    BASE64_NOPAD.decode(signature.as_bytes()).ok()?.try_into().ok()
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

#[cfg(test)]
mod tests;
