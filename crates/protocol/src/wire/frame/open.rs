//! From bytes to a verified [`Frame`].

use std::collections::BTreeMap;

use data_encoding::BASE64_NOPAD;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedRoomId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    FRAME_VERSION, Frame, FrameError, MAX_EDUS, MAX_FRAME_BYTES, MAX_FRAME_SERVER_KEYS, MAX_PDUS,
    METHOD, URI_PREFIX,
};
use crate::{
    canonical::canonical_envelope,
    keys::SIGNATURE_BYTES,
    server_keys::{KeyRing, ServerKeys},
    wire::signed::is_fresh,
};

/// Longest transaction id in bytes: any hash in any base fits.
const MAX_TXN_ID_BYTES: usize = 64;

/// The fields of a frame of this version; further ones are signed like these, and ignored.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    content: Content<'a>,
    destination: OwnedRoomId,
    method: &'a str,
    origin: OwnedServerName,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    #[serde(borrow)]
    server_keys: Vec<&'a RawValue>,
    #[serde(borrow)]
    signatures: &'a RawValue,
    uri: &'a str,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    edus: Vec<&'a RawValue>,
    #[serde(borrow)]
    pdus: Vec<&'a RawValue>,
}

/// Read first, because the other fields may differ in another version.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

/// Read first, because the keys may be known.
#[derive(Deserialize)]
struct KeysName<'a> {
    server_name: &'a str,
}

pub(super) fn open(
    bytes: &[u8],
    now: MilliSecondsSinceUnixEpoch,
    known: &KeyRing,
) -> Result<(Frame, KeyRing), FrameError> {
    if bytes.len() > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge);
    }
    let text = canonical_envelope(bytes).ok_or(FrameError::NotCanonical)?;
    let Version { v } = serde_json::from_str(text).map_err(FrameError::Form)?;
    if v != FRAME_VERSION {
        return Err(FrameError::Version(v));
    }
    let envelope: Envelope<'_> = serde_json::from_str(text).map_err(FrameError::Form)?;
    check_form(&envelope)?;
    if !is_fresh(envelope.origin_server_ts, now) {
        return Err(FrameError::NotFresh);
    }
    let ring = verify(&envelope, text, now, known)?;
    let frame = Frame {
        origin: envelope.origin,
        room_id: envelope.destination,
        origin_server_ts: envelope.origin_server_ts,
        pdus: owned(&envelope.content.pdus),
        edus: owned(&envelope.content.edus),
        server_keys: owned(&envelope.server_keys),
    };
    Ok((frame, ring))
}

fn check_form(envelope: &Envelope<'_>) -> Result<(), FrameError> {
    if envelope.method != METHOD {
        return Err(FrameError::Field("method"));
    }
    let txn_id = envelope.uri.strip_prefix(URI_PREFIX).ok_or(FrameError::Field("uri"))?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if txn_id.is_empty() || txn_id.len() > MAX_TXN_ID_BYTES || !txn_id.bytes().all(legal) {
        return Err(FrameError::Field("uri"));
    }
    check_list(&envelope.content.edus, ("edus", MAX_EDUS))?;
    check_list(&envelope.content.pdus, ("pdus", MAX_PDUS))?;
    check_list(&envelope.server_keys, ("server_keys", MAX_FRAME_SERVER_KEYS))
}

fn check_list(items: &[&RawValue], (name, most): (&'static str, usize)) -> Result<(), FrameError> {
    if items.len() > most {
        return Err(FrameError::TooMany(name));
    }
    if items.iter().any(|item| !item.get().starts_with('{')) {
        return Err(FrameError::Field(name));
    }
    Ok(())
}

/// Verifies the keys of the origin, then the frame with them, then all other keys.
fn verify(
    envelope: &Envelope<'_>,
    text: &str,
    now: MilliSecondsSinceUnixEpoch,
    known: &KeyRing,
) -> Result<KeyRing, FrameError> {
    const FIELD: FrameError = FrameError::Field("server_keys");
    let mut named = BTreeMap::new();
    for raw in &envelope.server_keys {
        let KeysName { server_name } = serde_json::from_str(raw.get()).map_err(FrameError::Form)?;
        let name = <&ServerName>::try_from(server_name).map_err(|_| FIELD)?;
        if named.insert(name, raw.get()).is_some() {
            return Err(FIELD);
        }
    }
    let (name, json) = named.remove_entry(&*envelope.origin).ok_or(FrameError::UnknownKey)?;
    let keys = verified(name, json, known)?;
    if !keys.is_valid_at(now) {
        return Err(FrameError::KeysNotValid);
    }
    check_signature(envelope, text, &keys)?;
    let mut ring = KeyRing::from([(name.to_owned(), keys)]);
    for (name, json) in named {
        let keys = verified(name, json, known)?;
        // Expired keys may well belong to an old event; from the future there is nothing to want,
        // and which clock is wrong nobody can prove.
        if !keys.is_from_the_future_at(now) {
            ring.insert(name.to_owned(), keys);
        }
    }
    Ok(ring)
}

fn verified(name: &ServerName, json: &str, known: &KeyRing) -> Result<ServerKeys, FrameError> {
    match known.get(name).filter(|keys| keys.json().get() == json) {
        Some(keys) => Ok(keys.clone()),
        None => Ok(ServerKeys::verify_for(json, name)?),
    }
}

/// There is one signature, by one verify key of the origin, over all the rest of the text.
fn check_signature(
    envelope: &Envelope<'_>,
    text: &str,
    keys: &ServerKeys,
) -> Result<(), FrameError> {
    const FIELD: FrameError = FrameError::Field("signatures");
    let signatures = envelope.signatures.get();
    let by_server: BTreeMap<&str, BTreeMap<&str, &str>> =
        serde_json::from_str(signatures).map_err(FrameError::Form)?;
    let by_key = by_server
        .get(envelope.origin.as_str())
        .filter(|by_key| by_server.len() == 1 && by_key.len() == 1)
        .ok_or(FIELD)?;
    let (key_id, signature) = by_key.first_key_value().ok_or(FIELD)?;
    let signature: [u8; SIGNATURE_BYTES] = BASE64_NOPAD
        .decode(signature.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(FIELD)?;
    let key = keys.current_key(key_id).ok_or(FrameError::UnknownKey)?;
    if !key.verifies(&without_signatures(text, signatures), &signature) {
        return Err(FrameError::Signature);
    }
    Ok(())
}

/// The text of the frame without the member that holds `signatures`, a slice of that text. Being
/// sorted between others, it has a comma on both sides.
fn without_signatures(text: &str, signatures: &str) -> Vec<u8> {
    let value_from = signatures.as_ptr().addr() - text.as_ptr().addr();
    let member_from = value_from - r#""signatures":"#.len();
    let member_end = value_from + signatures.len() + ",".len();
    [&text.as_bytes()[..member_from], &text.as_bytes()[member_end..]].concat()
}

fn owned(items: &[&RawValue]) -> Vec<Box<RawValue>> {
    items.iter().map(|&item| item.to_owned()).collect()
}
